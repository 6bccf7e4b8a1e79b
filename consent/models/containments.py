"""Emergency stops: for what no token may be used, since when, by whom, and how far it was let go again."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Coalesce

from consent.models.applications import ApplicationRegistration
from portal.runs.models import Run
from tenants.models import PartnerTenant


class ContainmentQuerySet(models.QuerySet["Containment"]):
    def open(self) -> ContainmentQuerySet:
        """Containments that are not over: all of them, or a part of their partners, may use no token."""
        return self.exclude(state=Containment.State.OVER)


class Containment(models.Model):
    """One emergency stop. Written by ``consent.containment.service``, and emptied by ``consent.offboarding``, only.

    It is about everything, or about one registration, or about one partner. While it is on, no token of it is handed
    out, renewed or used. After two persons ended it, partners are released in waves, in the order of their keys.
    """

    class State(models.TextChoices):
        ON = "on", "On: no token is used"
        RESUMING = "resuming", "Being resumed in waves"
        OVER = "over", "Over"

    registration = models.ForeignKey(
        ApplicationRegistration, on_delete=models.PROTECT, null=True, related_name="containments"
    )
    partner = models.ForeignKey(PartnerTenant, on_delete=models.PROTECT, null=True, related_name="containments")
    reason = models.CharField(max_length=300)
    state = models.CharField(max_length=8, choices=State, default=State.ON)
    began_at = models.DateTimeField(auto_now_add=True)
    began_by = models.CharField(max_length=150)
    resume_asked_by = models.CharField(max_length=150, blank=True, help_text="The first of the two persons")
    resumed_at = models.DateTimeField(null=True)
    resumed_by = models.CharField(max_length=150, blank=True, help_text="The second person, who confirmed it")
    released_to = models.BigIntegerField(null=True, help_text="Partners with a key up to this one are released")
    wave = models.PositiveSmallIntegerField(default=0, help_text="Number of the latest wave, from 1; 0 before it")
    run = models.ForeignKey(
        Run, on_delete=models.SET_NULL, null=True, related_name="+", help_text="The check of the latest wave"
    )
    halted = models.CharField(max_length=300, blank=True, help_text="Why no further wave is released")
    deactivated = models.JSONField(
        default=list, help_text="Registrations that we deactivated at Microsoft, by their keys"
    )
    over_at = models.DateTimeField(null=True)

    objects = ContainmentQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = "emergency stop"
        permissions = [
            ("begin_containment", "Can stop all use of tokens at once"),
            ("resume_containment", "Can ask for or confirm the end of an emergency stop"),
        ]
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(
                condition=Q(registration__isnull=True) | Q(partner__isnull=True), name="containment_of_one_thing"
            ),
            # No row has the key 0, and two NULLs would not be equal.
            models.UniqueConstraint(
                Coalesce("registration", 0),
                Coalesce("partner", 0),
                condition=~Q(state="over"),
                name="containment_open_once",
            ),
            models.CheckConstraint(
                condition=Q(state="on", released_to__isnull=True, resumed_at__isnull=True)
                | (~Q(state="on") & Q(resumed_at__isnull=False)),
                name="containment_resumed_has_time",
            ),
            models.CheckConstraint(
                condition=Q(state="over", over_at__isnull=False) | (~Q(state="over") & Q(over_at__isnull=True)),
                name="containment_over_has_time",
            ),
        ]

    def __str__(self) -> str:
        """Note: this reads ``self.registration`` and ``self.partner``; where they are not loaded, that is a query."""
        if self.partner is not None:
            return f"Emergency stop of {self.partner}"
        if self.registration is not None:
            return f"Emergency stop of {self.registration}"
        return "Emergency stop of everything"
