"""The admin site: navigation, search and what runs, on every page."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.functional import SimpleLazyObject

from portal.site.display import EMPTY
from portal.site.first_page import banners, bells, panels, running
from portal.site.navigation import navigation
from portal.site.proof import demand, kept_form
from portal.site.search import only_page, search

NAME = "CPV portal"


class PortalAdminSite(admin.AdminSite):
    """Django's admin with the portal's frame (``templates/admin/base.html``)."""

    site_title = site_header = NAME
    site_url = None  # the public pages have no start page to go to
    index_title = "Overview"
    empty_value_display = EMPTY

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        context = super().each_context(request)
        if context["has_permission"]:
            context["navigation"] = navigation(self, request)
            context["section"] = next((one for one in context["navigation"] if one.active), None)
            lists = context["section"].lists if context["section"] else ()
            context["list_title"] = next((one.title for one in lists if one.active), "")
            # Asked only where a page shows them.
            context["banners"] = SimpleLazyObject(lambda: banners(request))
            context["running"] = SimpleLazyObject(lambda: running(request))
            context["bells"] = SimpleLazyObject(lambda: bells(request))
        return context

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Return the lists of one app for its page; for all other pages none, as ours stand in the navigation."""
        return super().get_app_list(request, app_label) if app_label else []

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        return super().index(request, {"panels": panels(request), **(extra_context or {})})

    def get_urls(self) -> list[URLResolver | URLPattern]:
        own: list[URLResolver | URLPattern] = [
            path("search/", self.admin_view(self.search), name="search"),
            path("running/", self.admin_view(self.show_running), name="running"),
            path("go-on/", self.admin_view(self.go_on), name="go_on"),
        ]
        return [*own, *super().get_urls()]

    def search(self, request: HttpRequest) -> HttpResponse:
        """Show what was found, as a page or, for the box at the top, as a list alone."""
        term = request.GET.get("q", "")[:200].strip()
        context: dict[str, Any] = {"term": term, "groups": search(term, request.user)}
        if "part" in request.GET:
            return TemplateResponse(request, "admin/found.html", context)
        if page := only_page(context["groups"]):
            return HttpResponseRedirect(page)
        return TemplateResponse(
            request, "admin/search.html", {**self.each_context(request), "title": "Search", **context}
        )

    def show_running(self, request: HttpRequest) -> HttpResponse:
        """Return the lines of what runs alone; the page asks for them every few seconds."""
        return TemplateResponse(request, "admin/running.html", self.each_context(request))

    def go_on(self, request: HttpRequest) -> HttpResponseBase:
        """Offer to send again, after a fresh proof, what was sent without one (S-49)."""
        kept = kept_form(request)
        if kept is None:
            messages.warning(request, "Nothing waits to be sent again. Begin anew; nothing was done.")
            return HttpResponseRedirect(reverse("admin:index"))
        address, fields = kept
        context = {**self.each_context(request), "title": "Go on", "address": address, "fields": fields}
        return demand(request) or TemplateResponse(request, "admin/go_on.html", context)
