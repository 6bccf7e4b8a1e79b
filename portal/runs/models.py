"""Runs of bulk work, their items, who works them, and the rows that processes share limits and schedule through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now

from portal.fields import OwnerField
from portal.runs.kinds import GONE, OK, Outcome

LEASE = timedelta(seconds=15)
HEARTBEAT_SECONDS = 5.0  # a lease ends after two of them were missed
STILL_LISTING = " (still listing)"  # behind a total that grows
LONGEST_WAIT = timedelta(minutes=10)  # of an item that comes again: a plan's look for what Microsoft accepted
# When a stopped run whose cause may pass is tried again by itself; then a person must.
RESUMED_AFTER = (timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))
# A moment further ahead was written while the clock was: it counts as past, so that a jump holds nothing up.
_LONGEST_LEASE = timedelta(minutes=2)


class RunQuerySet(models.QuerySet["Run"]):
    def open(self) -> RunQuerySet:
        return self.filter(state=Run.State.OPEN)

    def unfinished(self) -> RunQuerySet:
        return self.filter(state__in=[Run.State.OPEN, Run.State.PAUSED])

    def abandoned(self) -> RunQuerySet:
        """Open runs that no executor works any more."""
        living = Executor.objects.living().filter(run=OuterRef("pk"))
        return self.open().filter(~Exists(living))

    def to_resume(self) -> RunQuerySet:
        """Stopped runs that the workers try again by themselves, now."""
        come = Q(resume_at__lte=Now()) | Q(resume_at__gt=Now() + RESUMED_AFTER[-1] * 2)
        return self.filter(come, state=Run.State.STOPPED)

    def without_work(self) -> RunQuerySet:
        """Runs whose list is complete and whose items all have a result."""
        left = RunItem.objects.filter(run=OuterRef("pk")).exclude(state=RunItem.State.DONE)
        return self.filter(~Exists(left), listed_at__isnull=False)


class ExecutorQuerySet(models.QuerySet["Executor"]):
    def living(self) -> ExecutorQuerySet:
        return self.filter(ended_at__isnull=True, lease_until__gte=Now(), lease_until__lte=Now() + _LONGEST_LEASE)

    def expired(self) -> ExecutorQuerySet:
        """Executors that stopped renewing their lease."""
        over = Q(lease_until__lt=Now()) | Q(lease_until__gt=Now() + _LONGEST_LEASE)
        return self.filter(over, ended_at__isnull=True)


class RunItemQuerySet(models.QuerySet["RunItem"]):
    def ready(self) -> RunItemQuerySet:
        """Items that anybody may take now."""
        come = Q(not_before__isnull=True) | Q(not_before__lte=Now()) | Q(not_before__gt=Now() + LONGEST_WAIT)
        return self.filter(come, state=RunItem.State.WAITING)

    def put_off(self) -> RunItemQuerySet:
        """Items that come again later, the next one first."""
        until = Now() + LONGEST_WAIT
        later = self.filter(not_before__gt=Now(), not_before__lte=until, state=RunItem.State.WAITING)
        return later.order_by("not_before", "pk")

    def in_order(self) -> RunItemQuerySet:
        """All groups take turns; within a turn by rank (R-31)."""
        return self.order_by("turn", "rank", "pk")

    def claim(self, keys: Sequence[int], executor_id: int) -> int:
        """Take these items; return how many were still free. The condition is in the UPDATE itself (R-32)."""
        return (
            self.ready()
            .filter(pk__in=keys)
            .update(state=RunItem.State.WORKING, executor_id=executor_id, attempts=F("attempts") + 1, not_before=None)
        )

    def held_by(self, executor_id: int) -> RunItemQuerySet:
        """Items that this executor works."""
        return self.filter(executor_id=executor_id, state=RunItem.State.WORKING)

    def finish(self, results: Sequence[tuple[int, Outcome]]) -> None:
        """Give items their results; one statement for all with the same words."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for key, outcome in results:
            words = (
                outcome.failure_class[:24],
                outcome.systemic,
                outcome.message[:400],
                outcome.owner[:10],
                outcome.code[:60],
            )
            alike.setdefault(words, []).append(key)
        for (failure_class, systemic, message, owner, code), keys in alike.items():
            self.filter(pk__in=keys).update(
                state=RunItem.State.DONE,
                failure_class=failure_class,
                systemic=systemic,
                message=message,
                owner=owner,
                code=code,
                finished_at=Now(),
            )

    def put_back(self, waits: Sequence[tuple[int, float, str]], **columns: Any) -> None:
        """Let items come again after their wait (seconds), and say why; one statement for the same wait and words.

        Waits are in whole seconds, and none is longer than ``LONGEST_WAIT``.
        """
        alike: dict[tuple[int, str], list[int]] = {}
        longest = int(LONGEST_WAIT.total_seconds())
        for key, wait, why in waits:
            alike.setdefault((min(math.ceil(wait), longest), why[:400]), []).append(key)
        for (seconds, why), keys in alike.items():
            self.filter(pk__in=keys).update(
                state=RunItem.State.WAITING,
                executor_id=None,
                not_before=Now() + timedelta(seconds=seconds),
                **({"message": why} if why else {}),
                **columns,
            )

    def give_back(self) -> int:
        """Let others take these items again."""
        return self.filter(state=RunItem.State.WORKING).update(state=RunItem.State.WAITING, executor_id=None)

    def unsuccessful(self) -> RunItemQuerySet:
        return self.filter(state=RunItem.State.DONE).exclude(failure_class=OK)

    def to_repeat(self) -> RunItemQuerySet:
        """Items that failed and whose subject was still there."""
        return self.unsuccessful().exclude(failure_class=GONE)


