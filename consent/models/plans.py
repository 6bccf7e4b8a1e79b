"""Plans of changes in customer tenants, and the versions of what is wanted there."""

from __future__ import annotations

from django.db import models
from django.db.models import OuterRef, Q, Subquery

from portal.fields import OwnerField
from tenants.models import CustomerTenant


class WantedGrants(models.Model):
    """What a registration wanted in customer tenants from a version on. Append only, by ``consent.customers.wanted``.

    The rows of ``ApplicationGrant`` are the set of the latest version.
    """

    registration = models.ForeignKey(
        "consent.ApplicationRegistration", on_delete=models.CASCADE, related_name="wanted_versions"
    )
    number = models.PositiveIntegerField("version")
    grants = models.JSONField(help_text="Resource application id: scopes")
    grants_hash = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150)

    class Meta:
        ordering = ["-number"]
        verbose_name = "version of the wanted grants"
        verbose_name_plural = "versions of the wanted grants"
        constraints = [
            models.UniqueConstraint(fields=["registration", "number"], name="wanted_once_per_number"),
        ]

    def __str__(self) -> str:
        return f"Version {self.number}"


class ConsentPlan(models.Model):
    """What to change in the tenants of a selection. Written by ``consent.customers.plans``, and once it is applied
    by ``consent.runs.apply_plan``, only."""

    class Purpose(models.TextChoices):
        APPLY = "apply", "Bring the wanted grants"
        PUSH = "push", "Bring the wanted grants where none is"
        REMOVE = "remove", "Remove the consent"
        UNDO = "undo", "Undo an earlier plan"

    class State(models.TextChoices):
        SHOWN = "shown", "Shown, not applied"
        APPLYING = "applying", "Being applied"
        STOPPED = "stopped", "Stopped, with something left to do"
        DONE = "done", "Applied"

    registration = models.ForeignKey("consent.ApplicationRegistration", on_delete=models.PROTECT, related_name="plans")
    purpose = models.CharField(max_length=6, choices=Purpose, default=Purpose.APPLY)
    wanted = models.ForeignKey(
        WantedGrants, on_delete=models.PROTECT, null=True, related_name="plans", verbose_name="wanted grants"
    )
    scope = models.JSONField(default=dict, help_text="What was chosen")
    planned = models.JSONField(default=dict, help_text="Customers by action; and how many only a reset can do")
    state = models.CharField(max_length=8, choices=State, default=State.SHOWN)
    reset = models.BooleanField(default=False, help_text="Whether DELETE followed by POST was chosen when applying")
    run = models.ForeignKey(
        "runs.Run", on_delete=models.SET_NULL, null=True, related_name="+", help_text="The latest one that applied it"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150)
    applied_at = models.DateTimeField(null=True)
    applied_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name = "consent plan"
        constraints = [
            models.CheckConstraint(
                condition=Q(state="shown", applied_at__isnull=True) | (~Q(state="shown") & Q(applied_at__isnull=False)),
                name="plan_applied_has_time",
            ),
            models.CheckConstraint(
                condition=~Q(purpose="apply") | Q(wanted__isnull=False), name="plan_to_apply_names_its_version"
            ),
        ]
        permissions = [("apply_consentplan", "Can apply a consent plan")]

    def __str__(self) -> str:
        """Note: this reads ``self.registration``; where it is not loaded, that is a query."""
        return f"Plan {self.pk} for {self.registration}"


