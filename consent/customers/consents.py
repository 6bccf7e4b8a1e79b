"""Consent in customer tenants: what may be sent, what is stored before it, and what a read says is true.

The state of a customer comes only from a read in that tenant. "Accepted" by Partner Center is not "granted".
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from consent.customers.observations import NOWHERE, Reading
from consent.grants import Grants
from consent.microsoft.accounts import AccountClient
from consent.microsoft.application_consents import ApplicationConsentClient
from consent.microsoft.directory import DirectoryClient, Presence
from consent.models import ApplicationRegistration, CustomerConsent
from consent.permissions import outside_allow_list
from consent.tokens.custody import TokenUnavailable
from consent.tokens.health import refresh_partner
from consent.tokens.versions import IdentityMismatch
from portal.audit.trail import Actor, Outcome, record
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import AccessDenied, AlreadyExists, ConsentRequired, RemoteError
from portal.microsoft.identifiers import ApplicationId, CorrelationId, RequestId
from tenants.gdap import GdapClient
from tenants.gdap_sync import write_end, write_verdict
from tenants.models import CustomerTenant
from tenants.partner_center import PartnerCenterClient
from tenants.readiness import Readiness, gdap_end, judge

State = CustomerConsent.State
REQUEST_SPACE = uuid.UUID("b7a7c1de-0d5b-4a8e-9d0e-5a3c3a0f6f10")

MIRROR_AGE = timedelta(hours=24)
"""As long as this, what the sync read of customers and their relationships stands for a question of its own."""
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
    prove_partner: Callable[[], object]
    """Gets what Partner Center is called with, which is kept until it ends; raises what refuses it."""
    forget_customer_tokens: Callable[[], None]
    """Tokens issued before a grant do not gain it."""
    correlation_id: CorrelationId


def wanted_grants(registration: ApplicationRegistration) -> Grants:
    """Return what we want in customer tenants."""
    return Grants({grant.resource_application_id: sorted(grant.scopes) for grant in registration.grants.all()})


def compare(wanted: Grants, presence: Presence) -> tuple[CustomerConsent.State, str]:
    """Return state and reason from wanted and actual grants; extra scopes are a finding."""
    if presence.service_principal_id is None:
        return State.ABSENT, "The application is not in this tenant."
    actual = presence.granted
    missing, extra = wanted - actual, actual - wanted
    lacking = f"Missing: {missing.words()}." if missing else ""
    if extra:
        return State.DIFFERS, f"More than we want: {extra.words()}. {lacking}".rstrip()
    if missing and not actual:
        return State.ABSENT, "The application is in this tenant without any grant."
    return State.PARTIAL if missing else State.GRANTED, lacking


def check_customer(customer: CustomerTenant, registration: ApplicationRegistration, *, removing: bool = False) -> None:
    """Raise PushRefused when nothing at all may be changed in this tenant.

    Args:
        removing: our consent shall go. Then the partner may be leaving, the application retired, and the customer not
            listed any more: what is left behind there is what has to be removed.
    """
    if not customer.partner.is_active:
        raise PushRefused(customer.partner.why_inactive)
    if customer.tenant_id in {customer.partner.tenant_id, registration.home_tenant_id}:
        raise PushRefused("This is the partner's or our own tenant, not a customer.")
    if registration.cloud != customer.partner.cloud:
        raise PushRefused("The application registration is not of the partner's cloud.")
    if removing:
        return
    if customer.partner.offboarding_since is not None:
        raise PushRefused("The partner is being offboarded.")
    if registration.state != ApplicationRegistration.State.ACTIVE:
        raise PushRefused("The application registration is not active.")
    if customer.missing_since is not None:
        raise PushRefused("Partner Center no longer lists this customer; synchronise the partner's customers.")


def check_grants(grants: Grants) -> None:
    """Raise PushRefused when one of the grants is not allowed in this deployment."""
    if extra := outside_allow_list(grants):
        raise PushRefused(f"Not on CONSENT_GRANT_ALLOW_LIST: {extra.words()}")


def look(clients: CustomerClients, registration: ApplicationRegistration) -> Presence | None:
    """Read the tenant; None when it issues no token to our application for want of consent, and for that only."""
    try:
        resources = [ApplicationId(resource) for resource in wanted_grants(registration)]
        return clients.directory.presence(registration.client_id, resources)
    except ConsentRequired as error:
        if not diagnose(error).not_consented:
            raise
        return None


def is_known_ready(customer: CustomerTenant) -> bool:
    """Tell whether a young mirror says that this customer is the partner's, and ready: then neither is asked again."""
    now = timezone.now()
    young = now - MIRROR_AGE
    listed = customer.missing_since is None and customer.listed_at >= young
    judged = customer.read_at is not None and customer.read_at >= young
    ended = customer.gdap_ends_at is not None and customer.gdap_ends_at <= now
    return listed and judged and not ended and customer.readiness == CustomerTenant.Readiness.READY


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


