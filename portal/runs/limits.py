"""The limits of this deployment: which one a request counts for, and how fast that is (R-22).

Sources: Partner Center REST, "Control panel vendor APIs" (50 consents a second for each application); Azure Key Vault
service limits (4,000 secret transactions in 10 seconds for each vault). The others are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings

from portal.runs.models import Run
from portal.runs.pacing import Pacer


def service_of(netloc: str, path: str) -> tuple[str, float, bool]:
    """Return the limit of a request: its name, calls a second, and whether it counts for each application."""
    if netloc == urlsplit(settings.VAULT_URL).netloc:
        return f"vault:{netloc}", settings.VAULT_RATE, False
    for cloud in settings.CLOUDS.values():
        if netloc == urlsplit(cloud.partner_center).netloc:
            if "/applicationconsents" in path:
                return "consents", settings.CONSENT_RATE, True
            return "partner_center", settings.CALL_RATE, True
        if netloc == urlsplit(cloud.graph).netloc:
            return "graph", settings.CALL_RATE, True
        if netloc in cloud.hosts():
            return "sign_in", settings.CALL_RATE, True
    return f"other:{netloc}", settings.CALL_RATE, True


def pacer_for(run: Run, *, alive: Callable[[], bool], thirsty: Callable[[], None], inline: bool) -> Pacer:
    """Return what paces the calls of one executor of this run."""
    return Pacer(
        service_of=service_of,
        per_group=settings.PARTNER_RATE,
        run_limit=(f"run:{run.pk}", run.rate) if run.rate else None,
        alive=alive,
        thirsty=thirsty,
        inline=inline,
    )
