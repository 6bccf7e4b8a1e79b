"""Which partners, or which consents in customer tenants, a command, a plan or a run is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from django.db.models import BigIntegerField, Count, Exists, ExpressionWrapper, F, OuterRef, Q, QuerySet, Value
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Mod, Now

from consent.models import ApplicationRegistration, CustomerConsent, PartnerConsent
from consent.models.customers import CustomerConsentQuerySet
from consent.models.tokens import PartnerConsentQuerySet
from consent.states import with_state
from portal.text import number_of
from tenants.models import CustomerTenant, PartnerTenant, PartnerTenantQuerySet

DAY_HOURS = 24
WEEK_HOURS = 7 * DAY_HOURS
MISSED_AFTER = timedelta(days=7, hours=4)  # without a try: the hour of the week came and went, with its run's three
NEIGHBOURS = 128
"""Customers that were stored one after the other, so mostly of one partner, have the same hour of the week: the ledger
has a row for each partner of a run (``consent.uses``), and a partner's access token serves all of them.
"""
_CHUNK = 1000
_SHOWN = 5
WORDS: Mapping[str, str] = {
    "age": "Not looked at for {} hours",
    "hour": "Partners whose hour of the day is {}, a twenty-fourth of all",
    "week_hour": "Consents whose hour of the week is {}, and those that were missed",
    "due": "Tokens whose next try has come",
}
"""What names of a selection mean on pages; the others name things."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was chosen: all that fits each attribute. None chooses everything, an empty tuple nothing.

    Runs and plans keep it as JSON under the names of its attributes, so a name never gets another meaning.

    Attributes:
        partner: tenant ids of partners.
        tag: those of partners with any of these tags.
        cloud: those of partners of this cloud.
        registration: consents to this application registration, by its key.
        state: partners in any of these states; among consents in customer tenants, those in any of these states.
        age: hours; consents whose last check or read is older, or never was.
        hour: partners that have this hour of the day as theirs, a twenty-fourth of all.
        due: tokens whose next try has come.
        tokens: these consents of partners, by their keys.
        customer: tenant ids of customers.
        customers: these customers, by their keys.
        consents: these consents in customer tenants, by their keys.
        week_hour: consents in customer tenants that have this hour of the week as theirs, and of those that were missed
            the ones that have this hour of the day.
        offboarding: chooses nothing; tells the run of an offboarding from any other one.
        undo: chooses nothing; the plan that is undone.
    """

    partner: tuple[str, ...] | None = None
    tag: tuple[str, ...] | None = None
    cloud: str | None = None
    registration: int | None = None
    state: tuple[str, ...] | None = None
    age: float | None = None
    hour: int | None = None
    due: bool | None = None
    tokens: tuple[int, ...] | None = None
    customer: tuple[str, ...] | None = None
    customers: tuple[int, ...] | None = None
    consents: tuple[int, ...] | None = None
    week_hour: int | None = None
    offboarding: int | None = None
    undo: int | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Selection:
        """Return the selection that a row keeps. Raises TypeError for a name that it does not know."""
        chosen: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
        }
        return cls(**chosen)

    def to_json(self) -> dict[str, Any]:
        """Return what a row keeps: only what was chosen."""
        chosen = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}

    def words(self) -> list[str]:
        """Return each part in words for people; nothing when everything is chosen."""
        return [_words_of(name, value) for name, value in self.to_json().items()]

    def of_partners(self) -> Selection:
        """Return what this selection of customers or their consents says about partners."""
        return Selection(partner=self.partner, tag=self.tag, cloud=self.cloud)

    def partners(self, *, also_disabled: bool = False) -> PartnerTenantQuerySet:
        """Return the active partners that were chosen.

        Args:
            also_disabled: for what only says how things stand, such as a plan; nothing is done for a disabled partner.
        """
        partners = PartnerTenant.objects.not_offboarded() if also_disabled else PartnerTenant.objects.active()
        if self.partner is not None:
            partners = partners.filter(tenant_id__in=self.partner)
        if self.tag is not None:
            partners = partners.tagged(*self.tag)
        if self.cloud is not None:
            partners = partners.in_cloud(self.cloud)
        if self.state is not None:
            partners = with_state(partners).filter(Q(state__in=self.state))
        if self.age is not None:
            tried = self._of_registration().filter(partner=OuterRef("pk"), last_try_at__gte=self._since())
            partners = partners.filter(~Exists(tried))
        if self.hour is not None:
            partners = partners.annotate(own_hour=Mod("pk", DAY_HOURS)).filter(own_hour=self.hour)
        return partners

    def partner_consents(self) -> PartnerConsentQuerySet:
        """Return the consents of chosen partners; each is chosen or left out by its own registration and age."""
        consents = self._of_registration().filter(partner__in=replace(self, age=None).partners())
        if self.tokens is not None:
            consents = consents.filter(pk__in=self.tokens)
        return consents if self.age is None else consents.exclude(last_try_at__gte=self._since())

    def customer_consents(self) -> CustomerConsentQuerySet:
        """Return the chosen consents in customer tenants of active partners."""
        consents = CustomerConsent.objects.filter(customer__partner__in=self.of_partners().partners())
        columns = {
            "registration": self.registration,
            "customer__tenant_id__in": self.customer,
            "customer__in": self.customers,
            "state__in": self.state,
            "pk__in": self.consents,
        }
        consents = consents.filter(**{name: value for name, value in columns.items() if value is not None})
        if self.age is not None:
            consents = consents.exclude(verified_at__gte=self._since())
        if self.week_hour is not None:
            # What was missed comes in the same hour of the next day: many at once are spread, and none comes twice.
            missed = Q(tried_at__isnull=True) | Q(tried_at__lt=Now() - MISSED_AFTER)
            tried_today = Q(tried_at__gte=Now() - timedelta(days=1))
            together = ExpressionWrapper(F("customer") / Value(NEIGHBOURS), output_field=BigIntegerField())
            same_hours = range(self.week_hour % DAY_HOURS, WEEK_HOURS, DAY_HOURS)
            consents = consents.annotate(own_hour=Mod(together, Value(WEEK_HOURS))).filter(
                Q(own_hour=self.week_hour) & ~tried_today | Q(own_hour__in=same_hours) & missed
            )
        return consents

    def _of_registration(self) -> PartnerConsentQuerySet:
        consents = PartnerConsent.objects.all()
        return consents if self.registration is None else consents.filter(registration=self.registration)

    def _since(self) -> CombinedExpression:
        return Now() - timedelta(hours=self.age or 0.0)


EVERYTHING = Selection()


def _words_of(name: str, value: Any) -> str:
    match name:
        case "age":
            return f"not tried for {value:g} hours"
        case "due":
            return "what is due"
        case "customers" | "consents" | "tokens":
            return number_of(len(value), f"chosen {name[:-1]}")
        case "undo":
            return f"what plan {value} changed"
    if not isinstance(value, list):
        return f"{name.replace('_', ' ')} {value}"
    more = f" and {len(value) - _SHOWN:,} more" if len(value) > _SHOWN else ""
    return f"{name} {', '.join(map(str, value[:_SHOWN]))}{more}"


def open_rows(chosen: Selection) -> int:
    """Make the rows of chosen customers that were never looked at, in the state "unknown"; return how many.

    One row for each application that the partner consented to, or for the chosen one.
    """
    made = 0
    consents = replace(chosen.of_partners(), registration=chosen.registration).partner_consents().usable()
    consents = consents.filter(registration__state=ApplicationRegistration.State.ACTIVE)
    for registration in consents.order_by("registration").values_list("registration", flat=True).distinct():
        known = CustomerConsent.objects.filter(customer=OuterRef("pk"), registration=registration)
        customers = CustomerTenant.objects.listed().filter(
            ~Exists(known), partner__in=consents.filter(registration=registration).values("partner")
        )
        if chosen.customer is not None:
            customers = customers.filter(tenant_id__in=chosen.customer)
        while chunk := list(customers.order_by("pk").values_list("pk", flat=True)[:_CHUNK]):
            CustomerConsent.objects.bulk_create(
                [CustomerConsent(customer_id=key, registration_id=registration) for key in chunk],
                ignore_conflicts=True,
            )
            made += len(chunk)
    return made


def counted(consents: QuerySet[CustomerConsent]) -> tuple[int, dict[int, int]]:
    """Return in how many customer tenants these consents are, and in how many of them each registration is, by its key.

    A customer of two partners is one tenant.
    """
    rows = consents.order_by().values_list("registration").annotate(tenants=Count("customer__tenant_id", distinct=True))
    return consents.order_by().values("customer__tenant_id").distinct().count(), dict(rows)