def why_locked_out(customer: CustomerTenant, clients: CustomerClients) -> tuple[str, Owner] | None:
    """Return what is known of a tenant that does not let us in, and who must act; None when nothing says why."""
    if customer.missing_since is not None:
        return "Partner Center no longer lists this customer.", Owner.PARTNER
    try:
        verdict = readiness(customer, clients)
    except (RemoteError, TokenUnavailable, IdentityMismatch):
        return None  # then the answer itself is what we know
    return None if verdict.ready else (verdict.reason, verdict.owner or Owner.PARTNER)


def own_groups(account: AccountClient) -> frozenset[str] | None:
    """Return the groups of the service account; None is said as "could not be verified"."""
    try:
        return account.groups()
    except AccessDenied:
        return None


def write_intent(
    consent: CustomerConsent, grants: Grants, actor: Actor, correlation_id: CorrelationId, *, removing: bool = False
) -> RequestId:
    """Store what is about to be sent, with the request id that every repeat reuses (R-20).

    Args:
        grants: what is asked for; to remove a consent, what was there before.
    """
    verb, wanted_hash = ("remove", "") if removing else ("create", grants.digest)
    columns: dict[str, object] = {
        "requested_hash": wanted_hash,
        "requested_by": actor.name,
        "requested_at": timezone.now(),
        "request_open": True,
    }
    if not removing:  # what is there is unknown from now on, until a read says it
        columns |= {"state": State.UNKNOWN, "reason": _SENT, "owner": Owner.NOBODY.value}
    with transaction.atomic(savepoint=False):
        row = CustomerConsent.objects.filter(pk=consent.pk).order_by()
        request_id, requested_hash, is_open = row.values_list("request_id", "requested_hash", "request_open").get()
        # A request whose result was seen is over: the same one later is another request, not a repeat.
        if requested_hash != wanted_hash or not is_open or not request_id:
            request_id = str(uuid.uuid4())
        row.update(request_id=request_id, **columns)
        record(
            f"customer_consent.{verb}",
            actor=actor,
            outcome=Outcome.INTENT,
            subject=subject(consent),
            details={"request_id": request_id, "before" if removing else "grants": grants.to_json()},
            correlation_id=correlation_id,
        )
    return RequestId(request_id)


def post_grants(
    customer: CustomerTenant,
    registration: ApplicationRegistration,
    clients: CustomerClients,
    wanted: Grants,
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


def reading(
    consent: CustomerConsent,
    presence: Presence | None,
    wanted: Grants,
    *,
    correlation_id: str,
    waiting: str = "",
    exists: bool = False,
) -> Reading:
    """Return a read that was made just now, with the state that follows from it.

    Args:
        presence: as :func:`look` returned it.
        waiting: why grants that are missing may still come; without it missing is missing.
        exists: Partner Center said that a consent exists, so fewer grants than wanted will not become more (R-21).
    """
    state, reason = compare(wanted, presence or NOWHERE)
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
        wanted_hash=wanted.digest,
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
