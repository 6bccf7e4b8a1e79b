"""What a sign-in left behind: token calls, stored tokens, a refusal."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from consent.models import ConsentFlow, PartnerConsent
from consent.vault.base import ID_NAME, PROBE_NAME
from portal.audit.models import AuditEvent
from tests.support.portal import Portal


def token_calls(portal: Portal) -> int:
    return sum(count for name, count in portal.sandbox.world.counters.items() if name.startswith("entra token"))


def stored_tokens(portal: Portal) -> int:
    """Count secrets beside the application's credential, the write probe and the vault's id."""
    names = {path.name for path in Path(settings.VAULT_URL).iterdir() if path.is_dir()}
    return len(names - {PROBE_NAME, ID_NAME, portal.credential_name})


def assert_refused(portal: Portal, problem: str) -> None:
    """One refused flow, nothing stored, exactly one audit line about it."""
    flow = ConsentFlow.objects.get()
    assert (flow.outcome, flow.problem) == (ConsentFlow.Outcome.REFUSED, problem)
    assert stored_tokens(portal) == 0
    assert not PartnerConsent.objects.filter(generation__gt=0).exists()
    assert AuditEvent.objects.filter(action="flow.refused").count() == 1
