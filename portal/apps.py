from django.apps import AppConfig


class PortalConfig(AppConfig):
    """The ground floor: commands and checks that belong to no single app."""

    name = "portal"
    label = "portal"
    verbose_name = "Portal"
