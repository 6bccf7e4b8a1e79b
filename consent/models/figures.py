"""How much there was on each day."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.utils import timezone

from tenants.models import PartnerTenant


class DailyFiguresQuerySet(models.QuerySet["DailyFigures"]):
    def last_days(self, days: int = 30) -> DailyFiguresQuerySet:
        """The figures of the last days with today's, the oldest first; a day on which nothing was counted is left
        out."""
        return self.filter(day__gt=timezone.localdate() - timedelta(days=days)).order_by("day")


class DailyFigures(models.Model):
    """Figures of one day as they were when it was last counted. Written by ``consent.figures`` only."""

    day = models.DateField(primary_key=True)
    partners = models.JSONField(default=dict, help_text="Number by state of the partner")
    customers = models.PositiveIntegerField(default=0, help_text="That Partner Center lists")
    granted_customers = models.PositiveIntegerField(default=0, help_text="Of those, who granted what we want")
    consents = models.JSONField(default=dict, help_text="Consents of customers, number by state")
    open_incidents = models.PositiveIntegerField(default=0)
    customer_counts = models.JSONField(
        default=dict, help_text="Of many customers: all that the first page counts of them, as it reads it"
    )
    invitation_counts = models.JSONField(
        default=dict, help_text="Of many partners: all that the first page counts of invitations, as it reads it"
    )
    counted_at = models.DateTimeField()

    objects = DailyFiguresQuerySet.as_manager()

    class Meta:
        ordering = ["day"]
        verbose_name = "figures of a day"
        verbose_name_plural = "figures of days"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.day.isoformat()

    @property
    def connected_partners(self) -> int:
        return int(self.partners.get(PartnerTenant.State.CONNECTED, 0))
