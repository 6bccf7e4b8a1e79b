"""The limits of this deployment: which one a request counts for, and how fast that is (R-22).

Sources: Partner Center REST, "Control panel vendor APIs" (50 consents a second for each application); Azure Key Vault
service limits (4,000 secret transactions in 10 seconds for each vault). The others are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings

from portal.runs.models import Run
from portal.runs.pacing import Pacer, Rule

_CONSENTS = "/applicationconsents"  # in the path of a call that has a limit of its own
_CONSENTS_ALLOWED = 50  # a second


def rule_of(netloc: str, path: str) -> Rule:
    """Return the limit that a request counts for."""
    if netloc == urlsplit(settings.VAULT_URL).netloc:
        return Rule(f"vault:{netloc}", settings.VAULT_RATE, per_application=False)
    for cloud in settings.CLOUDS.values():
        if netloc == urlsplit(cloud.partner_center).netloc:
            if _CONSENTS in path:
                # What is saved and what is due in the same second stay below what Microsoft allows, with room for
                # requests that arrive closer together than they left.
                saved = min(_CONSENTS_ALLOWED / settings.CONSENT_RATE - 1, 0.05)
                return Rule("consents", settings.CONSENT_RATE, saved_seconds=saved)
            return Rule("partner_center", settings.CALL_RATE)
        if netloc == urlsplit(cloud.graph).netloc:
            return Rule("graph", settings.CALL_RATE)
        if netloc in cloud.hosts():
            return Rule("sign_in", settings.CALL_RATE)
    return Rule(f"other:{netloc}", settings.CALL_RATE)


_SERVICES = {
    "consents": "consents at Partner Center",
    "partner_center": "Partner Center",
    "graph": "Microsoft Graph",
    "sign_in": "the sign-in service",
    "vault": "the vault",
    "run": "the run's own limit (--rate)",
}


def limit_words(name: str) -> str:
    """Return what people call a limit, from its name."""
    service = name.partition(":")[0]
    return _SERVICES.get(service, name.removeprefix("other:"))


def pacer_for(run: Run, *, alive: Callable[[], bool], request_refill: Callable[[], None], threads: int) -> Pacer:
    """Return what paces the calls of one executor of this run."""
    known: dict[str, Rule] = {}  # most hosts have one limit

    def rule_of_request(netloc: str, path: str) -> Rule:
        if _CONSENTS in path:
            return rule_of(netloc, path)
        return known.get(netloc) or known.setdefault(netloc, rule_of(netloc, path))

    return Pacer(
        rule_of=rule_of_request,
        per_group=settings.PARTNER_RATE,
        run_rule=Rule(f"run:{run.pk}", run.rate, per_application=False) if run.rate else None,
        alive=alive,
        request_refill=request_refill,
        threads=threads,
        inline=threads == 1,
    )
