"""The page of a customer tenant, and what a partner's page says of its customers: consent beside readiness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from consent.admin.cells import why_cell
from consent.admin.customer_hub import CustomerHub
from consent.admin.customers import EvidenceFilter, MomentFilter
from consent.admin.panels import CUSTOMER_TONES
from consent.admin.partner_cards import NEVER_LOOKED_AT
from consent.models import CustomerConsent, PartnerConsent
from consent.models.customers import NOT_WELL
from consent.naming import registration_names
from consent.runs import on_request
from consent.unread import maybe_unread
from portal.microsoft.diagnosis import OWNER_CHOICES
from portal.site.admin import PortalModelAdmin
from portal.site.base import actor_of
from portal.site.declared import needs
from portal.site.display import EMPTY, Tone, badge, described, distance, links, moment, who
from portal.site.export import FileKind
from portal.site.list_filters import FEW_ROWS, with_keys
from portal.text import number_in, number_of
from tenants.admin import CustomerTenantAdmin
from tenants.models import CustomerTenant, PartnerTenant

State = CustomerConsent.State
_OF_ONE_PARTNER = "partner__id__exact"
_CONCURRENCY = 16


def chosen_registration(request: HttpRequest) -> int | None:
    """Return the key of the registration that the list is filtered by; None for all of them."""
    return number_in(request.GET.get(RegistrationFilter.parameter_name))


@cache
def _with_words() -> QuerySet[Any]:
    """Made once: a list asks for these columns up to six times, and Django takes milliseconds to work them out."""
    return CustomerConsent.objects.with_words()


def consents_of(registration: int | None) -> QuerySet[Any]:
    """Return consents, each with why and who must act, as the newest attempt or read says."""
    rows = _with_words().all()
    return rows if registration is None else rows.filter(registration=registration)


def with_consent(customers: QuerySet[CustomerTenant], registration: int | None) -> QuerySet[CustomerTenant]:
    """Add the customer's consent for the export: the one to this registration, or the only one.

    Who must act, and why, is as the consent says, else as readiness says. ``consent_count`` tells whether it is the
    only one.
    """
    mine = consents_of(registration).filter(customer=OuterRef("pk"))
    number = mine.order_by().values("customer").annotate(number=Count("pk")).values("number")
    return customers.annotate(
        consent_count=Coalesce(Subquery(number), 0),
        consent_registration=Subquery(mine.values("registration__name")[:1]),
        consent_application_id=Subquery(mine.values("registration__application_id")[:1]),
        consent_state=Subquery(mine.values("state")[:1]),
        consent_attempt=Subquery(mine.values("attempt")[:1]),
        consent_attempt_at=Subquery(mine.values("attempt_at")[:1]),
        consent_read_at=Subquery(mine.values("verified_at")[:1]),
        why=Coalesce(Subquery(mine.values("why")[:1]), "readiness_reason"),
        who_acts=Coalesce(Subquery(mine.values("who")[:1]), "readiness_owner"),
    )


class RegistrationFilter(admin.SimpleListFilter):
    """Whose consents count; shown are the customers of partners that consented to it."""

    title = "application registration"
    parameter_name = "registration"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(key), name) for key, name in registration_names().items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[CustomerTenant]) -> QuerySet[CustomerTenant]:
        if (registration := chosen_registration(request)) is None:
            return queryset
        partners = PartnerConsent.objects.order_by().filter(registration=registration).values("partner")
        rows = CustomerConsent.objects.order_by().filter(registration=registration)
        of_partners = CustomerTenant.objects.filter(partner__in=partners)
        keys = _all_of([_keys(rows, "customer"), _keys(of_partners, "pk")])  # many are seen by the index of the first
        return _narrowed(
            request, queryset, keys, Q(partner__in=partners) | Q(Exists(rows.filter(customer=OuterRef("pk"))))
        )


def _any(request: HttpRequest, **columns: Any) -> Exists:
    """Ask for customers with such a consent, to the registration that the list is filtered by if it is."""
    return Exists(consents_of(chosen_registration(request)).filter(customer=OuterRef("pk"), **columns))


def _lists_one_partner(request: HttpRequest) -> bool:
    """Tell whether only the customers of one partner are listed."""
    return _OF_ONE_PARTNER in request.GET


def _narrowed(
    request: HttpRequest, customers: QuerySet[CustomerTenant], keys: QuerySet[Any], condition: Any
) -> QuerySet[Any]:
    """Return the customers of which something holds: few are read by their keys, many are met soon row by row.

    One statement beside that of the list; none where only the customers of one partner are listed.

    Args:
        keys: of these customers, quickly found.
        condition: the same, asked of a customer.
    """
    if _lists_one_partner(request):
        return customers.filter(condition)
    found = list(keys[: FEW_ROWS + 1])
    return customers.filter(condition if len(found) > FEW_ROWS else with_keys(found))


def _keys(rows: QuerySet[Any], column: str) -> QuerySet[Any]:
    """Return a column of keys of customers, in no order."""
    return rows.order_by().values_list(column, flat=True)


def _all_of(parts: Sequence[QuerySet[Any]]) -> QuerySet[Any]:
    """Return the keys of all parts; what two have stands there twice, or all of them would be read to find that out."""
    first, *others = parts
    return first.union(*others, all=True).order_by()


def _with(request: HttpRequest, customers: QuerySet[CustomerTenant], **columns: Any) -> QuerySet[CustomerTenant]:
    """Return the customers that have such a consent."""
    found = consents_of(chosen_registration(request)).filter(**columns).order_by()
    return _narrowed(request, customers, _keys(found, "customer"), _any(request, **columns))


def _without(request: HttpRequest, customers: QuerySet[CustomerTenant], **columns: Any) -> QuerySet[CustomerTenant]:
    """Return the customers that have no such consent."""
    return _narrowed(request, customers, _all_of(_keys_without(request, **columns)), ~_any(request, **columns))


def _keys_without(request: HttpRequest, owner: str = "", **columns: Any) -> list[QuerySet[Any]]:
    """Return the keys of customers without such a consent, in parts: of some nothing was read, of others another
    application.

    Args:
        owner: only of those who are not ready, and of whom this one must act.
    """
    found = []
    consents = consents_of(chosen_registration(request)).filter(**columns).order_by()
    for rows, key in maybe_unread(owner):
        mine = consents.filter(customer=OuterRef(key))
        if key == "customer":  # a value: with Exists PostgreSQL reads all consents, to join them with the short list
            without = rows.alias(first=Subquery(mine.values("pk")[:1])).filter(first__isnull=True)
        else:
            without = rows.filter(~Exists(mine))
        found.append(_keys(without, key))
    if (registration := chosen_registration(request)) is not None:
        mine = CustomerConsent.objects.filter(customer=OuterRef("customer"), registration=registration, **columns)
        others = CustomerConsent.objects.exclude(registration=registration).filter(~Exists(mine))
        others = others.filter(customer__readiness_owner=owner) if owner else others
        found.append(_keys(others, "customer"))
    return found


class ConsentStateFilter(admin.SimpleListFilter):
    title = "consent"
    parameter_name = "consent"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((one.value, str(one.label)) for one in State), (NEVER_LOOKED_AT, "Never looked at")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[CustomerTenant]) -> QuerySet[CustomerTenant]:
        if self.value() == NEVER_LOOKED_AT:
            return _without(request, queryset)
        return _with(request, queryset, state=self.value()) if self.value() in State.values else queryset


class WhoActsFilter(admin.SimpleListFilter):
    title = "who must act"
    parameter_name = "who"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return OWNER_CHOICES

    def queryset(self, request: HttpRequest, queryset: QuerySet[CustomerTenant]) -> QuerySet[CustomerTenant]:
        owner = self.value()
        if owner not in dict(OWNER_CHOICES):
            return queryset
        of_partners = queryset.filter(partner__switch=PartnerTenant.Switch.ON)
        consents = consents_of(chosen_registration(request)).order_by()
        found = _all_of([_keys(consents.filter(NOT_WELL, who=owner), "customer"), *_keys_without(request, owner)])
        return _narrowed(
            request, of_partners, found, _any(request, who=owner) | Q(~_any(request), readiness_owner=owner)
        )


class CustomerEvidenceFilter(EvidenceFilter):
    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "never":
            return _without(request, queryset, verified_at__isnull=False)
        if (condition := self.condition()) is None:
            return queryset
        rows = consents_of(chosen_registration(request)).order_by().filter(condition)
        return _narrowed(request, queryset, _keys(rows, "customer"), Exists(rows.filter(customer=OuterRef("pk"))))


def _without_partner(request: HttpRequest, names: Sequence[Any]) -> Sequence[Any]:
    """Leave the partner out where the list is a tab of one: each row would say the same, and none is to choose."""
    return [one for one in names if one != "partner"] if getattr(request, "is_tab", False) else names


def _badge(consent: CustomerConsent) -> str:
    return badge(consent.get_state_display(), CUSTOMER_TONES[State(consent.state)])


class CustomerPages(CustomerHub, CustomerTenantAdmin):
    """Customers with what is granted there, who must act, and how old the evidence is, for each of our applications."""

    export_fields = [
        *CustomerTenantAdmin.export_fields,
        "partner__tenant_id",
        "consent_registration",
        "consent_application_id",
        "consent_state",
        "why",
        "who_acts",
        "consent_attempt",
        "consent_attempt_at",
        "consent_read_at",
    ]
    list_display = ["company_name", "partner", "shown_consent", "reason", "owner", "read", "ready", "listed"]
    list_filter = [
        RegistrationFilter,
        ConsentStateFilter,
        "readiness",
        WhoActsFilter,
        CustomerEvidenceFilter,
        ("missing_since", MomentFilter),
        "partner",
    ]
    link_lookups = [_OF_ONE_PARTNER]

    has_sync_permission = needs("tenants.sync_partnertenant")

    has_plan_permission = needs("consent.add_consentplan")

    def get_list_filter(self, request: HttpRequest) -> Any:
        return _without_partner(request, super().get_list_filter(request))

    def get_list_display(self, request: HttpRequest) -> Any:
        return _without_partner(request, super().get_list_display(request))

    def lists_few(self, request: HttpRequest) -> bool:
        return _lists_one_partner(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        shown = consents_of(chosen_registration(request)).select_related("registration").order_by("registration")
        customers = super().get_queryset(request)
        return customers.prefetch_related(Prefetch("consents", queryset=shown, to_attr="shown_consents"))

    def _export(self, request: HttpRequest, queryset: QuerySet[Any], kind: FileKind) -> HttpResponseBase | None:
        rows: Any = with_consent(queryset, chosen_registration(request))
        if rows.filter(consent_count__gt=1).exists():
            self.message_user(
                request,
                "Some of these customers hold consents to several of our applications, and a line says one. Filter by "
                "the application registration, or export the customer consents, which have a line for each.",
                messages.ERROR,
            )
            return None
        return super()._export(request, rows, kind)

    @admin.display(description="Consent")
    def shown_consent(self, customer: Any) -> str:
        if not customer.shown_consents:
            return badge("Never looked at", Tone.QUIET)
        return links([(described(_badge(one), one.registration.name), "") for one in customer.shown_consents])

    @admin.display(description="Listed")
    def listed(self, customer: CustomerTenant) -> str:
        """Say in a narrow cell what ``seen`` says on the page."""
        when = distance(customer.listed_at - timezone.now())
        return described("yes" if customer.missing_since is None else "not any more", when)

    @admin.display(description="Reason")
    def reason(self, customer: Any) -> str:
        return _each(customer, why_cell, customer.readiness_reason or EMPTY)

    @admin.display(description="Who must act")
    def owner(self, customer: Any) -> str:
        return _each(customer, lambda one: who(one.who), who(customer.readiness_owner))

    @admin.display(description="Last read")
    def read(self, customer: Any) -> str:
        return _each(customer, lambda one: moment(one.verified_at, empty="never"), "never")


def _each(customer: Any, cell: Callable[[Any], str], otherwise: str) -> str:
    """Return what a cell says of each consent of a customer; of several with the name of its registration."""
    consents = customer.shown_consents
    if len(consents) < 2:
        return cell(consents[0]) if consents else otherwise
    return links([(described(cell(one), one.registration.name), "") for one in consents])


@admin.action(description="Synchronise their customers now", permissions=["sync"])
def sync_partners(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Read customers and relationships of chosen partners again."""
    return _to_run(page, request, queryset, queryset, "sync_partners")


