"""Consent in customer tenants: push it, read it back, say what is true.

The state of a customer comes only from a read in that tenant. "Accepted" by Partner Center is not "granted".
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from consent.customers.observations import Reading, write
from consent.microsoft.accounts import AccountClient
from consent.microsoft.application_consents import ApplicationConsentClient
from consent.microsoft.directory import DirectoryClient, Presence
from consent.models import ApplicationRegistration, CustomerConsent
from consent.permissions import outside_allow_list
from consent.tokens.health import refresh_partner
from portal.audit.trail import Actor, Outcome, record
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import AccessDenied, AlreadyExists, ConsentRequired, RemoteError, Throttled
from portal.microsoft.identifiers import ApplicationId, CorrelationId, RequestId
from tenants.gdap import GdapClient
from tenants.gdap_sync import write_end, write_verdict
from tenants.models import CustomerTenant
from tenants.partner_center import PartnerCenterClient
from tenants.readiness import Readiness, gdap_end, judge

State = CustomerConsent.State
REQUEST_SPACE = uuid.UUID("b7a7c1de-0d5b-4a8e-9d0e-5a3c3a0f6f10")

ACCEPTED = "Microsoft accepted the request but does not show the grants yet."
UNCLEAR = "The request got no clear answer and shows no grants yet; the next try looks again and repeats it."
_SENT = "A request was sent, and its result was not read yet."


class PushRefused(ValueError):
    """Outside the lines of S-52: nothing was sent. The text says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerClients:
    """The clients for one customer, wired with tokens by ``consent.clients``."""

    partner_center: PartnerCenterClient
    gdap: GdapClient
    consents: ApplicationConsentClient
    directory: DirectoryClient
    account: AccountClient
    forget_customer_tokens: Callable[[], None]
    """Tokens issued before a grant do not gain it."""
    correlation_id: CorrelationId


def wanted_grants(registration: ApplicationRegistration) -> dict[str, list[str]]:
    """Return what we want in customer tenants: scopes by resource application id."""
    return {grant.resource_application_id: sorted(grant.scopes) for grant in registration.grants.all()}


def grants_hash(grants: Mapping[str, list[str]]) -> str:
    """Return one SHA-256 over a set of grants, whatever their order."""
    canonical = {resource: sorted(scope.lower() for scope in scopes) for resource, scopes in grants.items()}
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()


def compare(wanted: Mapping[str, list[str]], presence: Presence) -> tuple[CustomerConsent.State, str]:
    """Return state and reason from wanted and actual grants; extra scopes are a finding."""
    if presence.service_principal_id is None:
        return State.ABSENT, "The application is not in this tenant."
    actual = {
        resource: {scope.lower() for scope in scopes} for resource, scopes in presence.scopes_by_resource().items()
    }
    missing = sorted(
        scope
        for resource, scopes in wanted.items()
        for scope in scopes
        if scope.lower() not in actual.get(resource, set())
    )
    wanted_lower = {resource: {scope.lower() for scope in scopes} for resource, scopes in wanted.items()}
    extra = sorted(scope for resource, scopes in actual.items() for scope in scopes - wanted_lower.get(resource, set()))
    if extra:
        return State.DIFFERS, f"More than we want: {', '.join(extra)}." + (
            f" Missing: {', '.join(missing)}." if missing else ""
        )
    if missing and not any(actual.values()):
        return State.ABSENT, "The application is in this tenant without any grant."
    if missing:
        return State.PARTIAL, f"Missing: {', '.join(missing)}."
    return State.GRANTED, ""


def check_lines(customer: CustomerTenant, registration: ApplicationRegistration) -> dict[str, list[str]]:
    """Return the wanted grants if this push stays inside the lines, without any call (S-52).

    Raises:
        PushRefused: it does not.
    """
    check_customer(customer, registration)
    wanted = wanted_grants(registration)
    if not wanted:
        raise PushRefused("The registration has no wanted grants yet; add them in the admin.")
    check_grants(wanted)
    return wanted


