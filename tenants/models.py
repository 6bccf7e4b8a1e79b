"""Who we manage: partner tenants (set by staff) and their customer tenants (mirrored from Microsoft)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.conf.locale import LANG_INFO
from django.db import models
from django.db.models import Case, Q, When
from django.db.models.functions import Coalesce, Greatest, Lower
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from portal.fields import DomainField, NameField, OwnerField, TenantIdField
from portal.microsoft.clouds import CLOUD_CHOICES
from portal.microsoft.identifiers import TenantId
from portal.search_text import LONGEST, SearchTextField, folded


class PartnerTenantQuerySet(models.QuerySet["PartnerTenant"]):
    def active(self) -> PartnerTenantQuerySet:
        """Partners for whom work may be done: neither disabled nor offboarded (S-53)."""
        return self.filter(switch=self.model.Switch.ON)

    def not_offboarded(self) -> PartnerTenantQuerySet:
        """Partners that are still ours, also those that are disabled for now."""
        return self.exclude(switch=self.model.Switch.OFFBOARDED)

    def in_cloud(self, cloud: str) -> PartnerTenantQuerySet:
        return self.filter(cloud=cloud)

    def fold(self) -> None:
        """Work out the search texts of these partners again, in two statements: their contacts changed."""
        partners = list(self.prefetch_related("contacts"))
        for partner in partners:
            people = (text for person in partner.contacts.all() for text in (person.name, person.email))
            partner.search_text = folded(partner.name, partner.domain, *people)[:LONGEST]
        self.model.objects.bulk_update(partners, ["search_text"], batch_size=500)

    def tagged(self, *names: str) -> PartnerTenantQuerySet:
        """Partners that carry any of these tags."""
        return self.filter(tags__name__in=names).distinct()


class CustomerTenantQuerySet(models.QuerySet["CustomerTenant"]):
    def for_partner(self, partner: PartnerTenant) -> CustomerTenantQuerySet:
        return self.filter(partner=partner)

    def listed(self) -> CustomerTenantQuerySet:
        """Customers that Partner Center listed at the last completed sync."""
        return self.filter(missing_since__isnull=True)

    def missing(self) -> CustomerTenantQuerySet:
        return self.filter(missing_since__isnull=False)

    def with_times(self) -> CustomerTenantQuerySet:
        """Annotate ``last_listed`` and ``last_judged``, the rows' ``listed_at`` and ``read_at`` in SQL."""
        # The greatest of a time and NULL is NULL on SQLite, and the time on PostgreSQL.
        since = Coalesce(Greatest("first_seen_at", "partner__customers_synced_at"), "first_seen_at")
        judged = Coalesce(Greatest("judged_at", "partner__customers_judged_at"), "judged_at")
        return self.annotate(
            last_listed=Coalesce("last_seen_at", since), last_judged=Case(When(judged_at__isnull=False, then=judged))
        )


