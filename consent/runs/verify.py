"""Reading again what customer tenants hold, as a kind of bulk work. Nothing is ever sent that changes a tenant.

A read that fails leaves state, grants and the time of the last read as they are, and says why it failed and who must
act. Threads read over the network; what they found is written in batches, with the change against the read before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.utils import timezone

from consent import clients
from consent.customers.consents import ACCEPTED, CustomerClients, State, look, reading, wanted_grants, why_locked_out
from consent.customers.observations import PROPAGATION, Change, Reading, Unreadable, change, note_unreadable
from consent.customers.observations import write as write_readings
from consent.grants import Grants
from consent.models import ChangedBy, CustomerConsent, PartnerConsent
from consent.naming import line_names, registration_names, unit_label
from consent.selection import WORDS, Selection
from consent.tokens.custody import TokenUnavailable
from consent.tokens.versions import IdentityMismatch
from consent.uses.book import By, Purpose
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import AccessDenied, ConsentRequired, NotFound, RemoteError
from portal.microsoft.identifiers import CorrelationId
from portal.runs.kinds import OK, Contained, Context, Done, Kind, Outcome, Unit

UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A consent in one customer tenant, and the partner's consent whose token reads it."""

    consent: CustomerConsent
    door: PartnerConsent | None
    wanted: Grants


def units(scope: Mapping[str, Any], after: int, limit: int) -> list[Unit]:
    """List the chosen consents; those tried longest ago are worked first, and all partners take turns (R-31)."""
    rows = (
        Selection.from_json(scope)
        .customer_consents()
        .filter(pk__gt=after)
        .order_by("pk")
        .values_list(
            "pk",
            "customer__partner_id",
            "customer__company_name",
            "customer__tenant_id",
            "registration",
            "tried_at",
        )[:limit]
    )
    names = registration_names()
    return [
        Unit(
            key=key,
            group=partner,
            label=unit_label(name or tenant, names[registration]),
            rank=int(tried.timestamp()) if tried else 0,
        )
        for key, partner, name, tenant, registration, tried in rows
    ]


def load(keys: Sequence[int], context: Context) -> dict[int, Subject]:
    """Read the rows again, immediately before use; a fixed number of queries for any number of them."""
    consents = list(
        CustomerConsent.objects.filter(pk__in=keys)
        .select_related("customer__partner", "registration")
        .prefetch_related("registration__grants")
    )
    doors = {
        (door.partner_id, door.registration_id): door
        for door in PartnerConsent.objects.usable()
        .filter(partner__in={consent.customer.partner_id for consent in consents})
        .select_related("partner", "registration__credential")
    }
    return {
        consent.pk: Subject(
            consent=consent,
            door=doors.get((consent.customer.partner_id, consent.registration_id)),
            wanted=wanted_grants(consent.registration),
        )
        for consent in consents
    }


def work(key: int, subject: Subject, context: Context) -> Outcome:
    """Read one tenant with a token of that tenant."""
    correlation_id = CorrelationId(context.correlation_id(key))
    if subject.door is None:
        return unreadable(subject, NO_DOOR, Owner.US, correlation_id)
    consent = subject.consent
    by = By(actor=context.actor, purpose=Purpose.VERIFY, run=context.run_id)
    tools = clients.customer_clients(subject.door, consent.customer, correlation_id, by=by)
    tools.forget_customer_tokens()  # a token from before a removal would be answered with "unknown application"
    try:
        presence = look(tools, consent.registration)
    except (TokenUnavailable, IdentityMismatch) as error:
        return unreadable(subject, str(error), Owner.US, correlation_id)
    except RemoteError as error:
        return not_read(subject, error, tools)
    finally:
        tools.forget_customer_tokens()  # so that memory stays flat over any number of customers
    found = reading(consent, presence, subject.wanted, correlation_id=correlation_id, waiting=_waiting(consent))
    return _outcome(subject, found, change(consent, presence))


def _waiting(consent: CustomerConsent) -> str:
    """Return why grants may still come into sight (R-23), else nothing."""
    if consent.requested_at is None or not (consent.request_open and consent.requested_hash):
        return ""
    young = timezone.now() - consent.requested_at < PROPAGATION
    refused = consent.failed_at is not None and consent.failed_at >= consent.requested_at
    return ACCEPTED if young and not refused else ""


