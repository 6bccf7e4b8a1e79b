"""A run's progress, as it stands above the run and renews itself while the run is open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count
from django.urls import reverse
from django.utils import timezone

from portal.runs import service, stops, summaries
from portal.runs.kinds import OK
from portal.runs.models import Executor, Run, RunItem
from portal.runs.panels import RATE_OVER
from portal.runs.summaries import Summary
from portal.site.dashboard import Figure, Row
from portal.site.display import Tone, badge, who

State = Run.State
ITEM_TONES = {
    RunItem.State.WAITING: Tone.QUIET,
    RunItem.State.WORKING: Tone.BUSY,
    RunItem.State.DONE: Tone.GOOD,
}
_LATEST = 8  # results and causes that are shown
# From which states each button leads somewhere; an open run is resumed where no executor works it.
_STEERED_FROM: Mapping[str, set[State]] = {
    "pause_run": {State.OPEN},
    "resume_run": {State.OPEN, State.PAUSED, State.STOPPED},
    "cancel_run": {State.OPEN, State.PAUSED},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a run's page shows. ``total`` is None while the run is listed."""

    title: str
    done: int
    total: int | None
    live: bool
    address: str
    facts: list[str]
    figures: list[Figure]
    waits: list[Row]
    more_waits: int
    causes: list[Row]
    latest: list[tuple[RunItem, str]]
    results: str


def class_words(name: str) -> str:
    """Return a failure class as it is shown."""
    return "OK" if name == OK else name.replace("_", " ").capitalize()


def result_badge(item: RunItem) -> str:
    """Return what came of a unit, or how far it is."""
    state = RunItem.State(item.state)
    if state is not RunItem.State.DONE:
        return badge(state.label, ITEM_TONES[state])
    return badge(class_words(item.failure_class), Tone.GOOD if item.failure_class == OK else Tone.BAD)


def button_fits(run: Run, name: str) -> bool:
    """Tell whether a button leads somewhere in the state of this run; two queries at most."""
    if name == "resume_run" and service.why_not_resumed(run):
        return False
    if run.state == State.OPEN and name == "resume_run":
        return not Executor.objects.living().filter(run=run).exists()
    if name == "repeat_failed":
        return not service.why_not_repeated(run)
    return State(run.state) in _STEERED_FROM[name]


def shown_around(run: Run) -> str:
    """Return what the page around the progress shows and the progress cannot renew, the buttons among it."""
    buttons = " ".join(name for name in (*_STEERED_FROM, "repeat_failed") if button_fits(run, name))
    return f"{run.state} {run.started_at} {run.finished_at} {buttons}"


def progress_of(run: Run) -> Progress:
    """Return progress, rate, counts, waits, the most frequent failures and the latest results.

    The same number of queries for any number of units.
    """
    numbers = summaries.summary(run)
    results = f"{reverse('admin:runs_runitem_changelist')}?run__id__exact={run.pk}"
    running = run.items.filter(state=RunItem.State.WORKING).count()
    waiting = max(numbers.total - numbers.done - running, 0)
    waits, more_waits = summaries.waits_of(run) if run.state == State.OPEN else ([], 0)
    title = f"{summaries.label_of(run)}: {run.get_state_display().lower()}"
    latest = run.items.filter(state=RunItem.State.DONE).order_by("-finished_at", "-pk")
    return Progress(
        title=f"{title}. {run.reason}" if run.reason else title,
        done=numbers.done,
        total=numbers.total if numbers.listed else None,
        live=run.state == State.OPEN,
        address=f"{reverse('admin:runs_run_progress', args=[run.pk])}?{urlencode({'shown': shown_around(run)})}",
        facts=_facts(run, numbers, waiting + running),
        figures=_figures(numbers, running, waiting, results),
        waits=[
            Row(label=f"{one.who} waits until {one.until:%H:%M:%S} UTC", detail=one.why, tone=Tone.BUSY)
            for one in waits
        ],
        more_waits=max(more_waits, 0),
        causes=_causes(run, results),
        latest=[(item, result_badge(item)) for item in latest[:_LATEST]],
        results=results,
    )


def _facts(run: Run, numbers: Summary, left: int) -> list[str]:
    over = run.state in {State.DONE, State.CANCELLED}
    took = f"{timedelta(seconds=round(numbers.seconds))} {'in all' if over else 'so far'}"
    facts = [f"{numbers.done:,} of {numbers.total_words}", took]
    if run.forgotten:
        facts.append(f"{run.forgotten:,} that were well, and well the next time, are listed no more")
    if run.stop_share is not None:
        facts.append(f"wave {run.wave + 1}")
    if run.state == State.OPEN:
        facts += _pace(run, numbers, left)
    if run.state == State.STOPPED:
        facts.append(stops.after_stop(run))
    return facts


def _pace(run: Run, numbers: Summary, left: int) -> list[str]:
    """Return how fast an open run goes, when it will be done, and who works it."""
    recent = run.items.filter(finished_at__gte=timezone.now() - RATE_OVER).count()
    rate = recent / min(RATE_OVER.total_seconds(), max(numbers.seconds, 1.0))
    facts = [f"{rate:.1f} a second"]
    if rate and left and numbers.listed:
        facts.append(f"about {timedelta(seconds=round(left / rate))} left")
    living = [str(one) for one in Executor.objects.living().filter(run=run)]
    facts.append(f"worked by {', '.join(living)}" if living else "no process works it just now")
    return facts


def _figures(numbers: Summary, running: int, waiting: int, results: str) -> list[Figure]:
    figures = [
        Figure(
            label=class_words(name),
            value=f"{number:,}",
            tone=Tone.GOOD if name == OK else Tone.BAD,
            link=f"{results}&result={name}",
        )
        for name, number in sorted(numbers.classes.items(), key=lambda one: one[0] != OK)
    ]
    if running:
        figures.append(Figure(label="At work", value=running, tone=Tone.BUSY, link=f"{results}&state__exact=working"))
    if waiting:
        link = f"{results}&state__exact=waiting"
        figures.append(Figure(label="Waiting", value=f"{waiting:,}", tone=Tone.QUIET, link=link))
    return figures


def _causes(run: Run, results: str) -> list[Row]:
    causes: Any = (
        run.items.unsuccessful()
        .order_by()
        .values("failure_class", "message", "owner")
        .annotate(number=Count("pk"))
        .order_by("-number")[:_LATEST]
    )
    return [
        Row(
            label=f"{cause['number']:,} × {cause['message'] or class_words(cause['failure_class'])}",
            detail=f"Who must act: {who(cause['owner'])}" if cause["owner"] else "",
            link=f"{results}&result={cause['failure_class']}",
            tone=Tone.BAD,
        )
        for cause in causes
    ]
