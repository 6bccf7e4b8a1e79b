"""What an executor tells those who watch it: how far it is, what it finished, and why it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from portal.runs.kinds import Outcome
from portal.runs.models import RunItem


class Ending(StrEnum):
    """Why an executor ended."""

    DONE = "done"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    """Others took over what this executor held, because it did not renew its lease in time."""


@dataclass(slots=True)
class Progress:
    """Where a run stands, as this executor sees it. Cheap: no query."""

    total: int
    done: int
    running: int
    classes: Counter[str]
    rate: float
    """Units a second of this executor, lately."""
    slowest: Mapping[str, float]
    """Mean seconds of a call, by service."""
    throttled: int

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate > 0 else None


class Listener:
    """Hears what happens; the default hears nothing."""

    def proven(self) -> None:
        """A first unit showed that we ourselves are well, so others may join."""

    def finished(self, item: RunItem, outcome: Outcome) -> None:
        """One unit has its result, and it is committed."""

    def progressed(self, progress: Progress) -> None:
        """Time passed; called a few times a second."""
