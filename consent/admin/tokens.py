from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from consent import clients
from consent.admin.cells import registration_column
from consent.admin.panels import standing_badge
from consent.grants import Grants
from consent.models import PartnerConsent
from consent.naming import registration_names
from consent.offboarding.disconnect import confirm_revoked, disconnect
from consent.overview import CHECKED_WITHIN, ENDS_WITHIN
from consent.permissions import held
from consent.runs import on_request
from consent.states import STANDINGS, Trouble, standing, with_standing, with_trouble
from consent.tokens.health import ALERT_DAYS, token_age
from consent.tokens.next_steps import ENDS, SOON, TRUTH, is_stale, next_step, partners_duties
from consent.words import CHECK_WORDS
from consent.words.permissions import resource_name
from portal.microsoft.diagnosis import OWNER_CHOICES
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin
from portal.site.base import actor_of
from portal.site.confirming import CONFIRM_LIMIT
from portal.site.declared import column, guid_column, moment_column, needs
from portal.site.display import EMPTY, Tone, badge, described, moment, steps, words
from portal.site.list_filters import SinceFilter
from portal.site.proof import fresh
from portal.text import number_of
from tenants.admin import search_by

State = PartnerConsent.State
_NAMED = 20  # partners in the text of a confirmation
_MFA_SOURCES = {
    PartnerConsent.Mfa.PROVEN: "Partner Center answered isMfaCompliant: true.",
    PartnerConsent.Mfa.MISSING: "Partner Center answered isMfaCompliant: false, or refused a call for want of MFA.",
    PartnerConsent.Mfa.UNPROVEN: "Partner Center gave no verdict at the last check, and no verdict is not a proof.",
}


