"""The credentials by which an application registration proves itself. No row holds one: they are in the vault."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from consent.querysets import ApplicationCredentialQuerySet
from tenants.models import PartnerTenant


class ApplicationCredential(models.Model):
    """One credential of a registration. Written by ``consent.applications.rotation`` only.

    Which one is in use is told by the registration's own pointer (``ApplicationRegistration.credential``), so there
    is never more than one and promoting is a single update.
    """

    class Kind(models.TextChoices):
        CERTIFICATE = "certificate", "Certificate"
        FEDERATED = "federated", "Managed identity"
        SECRET = "secret", "Client secret"  # the word, not a secret

    class State(models.TextChoices):
        """Read from the row and the registration's pointer, stored nowhere."""

        CANDIDATE = "candidate", "Candidate"
        CURRENT = "current", "Current"
        PREVIOUS = "previous", "Previous, kept for roll back"
        REFUSED = "refused", "Refused by Microsoft"
        RETIRED = "retired", "Retired"

    registration = models.ForeignKey(
        "consent.ApplicationRegistration", on_delete=models.PROTECT, related_name="credentials"
    )
    kind = models.CharField(max_length=11, choices=Kind)
    secret_name = models.CharField(max_length=127, blank=True)
    secret_version = models.CharField(max_length=32, blank=True)
    key_id = models.CharField(
        max_length=64,
        blank=True,
        help_text="Thumbprint (x5t#S256) of a certificate, id of a secret, client id of a managed identity",
    )
    public_certificate = models.TextField(blank=True, help_text="PEM; the public part only")
    sends_chain = models.BooleanField(
        "sends x5c", default=False, help_text="Assertions carry the certificate chain: trust by subject and issuer"
    )
    starts_at = models.DateTimeField("valid from")
    expires_at = models.DateTimeField("valid until", null=True, db_index=True)
    created_at = models.DateTimeField(auto_now_add=True)
    proven_at = models.DateTimeField(null=True)
    proven_with = models.ForeignKey(PartnerTenant, on_delete=models.PROTECT, null=True, related_name="+")
    promoted_at = models.DateTimeField(null=True)
    refused_at = models.DateTimeField(null=True)
    refused_code = models.CharField(max_length=60, blank=True)
    retired_at = models.DateTimeField(null=True)
    warned_days = models.PositiveSmallIntegerField(null=True, help_text="The last expiry threshold that staff heard of")

    objects = ApplicationCredentialQuerySet.as_manager()

    class Meta:
        ordering = ["registration", "-created_at", "-pk"]
        verbose_name = "application credential"
        constraints = [
            models.UniqueConstraint(
                fields=["registration", "secret_name", "secret_version"],
                condition=~Q(secret_name=""),
                name="credential_once",
            ),
            models.CheckConstraint(
                condition=Q(kind="federated", secret_name="", secret_version="") & ~Q(key_id="")
                | ~Q(kind="federated") & ~Q(secret_name="") & ~Q(secret_version=""),
                name="credential_is_in_the_vault",
            ),
            models.CheckConstraint(
                condition=~Q(kind="certificate") | ~Q(key_id="") & ~Q(public_certificate=""),
                name="credential_certificate_is_known",
            ),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("starts_at")), name="credential_ends_later"
            ),
            models.CheckConstraint(
                condition=Q(proven_at__isnull=True, proven_with__isnull=True)
                | Q(proven_at__isnull=False, proven_with__isnull=False),
                name="credential_proven_with_somebody",
            ),
            models.CheckConstraint(
                condition=Q(refused_at__isnull=True, refused_code="") | Q(refused_at__isnull=False),
                name="credential_refused_at_some_time",
            ),
        ]
        permissions = [
            ("promote_applicationcredential", "Can promote an application credential"),
            ("retire_applicationcredential", "Can retire an application credential"),
        ]

    def __str__(self) -> str:
        """Name the kind and what Microsoft shows of it. Runs no query."""
        return f"{self.get_kind_display()} {self.key_id[:12] or self.pk}"
