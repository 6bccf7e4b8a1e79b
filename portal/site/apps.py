from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.contrib import admin
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks


class SiteConfig(AppConfig):
    """The admin's look and frame, and what guards every response.

    Stands before ``django.contrib.admin`` in ``INSTALLED_APPS``, so that our templates are found first.
    """

    default = True  # among the classes that this module imports
    name = "portal.site"
    label = "portal_site"
    verbose_name = "Portal"


class PortalAdminConfig(SimpleAdminConfig):
    """Django's admin on a site of ours, whose pages are imported when its addresses or Django's checks ask for them.

    Most commands and helpers of a run show no page, and importing all of them is a third of what their start costs.
    """

    default = False  # named in INSTALLED_APPS; Django would take it for "portal.site" as well
    default_site = "portal.site.sites.PortalAdminSite"

    def ready(self) -> None:
        checks.register(check_dependencies, checks.Tags.admin)
        checks.register(check_pages, checks.Tags.admin)


def load_pages() -> None:
    """Import the admin of every app, but of none that says ``has_pages = False`` in its ``AppConfig``."""
    admin.autodiscover()
    hidden = [one for one in apps.get_app_configs() if not getattr(one, "has_pages", True)]
    for model in (model for one in hidden for model in one.get_models()):
        if admin.site.is_registered(model):
            admin.site.unregister(model)


def check_pages(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Run Django's own checks of the admin once its pages are there."""
    load_pages()
    return list(check_admin_app(app_configs, **kwargs))