class StandingFilter(admin.SimpleListFilter):
    """How a token stands."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one.value, str(one.label)) for one in STANDINGS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(standing=self.value()) if self.value() else queryset


class EndsFilter(admin.SimpleListFilter):
    """How soon a token ends."""

    title = "ends"
    parameter_name = "ends"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            *((str(days), f"Within {days} days") for days in ENDS_WITHIN),
            ("later", "Later"),
            ("over", "Over already"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[PartnerConsent]) -> QuerySet[PartnerConsent]:
        value, now = self.value() or "", timezone.now()
        if value == "over":
            return queryset.filter(Q(forecast_at__isnull=True) | Q(forecast_at__lt=now))
        if value == "later":
            return queryset.filter(forecast_at__gte=now + timedelta(days=60))
        if value in {str(days) for days in ENDS_WITHIN}:
            return queryset.filter(forecast_at__lt=now + timedelta(days=int(value)))
        return queryset


class UseFilter(admin.SimpleListFilter):
    """Tokens that are meant to serve: of partners and applications in use."""

    title = "token"
    parameter_name = "token"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("living", "In use, works as far as known"), ("over", "In use, works no more")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        match self.value():
            case "living":
                return queryset.living()
            case "over":
                return queryset.over()
        return queryset


class WhoActsFilter(admin.SimpleListFilter):
    """Tokens that want somebody to act, by who that is."""

    title = "who must act"
    parameter_name = "who"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return OWNER_CHOICES

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if not self.value():
            return queryset
        return with_trouble(queryset.wanting_action()).filter(Q(who=self.value()))


class TroubleFilter(admin.SimpleListFilter):
    """Tokens that want somebody to act, by what is wrong."""

    title = "trouble"
    parameter_name = "trouble"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one.value, str(one.label).capitalize()) for one in Trouble]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if not self.value():
            return queryset
        return with_trouble(queryset.wanting_action()).filter(Q(trouble=self.value()))


class CheckedFilter(SinceFilter):
    """How long ago it was last checked, well or not."""

    title = parameter_name = "checked"
    column, span = "last_try_at", CHECKED_WITHIN
    words: ClassVar = {"never": "Never", "old": "Not in the last 24 hours", "new": "In the last 24 hours"}


class AgeFilter(admin.SimpleListFilter):
    """How long ago the stored token was renewed."""

    title = "token age"
    parameter_name = "age"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("0", "Under 30 days"), ("30", "30 days and more")] + [
            (str(days), f"{days} days and more") for days in ALERT_DAYS
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[PartnerConsent]) -> QuerySet[PartnerConsent]:
        value, now = self.value(), timezone.now()
        if value == "0":
            return queryset.filter(stored_at__gt=now - timedelta(days=30))
        if value in {"30", *map(str, ALERT_DAYS)}:
            return queryset.filter(stored_at__lte=now - timedelta(days=int(value)))
        return queryset


class PermissionsFilter(admin.SimpleListFilter):
    """What the sign-in proved, against what the registration asks for now."""

    title = "permissions"
    parameter_name = "permissions"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("lacking", "Lacks permissions"),
            ("unproven", "Not proven"),
            ("again", "Lacks permissions, or not proven"),
            ("granted", "All granted"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[PartnerConsent]) -> QuerySet[PartnerConsent]:
        consents = PartnerConsent.objects.all()
        match self.value():
            case "lacking":
                return queryset.filter(pk__in=consents.lacking_permissions().values("pk"))
            case "unproven":
                return queryset.filter(pk__in=consents.permissions_unproven().values("pk"))
            case "again":
                return queryset.filter(pk__in=consents.to_consent_again().values("pk"))
            case "granted":
                usable = queryset.filter(pk__in=consents.usable().values("pk"))
                return usable.exclude(pk__in=consents.to_consent_again().values("pk"))
        return queryset


def to_check(
    page: PortalModelAdmin[Any],
    request: HttpRequest,
    queryset: QuerySet[Any],
    consents: QuerySet[PartnerConsent],
    name: str,
    *,
    renew: bool = False,
) -> HttpResponseBase | None:
    """Confirm for the chosen rows, then leave these tokens to the workers, and go to the page of the run.

    Args:
        queryset: the rows of the list that the page is of.
    """
    preview = on_request.preview_check(consents)
    what = "Renew" if renew else "Check"
    more = " Each rotated token is kept, however young the stored one is." if renew else ""
    try:
        if preview.number and (
            answer := page.confirm(
                request,
                queryset,
                action=name,
                title=f"{what} tokens now",
                explanation=(
                    f"{number_of(preview.number, 'token')} will be redeemed at Microsoft, and Partner Center is asked "
                    f"about each account. Nothing is changed for a partner.{more}"
                ),
                button=f"{what} now",
                counts=preview.by_state,
                left_out=preview.left_out,
            )
        ):
            return answer
        started = on_request.check_tokens(consents, actor=actor_of(request), renew=renew)
    except on_request.NothingToDo as nothing:
        page.message_user(request, str(nothing), messages.ERROR)
        return None
    said = f"{number_of(started.number, 'token')} left to the workers."
    page.message_user(request, said if started.new else "This is under way already.")
    return HttpResponseRedirect(reverse("admin:runs_run_change", args=[started.run.pk]))


@admin.register(PartnerConsent)
class PartnerConsentAdmin(ReadOnlyAdmin[PartnerConsent]):
    """What we know about each partner's token; nothing here can be typed (S-35)."""

    empty_text = "A partner's token stands here once the partner has signed in through its consent link."
    export_fields = [
        "partner__name",
        "partner__tenant_id",
        "registration__name",
        "registration__application_id",
        "standing",
        "last_class",
        "last_owner",
        "last_code",
        "last_message",
        "stored_at",
        "forecast_at",
        "forecast_cause",
        "last_success_at",
        "last_try_at",
        "next_try_at",
        "mfa",
        "mfa_checked_at",
        "amr",
    ]
    list_display = [
        "named",
        "shown_state",
        "what_next",
        "ends",
        "last_success",
        "shown_registration",
        "shown_mfa",
        "has_permissions",
        "age",
    ]
    list_filter = [
        StandingFilter,
        WhoActsFilter,
        TroubleFilter,
        UseFilter,
        EndsFilter,
        "forecast_cause",
        CheckedFilter,
        AgeFilter,
        "mfa",
        PermissionsFilter,
        "registration",
    ]
    list_select_related = ["partner", "registration__own_set"]
    search_fields = [*search_by("partner"), "=registration__application_id"]
    actions = ["check_tokens", "renew_tokens", "disconnect_partners", "confirm_revocation"]
    fieldsets = [
        (None, {"fields": ["partner", "registration", "shown_state", "what_next", "ends", "age", "next_try"]}),
        ("Checks", {"fields": ["last_success", "last_try", "last_class", "last_owner", "last_code", "last_message"]}),
        ("Sign-in", {"fields": ["consented", "account", "shown_mfa", "shown_amr", "shown_checks"]}),
        ("Permissions at the sign-in", {"fields": ["has_permissions", "permissions", "extra_permissions"]}),
        ("Token", {"fields": ["generation", "stored", "short_fingerprint", "policy"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[PartnerConsent]:
        return with_standing(super().get_queryset(request))

    def get_fieldsets(self, request: HttpRequest, obj: PartnerConsent | None = None) -> Any:
        sets = super().get_fieldsets(request, obj)
        if obj is not None and obj.state == State.DISCONNECTED:
            return [*sets, ("Until the token is dead", {"fields": ["truth", "duties"]})]
        return sets

    has_disconnect_permission = needs("consent.disconnect_partnerconsent")

    named = column("Partner", lambda one: described(one.partner, one.registration.name), ordering="partner__name")
    shown_registration = registration_column("registration")

    # --- state and what to do ---

    @admin.display(ordering="standing", description="State")
    def shown_state(self, consent: Any) -> str:
        if is_stale(consent, timezone.now()):
            since = "ever" if consent.last_success_at is None else f"since {consent.last_success_at:%Y-%m-%d %H:%M} UTC"
            return described(badge(str(standing(consent.standing).label), Tone.WARN), f"Not checked {since}.")
        return standing_badge(consent.standing)

    @admin.display(ordering="last_owner", description="What to do next")
    def what_next(self, consent: PartnerConsent) -> str:
        step = next_step(consent, timezone.now())
        return step.text if step.owner is None else described(step.owner.label, step.text)

    @admin.display(ordering="forecast_at", description="Ends")
    def ends(self, consent: PartnerConsent) -> str:
        if consent.forecast_at is None:
            return EMPTY
        now = timezone.now()
        text = str(consent.get_forecast_cause_display())
        if consent.forecast_at - now < SOON:
            text = f"{text}. {ENDS[consent.forecast_cause].text}"
        return described(moment(consent.forecast_at), text)

    @admin.display(ordering="-stored_at", description="Token age")
    def age(self, consent: PartnerConsent) -> str:
        age = token_age(consent, timezone.now())
        return EMPTY if age is None else f"{age.days} day{'' if age.days == 1 else 's'}"

    last_success = moment_column("last_success_at", "Last success", empty="never")
    last_try = moment_column("last_try_at", "Last try", empty="never")
    next_try = moment_column("next_try_at", "Next try", empty="none: only a new consent helps")

    # --- sign-in and token ---

    consented = moment_column("consented_at", "Consented", sorts=False)
    account = guid_column("pinned_oid", "Account", label="object id", sorts=False)

    @admin.display(ordering="mfa", description="MFA")
    def shown_mfa(self, consent: PartnerConsent) -> str:
        tones = {PartnerConsent.Mfa.PROVEN: Tone.GOOD, PartnerConsent.Mfa.MISSING: Tone.BAD}
        head = badge(consent.get_mfa_display(), tones.get(PartnerConsent.Mfa(consent.mfa), Tone.WARN))
        seen = f" Last verdict {consent.mfa_checked_at:%Y-%m-%d %H:%M} UTC." if consent.mfa_checked_at else ""
        return described(head, _MFA_SOURCES[PartnerConsent.Mfa(consent.mfa)] + seen)

    @admin.display(description="Sign-in methods")
    def shown_amr(self, consent: PartnerConsent) -> str:
        if not consent.amr:
            return "The access token names none."
        return described(
            words(consent.amr), "From the access token's amr claim. Partner Center decides whether that is MFA."
        )

    @admin.display(description="Proven at the sign-in")
    def shown_checks(self, consent: PartnerConsent) -> str:
        return words([f"{CHECK_WORDS[one['check']][one['state']]['label']}: {one['state']}" for one in consent.checks])

    @admin.display(description="Permissions")
    def has_permissions(self, consent: PartnerConsent) -> str:
        """Compare what the sign-in proved with what the registration asks for now; nothing where no token is used."""
        if consent.generation == 0 or consent.state in PartnerConsent.LEFT_STATES or not consent.partner.is_active:
            return EMPTY
        compared = held(consent.granted_scopes, consent.registration.asked)
        if compared.missing:
            return described(badge("Lacks permissions", Tone.WARN), compared.missing.words())
        if compared.unproven:
            services = consent.registration.asked.services()
            names = ", ".join(resource_name(resource, services) for resource in compared.unproven)
            return described(badge("Not proven", Tone.QUIET), f"No sign-in proved what is granted on {names}.")
        return badge("All granted", Tone.GOOD)

    @admin.display(description="Granted permissions")
    def permissions(self, consent: PartnerConsent) -> str:
        return words(_named(Grants(consent.granted_scopes), consent))

    @admin.display(description="Granted, not asked for now")
    def extra_permissions(self, consent: PartnerConsent) -> str:
        return words(_named(held(consent.granted_scopes, consent.registration.asked).extra, consent))

    stored = moment_column("stored_at", "Stored", empty="never", sorts=False)

    @admin.display(description="Fingerprint")
    def short_fingerprint(self, consent: PartnerConsent) -> str:
        return consent.fingerprint[:8]

    @admin.display(description="Sign-in frequency policy")
    def policy(self, consent: PartnerConsent) -> str:
        if consent.sign_in_lifetime is None:
            return "None seen"
        return f"Microsoft named {consent.sign_in_lifetime / 3600:g} hours (AADSTS70043)"

    # --- checking and renewing ---

    def has_check_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("consent.check_partnerconsent")

    def has_renew_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("consent.renew_partnerconsent")

    @admin.action(description="Check now", permissions=["check"])
    def check_tokens(self, request: HttpRequest, queryset: QuerySet[PartnerConsent]) -> HttpResponseBase | None:
        return to_check(self, request, queryset, queryset, "check_tokens")

    @admin.action(description="Renew now", permissions=["renew"])
    def renew_tokens(self, request: HttpRequest, queryset: QuerySet[PartnerConsent]) -> HttpResponseBase | None:
        return to_check(self, request, queryset, queryset, "renew_tokens", renew=True)

    # --- disconnecting (S-67) ---

    @admin.display(description="The truth")
    def truth(self, consent: PartnerConsent) -> str:
        return TRUTH

    @admin.display(description="What the partner's administrator does")
    def duties(self, consent: PartnerConsent) -> str:
        return steps(partners_duties(consent.registration.name, consent.registration.application_id))

    @fresh
    @admin.action(description="Disconnect the partner", permissions=["disconnect"])
    def disconnect_partners(self, request: HttpRequest, queryset: QuerySet[PartnerConsent]) -> HttpResponseBase | None:
        registrations = registration_names()
        rows = queryset.select_related("partner")[: CONFIRM_LIMIT + 1]
        chosen = {one: f"{one.partner} ({registrations[one.registration_id]})" for one in rows}
        more = len(chosen) - _NAMED
        names = ", ".join(list(chosen.values())[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        if answer := self.confirm(
            request,
            queryset,
            action="disconnect_partners",
            title="Disconnect partners",
            explanation=(
                f"{names}: all use of the token stops at once, open links to this application are revoked, and every "
                "version in the vault is switched off. What a partner consented to for another application goes on. "
                f"{TRUTH} " + " ".join(partners_duties("of this portal", "its id is on the page of the registration"))
            ),
            button="Disconnect",
            dangerous=True,
        ):
            return answer
        for consent, name in chosen.items():
            if disconnect(consent, vault=clients.vault(), actor=actor_of(request)):
                self.message_user(request, f"{name}: disconnected. Now the partner acts: see its page.")
            else:
                self.message_user(
                    request,
                    f"{name}: disconnected, but the vault did not switch every version off. See why it refuses, and "
                    "choose this action again.",
                    messages.ERROR,
                )
        return None

    @fresh
    @admin.action(description="Note that the partner revoked the token", permissions=["disconnect"])
    def confirm_revocation(self, request: HttpRequest, queryset: QuerySet[PartnerConsent]) -> HttpResponseBase | None:
        if answer := self.confirm(
            request,
            queryset,
            action="confirm_revocation",
            title="Note that the token is dead",
            explanation=(
                "Only when the partner's administrator confirmed that the account's sessions are revoked and the "
                "enterprise application is removed. The portal cannot see it."
            ),
            button="Note it",
        ):
            return answer
        done = sum(confirm_revoked(consent, actor=actor_of(request)) for consent in queryset)
        self.message_user(request, f"{done} noted as dead.")
        return None


def _named(grants: Grants, consent: PartnerConsent) -> list[str]:
    services = consent.registration.asked.services()
    return [f"{resource_name(resource, services)}: {scope}" for resource, scopes in grants.items() for scope in scopes]
