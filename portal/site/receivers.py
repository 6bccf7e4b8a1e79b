"""When Django says that something happened: what the site does then."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest

from portal.site import proof


@receiver(user_logged_in, dispatch_uid="sign_in_is_a_proof")
def sign_in_is_a_proof(request: HttpRequest | None = None, **_: Any) -> None:
    """Note that who signed in proved who they are."""
    if request is not None and hasattr(request, "session"):
        proof.note(request)
