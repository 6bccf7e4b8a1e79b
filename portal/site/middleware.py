"""Headers on every response, and which host answers what."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.contrib.auth import logout
from django.http import Http404, HttpRequest, HttpResponseBase
from django.http.request import split_domain_port
from django.urls import reverse
from django.utils import timezone

GetResponse = Callable[[HttpRequest], HttpResponseBase]

# No page of ours needs a device, a payment or a federation dialog.
_FEATURES = (
    "accelerometer",
    "autoplay",
    "camera",
    "display-capture",
    "encrypted-media",
    "fullscreen",
    "geolocation",
    "gyroscope",
    "hid",
    "identity-credentials-get",
    "magnetometer",
    "microphone",
    "midi",
    "payment",
    "picture-in-picture",
    "publickey-credentials-create",
    "screen-wake-lock",
    "serial",
    "usb",
    "xr-spatial-tracking",
)
PERMISSIONS_POLICY = ", ".join(f"{feature}=()" for feature in _FEATURES)

LONGEST_IDLE = 30 * 60  # seconds
LONGEST_SESSION = 12 * 3600  # seconds
_REMEMBER_EVERY = 60  # seconds; a write to the session for each request would cost more than it tells


def is_staff_path(path: str) -> bool:
    """Whether the path belongs to the staff's world."""
    return f"{path}/".startswith(reverse("admin:index"))


class SecurityHeadersMiddleware:
    """Complete the headers of S-61, also for responses that Django's own middleware never sees (a refused host).

    Stands outside ``SecurityMiddleware`` and inside ``ContentSecurityPolicyMiddleware``. A header that a view has
    set stays, so a view may be stricter.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        headers = response.headers
        headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        headers.setdefault("Cross-Origin-Opener-Policy", settings.SECURE_CROSS_ORIGIN_OPENER_POLICY)
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        headers.setdefault("Referrer-Policy", settings.SECURE_REFERRER_POLICY)
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("X-Frame-Options", "DENY")
        if is_staff_path(request.path_info):
            headers.setdefault("Cache-Control", "no-store, private")
        return response


class HostBindingMiddleware:
    """Keep public and staff pages on their own hosts when ``ADMIN_HOST`` (``host`` or ``host:port``) is set (S-25).

    Stands after the static files, which both hosts need.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.admin_host, self.admin_port = split_domain_port(settings.ADMIN_HOST)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if self.admin_host and not self._belongs(request):
            raise Http404
        return self.get_response(request)

    def _belongs(self, request: HttpRequest) -> bool:
        path = request.path_info
        if path.startswith(settings.STATIC_URL):
            return True
        host, port = split_domain_port(request.get_host())
        on_admin_host = host == self.admin_host and self.admin_port in {"", port}
        return on_admin_host == is_staff_path(path)


def begin_session(request: HttpRequest) -> None:
    """Let both limits of a staff session count from now, as at a sign-in."""
    request.session["staff_began"] = request.session["staff_seen"] = int(timezone.now().timestamp())


class StaffSessionMiddleware:
    """End a staff session after half an hour without a request, and half a day after it began (S-47).

    Django's own limit starts anew whenever the session is saved. Stands after ``AuthenticationMiddleware`` and before
    ``LoginRequiredMiddleware``, which then asks to sign in. Public pages never touch the session (S-25).
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if is_staff_path(request.path_info) and request.user.is_authenticated:
            self._end_or_remember(request)
        return self.get_response(request)

    def _end_or_remember(self, request: HttpRequest) -> None:
        session, now = request.session, int(timezone.now().timestamp())
        began, seen = session.get("staff_began", now), session.get("staff_seen", 0)
        if now - began > LONGEST_SESSION or (seen and now - seen > LONGEST_IDLE):
            logout(request)
        elif now - seen >= _REMEMBER_EVERY:
            session["staff_began"], session["staff_seen"] = began, now
