"""By what right we act: registrations, links, flows, and consents of partners and customers.

No row holds a secret: tokens and credentials are in the vault, everything else that must be recognised again is
stored as a SHA-256 (S-01, S-06, S-07, S-30).
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F, Q

from consent.credential_models import ApplicationCredential
from consent.customer_models import ConsentObservation as ConsentObservation
from consent.customer_models import CustomerConsent as CustomerConsent
from consent.offboarding_models import Offboarding as Offboarding
from consent.permissions import outside_allow_list, parse_scopes
from consent.plan_models import ConsentPlan as ConsentPlan
from consent.plan_models import ConsentPlanItem as ConsentPlanItem
from consent.plan_models import WantedGrants as WantedGrants
from consent.querysets import (
    CampaignPartnerQuerySet,
    CampaignQuerySet,
    ConsentFlowQuerySet,
    ConsentLinkQuerySet,
    PartnerConsentQuerySet,
    WaitingTokenQuerySet,
)
from consent.vault_models import VaultPairing as VaultPairing
from portal.fields import ApplicationIdField, NameField, ObjectIdField, OwnerField, TenantIdField
from portal.microsoft.clouds import CLOUD_CHOICES
from portal.microsoft.identifiers import ApplicationId
from tenants.models import PartnerTenant

_FIXED_IDENTITY = (
    "Application id, home tenant and cloud are fixed: partners have links or consents of this application. Make a new "
    "registration for another application, and retire this one."
)
_NO_CREDENTIAL = "Add and promote a credential (manage.py add_credential) before activating it."


class ApplicationRegistration(models.Model):
    """Our application as registered in Entra, one row per cloud and application id.

    ``credential`` points to the one in use; ``consent.applications.rotation`` is its only writer.
    """

    class Kind(models.TextChoices):
        CPV = "cpv", "CPV: one application for all partners"
        CSP = "csp", "CSP: one partner's own application"

    class PermissionSet(models.TextChoices):
        STRICT = "strict", "Strict: exactly what the Secure Application Model asks for"
        EXTENDED = "extended", "Extended: also what role checks and read-back need"

    class State(models.TextChoices):
        DRAFT = "draft", "Draft"
        ACTIVE = "active", "Active"
        RETIRED = "retired", "Retired"

    # Which application it is at Microsoft; fixed once partners have links or consents of it.
    IDENTITY = ("cloud", "application_id", "home_tenant_id")

    name = NameField(help_text="Partners see this name on the page that asks for their consent.")
    kind = models.CharField(max_length=3, choices=Kind, default=Kind.CPV)
    cloud = models.CharField(max_length=10, choices=CLOUD_CHOICES, default="global")
    application_id = ApplicationIdField("application (client) id")
    home_tenant_id = TenantIdField("home tenant id", help_text="The tenant in which the application is registered.")
    permission_set = models.CharField(max_length=8, choices=PermissionSet, default=PermissionSet.STRICT)
    credential = models.OneToOneField(
        ApplicationCredential, on_delete=models.PROTECT, null=True, editable=False, related_name="current_for"
    )
    state = models.CharField(max_length=8, choices=State, default=State.DRAFT)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "pk"]
        verbose_name = "application registration"
        constraints = [
            models.UniqueConstraint(fields=["cloud", "application_id"], name="registration_once_per_cloud"),
            models.CheckConstraint(
                condition=Q(state="draft") | Q(credential__isnull=False),
                name="registration_active_has_credential",
                violation_error_message=_NO_CREDENTIAL,
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **options: Any) -> None:
        """Save.

        Raises:
            ValidationError: another identity, while partners have links or consents of this one.
        """
        names = options.get("update_fields")
        with transaction.atomic():
            changes = (names is None or set(names) & set(self.IDENTITY)) and self._has_other_identity()
            super().save(*args, **options)
            # After the write: from then on no link is made with this row until the transaction is over.
            if changes and self.is_known_to_partners():
                raise ValidationError(_FIXED_IDENTITY)

    def clean(self) -> None:
        if self._has_other_identity() and self.is_known_to_partners():
            raise ValidationError(_FIXED_IDENTITY)
        # The constraint says it too, but a form leaves out constraints of columns that it does not show.
        if self.state != self.State.DRAFT and self.credential_id is None:
            raise ValidationError({"state": _NO_CREDENTIAL})

    def is_known_to_partners(self) -> bool:
        """Tell whether a partner has a link or a consent of it, or one of its customers was looked at."""
        return self.links.exists() or self.consents.exists() or self.customer_consents.exists()

    def _has_other_identity(self) -> bool:
        before = ApplicationRegistration.objects.filter(pk=self.pk).values(*self.IDENTITY).first()
        return before is not None and any(getattr(self, name) != value for name, value in before.items())

    @property
    def client_id(self) -> ApplicationId:
        """The application id with its type."""
        return ApplicationId(self.application_id)


class ApplicationGrant(models.Model):
    """Delegated permissions of one resource that we want in customer tenants."""

    registration = models.ForeignKey(ApplicationRegistration, on_delete=models.CASCADE, related_name="grants")
    resource_application_id = ApplicationIdField("resource application id")
    scopes = models.JSONField(help_text='Names of delegated permissions, for example ["User.Read.All"]')

    class Meta:
        ordering = ["resource_application_id"]
        verbose_name = "wanted grant"
        constraints = [
            models.UniqueConstraint(fields=["registration", "resource_application_id"], name="grant_once_per_resource"),
        ]

    def __str__(self) -> str:
        return f"{self.resource_application_id}: {', '.join(self.scopes)}"

    def clean(self) -> None:
        try:
            self.scopes = parse_scopes(self.scopes)
        except ValueError as error:
            raise ValidationError({"scopes": str(error)}) from None
        if extra := outside_allow_list(self.resource_application_id, self.scopes):
            raise ValidationError({"scopes": f"Not on this deployment's CONSENT_GRANT_ALLOW_LIST: {', '.join(extra)}"})


class ConsentLink(models.Model):
    """An invitation to one partner. The token is shown once; the row keeps its SHA-256 (S-01)."""

    class Kind(models.TextChoices):
        SIGN_IN = "sign_in", "Sign-in of the service account"
        ADMIN_CONSENT = "admin_consent", "Consent of the whole tenant, without a token"

    class Progress(models.TextChoices):
        """How far the partner came; read from the row and its attempts, stored nowhere (S-02)."""

        OPEN = "open", "Open"
        STARTED = "started", "Started"
        FAILED = "failed", "Failed"
        WAITING = "waiting", "Waiting for approval"
        DONE = "done", "Done"
        REVOKED = "revoked", "Revoked"
        EXPIRED = "expired", "Expired"
        OFF = "off", "Off with its partner or application"

    partner = models.ForeignKey(PartnerTenant, on_delete=models.PROTECT, related_name="links")
    registration = models.ForeignKey(ApplicationRegistration, on_delete=models.PROTECT, related_name="links")
    kind = models.CharField(max_length=13, choices=Kind, default=Kind.SIGN_IN)
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, editable=False)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, editable=False)
    closed_at = models.DateTimeField(null=True, editable=False, help_text="When the partner was connected")

    objects = ConsentLinkQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        verbose_name = "consent link"
        constraints = [
            models.CheckConstraint(condition=Q(token_hash__regex=r"^[0-9a-f]{64}$"), name="link_token_is_hashed"),
            models.CheckConstraint(condition=Q(expires_at__gt=F("created_at")), name="link_expires_later"),
        ]
        permissions = [
            ("revoke_consentlink", "Can revoke a consent link"),
            ("extend_consentlink", "Can extend a consent link"),
            ("send_consentlink", "Can send a consent link by e-mail"),
        ]

    def __str__(self) -> str:
        """Note: this reads ``self.partner``; where it is not loaded, that is a query."""
        return f"Link {self.pk} for {self.partner}"


class ConsentFlow(models.Model):
    """One attempt, from pressing Continue to the answer from Microsoft; 15 minutes, single use (S-06 to S-10)."""

    class Outcome(models.TextChoices):
        OPEN = "open", "At Microsoft"
        WORKING = "working", "Being checked"
        CONNECTED = "connected", "Connected"
        MFA_MISSING = "connected_mfa_missing", "Connected, MFA missing"
        WAITING_APPROVAL = "waiting_approval", "Waiting for approval"
        ADMIN_CONSENTED = "admin_consented", "Consented, no token yet"
        REFUSED = "refused", "Refused"

    link = models.ForeignKey(ConsentLink, on_delete=models.CASCADE, related_name="flows")
    public_id = models.CharField(max_length=32, unique=True)
    state_hash = models.CharField(max_length=64, unique=True)
    binder_hash = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)
    claimed_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=24, choices=Outcome, default=Outcome.OPEN)
    problem = models.CharField(max_length=40, blank=True, help_text="Which refusal the person saw")
    code = models.CharField(max_length=60, blank=True, help_text="Microsoft's error code, cleaned")
    checks = models.JSONField(default=list)
    correlation_id = models.CharField(max_length=36)

    objects = ConsentFlowQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        verbose_name = "consent flow"
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome="open", claimed_at__isnull=True)
                | (~Q(outcome="open") & Q(claimed_at__isnull=False)),
                name="flow_outcome_needs_claim",
            ),
            models.CheckConstraint(condition=~Q(outcome="refused") | ~Q(problem=""), name="flow_refusal_has_problem"),
        ]

    def __str__(self) -> str:
        return self.reference

    @property
    def reference(self) -> str:
        """What the person reads out to support: short, and staff can search it."""
        return self.public_id[:8].upper()


class Campaign(models.Model):
    """Partners who are invited together for one reason. Written by ``consent.invitations.campaigns`` only."""

    class Reason(models.TextChoices):
        FIRST_INVITATION = "first_invitation", "First invitation"
        NEW_SCOPE = "new_scope", "New permissions"
        NEW_APPLICATION = "new_application", "New application"
        EXPIRING_TOKEN = "expiring_token", "Expiring token"

    name = NameField(max_length=100, help_text="For staff; partners never read it.")
    registration = models.ForeignKey(ApplicationRegistration, on_delete=models.PROTECT, related_name="campaigns")
    reason = models.CharField(max_length=16, choices=Reason, default=Reason.FIRST_INVITATION)
    link_days = models.PositiveSmallIntegerField("days that a link works", default=14)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, editable=False)
    closed_at = models.DateTimeField(null=True, editable=False)

    objects = CampaignQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.CheckConstraint(condition=Q(link_days__gte=1, link_days__lte=90), name="campaign_link_days"),
            models.CheckConstraint(
                condition=Q(closed_at__isnull=True) | Q(closed_at__gte=F("created_at")), name="campaign_closed_later"
            ),
        ]
        permissions = [
            ("send_campaign", "Can send the invitations and reminders of a campaign"),
            ("close_campaign", "Can close a campaign"),
        ]

    def __str__(self) -> str:
        return self.name


class CampaignPartner(models.Model):
    """One invited partner. ``link`` is written before a mail leaves, what became of the mail after it.

    A link without outcome was interrupted: nobody knows whether the mail left, so only a reminder repeats it.
    """

    class Progress(models.TextChoices):
        """How far the partner came; read from links, attempts and consents, stored nowhere."""

        INVITED = "invited", "Not sent yet"
        SEND_FAILED = "send_failed", "Could not be sent"
        INTERRUPTED = "interrupted", "Being sent, or interrupted"
        SENT = "sent", "Sent, not started yet"
        STARTED = "started", "Started"
        FAILED = "failed", "Failed"
        WAITING = "waiting", "Waiting for approval"
        CONNECTED = "connected", "Connected"

    class SendProblem(models.TextChoices):
        NO_ADDRESS = "no_address", "The partner has no contact address, or one that is none."
        NO_LINK = "no_link", "No link can be made: partner or application registration does not allow it."
        REFUSED = "refused", "The mail server refused this message or its address."
        UNAVAILABLE = "unavailable", "The mail server went away before it took the message."
        PRINTED = "printed", "Printed, not sent: this portal has no mail server."

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="partners")
    partner = models.ForeignKey(PartnerTenant, on_delete=models.PROTECT, related_name="campaigns")
    link = models.OneToOneField(ConsentLink, on_delete=models.PROTECT, null=True, related_name="invitation")
    sent_at = models.DateTimeField(null=True)
    reminded_at = models.DateTimeField(null=True)
    last_send_problem = models.CharField("problem with the mail", max_length=11, choices=SendProblem, blank=True)

    objects = CampaignPartnerQuerySet.as_manager()

    class Meta:
        ordering = ["campaign", "partner__name", "pk"]
        verbose_name = "invited partner"
        constraints = [
            models.UniqueConstraint(fields=["campaign", "partner"], name="campaign_partner_once"),
            models.CheckConstraint(
                condition=Q(sent_at__isnull=True) | Q(link__isnull=False), name="campaign_sent_has_link"
            ),
            models.CheckConstraint(
                condition=Q(reminded_at__isnull=True) | Q(sent_at__isnull=False), name="campaign_reminder_comes_second"
            ),
        ]

    def __str__(self) -> str:
        """Note: this reads ``self.partner``; where it is not loaded, that is a query."""
        return self.partner.name


class PartnerConsent(models.Model):
    """What we know about one partner's refresh token; the row knows everything but the token.

    Written by ``consent.tokens.custody`` (token, generation, lease, who consented and when) and by
    ``consent.tokens.checking`` (health).
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

    class ForecastCause(models.TextChoices):
        """Why a token ends, when nobody does anything."""

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

    # When it ends, written by ``consent.tokens.health.refresh`` only.
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
        permissions = [("disconnect_partnerconsent", "Can disconnect a partner")]
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


class WaitingToken(models.Model):
    """A proven refresh token of another account than the pinned one, until somebody decides (S-15).

    It lies under a vault name of its own and is never used for work. Written by ``consent.sign_in.approvals`` only.
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
