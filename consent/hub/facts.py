"""All that a partner's page needs to know of the partner: each part is read once, and only where it is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from django.db.models import Count, QuerySet

from consent.models import (
    ApplicationRegistration,
    ConsentLink,
    ConsentPlanItem,
    CustomerConsent,
    Offboarding,
    PartnerConsent,
    WaitingToken,
)
from consent.states import State, with_standing
from portal.microsoft.diagnosis import Owner
from portal.runs.models import Run
from tenants.models import CustomerTenant, PartnerTenant

READY = (CustomerTenant.Readiness.READY, CustomerTenant.Readiness.UNVERIFIED)
_Consent = CustomerConsent.State
_SERVED = (_Consent.GRANTED, _Consent.WAITING)
_LINKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerCounts:
    """A partner's listed customers in numbers.

    Attributes:
        by_readiness: by ``CustomerTenant.Readiness``.
        by_state: by registration, then by ``CustomerConsent.State``; customers without a row are in none.
        not_ready_owners: of those that are not ready, by who must act.
        ready_unserved: by registration: customers that are ready, and hold no consent that is granted or on its way.
        findings: what somebody should look at, by who must act (``CustomerConsentQuerySet.findings``).
    """

    by_readiness: Mapping[str, int]
    by_state: Mapping[int, Mapping[str, int]]
    not_ready_owners: Mapping[str, int]
    ready_unserved: Mapping[int, int]
    findings: Mapping[str, int]

    @property
    def listed(self) -> int:
        return sum(self.by_readiness.values())

    def never_looked_at(self, registration: int) -> int:
        """Return how many customers have no row of this registration."""
        return self.listed - sum(self.by_state.get(registration, {}).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedPlan:
    """A plan whose run waits for a person, and how many of the partner's customers it left."""

    plan: int
    run: int
    customers: int
    since: datetime | None
    reason: str


class PartnerFacts:
    """A partner with everything that its next step follows from: each part is read when it is first asked for.

    At most eleven queries, whatever the partner has.

    Args:
        partner: read by a query of ``with_state``.
    """

    def __init__(self, partner: Any) -> None:
        self.partner: PartnerTenant = partner
        self.state = State(partner.state)

    @cached_property
    def consents(self) -> Sequence[Any]:
        """Of every registration, each with partner, registration, its grants and ``standing``; one query."""
        rows = with_standing(PartnerConsent.objects.filter(partner=self.partner))
        found = rows.select_related("partner", "registration__credential", "registration__own_set")
        return tuple(found.order_by("registration__name", "pk"))

    @cached_property
    def links(self) -> Sequence[Any]:
        """The latest ones with ``progress``, newest first; one query."""
        found = ConsentLink.objects.filter(partner=self.partner).with_progress()
        return tuple(found.select_related("registration", "created_by").order_by("-created_at", "-pk")[:_LINKS])

    @cached_property
    def waiting(self) -> Sequence[WaitingToken]:
        """Accounts that wait for approval, the oldest first; one query."""
        found = WaitingToken.objects.waiting().filter(consent__partner=self.partner)
        return tuple(found.select_related("consent__partner", "consent__registration").order_by("created_at", "pk"))

    @cached_property
    def offboarding(self) -> Offboarding | None:
        """The latest one; one query."""
        return Offboarding.objects.filter(partner=self.partner).order_by("-pk").first()

    @cached_property
    def invitable(self) -> Sequence[ApplicationRegistration]:
        """Active registrations with which a link can be made; one query."""
        return tuple(invitable(self.partner))

    @cached_property
    def stopped(self) -> Sequence[StoppedPlan]:
        """Plans that left customers of this partner; one query."""
        return tuple(_stopped(self.partner))

    @cached_property
    def addresses(self) -> Sequence[str]:
        """Of the contacts who get invitations; one query."""
        found = self.partner.contacts.filter(gets_invitations=True).order_by("pk")
        return tuple(found.values_list("email", flat=True))

    @cached_property
    def customers(self) -> CustomerCounts:
        """The listed customers in numbers; four queries."""
        return count_customers(self.partner)

    @property
    def usable(self) -> list[PartnerConsent]:
        """The consents whose tokens may be used now, as ``PartnerConsentQuerySet.usable`` says it in SQL."""
        if not self.partner.is_active:
            return []
        return [one for one in self.living if one.state not in PartnerConsent.LEFT_STATES]

    @property
    def living(self) -> list[PartnerConsent]:
        """The consents with a token, of registrations that are not retired."""
        retired = ApplicationRegistration.State.RETIRED
        return [one for one in self.consents if one.generation and one.registration.state != retired]


def invitable(partner: PartnerTenant) -> QuerySet[ApplicationRegistration]:
    """Return the registrations that a link to this partner can be made with; ``invitations.links.check`` holds it."""
    active = ApplicationRegistration.objects.filter(
        state=ApplicationRegistration.State.ACTIVE, cloud=partner.cloud
    ).order_by("name", "pk")
    Kind = ApplicationRegistration.Kind
    return active.exclude(kind=Kind.CSP) | active.filter(kind=Kind.CSP, home_tenant_id=partner.tenant_id)


def _stopped(partner: PartnerTenant) -> list[StoppedPlan]:
    left = (
        ConsentPlanItem.objects.filter(
            customer__partner=partner, plan__run__state__in=[Run.State.PAUSED, Run.State.STOPPED]
        )
        .to_do(reset=False)
        .order_by()
        .values("plan", "plan__run", "plan__run__finished_at", "plan__run__started_at", "plan__run__reason")
        .annotate(number=Count("pk"))
        .order_by("-plan")
    )
    return [
        StoppedPlan(
            plan=row["plan"],
            run=row["plan__run"],
            customers=row["number"],
            since=row["plan__run__finished_at"] or row["plan__run__started_at"],
            reason=row["plan__run__reason"],
        )
        for row in left
    ]


def count_customers(partner: PartnerTenant) -> CustomerCounts:
    """Count a partner's listed customers; four queries, whatever their number."""
    listed = CustomerTenant.objects.for_partner(partner).listed()
    by_readiness: Counter[str] = Counter()
    not_ready: Counter[str] = Counter()
    for readiness, owner, number in listed.order_by().values_list("readiness", "readiness_owner").annotate(Count("pk")):
        by_readiness[readiness] += number
        if readiness == CustomerTenant.Readiness.NOT_READY:
            not_ready[owner or Owner.PARTNER.value] += number
    rows = CustomerConsent.objects.filter(customer__in=listed)
    by_state: dict[int, Counter[str]] = {}
    served: Counter[int] = Counter()
    counted = rows.order_by().values_list("registration", "state", "customer__readiness").annotate(Count("pk"))
    for registration, state, readiness, number in counted:
        by_state.setdefault(registration, Counter())[state] += number
        if state in _SERVED and readiness in READY:
            served[registration] += number
    ready = sum(by_readiness[one] for one in READY)
    worded: Any = rows.findings().with_words()
    findings = worded.order_by().values_list("who").annotate(Count("pk"))
    wanting = PartnerConsent.objects.for_partner(partner).filter(registration__grants__isnull=False)
    return CustomerCounts(
        by_readiness=by_readiness,
        by_state=by_state,
        not_ready_owners=not_ready,
        ready_unserved={key: ready - served[key] for key in wanting.values_list("registration", flat=True).distinct()},
        findings={owner or Owner.US.value: number for owner, number in findings},
    )
