from django.apps import AppConfig
from unfold import fields

from portal.site.display import json_text


class SiteConfig(AppConfig):
    """The admin's look and frame, and what guards every response.

    Stands before ``unfold`` in ``INSTALLED_APPS``, so that our static files and templates are found first.
    """

    name = "portal.site"
    label = "portal_site"
    verbose_name = "Portal"

    def ready(self) -> None:
        # Where pygments happens to be installed, unfold would colour JSON with inline styles, which the policy blocks.
        fields.prettify_json = json_text
