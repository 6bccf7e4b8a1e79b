"""What is done by schedule: removing flows that nobody finished, old attempts, accounts that nobody approved and old
reads of customer tenants, and warning of credentials that end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from consent import approvals, observations, rotation
from consent.models import ConsentFlow
from consent.vault.base import Vault
from portal.audit.trail import Actor, record
from portal.incidents.desk import mail_due
from portal.incidents.watch import watch_audit_trail

ATTEMPTS_KEPT_FOR = timedelta(days=90)  # staff look attempts up by their reference; the audit trail keeps its own line


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepReport:
    """Counts of what was removed or switched off."""

    expired_flows: int
    old_attempts: int
    expired_accounts: int
    old_reads: int


def clean_up(*, vault: Vault, actor: Actor) -> UpkeepReport:
    """Remove what is over. Running it twice, or at the same time, is harmless (S-10, S-15)."""
    now = timezone.now()
    expired, _ = ConsentFlow.objects.expired_before(now).filter(outcome=ConsentFlow.Outcome.OPEN).delete()
    old, _ = ConsentFlow.objects.expired_before(now - ATTEMPTS_KEPT_FOR).delete()
    report = UpkeepReport(
        expired_flows=expired,
        old_attempts=old,
        expired_accounts=approvals.expire_overdue(vault=vault),
        old_reads=observations.prune(now),
    )
    record(
        "upkeep.done",
        actor=actor,
        subject={},
        details={
            "expired_flows": report.expired_flows,
            "old_attempts": report.old_attempts,
            "expired_accounts": report.expired_accounts,
            "old_reads": report.old_reads,
        },
    )
    rotation.warn_of_expiry()
    watch_audit_trail()
    mail_due()
    return report
