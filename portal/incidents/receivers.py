"""When Django says that something happened: what incidents do then."""

from __future__ import annotations

from typing import Any

from django.core.signals import request_finished
from django.dispatch import receiver

from portal.audit.trail import Actor
from portal.incidents.certificates import watch_certificates
from portal.incidents.service import report
from portal.microsoft.diagnosis import Owner
from portal.rights import superuser_acted

SUPERUSER = "superuser_acted"


@receiver(request_finished, dispatch_uid="watch_certificates")
def certificates_of_a_request(**_: Any) -> None:
    """Report what the calls of one request saw of certificates."""
    watch_certificates()


@receiver(superuser_acted, dispatch_uid="superuser_acted")
def use_of_an_emergency_account(actor: Actor, right: str, **_: Any) -> None:
    """Report that a superuser did something; the trail says what. Who settles this report opens no other."""
    if right.startswith("incidents."):
        return
    report(
        SUPERUSER,
        about=f"staff:{actor.name}"[:100],
        name=actor.name,
        owner=Owner.US,
        words=(
            "A superuser worked in the portal. This account is for emergencies: nothing limits it. See in the audit "
            "trail what was done, give the person a role for daily work, and settle this."
        ),
    )
