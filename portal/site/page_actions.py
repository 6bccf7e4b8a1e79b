"""Buttons on the page of one row, each with an address of its own below the row's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase

from portal.site.proof import demand

type View = Callable[..., HttpResponseBase]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAction:
    """One button.

    Attributes:
        name: of the method; its address is ``admin:<app>_<model>_<name>``.
        route: the last part of the address.
        permissions: words ``view`` for methods ``has_view_permission(request)``; all are needed.
        fresh: it asks for a fresh proof of who acts first (``portal.site.proof``).
    """

    name: str
    title: str
    route: str
    permissions: Sequence[str]
    dangerous: bool
    fresh: bool = False

    def allowed(self, page: Any, request: HttpRequest) -> bool:
        """Whether the person may press it."""
        return all(getattr(page, f"has_{word}_permission")(request) for word in self.permissions)


def page_action(
    *,
    description: str,
    url_path: str,
    permissions: Sequence[str],
    dangerous: bool = False,
    fresh: bool = False,
) -> Callable[[View], View]:
    """Make a method ``(self, request, object_id)`` of a ``PortalModelAdmin`` a button; name it in ``actions_detail``.

    Raises, when it is called:
        PermissionDenied: the person lacks one of ``permissions``.
    """

    def decorate(view: View) -> View:
        button = PageAction(
            name=view.__name__,
            title=description,
            route=url_path,
            permissions=permissions,
            dangerous=dangerous,
            fresh=fresh,
        )

        @wraps(view)
        def checked(page: Any, request: HttpRequest, object_id: str) -> HttpResponseBase:
            if not button.allowed(page, request):
                raise PermissionDenied
            return (demand(request) if fresh else None) or view(page, request, object_id)

        checked.button = button  # type: ignore[attr-defined]
        return checked

    return decorate
