"""Who we manage: partner tenants (set by staff) and their customer tenants (mirrored from Microsoft)."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from portal.fields import DomainField, NameField, TenantIdField
from portal.microsoft.clouds import CLOUD_CHOICES
from portal.microsoft.identifiers import TenantId
from tenants.querysets import CustomerTenantQuerySet, PartnerTenantQuerySet


class PartnerTag(models.Model):
    """A word that staff group partners by."""

    name = NameField(max_length=50, unique=True)

    class Meta:
        ordering = ["name"]
        verbose_name = "tag"

    def __str__(self) -> str:
        return self.name


class PartnerTenant(models.Model):
    """A CSP partner's tenant. Tenant and cloud are fixed by staff before a link exists (S-04).

    ``state`` follows the partner's consent; only ``consent`` services write it, except ``disabled`` and
    ``offboarded``, which are decisions of staff and win over everything (S-53).
    """

    class Kind(models.TextChoices):
        DIRECT = "direct", "Direct bill"
        INDIRECT_PROVIDER = "indirect_provider", "Indirect provider"
        INDIRECT_RESELLER = "indirect_reseller", "Indirect reseller"

    class State(models.TextChoices):
        INVITED = "invited", "Invited"
        CONNECTED = "connected", "Connected"
        ATTENTION = "attention", "Needs attention"
        DISABLED = "disabled", "Disabled"
        OFFBOARDED = "offboarded", "Offboarded"

    INACTIVE_STATES = (State.DISABLED, State.OFFBOARDED)

    name = NameField()
    tenant_id = TenantIdField("tenant id", help_text="The partner's Microsoft Entra tenant id (a GUID).")
    cloud = models.CharField(max_length=10, choices=CLOUD_CHOICES, default="global")
    domain = DomainField(blank=True, help_text="For people to recognise the tenant; never used to decide.")
    kind = models.CharField(max_length=20, choices=Kind, default=Kind.DIRECT)
    contact_name = NameField(blank=True)
    contact_email = models.EmailField(blank=True)
    tags = models.ManyToManyField(PartnerTag, blank=True)
    notes = models.TextField(blank=True, max_length=4000)
    state = models.CharField(max_length=12, choices=State, default=State.INVITED, db_index=True)
    created_at = models.DateTimeField(auto_now_add=True)
    customers_synced_at = models.DateTimeField(null=True, editable=False)
    offboarding_since = models.DateTimeField(
        null=True, editable=False, help_text="No link works and nothing is pushed; the token lives until all is removed"
    )

    objects = PartnerTenantQuerySet.as_manager()

    class Meta:
        ordering = ["name", "pk"]
        verbose_name = "partner tenant"
        indexes = [models.Index(fields=["name", "id"]), models.Index(fields=["domain"])]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant_id"],
                name="partner_tenant_id_unique",
                violation_error_message="There is already a partner with this tenant id.",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["invited", "connected", "attention", "disabled", "offboarded"]),
                name="partner_state_known",
            ),
            models.CheckConstraint(condition=Q(cloud__in=["global", "usgov", "china"]), name="partner_cloud_known"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def tenant(self) -> TenantId:
        """The tenant id with its type."""
        return TenantId(self.tenant_id)

    @property
    def is_active(self) -> bool:
        """Whether anything may be done with this partner at all (S-53)."""
        return self.state not in self.INACTIVE_STATES


class CustomerTenant(models.Model):
    """A customer of one partner, as Partner Center lists it. Written by ``tenants.sync`` only.

    A customer can belong to two partners, and then has two rows. Sync never deletes: a row that Microsoft stopped
    listing is marked missing.
    """

    REMOTE_FIELDS = ("partner_center_id", "company_name", "domain", "relationship", "last_seen_at", "missing_since")

    partner = models.ForeignKey(PartnerTenant, on_delete=models.PROTECT, related_name="customers")
    tenant_id = TenantIdField("tenant id")

    # Owned by Microsoft: replaced at each sync.
    partner_center_id = models.CharField(max_length=64)
    company_name = models.CharField(max_length=256, blank=True)
    domain = models.CharField(max_length=253, blank=True)
    relationship = models.CharField(max_length=40, blank=True, help_text="relationshipToPartner, verbatim")
    last_seen_at = models.DateTimeField()
    missing_since = models.DateTimeField(null=True, blank=True)
    gdap_ends_at = models.DateTimeField(null=True, blank=True, help_text="Last end of a live relationship, as read")

    # Owned by the portal.
    first_seen_at = models.DateTimeField()

    objects = CustomerTenantQuerySet.as_manager()

    class Meta:
        ordering = ["company_name", "pk"]
        verbose_name = "customer tenant"
        indexes = [
            models.Index(fields=["company_name", "id"]),
            models.Index(fields=["tenant_id"]),
            models.Index(fields=["domain"]),
        ]
        constraints = [
            models.UniqueConstraint(fields=["partner", "tenant_id"], name="customer_once_per_partner"),
        ]

    def __str__(self) -> str:
        return self.company_name or self.domain or self.tenant_id

    @property
    def tenant(self) -> TenantId:
        """The tenant id with its type."""
        return TenantId(self.tenant_id)
