"""What failed of what was tried with customer tenants stands on their rows, until it works.

An attempt whose cause is on our side or the service's says nothing about a customer: the run that stopped says it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from consent.models import Attempt, CustomerConsent
from portal.runs.kinds import Outcome

NONE_FAILED: dict[str, Any] = {
    "failed_at": None,
    "failed_what": Attempt.NOTHING,
    "failed_reason": "",
    "failed_owner": "",
}
"""Columns of a row of which nothing failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One attempt to change what a customer tenant holds of one application, and what came of it."""

    customer_id: int
    registration_id: int
    what: Attempt
    outcome: Outcome


def note(attempts: Iterable[Tried]) -> None:
    """Write what failed with time, cause and remedy and who must act; and forget it where an attempt worked.

    A customer without a row gets one, in the state "unknown". Few statements for any number of customers.
    """
    now = timezone.now()
    worked: dict[int, list[int]] = {}
    failed: dict[tuple[int, Attempt, str, str], list[int]] = {}
    for one in attempts:
        outcome = one.outcome
        if outcome.ok:
            worked.setdefault(one.registration_id, []).append(one.customer_id)
        elif not outcome.systemic and outcome.failure_class != CustomerConsent.State.WAITING:
            alike = (one.registration_id, one.what, outcome.message[:300], outcome.owner[:10])
            failed.setdefault(alike, []).append(one.customer_id)
    CustomerConsent.objects.bulk_create(
        [
            CustomerConsent(customer_id=customer, registration_id=registration)
            for (registration, *_), customers in failed.items()
            for customer in customers
        ],
        ignore_conflicts=True,
    )
    for (registration, what, reason, owner), customers in failed.items():
        CustomerConsent.objects.filter(registration=registration, customer__in=customers).update(
            failed_at=now, failed_what=what, failed_reason=reason, failed_owner=owner
        )
    for registration, customers in worked.items():
        of_them = CustomerConsent.objects.filter(registration=registration, customer__in=customers)
        of_them.filter(failed_at__isnull=False).update(**NONE_FAILED)