class Run(models.Model):
    """One piece of bulk work.

    Written by ``portal.runs.service``, ``portal.runs.listing``, ``portal.runs.waves`` and ``portal.runs.results`` only.
    """

    class State(models.TextChoices):
        OPEN = "open", "Open"
        PAUSED = "paused", "Paused"
        DONE = "done", "Done"
        STOPPED = "stopped", "Stopped for a cause on our side"
        CANCELLED = "cancelled", "Cancelled"

    kind = models.CharField(max_length=40)
    scope = models.JSONField(default=dict, help_text="What was chosen")
    scope_hash = models.CharField(max_length=64, editable=False)
    options = models.JSONField(default=dict)
    origin = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, related_name="repeats", help_text="Whose failed units it repeats"
    )
    state = models.CharField(max_length=9, choices=State, default=State.OPEN)
    actor_kind = models.CharField(max_length=10)
    actor = models.CharField(max_length=150)
    concurrency = models.PositiveSmallIntegerField(default=64)
    rate = models.FloatField(default=0, help_text="Calls a second of this run, all executors together; 0: no own limit")
    deadline = models.DateTimeField(null=True)
    wave = models.PositiveSmallIntegerField(default=0, help_text="Units of later waves are not worked yet; from 0")
    stop_share = models.FloatField(null=True, help_text="A wave in which more than this share fails is the last")
    resumed_at = models.DateTimeField(null=True, help_text="Failures before it do not count against a wave")
    listed_to = models.BigIntegerField(default=0, help_text="Cursor: all units up to this key are listed")
    listed_at = models.DateTimeField(null=True, help_text="When the last unit was listed")
    total = models.PositiveIntegerField(default=0)
    forgotten = models.PositiveIntegerField(
        null=True,
        help_text="Units that were well, and well the next time, whose rows were removed; empty: not looked for yet",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=300, blank=True, help_text="Why it is paused or stopped")
    held = models.BooleanField(default=False, help_text="Paused by the portal, which lets it go on by itself")
    resume_at = models.DateTimeField(
        "resumes by itself at", null=True, help_text="When the workers try a stopped run again; empty: a person must"
    )
    resumes = models.PositiveSmallIntegerField(
        "resumed by itself", default=0, help_text="How often since a person last let it go on"
    )

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["kind", "state"])]
        constraints = [
            # A second start of the same work finds the first.
            models.UniqueConstraint(
                fields=["kind", "scope_hash"], condition=Q(state__in=["open", "paused"]), name="run_open_once"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["open", "paused"], finished_at__isnull=True)
                | Q(state__in=["done", "stopped", "cancelled"], finished_at__isnull=False),
                name="run_finished_has_time",
            ),
        ]
        permissions = [("steer_run", "Can pause, resume and cancel runs")]

    def __str__(self) -> str:
        return f"Run {self.pk}"

    @property
    def is_over(self) -> bool:
        """Whether it goes on only when a person says so."""
        unfinished = self.state in {self.State.OPEN, self.State.PAUSED}
        return not unfinished and not (self.state == self.State.STOPPED and self.resume_at is not None)

    @property
    def is_listed(self) -> bool:
        """Whether all its units are known, so that its total is one."""
        return self.listed_at is not None

    @property
    def total_words(self) -> str:
        """How many units it has, for behind the word "of"; while they are being listed, how many are so far."""
        if self.is_listed:
            return f"{self.total:,}"
        return f"{self.total:,}{STILL_LISTING}" if self.state == self.State.OPEN else f"the {self.total:,} listed"


