"""Whose request it is: the client address behind a known number of proxies (S-29)."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str | None:
    """Return the client's IP address, or None when it is none.

    With TRUSTED_PROXIES = n the n-th entry of X-Forwarded-For from the right counts, because that many proxies of ours
    wrote one each; what a client sends further left changes nothing.
    """
    candidate = str(request.META.get("REMOTE_ADDR", ""))
    if settings.TRUSTED_PROXIES:
        hops = [hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",")]
        candidate = hops[-settings.TRUSTED_PROXIES] if len(hops) >= settings.TRUSTED_PROXIES else ""
    try:
        address = ipaddress.ip_address(candidate)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:  # means something on one machine only; no database stores it
            return None
        address = address.ipv4_mapped or address
    return str(address)