def languages() -> list[tuple[str, str]]:
    """Return all languages by their codes, with their English names. A migration names it."""
    named = [(code, str(told["name"])) for code, told in LANG_INFO.items() if "name" in told]
    return sorted(named, key=lambda one: one[1])


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

    How it stands (``State``) follows from its links and consents and from what staff decided (``switch``,
    ``offboarding_since``), which wins over everything (S-53). It is stored nowhere: ``consent.states`` works it out.
    """

    class Kind(models.TextChoices):
        DIRECT = "direct", "Direct bill"
        INDIRECT_PROVIDER = "indirect_provider", "Indirect provider"
        INDIRECT_RESELLER = "indirect_reseller", "Indirect reseller"

    class State(models.TextChoices):
        """How it stands; one word for each partner, the same wherever it is shown."""

        NEW = "new", "New"
        INVITED = "invited", "Invited"
        CONNECTED = "connected", "Connected"
        ATTENTION = "attention", "Needs attention"
        LEFT = "left", "Disconnected"
        OFFBOARDING = "offboarding", "Being offboarded"
        DISABLED = "disabled", "Disabled"
        OFFBOARDED = "offboarded", "Offboarded"

    class Switch(models.TextChoices):
        """What staff decided: whether anything may be done with it at all (S-53)."""

        ON = "on", "On"
        DISABLED = "disabled", "Disabled"
        OFFBOARDED = "offboarded", "Offboarded"

    name = NameField()
    tenant_id = TenantIdField("tenant id", help_text="The partner's Microsoft Entra tenant id (a GUID).")
    cloud = models.CharField(max_length=10, choices=CLOUD_CHOICES, default="global")
    domain = DomainField(blank=True, help_text="For people to recognise the tenant; never used to decide.")
    kind = models.CharField(max_length=20, choices=Kind, default=Kind.DIRECT)
    tags = models.ManyToManyField(PartnerTag, blank=True)
    notes = models.TextField(blank=True, max_length=4000)
    switch = models.CharField(max_length=12, choices=Switch, default=Switch.ON, db_index=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    # Each sync writes these two, and no time into rows that did not change: when its latest list of customers began
    # that came to its end, and when all its listed customers were last judged.
    customers_synced_at = models.DateTimeField(null=True, editable=False)
    customers_judged_at = models.DateTimeField(null=True, editable=False)
    offboarding_since = models.DateTimeField(
        null=True, editable=False, help_text="No link works and nothing is pushed; the token lives until all is removed"
    )

    search_text = SearchTextField()

    objects = PartnerTenantQuerySet.as_manager()

    class Meta:
        ordering = ["name", "pk"]
        verbose_name = "partner tenant"
        permissions = [
            ("sync_partnertenant", "Can synchronise the customers of a partner"),
            ("disable_partnertenant", "Can disable and enable a partner"),
        ]
        indexes = [models.Index(fields=["name", "id"]), models.Index(fields=["search_text"])]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant_id"],
                name="partner_tenant_id_unique",
                violation_error_message="There is already a partner with this tenant id.",
            ),
            models.CheckConstraint(
                condition=Q(switch__in=["on", "disabled", "offboarded"]), name="partner_switch_known"
            ),
            models.CheckConstraint(condition=Q(cloud__in=["global", "usgov", "china"]), name="partner_cloud_known"),
        ]

    def __str__(self) -> str:
        return self.name

    def searched_by(self) -> Iterable[str]:
        """Return the texts that it is found by; its tenant id has an index of its own."""
        people = PartnerContact.objects.filter(partner=self.pk).values_list("name", "email") if self.pk else ()
        return self.name, self.domain, *(text for person in people for text in person)

    @property
    def tenant(self) -> TenantId:
        """The tenant id with its type."""
        return TenantId(self.tenant_id)

    @property
    def is_active(self) -> bool:
        """Whether anything may be done with this partner at all (S-53)."""
        return self.switch == self.Switch.ON

    @property
    def why_inactive(self) -> str:
        """Why nothing may be done with this partner, and what to do; empty while it is active."""
        if self.switch == self.Switch.OFFBOARDED:
            return f"{self.name} is offboarded for good; nothing is done with it any more."
        return f"{self.name} is disabled; enable it first." if self.switch == self.Switch.DISABLED else ""


class PartnerContact(models.Model):
    """A person of a partner, typed by staff; gone with the offboarding (S-68). Staff who may change the partner may
    change them."""

    partner = models.ForeignKey(PartnerTenant, on_delete=models.CASCADE, related_name="contacts")
    name = NameField(blank=True)
    email = models.EmailField("e-mail", blank=True)
    role = NameField(blank=True, max_length=100, help_text="What this person does there, such as billing")
    gets_invitations = models.BooleanField("invitations", default=True)

    class Meta:
        ordering = ["pk"]
        verbose_name = "contact"
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                Lower("email"),
                "partner",
                condition=~Q(email=""),
                name="contact_once",
                violation_error_message="This partner has a contact with this address.",
            ),
            models.CheckConstraint(
                condition=~Q(email="") | Q(gets_invitations=False),
                name="contact_with_mails_has_address",
                violation_error_message="Who gets mails needs an address.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>" if self.name and self.email else self.name or self.email


@receiver([post_save, post_delete], sender=PartnerContact)
def _search_by_contact(instance: PartnerContact, **_: Any) -> None:
    """Keep the partner's search text, which names its contacts."""
    instance.partner.save(update_fields=["search_text"])