@admin.action(description="Synchronise the partners of these customers", permissions=["sync"])
def sync_partners_of(
    page: PortalModelAdmin[CustomerTenant], request: HttpRequest, queryset: QuerySet[CustomerTenant]
) -> HttpResponseBase | None:
    """Read them again, which means all customers of their partners."""
    partners = PartnerTenant.objects.filter(pk__in=queryset.values("partner"))
    return _to_run(page, request, queryset, partners, "sync_partners_of")


def _to_run(
    page: PortalModelAdmin[Any],
    request: HttpRequest,
    queryset: QuerySet[Any],
    partners: QuerySet[PartnerTenant],
    name: str,
) -> HttpResponseBase | None:
    """Confirm for the chosen rows, then leave their partners to the workers."""
    preview = on_request.preview_synchronise(partners)
    try:
        if preview.number and (
            answer := page.confirm(
                request,
                queryset,
                action=name,
                title="Synchronise customers",
                explanation=(
                    f"All customers and GDAP relationships of {number_of(preview.number, 'partner')} are read again at "
                    "Partner Center and Microsoft Graph. Nothing is changed at Microsoft."
                ),
                button="Synchronise",
                counts=preview.by_state,
                left_out=preview.left_out,
            )
        ):
            return answer
        started = on_request.synchronise(partners, actor=actor_of(request))
    except on_request.NothingToDo as nothing:
        page.message_user(request, str(nothing), messages.ERROR)
        return None
    page.message_user(
        request,
        f"{number_of(started.number, 'partner')} left to the workers." if started.new else "This is under way already.",
    )
    return HttpResponseRedirect(reverse("admin:runs_run_change", args=[started.run.pk]))


admin.site.register(CustomerTenant, CustomerPages)
