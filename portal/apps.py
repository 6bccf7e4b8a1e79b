from django.apps import AppConfig


class PortalConfig(AppConfig):
    """The ground floor: commands and checks that belong to no single app."""

    name = "portal"
    label = "portal"
    verbose_name = "Portal"

    def ready(self) -> None:
        from portal.checks import refuse_error_reporters  # which registers the deploy checks
        from portal.dumps import forbid_core_files

        forbid_core_files()
        refuse_error_reporters()