class Executor(models.Model):
    """One process that works a run. It lives as long as it renews its lease, by the database's clock (R-27)."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="executors")
    host = models.CharField(max_length=120)
    process = models.PositiveIntegerField()
    started_at = models.DateTimeField(auto_now_add=True)
    lease_until = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    objects = ExecutorQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        default_permissions = ("view",)
        indexes = [models.Index(fields=["lease_until"], condition=Q(ended_at__isnull=True), name="executor_living")]

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class RunItem(models.Model):
    """One unit of work. An item that is being worked belongs to one executor, and only that one writes its result."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        WORKING = "working", "Being worked"
        DONE = "done", "Done"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="items")
    key = models.BigIntegerField(help_text="Id of what it is about")
    group = models.BigIntegerField(help_text="Id of the partner")
    label = models.CharField(max_length=200)
    turn = models.PositiveIntegerField(help_text="How many units of the same group come before it (R-31)")
    rank = models.BigIntegerField(default=0)
    wave = models.PositiveSmallIntegerField(default=0)
    state = models.CharField(max_length=7, choices=State, default=State.WAITING)
    executor = models.ForeignKey(Executor, on_delete=models.SET_NULL, null=True, related_name="items")
    attempts = models.PositiveSmallIntegerField(default=0)
    not_before = models.DateTimeField(null=True)
    failure_class = models.CharField("class", max_length=24, blank=True)
    systemic = models.BooleanField(default=False)
    message = models.CharField("what to do", max_length=400, blank=True)
    owner = OwnerField()
    code = models.CharField(max_length=60, blank=True)
    correlation_id = models.CharField(max_length=36)
    finished_at = models.DateTimeField(null=True)

    objects = RunItemQuerySet.as_manager()

    class Meta:
        ordering = ["run_id", "pk"]
        default_permissions = ("view",)
        verbose_name = "run item"
        indexes = [
            models.Index(fields=["run", "state", "turn", "rank", "id"], name="item_next"),
            models.Index(fields=["run", "failure_class"], name="item_class"),
            models.Index(fields=["key", "failure_class"], name="item_key"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["run", "key"], name="item_once_per_run"),
            models.CheckConstraint(
                condition=(Q(state="working") & Q(executor__isnull=False)) | ~Q(state="working"),
                name="item_working_has_executor",
            ),
            models.CheckConstraint(
                condition=Q(state="done", finished_at__isnull=False) | (~Q(state="done") & Q(finished_at__isnull=True)),
                name="item_done_has_time",
            ),
        ]

    def __str__(self) -> str:
        return self.label


class RateBucket(models.Model):
    """One limit that all processes share. Written by ``portal.runs.buckets`` only, by single statements."""

    name = models.CharField(max_length=120, primary_key=True)
    nominal = models.FloatField(help_text="Calls a second while the service refuses none")
    rate = models.FloatField(help_text="Calls a second now")
    next_free = models.FloatField(help_text="When the next call may leave, in seconds since 1970 of the database")
    refused_at = models.FloatField(default=0, help_text="When the service last complained")
    held_for = models.FloatField(default=0, help_text="Seconds that it then asked to wait")
    refused_rate = models.FloatField(default=0, help_text="The rate that it complained about")
    good_rate = models.FloatField(default=0, help_text="The highest rate since then that it did not complain about")
    changed_at = models.FloatField(default=0, help_text="When the rate was last lowered or raised")
    patience = models.FloatField(default=0, help_text="Seconds without a complaint before a higher rate is tried")

    class Meta:
        default_permissions = ("view",)
        verbose_name = "limit"

    def __str__(self) -> str:
        return self.name


class ScheduledJob(models.Model):
    """When a job of the schedule is due next. A scheduler takes it by one conditional UPDATE, so two are harmless."""

    name = models.CharField(max_length=60, primary_key=True)
    due_at = models.DateTimeField()
    last_started_at = models.DateTimeField(null=True)
    last_finished_at = models.DateTimeField(null=True)
    last_failed = models.BooleanField(default=False)
    last_result = models.CharField(max_length=200, blank=True)
    first_due_at = models.DateTimeField(null=True, help_text="The earliest time that came due and is not done yet")
    repeat_at = models.DateTimeField(
        null=True, help_text="Handed out and not done: it is handed out again then, unless its process puts that off"
    )
    owner = models.CharField(max_length=36, blank=True, help_text="Id of the process's work on it")
    cut_off = models.PositiveSmallIntegerField(default=0, help_text="How often its process ended in the middle")

    class Meta:
        ordering = ["name"]
        default_permissions = ("view",)
        permissions = [("start_scheduledjob", "Can start a job of the schedule before its time")]
        verbose_name = "scheduled job"

    def __str__(self) -> str:
        return self.name
