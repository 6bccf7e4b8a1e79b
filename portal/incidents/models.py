from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from portal.fields import OwnerField
from portal.site.extension_points import causes


def cause_in_words(cause: str) -> str:
    """Return the title of a cause; one that no app declares any more is said by its own word."""
    known = causes().get(cause)
    return known.title if known else cause.replace("_", " ").capitalize()


class IncidentQuerySet(models.QuerySet["Incident"]):
    def open(self) -> IncidentQuerySet:
        """Incidents that are not settled."""
        return self.filter(settled_at__isnull=True)

    def awake(self) -> IncidentQuerySet:
        """Those that are not put off at this moment."""
        return self.filter(Q(snoozed_until__isnull=True) | Q(snoozed_until__lte=timezone.now()))

    def asleep(self) -> IncidentQuerySet:
        """Those that a person put off, and whose time has not come."""
        return self.filter(snoozed_until__gt=timezone.now())


class Incident(models.Model):
    """One cause that a person must look into. Written by ``portal.incidents`` only.

    There is one open row for a cause and what it concerns; what happens again only counts up. What comes back soon
    after it was settled is the same row; ``recovered_at`` says when it was reported as over.
    """

    cause = models.CharField(max_length=40, db_index=True, help_text="A word, such as wrong_tenant")
    about = models.CharField(max_length=100, blank=True, help_text="What it concerns, such as partner:7")
    name = models.CharField("what it concerns", max_length=300, blank=True, help_text="In words, as it was called then")
    owner = OwnerField(blank=False)
    words = models.CharField("what happened and what to do", max_length=400)
    subject = models.JSONField(default=dict, help_text="Ids of what it concerns")
    times = models.PositiveIntegerField(default=1)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField(db_index=True)
    seen_at = models.DateTimeField("taken up at", null=True)
    seen_by = models.CharField("taken up by", max_length=150, blank=True)
    snoozed_until = models.DateTimeField("put off until", null=True)
    snoozed_by = models.CharField("put off by", max_length=150, blank=True)
    settled_at = models.DateTimeField(null=True, db_index=True)
    recovered_at = models.DateTimeField("recovery noted at", null=True)
    came_back = models.PositiveIntegerField(default=0, help_text="How often it was settled and happened again at once")
    mailed_at = models.DateTimeField(null=True)

    objects = IncidentQuerySet.as_manager()

    class Meta:
        ordering = ["-last_seen_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["cause", "about"], condition=Q(settled_at__isnull=True), name="incident_once_while_open"
            ),
            models.CheckConstraint(condition=Q(times__gte=1), name="incident_happened"),
            models.CheckConstraint(condition=Q(last_seen_at__gte=F("first_seen_at")), name="incident_seen_in_order"),
        ]
        permissions = [
            ("settle_incident", "Can take up and settle an incident"),
            ("note_incident", "Can write a note to an incident"),
            ("snooze_incident", "Can put off an incident and wake it up"),
        ]

    def __str__(self) -> str:
        words = cause_in_words(self.cause)
        begins_with_name = words[:2].isupper()
        in_a_sentence = words if begins_with_name else f"{words[0].lower()}{words[1:]}"
        return f"{self.name}: {in_a_sentence}" if self.name else words

    @property
    def seen_words(self) -> str:
        return "once" if self.times == 1 else f"{self.times} times"


class IncidentNote(models.Model):
    """What a person wrote to an incident for the others. Written by ``portal.incidents.service`` only."""

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="notes")
    at = models.DateTimeField(auto_now_add=True)
    by = models.CharField(max_length=150)
    words = models.CharField("note", max_length=1000)

    class Meta:
        ordering = ["-at", "-pk"]

    def __str__(self) -> str:
        return self.words
