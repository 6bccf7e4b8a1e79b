"""How a run goes on, as a live picture on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from portal.runs.kinds import Outcome
from portal.runs.listening import Listener, Progress
from portal.runs.models import RunItem


@contextmanager
def shown(label: str) -> Iterator[Bar]:
    """Show the picture on standard output until the run ends."""
    with Live(console=Console(), refresh_per_second=4, transient=True) as live:
        yield Bar(label, live)


class Bar(Listener):
    """A live picture on a terminal: how far, how fast, how long still, what came of it, and what is slow."""

    def __init__(self, label: str, live: Live) -> None:
        self._label = label
        self._live = live

    def progressed(self, progress: Progress) -> None:
        self._live.update(self._picture(progress))

    def finished(self, item: RunItem, outcome: Outcome) -> None:
        if not outcome.ok:
            self._live.console.print(
                f"{outcome.failure_class}  {item.label}: {outcome.message}", markup=False, highlight=False
            )

    def _picture(self, progress: Progress) -> Group:
        width, share = 24, progress.done / progress.total if progress.listed and progress.total else 0.0
        filled = round(width * share)
        facts = [
            f"{'━' * filled}{'╌' * (width - filled)}{f' {share:.0%}' if progress.listed else ''}",
            f"{progress.done:,}/{progress.total_words}",
            f"{progress.rate:.0f}/s",
        ]
        if progress.seconds_left is not None:
            facts.append(f"about {timedelta(seconds=round(progress.seconds_left))} left")
        classes = [f"{number:,} {name}" for name, number in progress.classes.most_common()]
        calls = [f"{progress.running} at work"]
        calls += [
            f"{name.partition(':')[0]} {seconds * 1000:.0f} ms"
            for name, seconds in sorted(progress.slowest.items(), key=lambda one: -one[1])
        ]
        if progress.throttled:
            calls.append(f"{progress.throttled:,} times throttled (429)")
        lines = [f"{self._label}  {'  '.join(facts)}", f"  {', '.join(classes)}", f"  {', '.join(calls)}"]
        if progress.quiet:
            lines.append(f"  {progress.waiting_words}")
        return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))
