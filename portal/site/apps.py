from django.apps import AppConfig


class SiteConfig(AppConfig):
    """The admin's look and frame, and what guards every response.

    Stands before ``unfold`` in ``INSTALLED_APPS``, so that our static files and templates are found first.
    """

    name = "portal.site"
    label = "portal_site"
    verbose_name = "Portal"
