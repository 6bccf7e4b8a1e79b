"""What runs just now, in a line each, for the top of every page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from portal.runs import service
from portal.runs.models import Run, RunItem
from portal.site.dashboard import Row
from portal.site.display import Tone

_SHOWN = 3
RATE_OVER = timedelta(seconds=30)


def time_left(units: int, recent: int, over: timedelta) -> str:
    """Say how long so many units take at the pace of the last while; empty if nothing was worked in it."""
    if not recent or not units:
        return ""
    seconds = round(units * over.total_seconds() / recent)
    if seconds < 2 * 60:
        return f"about {max(seconds, 1)} s left"
    return f"about {seconds // 60} min left" if seconds < 2 * 60 * 60 else f"about {seconds / 3600:.0f} h left"


def running_lines(request: HttpRequest) -> list[Row]:
    """Return a line for each of the latest open runs, with progress and time left; one query."""
    if not request.user.has_perm("runs.view_run"):
        return []
    done = RunItem.objects.filter(run=OuterRef("pk"), state=RunItem.State.DONE).order_by().values("run")
    recent = done.filter(finished_at__gte=timezone.now() - RATE_OVER)

    def number(of: QuerySet[RunItem, Any]) -> Coalesce:
        return Coalesce(Subquery(of.annotate(number=Count("pk")).values("number")), 0)

    runs: QuerySet[Any] = Run.objects.filter(state=Run.State.OPEN)
    lines = []
    for run in runs.annotate(done=number(done), recent=number(recent)).order_by("-pk")[:_SHOWN]:
        done_of = f"{run.done:,} of {run.total:,}" if run.total else "being prepared"
        facts = [done_of, time_left(run.total - run.done, run.recent, RATE_OVER)]
        lines.append(
            Row(
                label=f"{service.label_of(run)}: {', '.join(fact for fact in facts if fact)}",
                link=reverse("admin:runs_run_change", args=[run.pk]),
                tone=Tone.BUSY,
            )
        )
    return lines