def check_customer(customer: CustomerTenant, registration: ApplicationRegistration) -> None:
    """Raise PushRefused when nothing at all may be changed in this tenant."""
    if not customer.partner.is_active:
        raise PushRefused(customer.partner.why_inactive)
    if customer.partner.offboarding_since is not None:
        raise PushRefused("The partner is being offboarded.")
    if registration.cloud != customer.partner.cloud or registration.state != ApplicationRegistration.State.ACTIVE:
        raise PushRefused("The application registration is not active in the partner's cloud.")
    if customer.tenant_id in {customer.partner.tenant_id, registration.home_tenant_id}:
        raise PushRefused("This is the partner's or our own tenant, not a customer.")
    if customer.missing_since is not None:
        raise PushRefused("Partner Center no longer lists this customer; run sync_customers.")


def check_grants(grants: Mapping[str, list[str]]) -> None:
    """Raise PushRefused when one of the grants is not allowed in this deployment."""
    for resource, scopes in grants.items():
        if extra := outside_allow_list(resource, scopes):
            raise PushRefused(f"Not on CONSENT_GRANT_ALLOW_LIST: {', '.join(extra)}")


def push(
    customer: CustomerTenant,
    registration: ApplicationRegistration,
    clients: CustomerClients,
    *,
    actor: Actor,
    wait_seconds: float = 60.0,
    sleep: Callable[[float], None] = time.sleep,
) -> CustomerConsent:
    """Bring our consent into one customer tenant and read it back.

    Looks first: what is there already is not posted again, and a difference is shown, never repaired by force (R-21).

    Args:
        wait_seconds: how long to wait for Microsoft's directories to show the grants (R-23).

    Raises:
        PushRefused: nothing was sent.
        RemoteError: the partner's own token or Partner Center failed; the customer's state is unchanged.
    """
    try:
        wanted = check_lines(customer, registration)
    except PushRefused as refused:
        record(
            "customer_consent.create",
            actor=actor,
            outcome=Outcome.REFUSED,
            subject={"customer": customer.pk, "registration": registration.pk},
            details={"reason": str(refused)},
            correlation_id=clients.correlation_id,
        )
        raise
    clients.partner_center.customer(customer.tenant)  # S-52: it is in what this partner's own token may see
    consent, _ = CustomerConsent.objects.get_or_create(customer=customer, registration=registration)
    locked_out: ConsentRequired | None = None
    clients.forget_customer_tokens()  # a token from before a removal would be answered with "unknown application"
    try:
        before = look(clients, registration)
    except ConsentRequired as error:
        before, locked_out = None, error  # most often a missing relationship, which readiness says better
    there_already = before is not None and bool(before.grants)
    if there_already or (locked_out is None and consent.actual_grants):  # what somebody took away is noted first
        consent = observe(consent, before, wanted, actor=actor, correlation_id=clients.correlation_id)
    if there_already:
        return consent
    verdict = readiness(customer, clients)
    if not verdict.ready:
        return block(consent, verdict, actor, clients.correlation_id)
    if locked_out is not None:
        return fail(consent, locked_out, actor, clients.correlation_id)
    request_id = write_intent(consent, wanted, actor, clients.correlation_id)
    failure = post_grants(customer, registration, clients, wanted, request_id)
    if isinstance(failure, Throttled):
        raise failure
    if failure is not None and not isinstance(failure, AlreadyExists) and not failure.retryable:
        return fail(consent, failure, actor, clients.correlation_id, note=verdict.unverified)
    clients.forget_customer_tokens()
    exists = isinstance(failure, AlreadyExists)
    waiting = ACCEPTED if failure is None or exists else UNCLEAR
    return _read_back(consent, registration, clients, wanted, actor, wait_seconds, sleep, waiting, exists)


def look(clients: CustomerClients, registration: ApplicationRegistration) -> Presence | None:
    """Read the tenant; None when it issues no token to our application for want of consent, and for that only."""
    try:
        return clients.directory.presence(registration.client_id)
    except ConsentRequired as error:
        if not diagnose(error).not_consented:
            raise
        return None


