"""Files of partners that were read: what each row says, and what came of it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from portal.microsoft.clouds import CLOUD_CHOICES
from tenants.models import PartnerTenant


class PartnerImport(models.Model):
    """A file of partners, read once. Written by ``consent.moving_in`` only."""

    file_name = models.CharField("file", max_length=120)
    created_at = models.DateTimeField("read at", auto_now_add=True)
    created_by = models.CharField("read by", max_length=150)
    applied_at = models.DateTimeField(null=True)
    applied_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name = "import of partners"
        verbose_name_plural = "imports of partners"
        default_permissions = ()

    def __str__(self) -> str:
        return f"Import {self.pk}: {self.file_name}"


class PartnerImportRowQuerySet(models.QuerySet["PartnerImportRow"]):
    def to_apply(self) -> PartnerImportRowQuerySet:
        """Rows that would add or change a partner."""
        return self.filter(result__in=[PartnerImportRow.Result.NEW, PartnerImportRow.Result.CHANGED])

    def to_find(self) -> PartnerImportRowQuerySet:
        """Rows that name a domain and no tenant, which was not looked for yet."""
        return self.filter(result=PartnerImportRow.Result.TO_FIND)

    def to_confirm(self) -> PartnerImportRowQuerySet:
        """Rows whose tenant was found, for staff to confirm (S-04)."""
        return self.filter(result=PartnerImportRow.Result.TO_CONFIRM)


class PartnerImportRow(models.Model):
    """One row of such a file. Written by ``consent.moving_in`` only."""

    class Result(models.TextChoices):
        NEW = "new", "New"
        CHANGED = "changed", "Changed"
        SAME = "same", "Same"
        TO_FIND = "to_find", "Tenant to be found"
        TO_CONFIRM = "to_confirm", "Tenant to be confirmed"
        REFUSED = "refused", "Refused"
        ADDED = "added", "Added"
        UPDATED = "updated", "Updated"

    OPEN_RESULTS = (Result.NEW, Result.CHANGED, Result.SAME, Result.TO_FIND)

    imported = models.ForeignKey(PartnerImport, on_delete=models.CASCADE, related_name="rows", verbose_name="import")
    number = models.PositiveIntegerField("row", help_text="As a spreadsheet counts")
    problem = models.CharField(max_length=200, blank=True, help_text="Why the row cannot be used")

    # What the file says; canonical where it has the right form.
    name = models.CharField(max_length=200, blank=True)
    tenant_id = models.CharField("tenant id", max_length=36, blank=True)
    cloud = models.CharField(max_length=10, choices=CLOUD_CHOICES, blank=True)
    domain = models.CharField(max_length=253, blank=True)
    kind = models.CharField(max_length=20, choices=PartnerTenant.Kind, blank=True)
    contact_addresses = models.TextField(blank=True, help_text="E-mail addresses with commas between them")
    tag_names = models.TextField(blank=True, help_text="With commas between them")
    notes = models.TextField(blank=True)

    # What became of it.
    found_tenant_id = models.CharField("tenant that has the domain", max_length=36, blank=True)
    found_cloud = models.CharField(max_length=10, choices=CLOUD_CHOICES, blank=True)
    confirmed_by = models.CharField(max_length=150, blank=True)
    result = models.CharField(max_length=10, choices=Result)
    why = models.CharField("what and why", max_length=300, blank=True)

    objects = PartnerImportRowQuerySet.as_manager()

    class Meta:
        ordering = ["imported_id", "number"]
        verbose_name = "row of an import"
        verbose_name_plural = "rows of imports"
        default_permissions = ()
        indexes = [models.Index(fields=["imported", "result"])]
        constraints = [
            models.UniqueConstraint(fields=["imported", "number"], name="import_row_once"),
            models.CheckConstraint(
                condition=~Q(result="to_confirm") | ~Q(found_tenant_id=""), name="import_row_to_confirm_names_tenant"
            ),
        ]

    def __str__(self) -> str:
        found = f" is tenant {self.found_tenant_id}" if self.found_tenant_id else ""
        return f"Row {self.number}: {self.name or self.tenant_id} {self.domain}{found}".rstrip()

    @property
    def contacts(self) -> list[str]:
        """The addresses one by one."""
        return [address for address in self.contact_addresses.split(", ") if address]

    @property
    def tags(self) -> list[str]:
        """The names one by one."""
        return [name for name in self.tag_names.split(", ") if name]
