"""The ledger of uses: which access tokens were issued or handed out, for what, by whom and from where. No token."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F, Q

from consent.models.applications import ApplicationRegistration
from portal.audit.models import AuditEvent
from tenants.models import CustomerTenant, PartnerTenant


class TokenUseQuerySet(models.QuerySet["TokenUse"]):
    def for_partner(self, partner: PartnerTenant) -> TokenUseQuerySet:
        return self.filter(partner=partner)

    def between(self, since: datetime, until: datetime) -> TokenUseQuerySet:
        """Uses of which a part, at least, lies in this window."""
        return self.filter(at__lte=until, last_at__gte=since)


class TokenUse(models.Model):
    """One access token that was given out; or, of a run, all of one partner and service.

    Written by ``consent.uses`` only. A run of many customers has one row for each partner and service, and each process
    that worked it has its own.
    """

    class Purpose(models.TextChoices):
        """What it was given out for."""

        PROGRAM = "program", "Access token for a program"
        SIGN_IN = "sign_in", "Sign-in of the partner"
        APPROVAL = "approval", "Approval of another account"
        CREDENTIAL = "credential", "Proof of a credential"
        DOCTOR = "doctor", "Doctor"
        REPAIR = "repair", "Repair after a restore"
        CHECK = "token_check", "Token check"
        SYNC = "customer_sync", "Customer sync"
        VERIFY = "consent_verify", "Check of customer consents"
        APPLY = "apply_plan", "Plan, push or removal"
        IMPORT = "import_tokens", "Import of refresh tokens"

    at = models.DateTimeField(help_text="When it was given out; of several the first time")
    last_at = models.DateTimeField(help_text="Of several the last time")
    partner = models.ForeignKey(PartnerTenant, on_delete=models.PROTECT, db_index=False, related_name="+")
    registration = models.ForeignKey(
        ApplicationRegistration, on_delete=models.PROTECT, db_index=False, related_name="+"
    )
    audience = models.CharField(max_length=36, help_text="The service, or the application id of another resource")
    customer = models.ForeignKey(CustomerTenant, on_delete=models.PROTECT, db_index=False, null=True, related_name="+")
    purpose = models.CharField(max_length=14, choices=Purpose)
    actor_kind = models.CharField(max_length=7, choices=AuditEvent.ActorKind)
    actor = models.CharField(max_length=150)
    address = models.GenericIPAddressField(null=True)
    run = models.BigIntegerField(null=True, help_text="Number of the run; runs are removed earlier than this")
    correlation_id = models.CharField(max_length=36, blank=True, help_text="A run's units have their own")
    issued = models.PositiveIntegerField(default=0, help_text="So many were issued by Microsoft")
    cached = models.PositiveIntegerField(default=0, help_text="So many times one from memory was given out")
    of_customers = models.PositiveIntegerField(default=0, help_text="So many of both were for tenants of customers")

    objects = TokenUseQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        default_permissions = ("view",)
        verbose_name = "token use"
        indexes = [
            models.Index(fields=["partner", "last_at"], name="use_of_partner"),
            models.Index(fields=["last_at"], name="use_when"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(last_at__gte=F("at")), name="use_ends_after_it_begins"),
            models.CheckConstraint(condition=Q(issued__gt=0) | Q(cached__gt=0), name="use_is_one_at_least"),
        ]

    def __str__(self) -> str:
        return f"Token use {self.pk}"
