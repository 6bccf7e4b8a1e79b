"""How the admin looks: ``UNFOLD`` of the settings.

unfold as shipped needs ``unsafe-eval`` and ``unsafe-inline``. It does neither here: see
``static/unfold/js/alpine/README.md`` and ``static/site/admin.js``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy

NAME = "CPV portal"


def _static(path: str) -> Callable[[HttpRequest], str]:
    return lambda request: static(path)


def no_colors(request: HttpRequest) -> dict[str, Any]:
    """Keep unfold from printing its inline ``<style>``; the colours stand in ``site/admin.css``."""
    return {}


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """List what the person may see, one group an app, with the ``icon`` of each ``ModelAdmin``.

    An app says where it stands with ``navigation_order`` in its ``AppConfig``; lower stands first, 100 is the default.
    """
    groups: list[dict[str, Any]] = [
        {"items": [{"title": "Overview", "icon": "space_dashboard", "link": reverse_lazy("admin:index")}]}
    ]
    for app in sorted(admin.site.get_app_list(request), key=_order):
        items = [
            {
                "title": str(model["name"]),
                "icon": getattr(admin.site.get_model_admin(model["model"]), "icon", "table_rows"),
                "link": model["admin_url"],
                "active": request.path.startswith(model["admin_url"]),
            }
            for model in app["models"]
            if model["admin_url"]
        ]
        groups.append({"title": str(app["name"]), "separator": True, "items": items})
    return groups


def _order(app: dict[str, Any]) -> int:
    return int(getattr(apps.get_app_config(app["app_label"]), "navigation_order", 100))


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": NAME,
    "SITE_HEADER": NAME,
    "SITE_SUBHEADER": "Consent and token custody",
    "SITE_URL": None,  # the public pages have no start page to go to
    "SITE_ICON": _static("site/mark.svg"),
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": _static("site/mark.svg")}],
    "SHOW_BACK_BUTTON": True,
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": None,  # printed inline; site/admin.css has it
    "COLORS": "portal.site.unfold.no_colors",
    "STYLES": [_static("site/admin.css")],
    "SCRIPTS": [_static("site/admin.js")],
    "DASHBOARD_CALLBACK": "portal.site.first_page.add_panels",
    "COMMAND": {
        "search_models": False,  # unbounded; ours asks for a few rows of each list
        "search_callback": "portal.site.search.search_records",
        "show_history": False,  # would keep names of customers in the browser's storage
    },
    "SIDEBAR": {"show_search": True, "navigation": navigation},
}
