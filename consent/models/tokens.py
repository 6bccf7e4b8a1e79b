"""What we know about partners' refresh tokens. The tokens themselves are in the vault."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from consent.models.applications import ApplicationRegistration
from consent.models.permission_sets import OwnPermissionSet
from consent.permissions import PERMISSION_SETS, PermissionSet
from portal.fields import ObjectIdField, OwnerField
from portal.microsoft.diagnosis import Owner
from tenants.models import PartnerTenant

PARTNER_ON = Q(partner__switch=PartnerTenant.Switch.ON)


# A moment further ahead than anything is ever put off was written while the clock was: it counts as past.
_LONGEST_LEASE = timedelta(minutes=5)


_LONGEST_FAILURE = timedelta(hours=27)  # a day, and a tenth for what a service asked to wait


def _on_any_resource(chosen: PermissionSet | None, of_resource: Callable[[str, Sequence[str]], Q]) -> Q:
    """Return the condition that holds on any resource of the set; None: of the set that the registration has now.

    Sets that staff made are read first: one query more, whatever the number of consents.
    """
    if chosen is not None:
        sets = [(Q(), chosen)]
    else:
        sets = [(Q(registration__permission_set=name), one) for name, one in PERMISSION_SETS.items()]
        own = OwnPermissionSet.objects.filter(registrations__isnull=False).distinct()
        sets += [(Q(registration__own_set=row.pk), row.value) for row in own]
    return functools.reduce(
        operator.or_,
        (of & of_resource(resource, scopes) for of, one in sets for resource, scopes in one.resources().items()),
    )


def _lacks(resource: str, scopes: Sequence[str]) -> Q:
    # As text, with the quotes of JSON around the name: no list operator works on both databases, and names of
    # permissions do not differ by case.
    has = (Q(**{f"granted_scopes__{resource}__icontains": f'"{scope}"'}) for scope in scopes)
    return Q(granted_scopes__has_key=resource) & ~functools.reduce(operator.and_, has)


def _unproven(resource: str, scopes: Sequence[str]) -> Q:
    return ~Q(granted_scopes__has_key=resource)


class PartnerConsentQuerySet(models.QuerySet["PartnerConsent"]):
    def for_partner(self, partner: PartnerTenant) -> PartnerConsentQuerySet:
        return self.filter(partner=partner)

    def of_living_application(self) -> PartnerConsentQuerySet:
        """Consents of registrations that are not retired."""
        return self.exclude(registration__state=ApplicationRegistration.State.RETIRED)

    def usable(self) -> PartnerConsentQuerySet:
        """Consents with a stored token of a partner that is active, and of an application that is not retired."""
        living = self.of_living_application().filter(PARTNER_ON, generation__gt=0)
        return living.exclude(state__in=PartnerConsent.LEFT_STATES)

    def in_use(self) -> PartnerConsentQuerySet:
        """Usable consents of partners for whom work goes on: what is left of an offboarding has its own page."""
        return self.usable().filter(partner__offboarding_since__isnull=True)

    def living(self) -> PartnerConsentQuerySet:
        """Consents in use whose token works, as far as is known."""
        return self.in_use().filter(state__in=PartnerConsent.LIVING_STATES)

    def over(self) -> PartnerConsentQuerySet:
        """Consents in use whose token works no more: only a new consent helps."""
        return self.in_use().exclude(state__in=PartnerConsent.LIVING_STATES)

    def lacking_permissions(self, chosen: PermissionSet | None = None) -> PartnerConsentQuerySet:
        """Usable consents whose last sign-in proved less than the registration asks for now.

        What a sign-in did not prove at all is not lacking: see ``permissions_unproven``.

        Args:
            chosen: compare with this one instead of the registration's own.
        """
        return self.usable().filter(_on_any_resource(chosen, _lacks))

    def permissions_unproven(self, chosen: PermissionSet | None = None) -> PartnerConsentQuerySet:
        """Usable consents of which no sign-in proved what is granted on a resource that is asked for now."""
        return self.usable().filter(_on_any_resource(chosen, _unproven))

    def to_consent_again(self, chosen: PermissionSet | None = None) -> PartnerConsentQuerySet:
        """Usable consents that lack a permission, or of which one is not proven: a new sign-in settles both."""
        return self.usable().filter(_on_any_resource(chosen, lambda *asked: _lacks(*asked) | _unproven(*asked)))

    def lease_free(self) -> PartnerConsentQuerySet:
        """Rows without a renewal under way, by the database's clock (R-03)."""
        over = Q(lease_until__lt=Now()) | Q(lease_until__gt=Now() + _LONGEST_LEASE)
        return self.filter(Q(lease_owner="") | over)

    def of_active_partner(self) -> PartnerConsentQuerySet:
        """Rows of partners that are neither disabled nor offboarded, without a join; for UPDATEs."""
        return self.filter(Exists(PartnerTenant.objects.active().filter(pk=OuterRef("partner_id"))))

    def with_all_for_calls(self) -> PartnerConsentQuerySet:
        """Rows with everything that a redemption reads of them; a forgotten relation is an error, not a query."""
        rows = self.select_related("partner").defer("checks", "granted_scopes")
        # Of the registration, which most rows share, there is one object for all: two queries more, and less to read.
        return rows.prefetch_related("registration__credential").fetch_mode(models.FETCH_RAISE)

    def without_right_forecast(self) -> PartnerConsentQuerySet:
        """Rows of living tokens without a forecast, and of others with one."""
        is_ = PartnerConsent.State
        living = Q(state__in=[is_.CONNECTED, is_.MFA_MISSING], stored_at__isnull=False)
        return self.filter((living & Q(forecast_at__isnull=True)) | (~living & Q(forecast_at__isnull=False)))

    def wanting_action(self) -> PartnerConsentQuerySet:
        """Consents of which somebody must do something, beyond waiting for the next try.

        Of partners for whom work goes on: what is left of an offboarding stands on its own page.
        """
        somebody = Q(last_owner__in=[owner for owner in Owner if owner is not Owner.NOBODY])
        return (
            self.of_living_application()
            .filter(PARTNER_ON, UNWELL | somebody, generation__gt=0, partner__offboarding_since__isnull=True)
            .exclude(state=PartnerConsent.State.REVOKED)
        )

    def due(self, now: datetime) -> PartnerConsentQuerySet:
        """Usable consents whose next try has come."""
        latest = now + max(timedelta(hours=settings.TOKEN_CHECK_HOURS), _LONGEST_FAILURE)
        return self.usable().filter(Q(next_try_at__lte=now) | Q(next_try_at__gt=latest))


