"""Our applications as registered in Entra, their credentials, and what they want in customer tenants."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Case, F, Q, Value, When

from consent import permissions
from consent.grants import Grants
from consent.models.permission_sets import OwnPermissionSet
from consent.permissions import PERMISSION_SETS, outside_allow_list, parse_scopes
from consent.words.permissions import resource_name
from portal.fields import ApplicationIdField, NameField, TenantIdField
from portal.microsoft.clouds import CLOUD_CHOICES, get_cloud
from portal.microsoft.identifiers import ApplicationId
from tenants.models import PartnerTenant

_IS_REQUESTED = ~Q(certificate_request="") & Q(public_certificate="")


class ApplicationCredentialQuerySet(models.QuerySet["ApplicationCredential"]):
    def current(self) -> ApplicationCredentialQuerySet:
        """Credentials in use by a registration that is not retired."""
        return self.filter(current_for__isnull=False).exclude(current_for__state=ApplicationRegistration.State.RETIRED)

    def complete(self) -> ApplicationCredentialQuerySet:
        """Credentials without those that wait for a signed certificate: Microsoft knows nothing of these."""
        return self.exclude(_IS_REQUESTED)

    def unused(self) -> ApplicationCredentialQuerySet:
        """Credentials that were never in use and are not retired: candidates, requests, and what Microsoft refused."""
        return self.filter(current_for__isnull=True, promoted_at__isnull=True, retired_at__isnull=True)

    def for_roll_back(self) -> ApplicationCredentialQuerySet:
        """Credentials that were in use before, the latest first."""
        return self.filter(
            current_for__isnull=True, promoted_at__isnull=False, refused_at__isnull=True, retired_at__isnull=True
        ).order_by("-promoted_at", "-pk")

    def with_state(self) -> ApplicationCredentialQuerySet:
        """Annotate ``state`` (``ApplicationCredential.State``)."""
        is_ = ApplicationCredential.State
        return self.annotate(
            state=Case(
                When(current_for__isnull=False, then=Value(is_.CURRENT)),
                When(retired_at__isnull=False, then=Value(is_.RETIRED)),
                When(refused_at__isnull=False, then=Value(is_.REFUSED)),
                When(_IS_REQUESTED, then=Value(is_.REQUESTED)),
                When(promoted_at__isnull=False, then=Value(is_.PREVIOUS)),
                default=Value(is_.CANDIDATE),
                output_field=models.CharField(choices=is_.choices),
            )
        )


class ApplicationCredential(models.Model):
    """One credential of a registration. Written by ``consent.applications`` only.

    Which one is in use says the registration's own pointer (``ApplicationRegistration.credential``), so there
    is never more than one and promoting is a single update.
    """

    class Kind(models.TextChoices):
        CERTIFICATE = "certificate", "Certificate"
        FEDERATED = "federated", "Managed identity"
        SECRET = "secret", "Client secret"  # the word, not a secret
        VAULT_KEY = "vault_key", "Certificate, signed in the vault"

    class State(models.TextChoices):
        """Read from the row and the registration's pointer, stored nowhere."""

        REQUESTED = "requested", "Waiting for its signed certificate"
        CANDIDATE = "candidate", "Candidate"
        CURRENT = "current", "Current"
        PREVIOUS = "previous", "Previous, kept for roll back"
        REFUSED = "refused", "Refused by Microsoft"
        RETIRED = "retired", "Retired"

    registration = models.ForeignKey(
        "consent.ApplicationRegistration", on_delete=models.PROTECT, related_name="credentials"
    )
    kind = models.CharField(max_length=11, choices=Kind)
    secret_name = models.CharField(max_length=127, blank=True, help_text="Entry of the vault, or key of the vault")
    secret_version = models.CharField(max_length=32, blank=True)
    key_id = models.CharField(
        max_length=64,
        blank=True,
        help_text="Thumbprint (x5t#S256) of a certificate, id of a secret, client id of a managed identity",
    )
    public_certificate = models.TextField(
        blank=True, help_text="PEM; the public part only, of a key in the vault with its chain"
    )
    certificate_request = models.TextField(
        blank=True, help_text="PEM; to be signed by a certificate authority, public as well"
    )
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
    warned_days = models.PositiveSmallIntegerField(null=True, help_text="The last expiry threshold that was reported")

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
                condition=~Q(kind__in=["certificate", "vault_key"])
                | ~Q(key_id="") & ~Q(public_certificate="")
                | ~Q(certificate_request="") & Q(promoted_at__isnull=True),
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


_FIXED_IDENTITY = (
    "Application id, home tenant and cloud are fixed: partners have links or consents of this application. Make a new "
    "registration for another application, and retire this one."
)


_NO_CREDENTIAL = (
    "It has no credential in use. Add one to it under Application credentials and promote it, then make it active."
)
# Frozen with its migration, and never shown: ``clean`` says it first.
_NO_CREDENTIAL_IN_ROW = (
    "It has no credential in use. Let an operator add one, and promote it here before activating it."
)

_OWN_SET = "Choose “A set of our own” together with the set that is meant, or neither of both."


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
        OWN = "own", "A set of our own"

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
    own_set = models.ForeignKey(
        OwnPermissionSet,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="registrations",
        verbose_name="own permission set",
        help_text="Which one, if the permission set is a set of our own.",
    )
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
                condition=Q(permission_set="own", own_set__isnull=False)
                | (~Q(permission_set="own") & Q(own_set__isnull=True)),
                name="registration_own_set_is_named",
                violation_error_message=_OWN_SET,
            ),
            models.CheckConstraint(
                condition=Q(state="draft") | Q(credential__isnull=False),
                name="registration_active_has_credential",
                violation_error_message=_NO_CREDENTIAL_IN_ROW,
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
        if (self.permission_set == self.PermissionSet.OWN) != (self.own_set_id is not None):
            raise ValidationError({"own_set": _OWN_SET})
        cloud = get_cloud(self.cloud)
        if absent := self.asked.absent_in(cloud):
            names = ", ".join(resource_name(one) for one in absent)
            raise ValidationError({"permission_set": f"{cloud.name} has no {names}; choose a set without it."})

    def is_known_to_partners(self) -> bool:
        """Tell whether a partner has a link or a consent of it, or one of its customers was looked at."""
        return self.links.exists() or self.consents.exists() or self.customer_consents.exists()

    def _has_other_identity(self) -> bool:
        before = ApplicationRegistration.objects.filter(pk=self.pk).values(*self.IDENTITY).first()
        return before is not None and any(getattr(self, name) != value for name, value in before.items())

    @property
    def asked(self) -> permissions.PermissionSet:
        """What partners are asked for now. Lists of registrations with sets of their own read them by ``own_set``."""
        return PERMISSION_SETS[self.permission_set] if self.own_set is None else self.own_set.value

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
        if extra := outside_allow_list(Grants({self.resource_application_id: self.scopes})):
            raise ValidationError({"scopes": f"Not on this deployment's CONSENT_GRANT_ALLOW_LIST: {extra.words()}"})