def readiness(customer: CustomerTenant, clients: CustomerClients) -> Readiness:
    """Read the delegated relationships with this customer, and judge them."""
    relationships = [
        (relationship, clients.gdap.access_assignments(relationship))
        for relationship in clients.gdap.relationships(customer=customer.tenant)
    ]
    now = timezone.now()
    end = gdap_end((relationship for relationship, _ in relationships), now=now)
    if end != customer.gdap_ends_at:
        with transaction.atomic():
            write_end(customer, end)
            refresh_partner(customer.partner)
    verdict = judge(
        relationships, now=now, own_groups=own_groups(clients.account), accepted=settings.GDAP_ACCEPTED_ROLES
    )
    write_verdict([customer.pk], verdict, now)
    return verdict


def own_groups(account: AccountClient) -> frozenset[str] | None:
    """Return the groups of the service account; None is said as "could not be verified"."""
    try:
        return account.groups()
    except AccessDenied:
        return None


def write_intent(
    consent: CustomerConsent, wanted: Mapping[str, list[str]], actor: Actor, correlation_id: CorrelationId
) -> RequestId:
    """Store what is about to be sent, with the request id that every repeat reuses (R-20)."""
    return _write_intent(consent, "create", grants_hash(wanted), {"grants": dict(wanted)}, actor, correlation_id)


def write_removal_intent(
    consent: CustomerConsent, before: Mapping[str, list[str]], actor: Actor, correlation_id: CorrelationId
) -> RequestId:
    """Store that the consent is about to be removed; as :func:`write_intent`, with what was there before."""
    return _write_intent(consent, "remove", "", {"before": dict(before)}, actor, correlation_id)


def _write_intent(
    consent: CustomerConsent,
    verb: str,
    wanted_hash: str,
    details: Mapping[str, Any],
    actor: Actor,
    correlation_id: CorrelationId,
) -> RequestId:
    with transaction.atomic():
        current = CustomerConsent.objects.get(pk=consent.pk)
        # A request whose result was seen is over: the same one later is another request, not a repeat.
        if current.requested_hash != wanted_hash or not current.request_open or not current.request_id:
            current.request_id = str(uuid.uuid4())
        current.requested_hash, current.requested_by = wanted_hash, actor.name
        current.requested_at, current.request_open = timezone.now(), True
        columns = ["request_id", "requested_hash", "requested_at", "requested_by", "request_open"]
        if verb == "create":  # nobody knows what is there from now on, until a read says it
            current.state, current.reason, current.owner = State.UNKNOWN, _SENT, Owner.NOBODY.value
            columns += ["state", "reason", "owner"]
        current.save(update_fields=columns)
        record(
            f"customer_consent.{verb}",
            actor=actor,
            outcome=Outcome.INTENT,
            subject=subject(consent),
            details={"request_id": current.request_id, **details},
            correlation_id=correlation_id,
        )
    return RequestId(current.request_id)


def post_grants(
    customer: CustomerTenant,
    registration: ApplicationRegistration,
    clients: CustomerClients,
    wanted: Mapping[str, list[str]],
    request_id: RequestId,
) -> RemoteError | None:
    """Post one resource after the other; return the failure that says most, having tried them all."""
    failure: RemoteError | None = None
    for resource, scopes in wanted.items():
        try:
            clients.consents.create(
                customer=customer.tenant,
                application_id=registration.client_id,
                display_name=registration.name,
                resource=ApplicationId(resource),
                scopes=scopes,
                request_id=RequestId(str(uuid.uuid5(REQUEST_SPACE, f"{request_id}/{resource}"))),
            )
        except RemoteError as error:
            if failure is None or failure.retryable or isinstance(failure, AlreadyExists):
                failure = error
    return failure


