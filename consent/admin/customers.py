"""Our consent in customer tenants: what was read there, what changed since, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import build_q_object_from_lookup_parameters
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from consent.admin.cells import grants_cell, registration_column, why_cell
from consent.admin.panels import CUSTOMER_TONES
from consent.customers.observations import Change
from consent.models import ChangedBy, ConsentObservation, ConsentPlan, CustomerConsent
from consent.models.customers import DRIFTED, FINDING, NOT_WELL, OF_ACTIVE
from consent.naming import registration_names
from consent.runs import on_request
from consent.runs.apply_plan import start_direct
from consent.selection import Selection, counted
from consent.two_persons import REMOVE, removal_of
from portal.decisions.asking import WhyForm, ask_second_person, what_comes_next
from portal.microsoft.diagnosis import OWNER_CHOICES
from portal.runs import tasks
from portal.runs.models import Run
from portal.site.admin import ReadOnlyAdmin, ReadOnlyInline
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.declared import column, moment_column, needs, path_column
from portal.site.display import EMPTY, badge, described, guid, links, moment, who
from portal.site.list_filters import RelatedFilter, narrowed
from portal.site.proof import fresh
from portal.text import number_of
from tenants.admin import search_by
from tenants.models import PartnerTenant

State = CustomerConsent.State
_CONCURRENCY = 16
_WHO = {
    ChangedBy.FIRST: "First read",
    ChangedBy.US: "We",
    ChangedBy.OUTSIDE: "Somebody outside",
}


def _state(state: str) -> str:
    known = State(state)
    return badge(str(known.label), CUSTOMER_TONES[known])


def _narrowed(consents: QuerySet[Any], condition: Q) -> QuerySet[Any]:
    return narrowed(consents, condition, among=CustomerConsent.objects.with_words())


class _Narrowing(admin.FieldListFilter):
    """A filter of Django's, of a table with a million rows."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        try:
            condition = build_q_object_from_lookup_parameters(self.used_parameters)  # type: ignore[arg-type]
            return _narrowed(queryset, condition) if self.used_parameters else queryset
        except (ValueError, ValidationError) as error:
            raise IncorrectLookupParameters(error) from error


class ChoiceFilter(_Narrowing, admin.ChoicesFieldListFilter):
    pass


