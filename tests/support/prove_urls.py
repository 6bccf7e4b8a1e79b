"""The portal's addresses with a page that takes a fresh proof from whoever opens it, in place of the real one."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseRedirect
from django.urls import path

from portal.site import proof
from portal.urls import handler500
from portal.urls import urlpatterns as portal_urls

__all__ = ["handler500", "urlpatterns"]


def prove(request: HttpRequest) -> HttpResponseRedirect:
    """Take it that the person proved who they are, and go where they wanted to go."""
    proof.note(request)
    return HttpResponseRedirect(request.GET["next"])


# Before the admin, which answers every address below its own.
urlpatterns = [path("admin/prove/", prove, name=proof.PROVE), *portal_urls]
