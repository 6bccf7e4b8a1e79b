from __future__ import annotations

from typing import Any, NoReturn

from django.db import models
from django.db.models.fields.json import KT


class AppendOnly(RuntimeError):
    """Audit rows are never changed or removed."""


class AuditQuerySet(models.QuerySet["AuditEvent"]):
    """Reads only; the database's triggers refuse what slips past this (S-56)."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnly("audit events are written by portal.audit.record() only and never changed")

    update = delete = bulk_create = bulk_update = get_or_create = update_or_create = _refuse

    def about(self, **subject: str | int) -> AuditQuerySet:
        """Return events about all of these, such as ``about(partner=7)``; an index finds partners and customers."""
        given: dict[str, Any] = {}
        for name, value in subject.items():
            indexed = name in {"partner", "customer"}
            given[f"{name}_key" if indexed else f"subject__{name}"] = str(value) if indexed else value
        return self.filter(**given)


class AuditEvent(models.Model):
    """One thing that happened. Written by ``portal.audit.trail.record`` and by nothing else."""

    class ActorKind(models.TextChoices):
        STAFF = "staff", "Staff"
        COMMAND = "command", "Command"
        LINK = "link", "Consent link"
        SYSTEM = "system", "System"

    class Outcome(models.TextChoices):
        DONE = "done", "Done"
        REFUSED = "refused", "Refused"
        FAILED = "failed", "Failed"
        INTENT = "intent", "About to do"

    sequence = models.BigIntegerField(unique=True)
    at = models.DateTimeField(db_index=True)
    actor_kind = models.CharField(max_length=10, choices=ActorKind)
    actor = models.CharField(max_length=150)
    address = models.GenericIPAddressField(null=True)
    action = models.CharField(max_length=60)
    outcome = models.CharField(max_length=10, choices=Outcome)
    subject = models.JSONField(default=dict, help_text="Ids of what it was about")
    details = models.JSONField(default=dict, help_text="Before and after, codes and counts; never a secret")
    correlation_id = models.CharField(max_length=36, blank=True)
    # Both worked out by the database, so that they can say nothing but what the sealed subject says.
    partner_key = models.GeneratedField(
        expression=KT("subject__partner"), output_field=models.TextField(null=True), db_persist=True
    )
    customer_key = models.GeneratedField(
        expression=KT("subject__customer"), output_field=models.TextField(null=True), db_persist=True
    )
    previous_mac = models.CharField(max_length=64, blank=True)
    mac = models.CharField(max_length=64)

    objects = AuditQuerySet.as_manager()

    class Meta:
        ordering = ["-sequence"]
        verbose_name = "audit event"
        # Each filter of the list with the order of the list: the first pages are read, however many events there are.
        indexes = [
            models.Index(fields=["partner_key", "-sequence"], name="audit_of_partner"),
            models.Index(
                fields=["customer_key", "-sequence"],
                name="audit_of_customer",
                condition=models.Q(customer_key__isnull=False),
            ),
            models.Index(fields=["action", "-sequence"], name="audit_action"),
            # Not by the field: PostgreSQL would get a second index, for patterns that nobody asks for.
            models.Index(fields=["correlation_id"], name="audit_correlation"),
            models.Index(fields=["actor_kind", "-sequence"], name="audit_actor_kind"),
            models.Index(fields=["outcome", "-sequence"], name="audit_outcome"),
        ]

    def __str__(self) -> str:
        words = self.action.replace(".", " ").replace("_", " ")
        return f"{self.sequence}: {words}, {self.get_outcome_display().lower()}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnly("an audit event does not change")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnly("an audit event is never removed")
