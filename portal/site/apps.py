from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class SiteConfig(AppConfig):
    """The admin's look and frame, and what guards every response.

    Stands before ``django.contrib.admin`` in ``INSTALLED_APPS``, so that our templates are found first.
    """

    name = "portal.site"
    label = "portal_site"
    verbose_name = "Portal"


class PortalAdminConfig(admin_apps.AdminConfig):
    """Django's admin, served by a site of ours."""

    default = False  # named in INSTALLED_APPS; Django would take it for "portal.site" as well
    default_site = "portal.site.sites.PortalAdminSite"