class PartnerConsent(models.Model):
    """What we know about one partner's refresh token; the row knows everything but the token.

    Written by the rooms ``consent.tokens`` and ``consent.offboarding`` only.
    """

    class State(models.TextChoices):
        CONNECTED = "connected", "Connected"
        MFA_MISSING = "mfa_missing", "Connected, MFA missing"
        NEEDS_CONSENT = "needs_consent", "Needs consent again"
        EXPIRED = "expired", "Expired"
        STOPPED = "stopped", "Stopped: identity mismatch"
        DISCONNECTED = "disconnected", "Disconnected (token may still be valid at Microsoft)"
        REVOKED = "revoked", "Disconnected, and the token is dead"

    LEFT_STATES = (State.DISCONNECTED, State.REVOKED)
    LIVING_STATES = (State.CONNECTED, State.MFA_MISSING)

    class ForecastCause(models.TextChoices):
        """Why a token ends, if nothing is done."""

        IDLE = "idle", "90 days without renewal"
        SIGN_IN = "sign_in", "Sign-in frequency policy"
        CREDENTIAL = "credential", "Application credential"
        GDAP = "gdap", "GDAP relationship"

    class Mfa(models.TextChoices):
        PROVEN = "proven", "Proven"
        MISSING = "missing", "Missing"
        UNPROVEN = "unproven", "Not proven"

    partner = models.ForeignKey(PartnerTenant, on_delete=models.PROTECT, related_name="consents")
    registration = models.ForeignKey(ApplicationRegistration, on_delete=models.PROTECT, related_name="consents")
    state = models.CharField(max_length=14, choices=State)
    consented_at = models.DateTimeField()
    pinned_oid = ObjectIdField("account object id", help_text="The account that consented, in the partner's tenant.")
    granted_scopes = models.JSONField(
        default=dict, help_text="Delegated permissions that the sign-in proved, by the application id of the resource"
    )

    # The token, without the token.
    generation = models.PositiveIntegerField(default=0)
    secret_name = models.CharField(max_length=127, unique=True)
    secret_version = models.CharField(max_length=32, blank=True)
    fingerprint = models.CharField(max_length=16, blank=True)
    stored_at = models.DateTimeField(null=True)
    lease_owner = models.CharField(max_length=36, blank=True)
    lease_until = models.DateTimeField(null=True)
    renewal_started_at = models.DateTimeField(
        null=True, help_text="A redemption began whose end is not known; written before it (R-02)"
    )
    replaced_version = models.CharField(
        max_length=32, blank=True, help_text="The version before, until it is switched off (S-42)"
    )

    # Health: only what a real redemption and a real Partner Center answer showed.
    mfa = models.CharField("MFA", max_length=8, choices=Mfa, default=Mfa.UNPROVEN)
    mfa_checked_at = models.DateTimeField("MFA checked at", null=True)
    amr = models.JSONField(default=list, help_text="Sign-in methods that the access token names")
    last_success_at = models.DateTimeField(null=True)
    last_try_at = models.DateTimeField(null=True, db_index=True)
    last_problem = models.CharField(max_length=60, blank=True, help_text="Class of the last failure; else empty")
    last_code = models.CharField(max_length=60, blank=True)
    last_message = models.CharField(max_length=300, blank=True)
    first_denied_at = models.DateTimeField(null=True, help_text="First of consecutive invalid_grant answers (R-15)")
    last_class = models.CharField("class of the last try", max_length=24, blank=True)
    last_owner = OwnerField()
    failures = models.PositiveSmallIntegerField(default=0, help_text="Failed tries one after the other")
    next_try_at = models.DateTimeField("next try", null=True, db_index=True)
    checks = models.JSONField(default=list, help_text="What was proven at the sign-in")

    # When it ends; ``consent.tokens.health.refresh`` works it out.
    sign_in_lifetime = models.PositiveIntegerField(
        null=True, help_text="Seconds after the sign-in that AADSTS70043 named (sign-in frequency)"
    )
    forecast_at = models.DateTimeField("ends", null=True, db_index=True)
    forecast_cause = models.CharField("ends because of", max_length=10, choices=ForecastCause, blank=True)
    alerted_days = models.PositiveSmallIntegerField(default=0, help_text="Token age of the last alert (R-11)")

    objects = PartnerConsentQuerySet.as_manager()

    class Meta:
        ordering = ["partner__name", "pk"]
        verbose_name = "partner consent"
        permissions = [
            ("disconnect_partnerconsent", "Can disconnect a partner"),
            ("check_partnerconsent", "Can check partners' tokens now"),
            ("renew_partnerconsent", "Can renew partners' tokens now"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["partner", "registration"], name="consent_once_per_registration"),
            models.CheckConstraint(
                condition=Q(generation=0) | (~Q(secret_version="") & ~Q(fingerprint="") & Q(stored_at__isnull=False)),
                name="consent_generation_has_pointer",
            ),
            models.CheckConstraint(
                condition=~Q(state="connected") | Q(generation__gt=0), name="consent_connected_has_token"
            ),
            # Proven once; an answer without a verdict takes the proof, not the state.
            models.CheckConstraint(
                condition=~Q(state="connected") | ~Q(mfa="missing"), name="consent_connected_lacks_no_mfa"
            ),
            models.CheckConstraint(
                condition=Q(forecast_at__isnull=True, forecast_cause="")
                | (Q(forecast_at__isnull=False) & ~Q(forecast_cause="")),
                name="consent_forecast_has_cause",
            ),
        ]

    def __str__(self) -> str:
        """Note: this reads ``self.partner`` and ``self.registration``; where they are not loaded, that is a query."""
        return f"{self.partner}, {self.registration}"


