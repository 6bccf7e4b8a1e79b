"""What runs just now, for the top of every page, and what ran last, for the first one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, Count, OuterRef, Q, QuerySet, Subquery, When
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from portal.runs import summaries
from portal.runs.models import Run, RunItem
from portal.site.dashboard import Panel, Row
from portal.site.display import Tone, distance
from portal.site.named import Fact
from portal.text import number_of

_SHOWN = 3
_LAST = 6
TONES = {
    Run.State.OPEN: Tone.BUSY,
    Run.State.PAUSED: Tone.WARN,
    Run.State.DONE: Tone.GOOD,
    Run.State.STOPPED: Tone.BAD,
    Run.State.CANCELLED: Tone.QUIET,
}
RATE_OVER = timedelta(seconds=30)


def units_with(correlation_id: str, at: datetime) -> list[Fact]:
    """Return the units of the runs of that time which carry this correlation id, each with the page of its run."""
    there = Run.objects.filter(created_at__lte=at).filter(Q(finished_at__isnull=True) | Q(finished_at__gte=at))
    units = RunItem.objects.filter(correlation_id=correlation_id, run__in=there).select_related("run")[:_SHOWN]
    return [
        (f"Run {unit.run_id}, unit {unit.label}", reverse("admin:runs_run_change", args=[unit.run_id]))
        for unit in units
    ]


def time_left(units: int, recent: int, over: timedelta) -> str:
    """Say how long so many units take at the pace of the last while; empty if nothing was worked in it."""
    if not recent or not units:
        return ""
    seconds = round(units * over.total_seconds() / recent)
    if seconds < 2 * 60:
        return f"about {max(seconds, 1)} s left"
    return f"about {seconds // 60} min left" if seconds < 2 * 60 * 60 else f"about {seconds / 3600:.0f} h left"


def _with_progress(runs: QuerySet[Run]) -> QuerySet[Any]:
    """Add how many units of open runs are done, and were done lately; the others may have any number of units."""
    items = RunItem.objects.filter(run=OuterRef("pk"), state=RunItem.State.DONE).order_by().values("run")
    recent = items.filter(finished_at__gte=timezone.now() - RATE_OVER)

    def number(of: QuerySet[RunItem, Any]) -> Case:
        counted = Coalesce(Subquery(of.annotate(number=Count("pk")).values("number")), 0)
        return Case(When(state=Run.State.OPEN, then=counted))

    return runs.annotate(done=number(items), recent=number(recent))


def _latest(request: HttpRequest) -> Sequence[Any]:
    """Return the open runs, then the last ones; one query."""
    first = Case(When(state=Run.State.OPEN, then=0), default=1)
    request.latest_runs = found = list(  # type: ignore[attr-defined]
        _with_progress(Run.objects.all()).order_by(first, "-pk")[: _SHOWN + _LAST]
    )
    return found


def _open(request: HttpRequest) -> Sequence[Any]:
    """Return the latest open runs: one query, and a second one where there are some; none where ``_latest`` asked."""
    if (known := getattr(request, "latest_runs", None)) is not None:
        return [run for run in known[:_SHOWN] if run.state == Run.State.OPEN]
    runs = Run.objects.filter(state=Run.State.OPEN).order_by("-pk")
    keys = list(runs.values_list("pk", flat=True)[:_SHOWN])
    return list(_with_progress(runs.filter(pk__in=keys))) if keys else []  # one may have ended in between


def running_lines(request: HttpRequest) -> list[Row]:
    """Return a line for each of the latest open runs, with progress and time left."""
    if not request.user.has_perm("runs.view_run"):
        return []
    return [
        Row(
            label=f"{summaries.label_of(run)}: {_progress(run)}",
            link=reverse("admin:runs_run_change", args=[run.pk]),
            tone=Tone.BUSY,
        )
        for run in _open(request)
    ]


def _progress(run: Any) -> str:
    done_of = f"{run.done:,} of {run.total_words}" if run.total else "being prepared"
    left = time_left(run.total - run.done, run.recent, RATE_OVER) if run.is_listed else ""
    return f"{done_of}, {left}" if left else done_of


def runs_panel(request: HttpRequest) -> Panel | None:
    """What runs and what ran last, with outcome and who began it; its query serves the top of the page as well."""
    if not request.user.has_perm("runs.view_run"):
        return None
    now = timezone.now()
    return Panel(
        title="Running and last runs",
        order=50,
        link=reverse("admin:runs_run_changelist"),
        empty="Nothing was run yet.",
        rows=[
            Row(
                label=f"{summaries.label_of(run)}: {_outcome(run)}",
                detail=f"{_when(run, now)}, by {run.actor}. {run.reason}".strip(),
                link=reverse("admin:runs_run_change", args=[run.pk]),
                tone=TONES[Run.State(run.state)],
            )
            for run in _latest(request)[:_LAST]
        ],
    )


def _outcome(run: Any) -> str:
    if run.state == Run.State.OPEN:
        return _progress(run)
    listed = "" if run.is_listed else " listed"
    return f"{run.get_state_display().lower()}, {number_of(run.total, 'unit')}{listed}"


def _when(run: Any, now: datetime) -> str:
    return (
        f"Finished {distance(run.finished_at - now)}" if run.finished_at else f"Begun {distance(run.created_at - now)}"
    )