NO_DOOR = "The partner has no usable token of this application; send it a link."


def _outcome(subject: Subject, found: Reading, changed: Change) -> Outcome:
    expected = {
        State.WAITING: True,
        State.GRANTED: not subject.consent.was_removed,
        State.ABSENT: not subject.consent.requested_hash and changed.by != ChangedBy.OUTSIDE,
    }.get(found.state, False)
    words = [found.reason, f"Since the last read: {changed.words()}." if changed.removed or changed.added else ""]
    return Outcome(
        failure_class=OK if expected else found.state.value,
        message=" ".join(part for part in words if part),
        owner=found.owner,
        fields={
            **names(subject, found.correlation_id),
            "state": found.state.value,
            "reason": found.reason,
            "owner": found.owner,
            "verified_at": found.read_at.isoformat(timespec="seconds"),
            "service_principal_id": (found.presence.service_principal_id if found.presence else None) or "",
            "grants": found.presence.granted.to_json() if found.presence else {},
            "change": {"by": changed.by.value, "added": changed.added.to_json(), "removed": changed.removed.to_json()},
        },
        result=found,
    )


def names(subject: Subject, correlation_id: str) -> dict[str, Any]:
    """Return the columns that say which consent a line is about."""
    customer = subject.consent.customer
    return {
        **line_names(customer.partner, subject.consent.registration, customer),
        "correlation_id": correlation_id,
    }


def not_read(subject: Subject, error: RemoteError, tools: CustomerClients) -> Outcome:
    """Return why a tenant could not be read; a relationship that ended is said as that, never taken for "absent"."""
    known = Outcome.of(diagnose(error), error)
    theirs = isinstance(error, ConsentRequired | AccessDenied | NotFound) and not known.systemic
    if theirs and (better := why_locked_out(subject.consent.customer, tools)) is not None:
        locked_out = Outcome(failure_class=UNREADABLE, code=error.code)
        return unreadable(subject, *better, tools.correlation_id, locked_out)
    return unreadable(subject, known.message, Owner(known.owner), tools.correlation_id, known)


def unreadable(
    subject: Subject,
    cause: str,
    owner: Owner,
    correlation_id: str,
    known: Outcome | None = None,
) -> Outcome:
    """Return the outcome of a read that failed, as far as it is known: the state stays, with its age."""
    consent = subject.consent
    return replace(
        known or Outcome(failure_class=UNREADABLE),
        message=f"Could not be read: {cause}",
        owner=owner.value,
        fields={
            **names(subject, correlation_id),
            "state": consent.state,
            "reason": f"could not be read: {cause}",
            "owner": owner.value,
            "verified_at": consent.verified_at.isoformat(timespec="seconds") if consent.verified_at else "",
        },
        result=Unreadable(consent_id=consent.pk, reason=cause, owner=owner.value),
    )


def write(done: Sequence[Done], context: Context) -> None:
    """Write what was read, and what could not be; a few queries for all of them."""
    results = [each.outcome.result for each in done if not each.outcome.systemic]
    read = [one for one in results if isinstance(one, Reading)]
    write_readings(read, actor=context.actor, keep_unchanged=False)
    note_unreadable(one for one in results if isinstance(one, Unreadable))


def contained(subject: Subject) -> Contained | None:
    return clients.gate().stop(subject.consent.customer.partner_id, subject.consent.registration_id)


def place(subject: Subject) -> tuple[str, str]:
    return subject.consent.registration.application_id, subject.consent.customer.partner.cloud


CONSENT_VERIFY = Kind(
    name="consent_verify",
    label="Check of customer consents",
    words=WORDS,
    units=units,
    load=load,
    work=work,
    rights=("consent.verify_customerconsent",),
    write=write,
    repeats=True,
    prepare=clients.shared_by_all,
    place=place,
    book=lambda context: clients.uses().write_run(context.run_id),
    contained=contained,
    all_contained=lambda: clients.gate().stop_of_all(),
    uses_database=True,  # each use of a token reads the partner's row again (S-51, S-53)
)
