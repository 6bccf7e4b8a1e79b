"""What is done by schedule: removing what is over and was kept long enough, and warning of credentials that end.

===============================================  ==============================================
removed                                          when
===============================================  ==============================================
consent flows that were never finished           at once when their time is over
attempts                                         90 days after their end
tokens of changed accounts (switched off)        seven days without approval
credentials that were never used (retired)       90 days after they were made
reads of customer tenants                        see ``observations.prune``
consent links without a campaign                 a year after they were closed, revoked or expired
plans that were never applied                    90 days after they were made
plans that were applied                          two years after, as reads that changed something
imports of partners                              30 days after they were read
incidents                                        a year after they were settled
figures of days                                  400 days after
the ledger of uses of tokens                     after TOKEN_USE_KEPT_DAYS
versions of the embedded vault that are off      after VAULT_OLD_KEPT_DAYS
sessions of staff                                when they expired
messages of the queue that died with a worker    after a week
===============================================  ==============================================

The audit trail keeps its own line of everything that was done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from importlib import import_module

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

from consent import figures
from consent.applications import rotation, unused
from consent.customers import observations
from consent.models import ConsentFlow, ConsentLink, ConsentPlan, ConsentPlanItem, TokenUse
from consent.moving_in import partners
from consent.sign_in import approvals
from consent.tokens.pruning import remove_old_versions
from consent.vault.base import Pruner, Vault, VaultKeys
from portal.audit.trail import Actor, record
from portal.incidents.service import remove_settled
from portal.incidents.telling import tell_due
from portal.incidents.watch import watch_audit_trail
from portal.rights import SERVER, require
from portal.runs import results
from portal.runs.tasks import remove_dead_messages

ATTEMPTS_KEPT_FOR = timedelta(days=90)  # staff look attempts up by their reference
LINKS_KEPT_FOR = timedelta(days=365)
SHOWN_PLANS_KEPT_FOR = timedelta(days=90)
APPLIED_PLANS_KEPT_FOR = timedelta(days=730)
_DEAD_MESSAGES_KEPT_FOR = timedelta(days=7)
_PIECE = 1000
State = ConsentPlan.State


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepReport:
    """Counts of what was removed or switched off."""

    expired_flows: int
    old_attempts: int
    expired_accounts: int
    unused_credentials: int
    old_reads: int
    old_links: int
    old_plans: int
    old_imports: int
    old_incidents: int
    old_figures: int
    old_token_uses: int
    old_versions: int
    dead_messages: int

    @property
    def words(self) -> str:
        """Say what was removed; what was not there is left out."""
        counted = [
            _counted(number, name.replace("_", " "))
            for name, number in asdict(self).items()
            if number and name not in {"expired_accounts", "unused_credentials"}
        ]
        removed = f"{', '.join(counted)} removed" if counted else "nothing to remove"
        retired = (
            f"; {_counted(self.unused_credentials, 'unused credentials')} retired" if self.unused_credentials else ""
        )
        return f"{removed}; {_counted(self.expired_accounts, 'unapproved accounts')} switched off{retired}"


def _counted(number: int, plural: str) -> str:
    return f"{number} {plural.removesuffix('s') if number == 1 else plural}"


def clean_up(
    *,
    vault: Vault,
    keys: Callable[[], VaultKeys],
    actor: Actor,
    pruner: Pruner | None = None,
    between: Callable[[], None] = lambda: None,
) -> UpkeepReport:
    """Remove what is over. Running it twice, or at the same time, is harmless (S-10, S-15).

    Args:
        pruner: the same vault, where it can remove versions.
        keys: opens the vault's keys; called where a credential that is one of them was never used.
        between: called between pieces; what it raises ends the work there, and the next run does the rest.
    """
    require(actor, SERVER)
    now = timezone.now()
    expired, _ = ConsentFlow.objects.expired_before(now).filter(outcome=ConsentFlow.Outcome.OPEN).delete()
    old, _ = ConsentFlow.objects.expired_before(now - ATTEMPTS_KEPT_FOR).delete()
    between()
    report = UpkeepReport(
        expired_flows=expired,
        old_attempts=old,
        expired_accounts=approvals.expire_overdue(vault=vault),
        unused_credentials=unused.retire_unused(vault=vault, keys=keys, actor=actor),
        old_reads=observations.prune(now, between),
        old_links=_remove(_old_links(now), between),
        old_plans=_remove_plans(now, between),
        old_imports=partners.remove_old(between),
        old_incidents=remove_settled(now),
        old_figures=figures.remove_old(),
        old_token_uses=_remove_uses(now, between),
        old_versions=remove_old_versions(pruner, now, between),
        dead_messages=remove_dead_messages(now - _DEAD_MESSAGES_KEPT_FOR),
    )
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()
    record("upkeep.done", actor=actor, subject={}, details=asdict(report))
    rotation.warn_of_expiry()
    watch_audit_trail(actor=actor, between=between)
    results.watch(between=between)
    tell_due()
    return report


def _old_links(now: datetime) -> QuerySet[ConsentLink]:
    """Return links that ended long ago; those of a campaign stay with it, as its figures are read from them."""
    limit = now - LINKS_KEPT_FOR
    ended = Q(closed_at__lt=limit) | Q(revoked_at__lt=limit) | Q(expires_at__lt=limit)
    return ConsentLink.objects.filter(ended, invitation__isnull=True)


def _remove_uses(now: datetime, between: Callable[[], None]) -> int:
    limit = now - timedelta(days=settings.TOKEN_USE_KEPT_DAYS)
    return _remove(TokenUse.objects.filter(last_at__lt=limit), between)


def _remove_plans(now: datetime, between: Callable[[], None]) -> int:
    never = Q(state=State.SHOWN, created_at__lt=now - SHOWN_PLANS_KEPT_FOR)
    applied = Q(state__in=[State.DONE, State.STOPPED], applied_at__lt=now - APPLIED_PLANS_KEPT_FOR)
    plans = ConsentPlan.objects.filter(never | applied)
    _remove(ConsentPlanItem.objects.filter(plan__in=plans), between)
    return _remove(plans, between)


def _remove(
    rows: QuerySet[ConsentLink] | QuerySet[ConsentPlan] | QuerySet[ConsentPlanItem] | QuerySet[TokenUse],
    between: Callable[[], None],
) -> int:
    """Remove these rows in pieces, each in its own transaction; return how many."""
    removed = 0
    while keys := list(rows.order_by("pk").values_list("pk", flat=True)[:_PIECE]):
        rows.model._default_manager.filter(pk__in=keys).delete()
        removed += len(keys)
        between()
    return removed
