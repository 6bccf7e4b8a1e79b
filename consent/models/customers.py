"""Consents in customer tenants, and what each read of one showed."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from django.db import models
from django.db.models import Case, F, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce

from portal.fields import OwnerField
from tenants.models import CustomerTenant, PartnerTenant


class ChangedBy(models.TextChoices):
    """Who changed what a read found, as far as our own requests tell."""

    NOBODY = "", "Nothing changed"
    FIRST = "first", "First read"
    US = "us", "We"
    OUTSIDE = "outside", "Somebody outside"


class Attempt(models.TextChoices):
    """What was tried with a customer tenant."""

    NOTHING = "", "Nothing"
    APPLY = "apply", "Applying a plan"
    PUSH = "push", "Push"
    REMOVE = "remove", "Removal"
    VERIFY = "verify", "Read"


class ConsentState(models.TextChoices):
    """How the consent stands in a tenant."""

    UNKNOWN = "unknown", "Unknown"
    ABSENT = "absent", "Absent"
    WAITING = "waiting", "Waiting for Microsoft"
    PARTIAL = "partial", "Partly granted"
    GRANTED = "granted", "Granted"
    DIFFERS = "differs", "Differs from what we want"
    BLOCKED = "blocked", "Blocked"
    FAILED = "failed", "Failed"


_REMOVED = Q(requested_at__isnull=False, requested_hash="")


# The condition of an index: few of many consents are not well.
NOT_WELL = Q(owner__gt="") | Q(unread_since__isnull=False) | Q(failed_at__isnull=False)


_NOT_AS_WANTED = Q(state=ConsentState.PARTIAL) | Q(state=ConsentState.DIFFERS)
DRIFTED = Q(changed_by=ChangedBy.OUTSIDE) & (
    _NOT_AS_WANTED | (Q(state=ConsentState.GRANTED) & _REMOVED) | (Q(state=ConsentState.ABSENT) & ~_REMOVED)
)
# The condition of an index as well. SQLite compares it with that of a statement, but for what stands in a list of IN.
FINDING = (
    DRIFTED
    | _NOT_AS_WANTED
    | (Q(state=ConsentState.ABSENT) & ~Q(requested_hash=""))
    | (_REMOVED & ~Q(state=ConsentState.ABSENT))
    | Q(unread_since__isnull=False)
    | Q(failed_at__isnull=False)
)
OF_ACTIVE = Q(customer__partner__switch=PartnerTenant.Switch.ON)


class CustomerConsentQuerySet(models.QuerySet["CustomerConsent"]):
    def for_partner(self, partner: PartnerTenant) -> CustomerConsentQuerySet:
        return self.filter(customer__partner=partner)

    def with_words(self) -> CustomerConsentQuerySet:
        """Annotate ``why``, and ``who`` must act, as the newest attempt or read says, whether it worked or not.

        ``attempt`` (``Attempt``) and ``attempt_at`` name what failed; they are empty where nothing did since the read.
        """
        later_read = Q(verified_at__gte=F("failed_at")) | Q(unread_since__isnull=False, tried_at__gt=F("failed_at"))
        failed, unread = Q(failed_at__isnull=False) & ~later_read, Q(unread_since__isnull=False)
        return self.annotate(
            attempt=Case(
                When(failed, then=F("failed_what")),
                When(unread, then=Value(Attempt.VERIFY)),
                default=Value(Attempt.NOTHING),
                output_field=models.CharField(choices=Attempt.choices),
            ),
            attempt_at=Case(When(failed, then=F("failed_at")), When(unread, then=F("tried_at"))),
            why=Case(When(failed, then=F("failed_reason")), When(unread, then=F("unread_reason")), default=F("reason")),
            who=Case(When(failed, then=F("failed_owner")), When(unread, then=F("unread_owner")), default=F("owner")),
        )

    def wanting_action(self) -> CustomerConsentQuerySet:
        """Consents for which somebody must act, ``who`` annotated; of partners for whom work goes on."""
        return self.with_words().filter(NOT_WELL & Q(who__gt="") & OF_ACTIVE)

    def drifted(self) -> CustomerConsentQuerySet:
        """Consents that somebody outside changed, and that are not as we left them since."""
        return self.filter(DRIFTED)

    def findings(self) -> CustomerConsentQuerySet:
        """Everything about consents of active partners that somebody should look at."""
        return self.filter(FINDING & OF_ACTIVE)


class CustomerConsent(models.Model):
    """Our application's consent in one customer tenant. ``state`` comes only from a read in that tenant.

    The ``request`` columns are the intent that precedes each POST and DELETE (R-20). The ``unread`` columns say that
    later reads failed: state, grants and ``verified_at`` are then those of the last one that did not. The ``failed``
    columns say what failed of what was tried, until it works (``consent.customers.attempts``).
    """

    State: TypeAlias = ConsentState  # noqa: UP040  # the other form is no class at run time

    customer = models.ForeignKey(CustomerTenant, on_delete=models.PROTECT, related_name="consents", db_index=False)
    registration = models.ForeignKey(
        "consent.ApplicationRegistration", on_delete=models.PROTECT, related_name="customer_consents", db_index=False
    )
    state = models.CharField(max_length=8, choices=State, default=State.UNKNOWN)
    wanted_hash = models.CharField(max_length=64, blank=True)
    actual_grants = models.JSONField(default=dict, help_text="Resource application id: scopes, as last read")
    service_principal_id = models.CharField(max_length=36, blank=True)
    verified_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=300, blank=True)
    owner = OwnerField()
    request_id = models.CharField(max_length=36, blank=True)
    requested_hash = models.CharField(max_length=64, blank=True)
    requested_at = models.DateTimeField(null=True)
    requested_by = models.CharField(max_length=150, blank=True)
    request_open = models.BooleanField(default=False, help_text="Sent, and its result may still come into sight")
    changed_at = models.DateTimeField("changed", null=True, help_text="The read that first showed these grants")
    changed_by = models.CharField(max_length=7, choices=ChangedBy, blank=True, default=ChangedBy.NOBODY)
    tried_at = models.DateTimeField("last try to read", null=True)
    unread_since = models.DateTimeField("not readable since", null=True)
    unread_reason = models.CharField("why it cannot be read", max_length=300, blank=True)
    unread_owner = OwnerField("who must act to read it")
    failed_at = models.DateTimeField("last attempt failed", null=True)
    failed_what = models.CharField("what failed", max_length=6, choices=Attempt, blank=True, default=Attempt.NOTHING)
    failed_reason = models.CharField("why it failed", max_length=300, blank=True)
    failed_owner = OwnerField("who must act for it to work")

    objects = CustomerConsentQuerySet.as_manager()

    class Meta:
        ordering = ["customer__company_name", "pk"]
        verbose_name = "customer consent"
        permissions = [
            ("verify_customerconsent", "Can read again what customer tenants hold"),
            ("remove_customerconsent", "Can remove our consent from customer tenants"),
        ]
        indexes = [
            models.Index(fields=["registration", "customer"], name="customer_consent_for"),
            models.Index(fields=["state", "registration", "customer"], name="customer_consent_state"),
            models.Index(fields=["verified_at", "customer"], name="customer_consent_read"),
            models.Index(fields=["customer", "state", "registration"], name="customer_consent_of"),
            # It holds each column that ``with_words`` needs for ``who``, so that no row is read to find who must act.
            models.Index(
                fields=[
                    "owner",
                    "customer",
                    "registration",
                    "verified_at",
                    "tried_at",
                    "unread_since",
                    "unread_owner",
                    "failed_at",
                    "failed_owner",
                ],
                condition=NOT_WELL,
                name="customer_consent_who",
            ),
            models.Index(fields=["changed_by", "customer"], name="customer_consent_changed"),
            models.Index(fields=["customer"], condition=FINDING, name="customer_consent_finding"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["customer", "registration"], name="customer_consent_once"),
            models.CheckConstraint(
                condition=~Q(state="granted") | (Q(verified_at__isnull=False) & ~Q(service_principal_id="")),
                name="customer_granted_has_evidence",
            ),
            models.CheckConstraint(
                condition=Q(failed_at__isnull=True, failed_what="") | (Q(failed_at__isnull=False) & ~Q(failed_what="")),
                name="customer_failure_has_time",
            ),
        ]

    def __str__(self) -> str:
        """Note: this reads customer, its partner and registration; where they are not loaded, those are queries."""
        return f"{self.customer}, customer of {self.customer.partner}, {self.registration}"

    @property
    def was_removed(self) -> bool:
        """Whether our last request was a removal; ``querysets`` says the same in SQL."""
        return self.requested_at is not None and not self.requested_hash


class ConsentObservationQuerySet(models.QuerySet["ConsentObservation"]):
    def prunable(self, *, unchanged_before: datetime, changed_before: datetime) -> ConsentObservationQuerySet:
        """Old reads, but never the newest of a consent nor the last that proved a removal by us."""
        same = ConsentObservation.objects.filter(consent=OuterRef("consent"))
        newest = same.order_by("-observed_at", "-pk").values("pk")[:1]
        removed = same.filter(changed_by=ChangedBy.US, state=CustomerConsent.State.ABSENT)
        proof = removed.order_by("-observed_at", "-pk").values("pk")[:1]
        old = Q(changed_by=ChangedBy.NOBODY, observed_at__lt=unchanged_before) | Q(observed_at__lt=changed_before)
        return self.filter(old).exclude(pk=Subquery(newest)).exclude(pk=Coalesce(Subquery(proof), 0))


class ConsentObservation(models.Model):
    """What one read in a customer tenant showed and changed. Written by ``consent.customers.observations`` only."""

    class Evidence(models.TextChoices):
        DIRECTORY = "directory", "Read in the customer's directory"
        SIGN_IN = "sign_in", "The sign-in service knows no consent of ours there"

    consent = models.ForeignKey(CustomerConsent, on_delete=models.CASCADE, related_name="observations")
    registration = models.ForeignKey(  # the consent's, which never changes: the list is filtered by it
        "consent.ApplicationRegistration", on_delete=models.PROTECT, related_name="+", db_index=False
    )
    observed_at = models.DateTimeField(db_index=True)
    state = models.CharField(max_length=8, choices=CustomerConsent.State)
    service_principal_id = models.CharField(max_length=36, blank=True)
    grants = models.JSONField(default=list, help_text="Grant ids, resource application ids and scopes")
    evidence = models.CharField(max_length=9, choices=Evidence, default=Evidence.DIRECTORY)
    added = models.JSONField(default=dict, help_text="Resource application id: scopes that were not there before")
    removed = models.JSONField(default=dict, help_text="Resource application id: scopes that are not there any more")
    changed_by = models.CharField(max_length=7, choices=ChangedBy, blank=True, default=ChangedBy.NOBODY)
    actor = models.CharField(max_length=150, blank=True, help_text="Whose request of ours changed it")
    unchanged_until = models.DateTimeField(null=True, help_text="The read before: it still showed the older grants")
    correlation_id = models.CharField(max_length=36)

    objects = ConsentObservationQuerySet.as_manager()

    class Meta:
        ordering = ["-observed_at", "-pk"]
        verbose_name = "read of a customer tenant"
        verbose_name_plural = "reads of customer tenants"
        # Each filter of the list with the order of the list: the first pages are read, however many reads there are.
        indexes = [
            models.Index(fields=["state", "-observed_at", "-id"], name="read_state"),
            models.Index(fields=["changed_by", "-observed_at", "-id"], name="read_changed_by"),
            models.Index(fields=["evidence", "-observed_at", "-id"], name="read_evidence"),
            models.Index(fields=["registration", "-observed_at", "-id"], name="read_registration"),
        ]

    def __str__(self) -> str:
        return f"Read at {self.observed_at:%Y-%m-%d %H:%M} UTC"


class UnreadCustomer(models.Model):
    """A customer of whom no consent was read when the schedule last looked. Written by ``consent.unread`` only.

    It narrows down where such customers are looked for; whether one was never read, its consents say. The last customer
    that was looked at always has a row: those with a higher key came later.
    """

    customer = models.OneToOneField(CustomerTenant, on_delete=models.CASCADE, primary_key=True, related_name="+")

    class Meta:
        verbose_name = "customer that was never read"
        verbose_name_plural = "customers that were never read"
        default_permissions = ()

    def __str__(self) -> str:
        return f"Customer {self.customer_id}"
