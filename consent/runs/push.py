"""Pushing our consent into chosen customers as a kind of bulk work.

A push writes what it is about to do before it does it (R-20), so its threads use the database; see ``customers.push``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consent import clients
from consent.customers import attempts
from consent.customers.consents import PushRefused, push
from consent.models import ApplicationRegistration, Attempt, CustomerConsent, PartnerConsent
from consent.naming import line_names
from consent.tokens.custody import TokenUnavailable
from consent.tokens.serving import NEVER
from consent.tokens.versions import IdentityMismatch
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import CorrelationId
from portal.runs.kinds import OK, Context, Done, Kind, Outcome, Unit
from tenants.models import CustomerTenant

State = CustomerConsent.State


@dataclass(frozen=True, slots=True)
class Push:
    """One customer, the application that is pushed, and the partner's consent to it; None without one."""

    customer: CustomerTenant
    registration: ApplicationRegistration
    consent: PartnerConsent | None


def units(scope: Mapping[str, Any], after: int, limit: int) -> list[Unit]:
    """List the chosen customers; ``scope`` names their rows and the registration."""
    rows = (
        CustomerTenant.objects.filter(pk__in=scope["customers"], pk__gt=after)
        .order_by("pk")
        .values_list("pk", "partner_id", "company_name", "tenant_id")[:limit]
    )
    return [Unit(key=key, group=partner, label=name or tenant) for key, partner, name, tenant in rows]


def load(keys: Sequence[int], context: Context) -> dict[int, Push]:
    """Read customers and consents again, immediately before use."""
    # A run that an older release began names no registration: no match.
    chosen = ApplicationRegistration.objects.filter(pk=context.scope.get("registration", 0))
    registration = chosen.prefetch_related("grants").first()
    if registration is None:
        return {}
    customers = list(CustomerTenant.objects.filter(pk__in=keys).select_related("partner"))
    consents = {
        consent.partner_id: consent
        for consent in PartnerConsent.objects.filter(
            partner__in={customer.partner_id for customer in customers}, registration=registration
        ).select_related("partner", "registration__credential")
    }
    return {customer.pk: Push(customer, registration, consents.get(customer.partner_id)) for customer in customers}


def work(key: int, subject: Push, context: Context) -> Outcome:
    """Push, wait for Microsoft's directories, and read back what is true."""
    if subject.consent is None:
        return _failed(subject, "refused", f"Nothing was sent: {NEVER.text}", Owner.PARTNER)
    correlation_id = CorrelationId(context.correlation_id(key))
    tools = clients.customer_clients(subject.consent, subject.customer, correlation_id)

    try:
        consent = push(
            subject.customer,
            subject.registration,
            tools,
            actor=context.actor,
            wait_seconds=float(context.options.get("wait", 60.0)),
            sleep=context.sleep,
        )
    except PushRefused as refused:
        return _failed(subject, "refused", f"Nothing was sent: {refused}", Owner.US)
    except (TokenUnavailable, IdentityMismatch) as error:
        return _failed(subject, "skipped", str(error), Owner.US)
    except RemoteError as error:
        diagnosis = diagnose(error)
        return Outcome.of(
            diagnosis,
            error,
            fields={
                **_names(subject),
                "state": "",
                "reason": diagnosis.cause,
                "owner": diagnosis.owner.value,
                "correlation_id": correlation_id,
            },
        )
    return Outcome(
        failure_class=OK if consent.state == State.GRANTED else consent.state,
        message=consent.reason,
        owner=consent.owner,
        fields={
            **_names(subject),
            "state": consent.state,
            "reason": consent.reason,
            "owner": consent.owner,
            "service_principal_id": consent.service_principal_id,
            "grants": consent.actual_grants,
            "correlation_id": correlation_id,
        },
        result=consent,
    )


def _failed(subject: Push, failure_class: str, words: str, owner: Owner) -> Outcome:
    return Outcome(
        failure_class=failure_class,
        message=words,
        owner=owner.value,
        fields={**_names(subject), "state": "", "reason": words, "owner": owner.value},
    )


def _names(subject: Push) -> dict[str, str]:
    return line_names(subject.customer.partner, subject.registration, subject.customer)


def write(done: Sequence[Done], context: Context) -> None:
    """Note with the customers what failed; ``push`` wrote everything else, step by step."""
    attempts.note(
        attempts.Tried(
            customer_id=subject.customer.pk,
            registration_id=subject.registration.pk,
            what=Attempt.PUSH,
            outcome=outcome,
        )
        for subject, outcome in ((each.subject, each.outcome) for each in done)
    )


CUSTOMER_PUSH = Kind(
    name="customer_push",
    label="Push of consent",
    units=units,
    load=load,
    work=work,
    write=write,
    prepare=clients.shared_by_all,
    place=lambda subject: (subject.registration.application_id, subject.customer.partner.cloud),
    seconds=600.0,
    per_group=8,
    uses_database=True,
)
