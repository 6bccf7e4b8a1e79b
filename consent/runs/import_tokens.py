"""The import of refresh tokens as a kind of bulk work: redeem, prove, adopt or refuse, one partner after the other.

The tokens are in the memory of the process that runs the command (``at_hand``). A worker that finds such a run without
its command has none: it ends the run, says so of each unit, and the command goes on with a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from consent import clients
from consent.models import ApplicationRegistration, PartnerConsent
from consent.moving_in.sources import Source, TokenMissing
from consent.moving_in.tokens import NotAdopted, Why, adopt, why_not
from consent.naming import line_names, unit_label
from consent.tokens.custody import BUSY, TokenUnavailable
from portal.audit.trail import Entry, record_all
from portal.audit.trail import Outcome as Recorded
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import CorrelationId, TenantId
from portal.runs.kinds import OK, Context, Done, Kind, Outcome, Unit
from tenants.models import PartnerTenant

BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What one command imports: tokens of these tenants, for one registration."""

    source: Source
    registration: ApplicationRegistration
    tenants: frozenset[TenantId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One partner whose token is imported; without a source where this process has no tokens."""

    partner: PartnerTenant
    registration: ApplicationRegistration
    source: Source | None


_at_hand: list[Import] = []  # of this process: one command has one import


@contextmanager
def at_hand(imported: Import) -> Iterator[None]:
    """Let this process work runs with these tokens."""
    _at_hand.append(imported)
    try:
        yield
    finally:
        _at_hand.remove(imported)


def units(scope: Mapping[str, Any], after: int, limit: int) -> list[Unit]:
    """List the partners whose tokens are at hand."""
    for imported in _at_hand:
        rows = (
            PartnerTenant.objects.filter(tenant_id__in=imported.tenants, pk__gt=after)
            .order_by("pk")
            .values_list("pk", "name")[:limit]
        )
        return [Unit(key=key, group=key, label=unit_label(name, imported.registration.name)) for key, name in rows]
    return []


def load(keys: Sequence[int], context: Context) -> dict[int, Task]:
    """Read partners and registration again."""
    rows = ApplicationRegistration.objects.select_related("credential", "own_set")
    registration = rows.get(pk=context.scope["registration"])
    source = _at_hand[0].source if _at_hand else None
    return {
        partner.pk: Task(partner=partner, registration=registration, source=source)
        for partner in PartnerTenant.objects.filter(pk__in=keys)
    }


def work(key: int, task: Task, context: Context) -> Outcome:
    """Let this partner's token prove itself, and adopt it."""
    correlation_id = CorrelationId(context.correlation_id(key))
    names = {**line_names(task.partner, task.registration), "correlation_id": correlation_id}
    try:
        _adopt(task, context, correlation_id)
    except NotAdopted as refused:
        # Also what this run adopted and could not write any more, because its process was killed at that moment.
        good = refused.why is Why.ALREADY_CONNECTED
        found = OK if good else refused.why.value
        fields = {"class": refused.why.value, "message": str(refused), "owner": refused.owner.value, "code": ""}
        return Outcome(failure_class=found, message=str(refused), owner=refused.owner.value, fields=names | fields)
    except TokenUnavailable as unavailable:
        # Another process keeps a token of this partner just now, or died while it did: its lease ends by itself.
        busy = str(unavailable) == BUSY
        told = {"class": Why.PARTNER_OFF, "message": str(unavailable), "owner": Owner.US, "code": ""}
        return Outcome(
            failure_class=Why.PARTNER_OFF,
            message=str(unavailable),
            owner=Owner.US,
            pending=busy,
            retry_after=BUSY_SECONDS if busy else None,
            fields=names | told,
        )
    except RemoteError as error:
        diagnosis = diagnose(error)
        words = f"{diagnosis.cause} {diagnosis.remedy}"
        told = {"class": diagnosis.failure_class, "message": words, "owner": diagnosis.owner, "code": error.code}
        return Outcome.of(diagnosis, error, fields=names | told)
    return Outcome(fields=names | {"class": OK, "message": "", "owner": "", "code": ""})


def _adopt(task: Task, context: Context, correlation_id: CorrelationId) -> None:
    consent = PartnerConsent.objects.filter(partner=task.partner, registration=task.registration).first()
    if refused := why_not(task.partner, consent, task.registration):
        raise refused
    if task.source is None:
        raise NotAdopted(Why.NO_INPUT, "This process has no tokens. Start the import again with the same input.")
    if consent is not None and not PartnerConsent.objects.lease_free().filter(pk=consent.pk).exists():
        raise TokenUnavailable(BUSY)  # before anything is redeemed
    try:
        token = task.source.token(task.partner.tenant)
    except TokenMissing as missing:
        raise NotAdopted(
            Why.NOT_READABLE, f"{missing} Correct the source, or send the partner a consent link."
        ) from None
    adopt(
        task.partner,
        task.registration,
        token,
        source=task.source.name,
        tools=clients.consent_tools(),
        actor=context.actor,
        correlation_id=correlation_id,
    )


def write(done: Sequence[Done], context: Context) -> None:
    """Note in the trail what was refused; what was adopted stands there since the moment it was.

    A worker without the tokens decided about none of them.
    """
    record_all(
        [
            Entry(
                "token.import_refused",
                context.actor,
                Recorded.REFUSED,
                subject={"partner": each.key, "registration": context.scope["registration"]},
                details={"why": each.outcome.failure_class, "code": each.outcome.code},
                correlation_id=context.correlation_id(each.key),
            )
            for each in done
            if not each.outcome.ok and not each.outcome.systemic and each.outcome.failure_class != Why.NO_INPUT
        ]
    )


IMPORT_TOKENS = Kind(
    name="import_tokens",
    label="Import of refresh tokens",
    words={"input": "Tokens of {}"},
    units=units,
    load=load,
    work=work,
    write=write,
    prepare=clients.shared_by_all,
    place=lambda task: (task.registration.application_id, task.registration.cloud),
    contained=lambda task: clients.gate().stop(task.partner.pk, task.registration.pk),
    all_contained=lambda: clients.gate().stop_of_all(),
    only_by="import_tokens",
    uses_database=True,  # what is proven is kept at once, by the door of a sign-in
)