class ConsentPlanItemQuerySet(models.QuerySet["ConsentPlanItem"]):
    def to_do(self, *, reset: bool) -> ConsentPlanItemQuerySet:
        """Items that applying would work: not done, and what only DELETE and POST can do if that is chosen."""
        action, result = ConsentPlanItem.Action, ConsentPlanItem.Result
        changing = self.exclude(action__in=[action.NOTHING, action.BLOCKED])
        unfinished = changing.filter(result__in=[result.OPEN, result.WAITING, result.BROKEN])
        return unfinished if reset else unfinished.filter(needs_reset=False)

    def unsuccessful(self) -> ConsentPlanItemQuerySet:
        result = ConsentPlanItem.Result
        return self.filter(result__in=[result.FAILED, result.RESTORED, result.BROKEN])

    def with_later_plan(self) -> ConsentPlanItemQuerySet:
        """Annotate ``later_plan``: the latest plan of the same registration that changed the customer afterwards."""
        later = ConsentPlanItem.objects.filter(
            customer=OuterRef("customer"),
            plan__registration=OuterRef("plan__registration"),
            plan__gt=OuterRef("plan"),
            snapshot__isnull=False,
        ).order_by("-plan")
        return self.annotate(later_plan=Subquery(later.values("plan")[:1]))


class ConsentPlanItem(models.Model):
    """One customer of a plan: what was there, what shall be there, and what came of it.

    ``phase`` is written before each request that changes something, so that a run that was cut off knows where it was.
    """

    class Action(models.TextChoices):
        CREATE = "create", "Create"
        WIDEN = "widen", "Widen"
        NARROW = "narrow", "Narrow"
        REMOVE = "remove", "Remove"
        NOTHING = "nothing", "Nothing to do"
        BLOCKED = "blocked", "Blocked"

    class Phase(models.TextChoices):
        NONE = "", "Nothing sent"
        POSTING = "posting", "Being created"
        REMOVING = "removing", "Being removed"
        REMOVED = "removed", "Removed, to be created again"
        RESTORING = "restoring", "Removed, to be put back as it was"

    class Result(models.TextChoices):
        OPEN = "", "Open"
        DONE = "done", "Done"
        WAITING = "waiting", "Waiting for Microsoft"
        HELD = "held", "Held back"
        FAILED = "failed", "Failed"
        RESTORED = "restored", "Failed, as it was before"
        BROKEN = "broken", "Removed and not put back"

    plan = models.ForeignKey(ConsentPlan, on_delete=models.CASCADE, related_name="items")
    customer = models.ForeignKey(CustomerTenant, on_delete=models.PROTECT, related_name="plan_items")
    action = models.CharField(max_length=7, choices=Action)
    before = models.JSONField(default=dict, help_text="Resource application id: scopes, as last read")
    target = models.JSONField(default=dict, help_text="Resource application id: scopes; empty means no consent")
    read_at = models.DateTimeField(null=True, help_text="When the tenant was last read; empty means never")
    needs_reset = models.BooleanField(default=False, help_text="Only DELETE followed by POST can do this")
    reason = models.CharField(max_length=300, blank=True)
    owner = OwnerField()
    wave = models.PositiveSmallIntegerField(default=0)
    phase = models.CharField(max_length=9, choices=Phase, blank=True, default=Phase.NONE)
    snapshot = models.JSONField(null=True, help_text="What was read immediately before the first change")
    accepted_at = models.DateTimeField(null=True, help_text="When Microsoft accepted what is not shown yet")
    result = models.CharField(max_length=8, choices=Result, blank=True, default=Result.OPEN)
    message = models.CharField(max_length=300, blank=True)
    finished_at = models.DateTimeField(null=True)

    objects = ConsentPlanItemQuerySet.as_manager()

    class Meta:
        ordering = ["plan_id", "wave", "pk"]
        verbose_name = "plan item"
        constraints = [
            models.UniqueConstraint(fields=["plan", "customer"], name="plan_item_once_per_customer"),
            models.CheckConstraint(condition=Q(phase="") | Q(snapshot__isnull=False), name="plan_item_has_snapshot"),
        ]
        indexes = [models.Index(fields=["plan", "wave", "result"]), models.Index(fields=["plan", "action"])]

    def __str__(self) -> str:
        """Note: this reads ``self.customer``; where it is not loaded, that is a query."""
        return str(self.customer)