class CustomerTenant(models.Model):
    """A customer of one partner, as Partner Center lists it. Written by ``tenants.sync`` and ``tenants.gdap_sync``, and
    emptied of names by ``consent.offboarding.personal``, only.

    A customer can belong to two partners, and then has two rows. Sync never deletes: a row that Microsoft stopped
    listing is marked missing. A row that did not change is not written; ``listed_at`` and ``read_at`` say its age.
    """

    class Readiness(models.TextChoices):
        UNKNOWN = "unknown", "Not verified"
        READY = "ready", "Ready"
        UNVERIFIED = "unverified", "Ready, group not verified"
        NOT_READY = "not_ready", "Not ready"

    REMOTE_FIELDS = ("partner_center_id", "company_name", "domain", "relationship", "last_seen_at", "missing_since")

    partner = models.ForeignKey(PartnerTenant, on_delete=models.PROTECT, related_name="customers")
    tenant_id = TenantIdField("tenant id")

    # Owned by Microsoft: replaced when they changed.
    partner_center_id = models.CharField(max_length=64)
    company_name = models.CharField(max_length=256, blank=True)
    domain = models.CharField(max_length=253, blank=True)
    relationship = models.CharField(max_length=40, blank=True, help_text="relationshipToPartner, verbatim")
    last_seen_at = models.DateTimeField(
        null=True, blank=True, help_text="Empty while the latest list that came to its end has it"
    )
    missing_since = models.DateTimeField(null=True, blank=True)
    gdap_ends_at = models.DateTimeField(null=True, blank=True, help_text="Last end of a live relationship, as read")

    # Owned by the portal: what ``tenants.readiness`` said of the mirrored relationships, and when.
    first_seen_at = models.DateTimeField()
    readiness = models.CharField(max_length=10, choices=Readiness, default=Readiness.UNKNOWN)
    readiness_reason = models.CharField(max_length=300, blank=True)
    readiness_owner = OwnerField()
    judged_at = models.DateTimeField(null=True, blank=True, help_text="When this verdict was written")

    search_text = SearchTextField(indexed=True)

    objects = CustomerTenantQuerySet.as_manager()

    class Meta:
        ordering = ["company_name", "pk"]
        verbose_name = "customer tenant"
        indexes = [
            models.Index(fields=["company_name", "id"]),
            models.Index(fields=["tenant_id"]),
            models.Index(fields=["search_text"]),
            models.Index(fields=["partner", "readiness"]),
            models.Index(fields=["partner", "missing_since"]),
            models.Index(fields=["readiness", "company_name", "id"]),
            models.Index(
                fields=["company_name", "id"], condition=Q(missing_since__isnull=True), name="customer_listed_by_name"
            ),
            # For the first page, which counts all of them.
            models.Index(fields=["readiness"], condition=Q(missing_since__isnull=True), name="customer_listed"),
            models.Index(
                fields=["readiness_owner", "missing_since", "partner", "id"],
                condition=Q(readiness_owner__gt=""),
                name="customer_not_ready",
            ),
            models.Index(fields=["missing_since"], condition=Q(missing_since__isnull=False), name="customer_missing"),
            models.Index(
                fields=["gdap_ends_at"],
                condition=Q(missing_since__isnull=True, gdap_ends_at__isnull=False),
                name="customer_gdap_ends",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["partner", "tenant_id"], name="customer_once_per_partner"),
        ]

    def __str__(self) -> str:
        return self.company_name or self.domain or self.tenant_id

    def searched_by(self) -> Iterable[str]:
        """Return the texts that it is found by; its tenant id has an index of its own."""
        return self.company_name, self.domain

    @property
    def tenant(self) -> TenantId:
        """The tenant id with its type."""
        return TenantId(self.tenant_id)

    @property
    def listed_at(self) -> datetime:
        """When a list named it last, as far as lists that came to their end say. Needs its partner."""
        synced = self.partner.customers_synced_at
        return self.last_seen_at or max(self.first_seen_at, synced or self.first_seen_at)

    @property
    def read_at(self) -> datetime | None:
        """When it was last judged by its relationships; None before the first time. Needs its partner."""
        of_all = self.partner.customers_judged_at
        return max(self.judged_at, of_all) if self.judged_at and of_all else self.judged_at


