"""Removing our application from customer tenants, as a kind of bulk work: the one implementation of removing.

What Partner Center answers is no proof: the tenant is read back. "Absent" is said by the directory, or by the sign-in
service that knows no consent of ours there any more; what can be read by neither is "unknown", with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from consent import clients
from consent.customers import attempts
from consent.customers.consents import CustomerClients, State, look, reading, subject, write_removal_intent
from consent.customers.observations import Unreadable, note_unreadable
from consent.customers.observations import write as write_readings
from consent.microsoft.directory import Presence
from consent.models import Attempt, ConsentObservation, CustomerConsent
from consent.runs.verify import NO_DOOR, Subject, load, names, place, units, why_locked_out
from consent.tokens.custody import TokenUnavailable
from consent.tokens.versions import IdentityMismatch
from portal.audit.trail import Actor, record
from portal.audit.trail import Outcome as AuditOutcome
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import AccessDenied, ConsentRequired, RemoteError, Throttled
from portal.microsoft.identifiers import CorrelationId
from portal.runs.kinds import OK, Context, Done, Kind, Outcome

STILL_THERE = "still_there"
NOT_PROVEN = "not_proven"
REFUSED = "refused"

_STILL_THERE = "Microsoft accepted the removal and still shows the consent. Remove it again later, or ask Microsoft."
_WE_KEEP_OUT = "This is the partner's or our own tenant, not a customer; nothing was sent."


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One removal while it is done, and what it is done with."""

    subject: Subject
    tools: CustomerClients
    actor: Actor
    wait_seconds: float
    sleep: Callable[[float], None]

    @property
    def consent(self) -> CustomerConsent:
        return self.subject.consent

    def look(self) -> Presence | None:
        return look(self.tools, self.consent.registration)

    def observe(self, presence: Presence | None) -> ConsentObservation | None:
        """Write what a read showed; None when somebody read the tenant later and wrote that."""
        found = reading(self.consent, presence, self.subject.wanted, correlation_id=self.tools.correlation_id)
        return write_readings([found], actor=self.actor).get(self.consent.pk)


def work(key: int, subject: Subject, context: Context) -> Outcome:
    """Look, remove what is there, and read back."""
    correlation_id = CorrelationId(context.correlation_id(key))
    customer = subject.consent.customer
    if customer.tenant_id in {customer.partner.tenant_id, subject.consent.registration.home_tenant_id}:
        return _failed(subject, correlation_id, REFUSED, _WE_KEEP_OUT, Owner.US)
    if subject.door is None:
        return _no_token(subject, correlation_id, NO_DOOR)

    removal = Removal(
        subject=subject,
        tools=clients.customer_clients(subject.door, customer, correlation_id),
        actor=context.actor,
        wait_seconds=float(context.options.get("wait", 60.0)),
        sleep=context.sleep,
    )
    removal.tools.forget_customer_tokens()  # a token from before says nothing about now
    try:
        return remove(removal)
    except (TokenUnavailable, IdentityMismatch) as error:
        return _no_token(subject, correlation_id, str(error))
    except RemoteError as error:
        return _failed_by(removal, error)
    finally:
        removal.tools.forget_customer_tokens()


def remove(removal: Removal) -> Outcome:
    """Remove one consent; see :func:`work`.

    Raises:
        RemoteError: a read or the partner's token failed, or a limit was met; nothing is known, and it may be repeated.
    """
    before: Presence | None = None
    try:
        before = removal.look()
    except (ConsentRequired, AccessDenied):
        if (known := why_locked_out(removal.subject, removal.tools)) is not None:
            return _not_reachable(removal, *known)
    else:
        seen = removal.observe(before)
        if _is_gone(before):
            return _done(removal, seen, "It was not there; nothing was sent.")
    consent = removal.consent
    held = before.scopes_by_resource() if before else consent.actual_grants
    request_id = write_removal_intent(consent, held, removal.actor, removal.tools.correlation_id)
    failure: RemoteError | None = None
    try:
        removal.tools.consents.remove(
            customer=consent.customer.tenant,
            application_id=consent.registration.client_id,
            request_id=request_id,
        )
    except Throttled:
        raise
    except RemoteError as error:
        failure = error
    return _read_back(removal, failure)


