"""Partners who leave, and how far that is."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from portal.runs.models import Run
from tenants.models import PartnerTenant


class OffboardingQuerySet(models.QuerySet["Offboarding"]):
    def open(self) -> OffboardingQuerySet:
        """Offboardings that are not done."""
        return self.exclude(state=Offboarding.State.DONE)

    def to_advance(self) -> OffboardingQuerySet:
        """Open ones with something to do: the run ended, or the closing was cut off or refused."""
        is_ = Offboarding.State
        no_work = Q(run__isnull=True) | ~Q(run__state__in=[Run.State.OPEN, Run.State.PAUSED])
        return self.filter(Q(state=is_.CLOSING) | Q(state=is_.REMOVING) & no_work)


class Offboarding(models.Model):
    """One partner's offboarding. Written by ``consent.offboarding`` only.

    Until it is done the partner's ``offboarding_since`` is set: no link works and nothing is pushed, but its token
    lives, because the customers need it. ``state`` is written before the step that it names.
    """

    class State(models.TextChoices):
        REMOVING = "removing", "Removing from customers"
        WAITING = "waiting", "Customers remain: somebody decides"
        CLOSING = "closing", "Closing links and tokens"
        DONE = "done", "Done"

    partner = models.ForeignKey(PartnerTenant, on_delete=models.PROTECT, related_name="offboardings")
    state = models.CharField(max_length=8, choices=State, default=State.REMOVING)
    run = models.ForeignKey(Run, on_delete=models.SET_NULL, null=True, related_name="+")
    remaining = models.PositiveIntegerField(default=0, help_text="Customers that were not proven to be without consent")
    started_at = models.DateTimeField(auto_now_add=True)
    started_by = models.CharField(max_length=150)
    decided_at = models.DateTimeField(null=True, help_text="When somebody let it finish although customers remain")
    decided_by = models.CharField(max_length=150, blank=True)
    vault_entries = models.JSONField(default=list, help_text="Names of the entries to be erased, and what became of it")
    finished_at = models.DateTimeField(null=True)
    report = models.TextField(blank=True, editable=False, help_text="Canonical JSON; no secret")
    seal = models.CharField(max_length=64, blank=True)
    seal_key = models.CharField(max_length=16, blank=True)

    objects = OffboardingQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["partner"], condition=~Q(state="done"), name="offboarding_once_while_open"),
            models.CheckConstraint(
                condition=Q(state="done", finished_at__isnull=False) & ~Q(report="") & ~Q(seal="")
                | ~Q(state="done") & Q(finished_at__isnull=True, report="", seal=""),
                name="offboarding_done_has_report",
            ),
        ]
        permissions = [("offboard_partner", "Can offboard a partner")]

    def __str__(self) -> str:
        """Note: this reads ``self.partner``; where it is not loaded, that is a query."""
        return f"Offboarding of {self.partner}"
