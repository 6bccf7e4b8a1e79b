"""The addresses of this portal that Microsoft must know of a registration: its redirect URIs."""

from __future__ import annotations

from django.conf import settings
from django.urls import reverse


def redirect_uri(cloud_key: str) -> str:
    """Return the registered redirect URI; each cloud has its own path (S-19), the host is configuration (S-28)."""
    return str(settings.PUBLIC_BASE_URL + reverse("consent:callback", args=[cloud_key]))


def admin_consent_redirect_uri(cloud_key: str) -> str:
    """Return the redirect URI of the admin consent endpoint, which answers by GET and so needs a path of its own."""
    return str(settings.PUBLIC_BASE_URL + reverse("consent:admin_consent_callback", args=[cloud_key]))


def redirect_uris(cloud_key: str) -> list[str]:
    """Return all redirect URIs of a registration in this cloud; another cloud's registration has others."""
    return [redirect_uri(cloud_key), admin_consent_redirect_uri(cloud_key)]