def _read_back(removal: Removal, failure: RemoteError | None) -> Outcome:
    """Look until nothing is there or the time is over; pauses double (R-23)."""
    waited, pause = 0.0, 1.0
    wait_seconds = removal.wait_seconds if failure is None or failure.retryable else 0.0
    while True:
        removal.tools.forget_customer_tokens()
        try:
            there = removal.look()
        except (ConsentRequired, AccessDenied) as blind:
            if failure is not None and not failure.retryable:
                return _failed_by(removal, failure)
            return _unproven(removal, blind)
        if _is_gone(there) or waited >= wait_seconds:
            break
        pause = min(pause * 2, wait_seconds - waited)
        removal.sleep(pause)
        waited += pause
    seen = removal.observe(there)
    if _is_gone(there):
        return _done(removal, seen)
    if failure is not None:
        return _failed_by(removal, failure, looked=failure.retryable)
    # It was answered, so the next removal is another request: a repeat could be answered from memory.
    _say(removal, {"reason": _STILL_THERE, "owner": Owner.MICROSOFT.value, "request_id": ""}, _STILL_THERE)
    return _failed(removal.subject, removal.tools.correlation_id, STILL_THERE, _STILL_THERE, Owner.MICROSOFT)


def _is_gone(there: Presence | None) -> bool:
    return there is None or there.service_principal_id is None


# --- what came of it ------------------------------------------------------------------------------------------------


def _done(removal: Removal, seen: ConsentObservation | None, words: str = "") -> Outcome:
    return Outcome(
        message=words,
        fields={
            **names(removal.subject, removal.tools.correlation_id),
            "class": OK,
            "state": State.ABSENT.value,
            "proof": seen.evidence if seen else "",
            "removed": seen.removed if seen else {},
            "reason": words,
        },
    )


def _unproven(removal: Removal, blind: RemoteError) -> Outcome:
    """The removal was sent, and nobody lets us look: nobody knows."""
    diagnosis = diagnose(blind)
    words = f"The removal was sent, but its result could not be read: {diagnosis.cause} {diagnosis.remedy}"
    _say(removal, {"state": State.UNKNOWN, "reason": words[:300], "owner": diagnosis.owner.value}, words)
    return _failed(removal.subject, removal.tools.correlation_id, NOT_PROVEN, words, diagnosis.owner)


def _no_token(about: Subject, correlation_id: str, cause: str) -> Outcome:
    note_unreadable([Unreadable(consent_id=about.consent.pk, reason=cause, owner=Owner.US.value)])
    return _failed(about, correlation_id, REFUSED, cause, Owner.US)


def _not_reachable(removal: Removal, cause: str, owner: Owner) -> Outcome:
    """Nothing was sent: the relationship does not let us in. State and evidence stay, with their age."""
    note_unreadable([Unreadable(consent_id=removal.consent.pk, reason=cause, owner=owner.value)])
    words = (
        f"Nothing was sent: {cause} The customer's administrator can delete the enterprise application "
        f"{removal.consent.registration.application_id}."
    )
    return _failed(removal.subject, removal.tools.correlation_id, REFUSED, words, owner)


def _say(removal: Removal, columns: dict[str, str], words: str) -> None:
    with transaction.atomic():
        CustomerConsent.objects.filter(pk=removal.consent.pk).update(**columns)
        record(
            "customer_consent.remove",
            actor=removal.actor,
            outcome=AuditOutcome.FAILED,
            subject=subject(removal.consent),
            details={"reason": words},
            correlation_id=removal.tools.correlation_id,
        )


def _failed_by(removal: Removal, error: RemoteError, *, looked: bool = False) -> Outcome:
    """Return the outcome of a failure; after a look that worked, no answer to one call says nothing about us."""
    diagnosis = diagnose(error)
    known = diagnosis.failure_class
    words = f"{diagnosis.cause} {diagnosis.remedy}"
    if not known.systemic and not error.retryable:
        _say(removal, {"reason": f"Not removed: {words}"[:300], "owner": diagnosis.owner.value}, words)
    return Outcome.of(
        diagnosis,
        error,
        systemic=known.systemic and not looked,
        fields=_why(removal.subject, removal.tools.correlation_id, known.value, words, diagnosis.owner),
    )


def _failed(about: Subject, correlation_id: str, failure_class: str, words: str, owner: Owner) -> Outcome:
    return Outcome(
        failure_class=failure_class,
        message=words,
        owner=owner.value,
        fields=_why(about, correlation_id, failure_class, words, owner),
    )


def _why(about: Subject, correlation_id: str, failure_class: str, words: str, owner: Owner) -> dict[str, Any]:
    return {**names(about, correlation_id), "class": failure_class, "reason": words, "owner": owner.value}


def write(done: Sequence[Done], context: Context) -> None:
    """Note with the rows what failed; each step was written before the next."""
    attempts.note(
        attempts.Tried(
            customer_id=consent.customer_id,
            registration_id=consent.registration_id,
            what=Attempt.REMOVE,
            outcome=outcome,
        )
        for consent, outcome in ((each.subject.consent, each.outcome) for each in done)
    )


CONSENT_REMOVE = Kind(
    name="consent_remove",
    label="Removal of customer consents",
    units=units,
    load=load,
    work=work,
    write=write,
    prepare=clients.shared_by_all,
    place=place,
    seconds=600.0,
    per_group=8,
    uses_database=True,
)
