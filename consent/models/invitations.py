"""Consent links, the attempts made with them, and campaigns that send them."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Case, Count, Exists, F, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce, Now

from consent.models.applications import ApplicationRegistration
from consent.models.tokens import PARTNER_ON, PartnerConsent
from portal.fields import NameField
from tenants.models import PartnerTenant


def _latest_attempt(attempts: ConsentFlowQuerySet) -> dict[str, models.expressions.Combinable]:
    return {
        "last_outcome": Subquery(attempts.values("outcome")[:1]),
        "last_problem": Coalesce(Subquery(attempts.values("problem")[:1]), Value("")),
        "last_attempt_at": Subquery(attempts.values("created_at")[:1]),
    }


def _progress_of_attempts(attempts: ConsentFlowQuerySet) -> Subquery:
    """Return what the latest attempt says, NULL without one; the words are those of both ``Progress``.

    One subquery, not a comparison with ``last_outcome`` for each word: PostgreSQL would plan each of them anew.
    """
    came, is_ = ConsentFlow.Outcome, ConsentLink.Progress
    word = Case(
        # Without MFA the connection is no good, and the same link serves for the next attempt.
        When(outcome=came.MFA_MISSING, then=Value(is_.MFA_MISSING)),
        When(outcome=came.REFUSED, then=Value(is_.FAILED)),
        When(outcome=came.WAITING_APPROVAL, then=Value(is_.WAITING)),
        default=Value(is_.STARTED),
        output_field=models.CharField(),
    )
    return Subquery(attempts.annotate(word=word).values("word")[:1])


class ConsentLinkQuerySet(models.QuerySet["ConsentLink"]):
    def live(self) -> ConsentLinkQuerySet:
        """Links whose flows may still end, by the database's own clock (S-10, R-42)."""
        return self.filter(
            partner__offboarding_since__isnull=True,
            partner__switch=PartnerTenant.Switch.ON,
            revoked_at__isnull=True,
            expires_at__gt=Now(),
            registration__state=ApplicationRegistration.State.ACTIVE,
        )

    def usable(self) -> ConsentLinkQuerySet:
        """Links that may start a flow now: live and not closed by a consent (S-03)."""
        return self.live().filter(closed_at__isnull=True)

    def unanswered(self) -> ConsentLinkQuerySet:
        """Links that are neither over nor closed, whatever partner and registration allow now."""
        return self.filter(revoked_at__isnull=True, closed_at__isnull=True, expires_at__gt=Now())

    def with_progress(self) -> ConsentLinkQuerySet:
        """Annotate ``progress`` (``ConsentLink.Progress``), and outcome, problem and time of the latest attempt.

        The number of queries is the same for any number of links.
        """
        is_ = ConsentLink.Progress
        latest = ConsentFlow.objects.filter(link=OuterRef("pk")).order_by("-created_at", "-pk")
        return self.annotate(**_latest_attempt(latest)).annotate(
            progress=Case(
                When(closed_at__isnull=False, then=Value(is_.DONE)),
                When(revoked_at__isnull=False, then=Value(is_.REVOKED)),
                When(expires_at__lte=Now(), then=Value(is_.EXPIRED)),
                When(~Q(registration__state=ApplicationRegistration.State.ACTIVE), then=Value(is_.OFF)),
                When(~PARTNER_ON, then=Value(is_.OFF)),
                When(partner__offboarding_since__isnull=False, then=Value(is_.OFF)),
                default=Coalesce(_progress_of_attempts(latest), Value(is_.OPEN)),
                output_field=models.CharField(choices=is_.choices),
            )
        )

    def by_token_hash(self, token_hash: str) -> ConsentLinkQuerySet:
        return self.filter(token_hash=token_hash)


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
        MFA_MISSING = "mfa_missing", "Connected, MFA missing"
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
        indexes = [
            # For the first page and the lists of what waits: few links are neither over nor closed.
            models.Index(
                fields=["expires_at"],
                condition=Q(closed_at__isnull=True, revoked_at__isnull=True),
                name="link_unanswered",
            ),
        ]
        permissions = [
            ("revoke_consentlink", "Can revoke a consent link"),
            ("extend_consentlink", "Can extend a consent link"),
            ("send_consentlink", "Can send a consent link by e-mail"),
        ]

    def __str__(self) -> str:
        """Note: this reads ``self.partner``; where it is not loaded, that is a query."""
        return f"Link {self.pk} for {self.partner}"


class ConsentFlowQuerySet(models.QuerySet["ConsentFlow"]):
    def claimable(self) -> ConsentFlowQuerySet:
        """Flows whose answer may still be redeemed: the condition of the one claiming UPDATE (S-09, S-10).

        No joins: Django would move all conditions of a joined UPDATE into a subquery, which PostgreSQL does not
        evaluate again after waiting for another claim, and two posts would win.
        """
        return self.filter(
            models.Exists(ConsentLink.objects.live().filter(pk=models.OuterRef("link_id"))),
            claimed_at__isnull=True,
            expires_at__gt=Now(),
        )

    def expired_before(self, moment: datetime) -> ConsentFlowQuerySet:
        return self.filter(expires_at__lt=moment)


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


