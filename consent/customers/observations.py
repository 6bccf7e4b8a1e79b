"""Write what reads in customer tenants showed, and what that changed: by a request of ours, or from outside.

The row of a consent holds what the read before showed, so a comparison costs no query. ``verified_at`` of that row is
when the tenant was last read, and nothing else says so: an observation is the first read that showed something, and
holds until the next one. So a check that finds everything as it was adds no row.

A request of ours is *open* from the moment before it leaves until a read shows its result, or half an hour is over
(R-23): a change that is found in that time is ours, any other one came from outside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Count, Max
from django.utils import timezone

from consent.grants import Grants
from consent.microsoft.directory import Presence
from consent.models import Attempt, ChangedBy, ConsentObservation, CustomerConsent
from portal.audit.trail import Actor, Entry, Outcome, record_all
from portal.bulk import update_each
from portal.incidents.models import Incident
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner

State = CustomerConsent.State

DRIFT = "consent_drift"  # cause of the incident
PROPAGATION = timedelta(minutes=30)
NOWHERE = Presence(service_principal_id=None)
_UNCHANGED_KEPT_FOR = timedelta(days=90)
_CHANGES_KEPT_FOR = timedelta(days=730)
_PRUNED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one read in a customer tenant showed, and the state that follows from it.

    ``presence`` is None when the tenant issues no token to our application because it knows no consent of it.
    """

    consent_id: int
    presence: Presence | None
    state: CustomerConsent.State
    reason: str
    owner: str
    wanted_hash: str
    read_at: datetime
    correlation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a read shows that the read before did not, and the reverse."""

    added: Grants
    removed: Grants
    by: ChangedBy

    @classmethod
    def of(cls, read: ConsentObservation) -> Change:
        """Return what an observation says of it."""
        return cls(added=Grants(read.added), removed=Grants(read.removed), by=ChangedBy(read.changed_by))

    def words(self) -> str:
        """Say it in one sentence, without who did it."""
        parts = [f"{verb} {some.words()}" for verb, some in (("added", self.added), ("gone", self.removed)) if some]
        return "; ".join(parts) or "the service principal is another one"


def change(consent: CustomerConsent, presence: Presence | None) -> Change:
    """Compare a read with the one before, as the row knows it. Runs no query."""
    there = presence or NOWHERE
    now, before = there.granted, Grants(consent.actual_grants)
    added, removed = now - before, before - now
    if consent.verified_at is None:
        by = ChangedBy.US if added and consent.request_open else ChangedBy.FIRST
    elif added or removed or (there.service_principal_id or "") != consent.service_principal_id:
        by = ChangedBy.US if consent.request_open else ChangedBy.OUTSIDE
    else:
        by = ChangedBy.NOBODY
    return Change(added=added, removed=removed, by=by)


def write(readings: Sequence[Reading], *, actor: Actor, keep_unchanged: bool = True) -> dict[int, ConsentObservation]:
    """Write readings, and tell staff of drift; few queries for all of them.

    Args:
        keep_unchanged: also keep reads that showed what the one before showed, as proof of what was just done; else
            they only move the time of the last read on.

    Returns:
        The observations that were kept, by consent. One is missing when a later read was written before.
    """
    observed: dict[int, ConsentObservation] = {}
    entries: list[Entry] = []
    changed: list[CustomerConsent] = []
    with transaction.atomic():
        chosen = CustomerConsent.objects.filter(pk__in=[reading.consent_id for reading in readings])
        chosen.update(
            tried_at=timezone.now()
        )  # held first: another read of the same tenant waits, and compares with this
        rows = {row.pk: row for row in chosen.select_related("customer")}
        for reading in readings:
            row = rows.get(reading.consent_id)
            if row is None or (row.verified_at is not None and row.verified_at > reading.read_at):
                continue
            observed[row.pk] = _observation(row, reading)
            before = [getattr(row, name) for name in _COLUMNS]
            _update(row, reading, observed[row.pk])
            if before != [getattr(row, name) for name in _COLUMNS]:
                changed.append(row)
            if observed[row.pk].changed_by in (ChangedBy.US, ChangedBy.OUTSIDE):  # others stand in the run's results
                entries.append(_entry(row, observed[row.pk], actor))
        kept, other = observed if keep_unchanged else _new(observed), {row.pk for row in changed}
        ConsentObservation.objects.bulk_create(kept.values())
        update_each(changed, [*_COLUMNS, *_MOMENTS])
        update_each([rows[key] for key in observed if key not in other], _MOMENTS)
        record_all(entries)
        _watch_drift([(rows[key], one) for key, one in observed.items()])
    return kept


def _new(observed: Mapping[int, ConsentObservation]) -> dict[int, ConsentObservation]:
    """Return those that show something else than the newest one that is kept of the same consent."""
    shown = "state", "evidence", "service_principal_id"
    same = [key for key, one in observed.items() if one.changed_by == ChangedBy.NOBODY]
    known = ConsentObservation.objects.filter(consent__in=same).order_by("observed_at", "pk")
    newest = {key: tuple(values) for key, *values in known.values_list("consent", *shown)}
    return {key: one for key, one in observed.items() if newest.get(key) != tuple(getattr(one, name) for name in shown)}


def _observation(row: CustomerConsent, reading: Reading) -> ConsentObservation:
    there, found = reading.presence or NOWHERE, change(row, reading.presence)
    evidence = ConsentObservation.Evidence
    return ConsentObservation(
        consent=row,
        registration_id=row.registration_id,
        observed_at=reading.read_at,
        state=reading.state,
        service_principal_id=there.service_principal_id or "",
        grants=[
            {"id": grant.grant_id, "resource": grant.resource, "scopes": sorted(grant.scopes)} for grant in there.grants
        ],
        evidence=evidence.SIGN_IN if reading.presence is None else evidence.DIRECTORY,
        added=found.added.to_json(),
        removed=found.removed.to_json(),
        changed_by=found.by,
        actor=row.requested_by if found.by == ChangedBy.US else "",
        unchanged_until=row.verified_at,
        correlation_id=reading.correlation_id,
    )


_MOMENTS = ["verified_at", "tried_at"]
_COLUMNS = [  # which most reads leave as they are
    "state",
    "wanted_hash",
    "actual_grants",
    "service_principal_id",
    "reason",
    "owner",
    "request_open",
    "changed_at",
    "changed_by",
    "unread_since",
    "unread_reason",
    "unread_owner",
    "failed_at",
    "failed_what",
    "failed_reason",
    "failed_owner",
]


def _update(row: CustomerConsent, reading: Reading, observation: ConsentObservation) -> None:
    there = reading.presence or NOWHERE
    nobody_acts = reading.state == State.ABSENT and not row.requested_hash  # nothing was asked for, or we removed it
    row.state, row.reason, row.owner = reading.state, reading.reason[:300], "" if nobody_acts else reading.owner
    row.wanted_hash, row.actual_grants = reading.wanted_hash, there.granted.to_json()
    row.service_principal_id = there.service_principal_id or ""
    row.verified_at = row.tried_at = reading.read_at
    row.unread_since, row.unread_reason, row.unread_owner = None, "", ""
    gone = there.service_principal_id is None
    as_tried = gone if row.failed_what == Attempt.REMOVE else reading.state == State.GRANTED
    if as_tried:
        row.failed_at, row.failed_what, row.failed_reason, row.failed_owner = None, Attempt.NOTHING, "", ""
    if observation.changed_by:
        row.changed_at, row.changed_by = reading.read_at, observation.changed_by
    if row.requested_at is not None and row.requested_at <= reading.read_at:
        reached = reading.state == State.GRANTED if row.requested_hash else gone
        row.request_open = row.request_open and not reached and reading.read_at - row.requested_at < PROPAGATION


def _entry(row: CustomerConsent, observation: ConsentObservation, actor: Actor) -> Entry:
    details = {"state": observation.state, "service_principal": observation.service_principal_id}
    if observation.changed_by == ChangedBy.OUTSIDE:
        details |= {"changed_by": observation.changed_by}
    return Entry(
        "customer_consent.observed",
        actor,
        Outcome.DONE,
        subject={"customer_consent": row.pk, "customer": row.customer_id, "registration": row.registration_id},
        details=details,
        correlation_id=observation.correlation_id,
    )


# --- what could not be read -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A read that failed: cause and remedy, and who must act."""

    consent_id: int
    reason: str
    owner: str


