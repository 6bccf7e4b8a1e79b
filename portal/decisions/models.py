from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import F, Q


class DecisionQuerySet(models.QuerySet["Decision"]):
    def open(self) -> DecisionQuerySet:
        """Those that wait for a person, and those that were approved and are not done."""
        return self.filter(state__in=Decision.OPEN)

    def undone(self) -> DecisionQuerySet:
        """Open ones that nobody began to do."""
        return self.open().filter(started_at__isnull=True)

    def overdue(self, now: datetime) -> DecisionQuerySet:
        """Those whose time is over."""
        return self.undone().filter(expires_at__lte=now)


class Decision(models.Model):
    """What one person asked for and another one decides. Written by ``portal.decisions`` only."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waits for a decision"
        APPROVED = "approved", "Approved, not done yet"
        DONE = "done", "Approved and done"
        REFUSED = "refused", "Refused"
        EXPIRED = "expired", "Expired"
        WITHDRAWN = "withdrawn", "Withdrawn"
        FAILED = "failed", "Approved, but failed"

    class Way(models.TextChoices):
        SECOND = "second", "By a second person"
        SINGLE = "single", "By one person: STAFF_SINGLE_PERSON"
        EMERGENCY = "emergency", "By one person, in an emergency"

    OPEN = (State.WAITING, State.APPROVED)

    kind = models.CharField(max_length=40)
    parameters = models.JSONField(help_text="Ids, flags, numbers")
    what = models.CharField(max_length=300)
    whom = models.CharField("for whom", max_length=300, blank=True)
    why = models.CharField(max_length=500)
    preview = models.JSONField(help_text="What would happen, as it was shown")
    digest = models.CharField(max_length=64, help_text="SHA-256 of kind, parameters and preview")
    seal = models.CharField(max_length=64, help_text="Of the request, under a key outside the database")
    state = models.CharField(max_length=10, choices=State, default=State.WAITING, db_index=True)
    requester = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+")
    requested_by = models.CharField("asked by", max_length=150)
    requester_kind = models.CharField(max_length=20, help_text="A word of AuditEvent.ActorKind")
    requested_at = models.DateTimeField("asked at")
    expires_at = models.DateTimeField()
    way = models.CharField("how it was decided", max_length=10, choices=Way, blank=True)
    decider = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+")
    decided_by = models.CharField(max_length=150, blank=True)
    decided_at = models.DateTimeField(null=True)
    answer = models.CharField(max_length=500, blank=True, help_text="What the person who decided wrote")
    decision_seal = models.CharField(max_length=64, blank=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=400, blank=True)
    outcome_subject = models.JSONField(default=dict, help_text="Ids of what came of it")

    objects = DecisionQuerySet.as_manager()

    class Meta:
        ordering = ["-requested_at", "-pk"]
        verbose_name = "request"
        default_permissions = ("view",)
        permissions = [("decide_keys", "Can ask for and decide about taking out a key of the vault")]
        constraints = [
            models.UniqueConstraint(
                fields=["digest"], condition=Q(state__in=["waiting", "approved"]), name="decision_asked_once"
            ),
            models.CheckConstraint(condition=Q(expires_at__gt=F("requested_at")), name="decision_expires_later"),
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "expired", "withdrawn"])
                | (Q(decided_at__isnull=False) & ~Q(decided_by="")),
                name="decision_has_a_decider",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["approved", "done", "failed"]) | (~Q(way="") & ~Q(decision_seal="")),
                name="decision_approved_some_way",
            ),
            models.CheckConstraint(
                condition=Q(started_at__isnull=True) | Q(state__in=["approved", "done", "failed"]),
                name="decision_begun_is_approved",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "approved"]) | Q(finished_at__isnull=False),
                name="decision_over_has_time",
            ),
        ]

    def __str__(self) -> str:
        return self.what