class MomentFilter(admin.EmptyFieldListFilter):
    """Whether a moment is there. Of the few that have one an index knows; it does not know what is not empty."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.lookup_val == "0":
            return queryset.filter(**{f"{self.field_path}__isnull": False})
        rows: Any = super().queryset(request, queryset)
        return rows  # type: ignore[no-any-return]


class RegistrationFilter(_Narrowing, RelatedFilter):
    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return RelatedFilter.queryset(self, request, queryset) if self.words else super().queryset(request, queryset)


# Asked for by those that it is not: else SQLite reads all that are absent, of which few are findings.
_NOT_MISSING = [one for one in State if one not in {State.PARTIAL, State.ABSENT}]


class FindingFilter(admin.SimpleListFilter):
    """What somebody should look at."""

    title = "finding"
    parameter_name = "finding"
    CHOICES: Mapping[str, tuple[str, Q]] = {
        "any": ("Anything", FINDING),
        "drift": ("Changed by somebody outside", DRIFTED),
        "more": ("More than we want", Q(state=State.DIFFERS)),
        "less": ("Missing", FINDING & ~Q(state__in=_NOT_MISSING)),
        "failed": ("An attempt of ours failed", Q(failed_at__isnull=False)),
        "unread": ("Not readable", Q(unread_since__isnull=False)),
    }

    OF_ACTIVE_ONLY = ("any", "less")

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, words) for value, (words, _) in self.CHOICES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[CustomerConsent]) -> QuerySet[CustomerConsent]:
        value = self.value() or ""
        if value not in self.CHOICES:
            return queryset
        rows = queryset.filter(OF_ACTIVE) if value in self.OF_ACTIVE_ONLY else queryset
        return _narrowed(rows, self.CHOICES[value][1])


class ConsentWhoActsFilter(admin.SimpleListFilter):
    """Consents for which somebody must act, by who that is."""

    title = "who must act"
    parameter_name = "who"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return OWNER_CHOICES

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if not self.value():
            return queryset
        return _narrowed(queryset.filter(OF_ACTIVE), NOT_WELL & Q(who=self.value()))


class EvidenceFilter(admin.SimpleListFilter):
    """How old the evidence is."""

    title = "evidence"
    parameter_name = "evidence"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("7", "Within 7 days"), ("30", "Within 30 days"), ("old", "Older"), ("never", "Never read")]

    def condition(self) -> Q | None:
        """Return what is asked of a consent; None: nothing."""
        value, now = self.value(), timezone.now()
        if value == "never":
            return Q(verified_at__isnull=True)
        if value == "old":
            return Q(verified_at__lt=now - timedelta(days=30))
        if value not in {"7", "30"}:
            return None
        return Q(verified_at__gte=now - timedelta(days=int(value)))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        condition = self.condition()
        return queryset if condition is None else _narrowed(queryset, condition)


class _ReadColumns:
    """The columns of a read, for its list and for the page of its customer."""

    read = moment_column("observed_at", "Read")
    # Of the largest table: sorted by time alone, as all rows would be read to sort them by anything else.
    shown_state = path_column("state", "State", _state, sorts=False)

    @admin.display(description="What changed")
    def what(self, observation: ConsentObservation) -> str:
        by = ChangedBy(observation.changed_by)
        if by == ChangedBy.NOBODY:
            return "Nothing"
        words = Change.of(observation).words()
        return "Nothing was there" if by == ChangedBy.FIRST and not observation.added else words[0].upper() + words[1:]

    @admin.display(description="Who")
    def who(self, observation: ConsentObservation) -> str:
        words = _WHO.get(ChangedBy(observation.changed_by), EMPTY)
        return described(words, observation.actor) if observation.actor else words

    @admin.display(description="As it was until")
    def until(self, observation: ConsentObservation) -> str:
        return moment(observation.unchanged_until) if observation.changed_by else EMPTY

    @admin.display(description="Evidence")
    def shown_evidence(self, observation: ConsentObservation) -> str:
        head = guid(observation.service_principal_id, label="service principal id")
        return described(head, ConsentObservation.Evidence(observation.evidence).label)


class ConsentObservationInline(_ReadColumns, ReadOnlyInline[ConsentObservation, CustomerConsent]):
    """The history of one customer, the latest read first."""

    model = ConsentObservation
    verbose_name_plural = "history"
    fields = ["read", "shown_state", "what", "who", "until", "shown_evidence"]


@admin.register(ConsentObservation)
class ConsentObservationAdmin(_ReadColumns, ReadOnlyAdmin[ConsentObservation]):
    """The reads of customer tenants that showed something new, or proved what was done."""

    empty_text = "What a read of a customer's tenant found is kept here; a later read that finds the same is not."
    export_fields = [
        "observed_at",
        "consent__customer__partner__name",
        "consent__customer__partner__tenant_id",
        "consent__customer__company_name",
        "consent__customer__tenant_id",
        "registration__name",
        "registration__application_id",
        "state",
        "changed_by",
        "actor",
        "added",
        "removed",
        "unchanged_until",
        "evidence",
        "service_principal_id",
        "grants",
        "correlation_id",
    ]
    list_display = ["read", "customer", "partner", "shown_registration", "shown_state", "what", "who", "until"]
    list_filter = ["changed_by", "state", "evidence", "observed_at", "registration"]
    list_select_related = ["consent__customer__partner", "registration"]
    link_lookups = ["consent__id__exact"]
    search_fields = [*search_by("consent__customer"), "=correlation_id"]
    fields = [
        "consent",
        "read",
        "shown_state",
        "what",
        "who",
        "until",
        "shown_evidence",
        "shown_grants",
        "correlation_id",
    ]

    @admin.display(description="Customer")
    def customer(self, observation: ConsentObservation) -> str:
        return str(observation.consent.customer)

    @admin.display(description="Grants")
    def shown_grants(self, observation: ConsentObservation) -> str:
        return grants_cell({grant["resource"]: grant["scopes"] for grant in observation.grants})

    partner = path_column("consent__customer__partner__name", "Partner", sorts=False)
    shown_registration = registration_column("registration", sorts=False)


@admin.register(CustomerConsent)
class CustomerConsentAdmin(ReadOnlyAdmin[CustomerConsent]):
    """Our consent in customer tenants, as last read there."""

    empty_text = "What we hold in a customer's tenant stands here once a plan was applied or the tenant was read."
    export_fields = [
        "customer__partner__name",
        "customer__partner__tenant_id",
        "customer__company_name",
        "customer__tenant_id",
        "registration__name",
        "registration__application_id",
        "state",
        "reason",
        "owner",
        "actual_grants",
        "service_principal_id",
        "verified_at",
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
    list_display = [
        "customer",
        "partner",
        "shown_registration",
        "shown_state",
        "why",
        "who_acts",
        "changed",
        "verified",
    ]
    list_filter = [
        FindingFilter,
        ("state", ChoiceFilter),
        ConsentWhoActsFilter,
        EvidenceFilter,
        ("changed_by", ChoiceFilter),
        ("customer__missing_since", MomentFilter),
        ("registration", RegistrationFilter),
    ]
    list_select_related = ["customer__partner", "registration"]
    link_lookups = ["customer__partner__id__exact"]
    search_fields = search_by("customer")
    fields = [
        "customer",
        "registration",
        "shown_state",
        "why",
        "who_acts",
        "verified",
        "changed",
        "shown_grants",
        "service_principal_id",
        "requested",
        "failed",
        "history",
    ]
    inlines = [ConsentObservationInline]
    actions = ["verify_now", "remove_consents"]

    has_verify_permission = needs("consent.verify_customerconsent")
    has_remove_permission = needs("consent.remove_customerconsent")
    partner = path_column("customer__partner__name", "Partner")
    # Sorted by what has no index, half a million rows take too long; there are filters for both.
    shown_registration = registration_column("registration", sorts=False)

    @admin.display(ordering="state", description="State")
    def shown_state(self, consent: CustomerConsent) -> str:
        shown = _state(consent.state)
        return described(shown, "not readable now") if consent.unread_since else shown

    def get_queryset(self, request: HttpRequest) -> QuerySet[CustomerConsent]:
        rows: Any = super().get_queryset(request)
        consents: QuerySet[CustomerConsent] = rows.with_words()
        return consents

    shown_grants = path_column("actual_grants", "Grants, as last read", grants_cell, sorts=False)
    why = column("Reason", why_cell)
    who_acts = path_column("who", "Who must act", who, sorts=False)

    @admin.display(description="Last attempt that failed")
    def failed(self, consent: CustomerConsent) -> str:
        if not consent.failed_what:
            return EMPTY
        what = f"{consent.get_failed_what_display()}: {consent.failed_reason}"
        return described(described(what, who(consent.failed_owner)), moment(consent.failed_at))

    verified = moment_column("verified_at", "Last read", empty="never")

    @admin.display(description="Last change")
    def changed(self, consent: CustomerConsent) -> str:
        return described(moment(consent.changed_at), _WHO.get(ChangedBy(consent.changed_by), ""))

    @admin.display(description="Our last request")
    def requested(self, consent: CustomerConsent) -> str:
        if consent.requested_at is None:
            return EMPTY
        verb = "Removal" if consent.was_removed else "Grants"
        return described(moment(consent.requested_at), f"{verb}, by {consent.requested_by or 'nobody known'}")

    @admin.display(description="Whole history")
    def history(self, consent: CustomerConsent) -> str:
        address = reverse("admin:consent_consentobservation_changelist")
        return links([("All reads, to filter and export", f"{address}?consent__id__exact={consent.pk}")])

    @admin.action(description="Read again what the customers hold", permissions=["verify"])
    def verify_now(self, request: HttpRequest, queryset: QuerySet[CustomerConsent]) -> HttpResponseBase | None:
        tenants, _ = counted(queryset)
        if answer := self.confirm(
            request,
            queryset,
            action="verify_now",
            title="Read again",
            explanation=(
                f"The workers read what our applications hold in {number_of(tenants, 'customer tenant')}. Nothing is "
                "changed there."
            ),
            button="Read again",
        ):
            return answer
        try:
            started = on_request.read_consents(queryset, actor=actor_of(request))
        except on_request.NothingToDo as nothing:
            self.message_user(request, str(nothing), messages.ERROR)
            return None
        return self._to_run(request, started.run, tenants, new=started.new)

    @fresh
    @admin.action(description="Remove our consent from the customers", permissions=["remove"])
    def remove_consents(self, request: HttpRequest, queryset: QuerySet[CustomerConsent]) -> HttpResponseBase | None:
        inactive = queryset.exclude(customer__partner__switch=PartnerTenant.Switch.ON)
        if "_once" not in request.POST and inactive.exists():
            self.message_user(
                request, "Some of their partners are disabled or offboarded: no token may be used.", messages.ERROR
            )
            return None
        tenants, by_registration = counted(queryset)
        names = registration_names()
        which = "; ".join(
            f"{names[key]} in {number_of(number, 'customer tenant')}" for key, number in sorted(by_registration.items())
        )
        what = "our application is" if len(by_registration) == 1 else "our applications are"
        words: dict[str, Any] = {
            "action": "remove_consents",
            "title": "Remove our consent",
            "explanation": (
                f"In {number_of(tenants, 'customer tenant')} {what} deleted with all grants: {which}. Whatever works "
                "there through it stops at once. Each tenant is read back; bringing the consent again needs a plan."
            ),
            "dangerous": True,
        }
        if tenants > 1:  # two persons decide (S-50)
            more = {"explanation": f"{words['explanation']} {what_comes_next()}", "button": "Ask for it"}
            filled = ask(self, request, queryset, WhyForm, None, **words | more)
            if not isinstance(filled, WhyForm):
                return filled
            parameters = removal_of(queryset.values_list("pk", flat=True))
            return ask_second_person(self, request, REMOVE, parameters, filled.cleaned_data["why"])
        if answer := self.confirm(request, queryset, button="Remove", **words):
            return answer
        run, new = start_direct(
            ConsentPlan.Purpose.REMOVE,
            Selection(consents=tuple(sorted(queryset.values_list("pk", flat=True)))),
            actor=actor_of(request),
            concurrency=_CONCURRENCY,
        )
        tasks.enqueue(run)
        return self._to_run(request, run, tenants, new=new)

    def _to_run(self, request: HttpRequest, run: Run, tenants: int, *, new: bool) -> HttpResponseBase:
        """Say what was left to the workers, and go to the page of the run."""
        self.message_user(
            request,
            f"{number_of(tenants, 'customer tenant')} left to the workers." if new else "This is under way already.",
        )
        return HttpResponseRedirect(reverse("admin:runs_run_change", args=[run.pk]))
