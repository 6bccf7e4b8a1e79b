from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules

from portal import dumps
from portal.checks import refuse_error_reporters


class PortalConfig(AppConfig):
    """The ground floor: commands and checks that belong to no single app."""

    name = "portal"
    label = "portal"
    verbose_name = "Portal"

    def ready(self) -> None:
        dumps.forbid_core_files()
        refuse_error_reporters()
        autodiscover_modules("checks", "receivers")  # which Django knows once they are imported