class CampaignQuerySet(models.QuerySet["Campaign"]):
    def with_counts(self) -> CampaignQuerySet:
        """Annotate ``invited_count``, ``sent_count`` and ``connected_count``."""
        partners = CampaignPartner.objects.filter(campaign=OuterRef("pk"))

        def number(of: CampaignPartnerQuerySet) -> Coalesce:
            counted = of.order_by().values("campaign").annotate(number=Count("pk")).values("number")
            return Coalesce(Subquery(counted), 0)

        return self.annotate(
            invited_count=number(partners),
            sent_count=number(partners.filter(sent_at__isnull=False)),
            connected_count=number(partners.with_progress().filter(Q(progress=CampaignPartner.Progress.CONNECTED))),
        )


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


class CampaignPartnerQuerySet(models.QuerySet["CampaignPartner"]):
    def with_progress(self) -> CampaignPartnerQuerySet:
        """Annotate ``progress`` (``CampaignPartner.Progress``), and outcome, problem and time of the latest attempt.

        What the partner did counts from the day of the campaign, through any link: a partner that connected through
        another one is done as well.
        """
        is_ = CampaignPartner.Progress
        attempts = ConsentFlow.objects.filter(
            link__partner=OuterRef("partner"),
            link__registration=OuterRef("campaign__registration"),
            link__kind=ConsentLink.Kind.SIGN_IN,
            created_at__gte=OuterRef("campaign__created_at"),
        ).order_by("-created_at", "-pk")
        connected = PartnerConsent.objects.filter(
            partner=OuterRef("partner"),
            registration=OuterRef("campaign__registration"),
            state=PartnerConsent.State.CONNECTED,
            consented_at__gte=OuterRef("campaign__created_at"),
        )
        mailed = Case(
            When(~Q(last_send_problem=""), then=Value(is_.SEND_FAILED)),
            When(sent_at__isnull=False, then=Value(is_.SENT)),
            When(link__isnull=False, then=Value(is_.INTERRUPTED)),
            default=Value(is_.INVITED),
            output_field=models.CharField(),
        )
        return self.annotate(**_latest_attempt(attempts)).annotate(
            progress=Case(
                When(Q(link__closed_at__isnull=False) | Exists(connected), then=Value(is_.CONNECTED)),
                default=Coalesce(_progress_of_attempts(attempts), mailed),
                output_field=models.CharField(choices=is_.choices),
            )
        )

    def to_send(self) -> CampaignPartnerQuerySet:
        """Partners who are not connected, and whose invitation was not made or certainly did not leave."""
        unsent = self.filter(Q(link__isnull=True) | ~Q(last_send_problem=""))
        # What failed before comes last, so that it never keeps the others waiting.
        return (
            unsent.with_progress()
            .exclude(Q(progress=CampaignPartner.Progress.CONNECTED))
            .order_by("last_send_problem", "pk")
        )

    def to_remind(self, before: datetime) -> CampaignPartnerQuerySet:
        """Partners who are not connected, and whose latest mail left, or may have left, before that moment.

        Each mail has a link of its own, also when an older version sent it, so the link's age is the mail's.
        """
        mailed = self.filter(link__created_at__lt=before, last_send_problem="")
        is_ = CampaignPartner.Progress
        return mailed.with_progress().exclude(Q(progress__in=[is_.CONNECTED, is_.WAITING])).order_by("pk")

    def with_open_link(self) -> CampaignPartnerQuerySet:
        return self.filter(link__isnull=False, link__closed_at__isnull=True, link__revoked_at__isnull=True)


class CampaignPartner(models.Model):
    """One invited partner. ``link`` is written before a mail leaves, what became of the mail after it.

    A link without outcome was interrupted: the mail may have left or not, so only a reminder repeats it.
    """

    class Progress(models.TextChoices):
        """How far the partner came; read from links, attempts and consents, stored nowhere."""

        INVITED = "invited", "Not sent yet"
        SEND_FAILED = "send_failed", "Could not be sent"
        INTERRUPTED = "interrupted", "Being sent, or interrupted"
        SENT = "sent", "Sent, not started yet"
        STARTED = "started", "Started"
        FAILED = "failed", "Failed"
        MFA_MISSING = "mfa_missing", "Connected, MFA missing"
        WAITING = "waiting", "Waiting for approval"
        CONNECTED = "connected", "Connected"

    class SendProblem(models.TextChoices):
        NO_ADDRESS = "no_address", "No contact of the partner gets invitations, or an address is invalid."
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
