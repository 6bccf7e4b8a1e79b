from django.apps import AppConfig


class PortalConfig(AppConfig):
    """The ground floor: commands and checks that belong to no single app."""

    name = "portal"
    label = "portal"
    verbose_name = "Portal"

    def ready(self) -> None:
        from portal import checks  # noqa: F401  # registers itself