def note_unreadable(failures: Iterable[Unreadable]) -> None:
    """Note that tenants could not be read; state, grants and the time of the last read stay as they are."""
    now = timezone.now()
    by_words: dict[tuple[str, str], list[int]] = {}
    for failure in failures:
        by_words.setdefault((failure.reason[:300], failure.owner), []).append(failure.consent_id)
    for (reason, owner), keys in by_words.items():
        rows = CustomerConsent.objects.filter(pk__in=keys)
        rows.filter(unread_since__isnull=True).update(unread_since=now)
        rows.update(tried_at=now, unread_reason=reason, unread_owner=owner)


# --- drift ----------------------------------------------------------------------------------------------------------


def _watch_drift(written: Sequence[tuple[CustomerConsent, ConsentObservation]]) -> None:
    """Keep one incident for a partner while customers of it are otherwise than wanted, and not by our doing."""
    new = Counter(
        row.customer.partner_id for row, observation in written if observation.changed_by == ChangedBy.OUTSIDE
    )
    partners = {row.customer.partner_id for row, _ in written}
    told = {
        int(about.removeprefix("partner:"))
        for about in Incident.objects.open()
        .filter(cause=DRIFT, about__in=[f"partner:{key}" for key in partners])
        .values_list("about", flat=True)
    }
    if not new and not told:
        return
    drifted = {
        key: (number, name)
        for key, number, name in CustomerConsent.objects.drifted()
        .filter(customer__partner__in=new.keys() | told)
        .order_by()
        .values_list("customer__partner")
        .annotate(Count("pk"), Max("customer__partner__name"))
    }
    for key in new.keys() & drifted.keys():
        number, name = drifted[key]
        report(
            DRIFT,
            about=f"partner:{key}",
            owner=Owner.US,
            name=name,
            words=(
                f"Somebody outside changed our consent in {number} customer tenant{'' if number == 1 else 's'}."
                " Look at the findings below Customer consents, ask the partner, then plan and apply, or remove."
            ),
            subject={"partner": key},
        )
    for key in told - drifted.keys():
        settle(DRIFT, about=f"partner:{key}")


# --- pruning --------------------------------------------------------------------------------------------------------


def prune(now: datetime, between: Callable[[], None] = lambda: None) -> int:
    """Remove reads that changed nothing after 90 days, and others after two years; return how many.

    The newest read of a consent stays, and the one that proves its last removal.

    Args:
        between: called after each piece; what it raises ends the work there.
    """
    removed = 0
    old = ConsentObservation.objects.prunable(
        unchanged_before=now - _UNCHANGED_KEPT_FOR, changed_before=now - _CHANGES_KEPT_FOR
    ).order_by("pk")
    while keys := list(old.values_list("pk", flat=True)[:_PRUNED_AT_ONCE]):
        removed += ConsentObservation.objects.filter(pk__in=keys).delete()[0]
        between()
    return removed