def _read_back(
    consent: CustomerConsent,
    registration: ApplicationRegistration,
    clients: CustomerClients,
    wanted: Mapping[str, list[str]],
    actor: Actor,
    wait_seconds: float,
    sleep: Callable[[float], None],
    waiting: str,
    exists: bool,
) -> CustomerConsent:
    """Look until the grants show or the time is over; see :func:`observe` for what is said then."""
    waited, pause = 0.0, 1.0
    while True:
        presence = look(clients, registration)
        found = State.ABSENT if presence is None else compare(wanted, presence)[0]
        if found in {State.GRANTED, State.DIFFERS} or (exists and found == State.PARTIAL) or waited >= wait_seconds:
            break
        pause = min(pause * 2, wait_seconds - waited)
        sleep(pause)
        waited += pause
        clients.forget_customer_tokens()
    return observe(
        consent,
        presence,
        wanted,
        actor=actor,
        correlation_id=clients.correlation_id,
        waiting=waiting,
        exists=exists,
    )


def observe(
    consent: CustomerConsent,
    presence: Presence | None,
    wanted: Mapping[str, list[str]],
    *,
    actor: Actor,
    correlation_id: CorrelationId,
    waiting: str = "",
    exists: bool = False,
) -> CustomerConsent:
    """Write what a read showed: one observation, and the state that follows from it.

    Args:
        presence: as :func:`look` returned it.
        waiting: why grants that are missing may still come; without it missing is missing.
        exists: Partner Center said that a consent exists, so fewer grants than wanted will not become more (R-21).
    """
    found = reading(consent, presence, wanted, correlation_id=correlation_id, waiting=waiting, exists=exists)
    write([found], actor=actor)
    consent.refresh_from_db()
    return consent


def reading(
    consent: CustomerConsent,
    presence: Presence | None,
    wanted: Mapping[str, list[str]],
    *,
    correlation_id: str,
    waiting: str = "",
    exists: bool = False,
) -> Reading:
    """Return a read that was made just now, with the state that follows from it; arguments as of :func:`observe`."""
    state, reason = compare(wanted, presence or Presence(service_principal_id=None))
    if exists and state == State.PARTIAL:
        state, reason = State.DIFFERS, f"A consent exists already and nothing was added to it. {reason}"
    if waiting and state in {State.ABSENT, State.PARTIAL}:
        state, reason = State.WAITING, waiting
    owner = {State.GRANTED: "", State.WAITING: Owner.NOBODY.value}.get(state, Owner.US.value)
    return Reading(
        consent_id=consent.pk,
        presence=presence,
        state=state,
        reason=reason,
        owner=owner,
        wanted_hash=grants_hash(wanted),
        read_at=timezone.now(),
        correlation_id=correlation_id,
    )


def block(consent: CustomerConsent, verdict: Readiness, actor: Actor, correlation_id: CorrelationId) -> CustomerConsent:
    """Write why this customer cannot be consented for now, and who must act."""
    owner = verdict.owner or Owner.US
    return _settle(consent, State.BLOCKED, verdict.reason, owner, Outcome.REFUSED, actor, correlation_id)


def fail(
    consent: CustomerConsent, error: RemoteError, actor: Actor, correlation_id: CorrelationId, *, note: str = ""
) -> CustomerConsent:
    """Write what Microsoft refused, and who must act."""
    diagnosis = diagnose(error)
    reason = " ".join(part for part in (diagnosis.cause, diagnosis.remedy, note) if part)
    return _settle(consent, State.FAILED, reason, diagnosis.owner, Outcome.FAILED, actor, correlation_id)


def _settle(
    consent: CustomerConsent,
    state: CustomerConsent.State,
    reason: str,
    owner: Owner,
    outcome: Outcome,
    actor: Actor,
    correlation_id: CorrelationId,
) -> CustomerConsent:
    with transaction.atomic():
        CustomerConsent.objects.filter(pk=consent.pk).update(state=state, reason=reason[:300], owner=owner)
        record(
            "customer_consent.create",
            actor=actor,
            outcome=outcome,
            subject=subject(consent),
            details={"state": state.value, "reason": reason},
            correlation_id=correlation_id,
        )
    consent.refresh_from_db()
    return consent


def subject(consent: CustomerConsent) -> dict[str, str | int]:
    """Return what the audit trail calls this consent."""
    return {"customer_consent": consent.pk, "customer": consent.customer_id, "registration": consent.registration_id}
