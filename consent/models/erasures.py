"""Partners of whom everything was erased that can be, and how far that is."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from tenants.models import PartnerTenant


class ErasureQuerySet(models.QuerySet["Erasure"]):
    def open(self) -> ErasureQuerySet:
        """Erasures that are not done."""
        return self.exclude(state=Erasure.State.DONE)


class Erasure(models.Model):
    """The erasure of one partner. Written by ``consent.offboarding.partner_erasure`` only.

    From its first moment on nothing is done for the partner. It is repeated until the vault has let everything go; the
    rows are emptied in the transaction that makes it done.
    """

    class State(models.TextChoices):
        ERASING = "erasing", "Erasing"
        DONE = "done", "Erased"

    partner = models.OneToOneField(PartnerTenant, on_delete=models.PROTECT, related_name="erasure")
    state = models.CharField(max_length=7, choices=State, default=State.ERASING)
    started_at = models.DateTimeField()
    started_by = models.CharField(max_length=150)
    vault_entries = models.JSONField(default=list, help_text="Names of the entries to be erased, and what became of it")
    finished_at = models.DateTimeField(null=True)
    report = models.TextField(blank=True, editable=False, help_text="Canonical JSON; ids only")
    seal = models.CharField(max_length=64, blank=True)
    seal_key = models.CharField(max_length=16, blank=True)

    objects = ErasureQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(
                condition=Q(state="done", finished_at__isnull=False) & ~Q(report="") & ~Q(seal="")
                | ~Q(state="done") & Q(finished_at__isnull=True, report="", seal=""),
                name="erasure_done_has_report",
            ),
        ]
        permissions = [("erase_partner", "Can erase everything about a partner")]

    def __str__(self) -> str:
        """Note: this reads ``self.partner``; where it is not loaded, that is a query."""
        return f"Erasure of {self.partner}"
