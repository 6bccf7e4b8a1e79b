"""What an executor tells those who watch it: how far it is, what it finished, and why it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from portal.runs.kinds import Outcome
from portal.runs.models import STILL_LISTING, RunItem


class Ending(StrEnum):
    """Why an executor ended."""

    DONE = "done"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    """Others took over what this executor held, because it did not renew its lease in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a run waits for: for whom or for what, until when, and why."""

    who: str
    until: datetime
    why: str

    def __str__(self) -> str:
        return f"{self.who} until {self.until:%H:%M:%S} UTC: {self.why}"

    def as_json(self) -> dict[str, Any]:
        return {"who": self.who, "until": self.until.isoformat(), "why": self.why}


def wait_words(waits: Sequence[Wait], more: int) -> str:
    """Return one sentence for what is waited for; ``more`` units are only counted."""
    named = "; ".join(str(each).rstrip(".") for each in waits)
    counted = f"; and {more} more {'unit' if more == 1 else 'units'}" if more else ""
    return f"Waits for {named}{counted}."


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
    waits: Sequence[Wait] = ()
    """What is waited for, once nothing was finished for some seconds."""
    more_waits: int = 0
    quiet: bool = False
    """Whether nothing was finished for some seconds."""
    listed: bool = True
    """Whether all units are known; until then the total grows."""

    @property
    def total_words(self) -> str:
        return f"{self.total:,}{'' if self.listed else STILL_LISTING}"

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.listed and self.rate > 0 else None

    @property
    def waiting_words(self) -> str:
        """What is waited for, in one sentence."""
        if self.waits:
            return wait_words(self.waits, self.more_waits)
        if self.running:
            return f"Waits for answers to {self.running} {'unit' if self.running == 1 else 'units'}."
        return "No unit is at work in this process just now."


class Listener:
    """Hears what happens; the default hears nothing."""

    def proven(self) -> None:
        """A first unit showed that we ourselves are well, so others may join."""

    def finished(self, item: RunItem, outcome: Outcome) -> None:
        """One unit has its result, and it is committed."""

    def progressed(self, progress: Progress) -> None:
        """Time passed; called a few times a second."""
