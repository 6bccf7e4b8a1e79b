"""Addresses of the site; an app plugs in by name."""

from django.contrib import admin
from django.urls import include, path

from portal.site.apps import load_pages

load_pages()

urlpatterns = [
    path("admin/", include("portal.staff.urls")),  # its sign-in stands in the place of Django's
    path("admin/", admin.site.urls),
    path("consent/", include("consent.urls")),
]

handler500 = "portal.site.errors.server_error"
