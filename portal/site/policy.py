"""Content-Security-Policies of the site (S-61). No policy ever holds an unsafe keyword.

Sources: W3C Content Security Policy Level 3; Django's ``django.utils.csp``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from django.http import HttpResponseBase
from django.utils.csp import CSP

Policy = dict[str, list[str]]

_COMMON: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "default-src": (CSP.NONE,),
        "script-src": (CSP.SELF,),
        "style-src": (CSP.SELF,),
        "img-src": (CSP.SELF, "data:"),
        "font-src": (CSP.SELF,),
        "connect-src": (CSP.SELF,),
        "form-action": (CSP.SELF,),
        "base-uri": (CSP.NONE,),
        "object-src": (CSP.NONE,),
    }
)


def _policy(**directives: str) -> Policy:
    own = {name.replace("_", "-"): [value] for name, value in directives.items()}
    return {name: list(values) for name, values in _COMMON.items()} | own


# Of every page, those of staff included. Nothing may frame one, and none frames anything.
SITE_POLICY: Policy = _policy(frame_ancestors=CSP.NONE)


def landing_policy(response: HttpResponseBase, sign_in: str) -> None:
    """Let the forms of this one response lead to ``sign_in``, an ``https`` origin (``http`` on localhost only).

    Browsers apply ``form-action`` to the redirect after the post as well.

    Raises:
        ValueError: ``sign_in`` is not a bare origin; anything else could widen the policy.
    """
    parts = urlsplit(sign_in)
    local = parts.scheme == "http" and f".{parts.hostname}".endswith(".localhost")
    if (parts.scheme != "https" and not local) or f"{parts.scheme}://{parts.netloc}" != sign_in:
        raise ValueError("form-action takes one origin such as https://login.microsoftonline.com")
    if not set(parts.netloc) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-:"):
        raise ValueError("form-action takes one origin such as https://login.microsoftonline.com")
    set_policy(response, SITE_POLICY | {"form-action": [CSP.SELF, sign_in]})


def set_policy(response: HttpResponseBase, policy: Policy) -> None:
    """Use ``policy`` instead of ``SECURE_CSP`` for this response, as Django's ``csp_override`` does."""
    response._csp_config = policy  # type: ignore[attr-defined]
