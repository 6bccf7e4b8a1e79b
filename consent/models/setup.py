"""What we last saw of a registration at Microsoft."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q

from consent.models.applications import ApplicationCredential, ApplicationRegistration

_OUR_OWN = ("looked_at", "read_at")


class RegistrationEvidence(models.Model):
    """What Microsoft last said of one registration: whether it gives the application a token, and what it is there.

    Nothing of it is a secret. What it means is worked out from it each time (``consent.applications.setup`` and
    ``consent.applications.posture``), so that a change of what we want shows at once.
    """

    class Source(models.TextChoices):
        PASTED = "pasted", "pasted by staff"
        READ = "read", "read by the portal"

    registration = models.OneToOneField(
        ApplicationRegistration, on_delete=models.CASCADE, primary_key=True, related_name="evidence"
    )
    # --- a token of the application for Partner Center, in its home tenant; written by consent.applications.setup
    asked_at = models.DateTimeField("token asked for at", null=True)
    asked_by = models.CharField("token asked for by", max_length=150, blank=True)
    asked_with = models.ForeignKey(
        ApplicationCredential, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name="asked with"
    )
    refusal = models.CharField(max_length=60, blank=True, help_text="Microsoft's code; empty when the token was given")
    # --- the application object; written by consent.applications.posture
    seen = models.JSONField(default=dict, help_text="Of Graph's application object what the comparison needs")
    seen_at = models.DateTimeField(null=True)
    seen_by = models.CharField(max_length=150, blank=True)
    source = models.CharField(max_length=6, choices=Source, blank=True)
    unread_at = models.DateTimeField("last read that failed", null=True)
    unread_reason = models.CharField(max_length=300, blank=True)
    known_owners = models.JSONField(default=list, help_text="Object ids of owners that staff confirmed")

    class Meta:
        verbose_name = "registration evidence"
        verbose_name_plural = "registration evidence"
        constraints = [
            models.CheckConstraint(
                condition=Q(seen_at__isnull=True, source="") | Q(seen_at__isnull=False) & ~Q(source=""),
                name="evidence_seen_somehow",
            ),
        ]

    def __str__(self) -> str:
        return f"Evidence of registration {self.pk}"

    # ``seen`` also holds ``looked_at``, the time of each part, and ``read_at``, when the portal itself last read it.

    def add(self, parts: Mapping[str, Any], *, source: Source, at: datetime, by: str) -> None:
        """Take what a look showed; parts that it did not show stay as they were, with their times. Nothing is saved."""
        times = {name: self.looked_at(name).isoformat() for name in self.seen if name not in _OUR_OWN}
        times |= dict.fromkeys(parts, at.isoformat())
        read_at = at if source == self.Source.READ else self.read_at
        self.seen = {**self.seen, **parts, "looked_at": times, "read_at": read_at and read_at.isoformat()}
        self.seen_at, self.seen_by, self.source = at, by, source
        if source == self.Source.READ:
            self.unread_at, self.unread_reason = None, ""

    def looked_at(self, *parts: str) -> datetime:
        """Return when these parts were seen; the oldest time of them. All must have been seen."""
        times, seen_at = self.seen.get("looked_at", {}), self.seen_at
        assert seen_at is not None  # noqa: S101  # what was seen has its time
        return min((datetime.fromisoformat(times[name]) for name in parts if name in times), default=seen_at)

    @property
    def read_at(self) -> datetime | None:
        """Return when the portal itself last read it; None for never."""
        text = self.seen.get("read_at")
        return None if not text else datetime.fromisoformat(text)