UNWELL = ~Q(state=PartnerConsent.State.CONNECTED) | ~Q(last_problem="")
"""Consents with a token of which somebody must do something; those that are over are none."""


class WaitingTokenQuerySet(models.QuerySet["WaitingToken"]):
    def waiting(self) -> WaitingTokenQuerySet:
        """Tokens that somebody can still decide on: stored and not too old, by the database's clock."""
        return self.filter(decision=WaitingToken.Decision.WAITING, expires_at__gt=Now()).exclude(secret_version="")

    def overdue(self) -> WaitingTokenQuerySet:
        """Tokens that were not approved in time."""
        return self.filter(decision=WaitingToken.Decision.WAITING, expires_at__lte=Now())


class WaitingToken(models.Model):
    """A proven refresh token of another account than the pinned one, until somebody decides (S-15).

    It lies under a vault name of its own and is never used for work. Written by ``consent.sign_in.approvals``, and
    emptied by ``consent.offboarding``, only.
    """

    class Decision(models.TextChoices):
        WAITING = "waiting", "Waiting"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"
        EXPIRED = "expired", "Expired"
        REPLACED = "replaced", "Replaced by a newer sign-in"

    consent = models.ForeignKey(PartnerConsent, on_delete=models.CASCADE, related_name="waiting_tokens")
    object_id = ObjectIdField("account object id")
    secret_name = models.CharField(max_length=127, unique=True)
    secret_version = models.CharField(max_length=32, blank=True)
    fingerprint = models.CharField(max_length=16, blank=True)
    mfa = models.CharField("MFA", max_length=8, choices=PartnerConsent.Mfa)
    checks = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)
    decision = models.CharField(max_length=8, choices=Decision, default=Decision.WAITING)
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=150, blank=True)

    objects = WaitingTokenQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        verbose_name = "account waiting for approval"
        verbose_name_plural = "accounts waiting for approval"
        constraints = [
            models.UniqueConstraint(
                fields=["consent", "object_id"], condition=Q(decision="waiting"), name="waiting_once_per_account"
            ),
            models.CheckConstraint(
                condition=Q(decision="waiting", decided_at__isnull=True)
                | (~Q(decision="waiting") & Q(decided_at__isnull=False)),
                name="waiting_decision_has_time",
            ),
        ]
        permissions = [("decide_waitingtoken", "Can approve or reject a changed account")]

    def __str__(self) -> str:
        """Note: this reads ``self.consent`` with partner and registration; not loaded, those are queries."""
        return f"Account {self.object_id} of {self.consent}"
