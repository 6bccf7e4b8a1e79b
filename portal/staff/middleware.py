"""What stands between a session and the staff's pages."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponseBase

from portal.site.middleware import GetResponse, is_staff_path
from portal.staff import sessions
from portal.staff.models import Method


class ProvenSessionMiddleware:
    """Let no session in that was not proven by a factor (S-46), and keep the table of sessions true (S-47).

    Stands behind ``StaffSessionMiddleware`` and before ``LoginRequiredMiddleware``, which then asks to sign in.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not is_staff_path(request.path_info):
            return self.get_response(request)
        if request.user.is_authenticated:
            if not settings.STAFF_PASSWORD_ALONE and sessions.method_of(request) in {None, Method.PASSWORD}:
                logout(request)
            else:
                sessions.seen(request)
        key = request.session.session_key
        response = self.get_response(request)
        if request.user.is_authenticated and request.method == "POST":
            if request.session.session_key != key:
                sessions.keep(request, request.user)  # a new key, as after a change of the own password
            elif sessions.is_gone(request):
                request.session.flush()  # the own rights were changed; writing the session would be an error
        return response