class GdapRelationship(models.Model):
    """A GDAP relationship of one partner, as Graph lists it. Written by ``tenants.gdap_sync``, and emptied
    of names by ``consent.offboarding.personal``, only; never deleted.
    """

    REMOTE_FIELDS = (
        "customer",
        "customer_tenant_id",
        "display_name",
        "status",
        "roles",
        "activated_at",
        "ends_at",
        "auto_extend_duration",
        "last_seen_at",
        "missing_since",
    )

    partner = models.ForeignKey(PartnerTenant, on_delete=models.PROTECT, related_name="gdap_relationships")
    relationship_id = models.CharField(max_length=80)

    # Owned by Microsoft: replaced when they changed.
    customer = models.ForeignKey(
        CustomerTenant, on_delete=models.PROTECT, null=True, blank=True, related_name="gdap_relationships"
    )
    customer_tenant_id = TenantIdField("customer tenant id", blank=True)
    display_name = models.CharField(max_length=100, blank=True)
    status = models.CharField(max_length=40, help_text="As Graph says it")
    roles = models.JSONField(default=list, help_text="Role template ids")
    activated_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True)
    auto_extend_duration = models.CharField(max_length=20, blank=True, help_text="As Graph says it; P0D and PT0S: off")
    last_seen_at = models.DateTimeField(null=True, blank=True, help_text="As that of a customer")
    missing_since = models.DateTimeField(null=True, blank=True)

    # Owned by the portal.
    first_seen_at = models.DateTimeField()
    assignments_read_at = models.DateTimeField(
        null=True, blank=True, help_text="For the first time; only those of live ones are read"
    )

    class Meta:
        ordering = ["-ends_at", "pk"]
        verbose_name = "GDAP relationship"
        constraints = [
            models.UniqueConstraint(fields=["partner", "relationship_id"], name="gdap_relationship_once"),
        ]

    def __str__(self) -> str:
        return self.display_name or self.relationship_id


class GdapAccessAssignment(models.Model):
    """Roles that a relationship gives to one security group of the partner; as :class:`GdapRelationship`."""

    REMOTE_FIELDS = ("status", "group_id", "roles", "created_at", "last_seen_at", "missing_since")

    relationship = models.ForeignKey(GdapRelationship, on_delete=models.PROTECT, related_name="assignments")
    assignment_id = models.CharField(max_length=80)

    # Owned by Microsoft: replaced when they changed.
    status = models.CharField(max_length=40, help_text="As Graph says it")
    group_id = models.CharField(max_length=64)
    roles = models.JSONField(default=list, help_text="Role template ids")
    created_at = models.DateTimeField(null=True, blank=True)
    last_seen_at = models.DateTimeField(null=True, blank=True, help_text="As that of a customer")
    missing_since = models.DateTimeField(null=True, blank=True)

    # Owned by the portal.
    first_seen_at = models.DateTimeField()

    class Meta:
        ordering = ["pk"]
        verbose_name = "GDAP access assignment"
        constraints = [
            models.UniqueConstraint(fields=["relationship", "assignment_id"], name="gdap_assignment_once"),
        ]

    def __str__(self) -> str:
        return self.assignment_id
