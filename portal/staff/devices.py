"""Browsers that an account signed in from before: their tries of a password have a budget of their own.

Source: OWASP, "Slow Down Online Guessing Attacks with Device Cookies". The cookie opens nothing: without the right
password and factor it only decides which budget counts.
"""

from __future__ import annotations

import secrets

from django.contrib.auth.models import User
from django.core import signing
from django.http import HttpRequest, HttpResponseBase

COOKIE = "__Host-staff-device"
LIFETIME = 180 * 24 * 3600  # seconds
_SALT = "portal.staff.devices"


def known(request: HttpRequest, user: User) -> str:
    """Return the number of this browser when the account used it before, otherwise an empty text."""
    try:
        said = signing.loads(request.COOKIES.get(COOKIE, ""), salt=_SALT, max_age=LIFETIME)
    except signing.BadSignature:
        return ""
    return str(said["device"]) if said["user"] == user.pk else ""


def remember(request: HttpRequest, response: HttpResponseBase, user: User) -> None:
    """Let this browser be one that the account used before."""
    device = known(request, user) or secrets.token_hex(8)
    response.set_cookie(
        COOKIE,
        signing.dumps({"user": user.pk, "device": device}, salt=_SALT),
        max_age=LIFETIME,
        secure=True,
        httponly=True,
        samesite="Lax",
    )
