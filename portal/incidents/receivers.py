"""When Django says that something happened: what incidents do then."""

from __future__ import annotations

from typing import Any

from django.core.signals import request_finished
from django.dispatch import receiver

from portal.incidents.watch import watch_certificates


@receiver(request_finished, dispatch_uid="watch_certificates")
def certificates_of_a_request(**_: Any) -> None:
    """Report what the calls of one request saw of certificates."""
    watch_certificates()
