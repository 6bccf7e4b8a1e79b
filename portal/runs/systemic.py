"""Tell a fault on our side from faults of partners (R-14)."""

from __future__ import annotations

from collections import deque

from portal.runs.kinds import Outcome

FIRST = 5  # so many distinct units at the start
WINDOW = 50
SHARE = 0.2  # of the window


class Watch:
    """Watches the outcomes of one executor.

    Until one unit showed that we ourselves are well, only so many are begun as may fail; their results are held back.
    A throttled unit shows nothing.

    Attributes:
        proven: some unit had an outcome that is not on our side.
        prepared: what all units share was fetched, so that the first units need not go ahead for it.
        cause: why the run has to stop, in words; None while it need not.
    """

    def __init__(self, *, proven: bool = False) -> None:
        self.proven = proven
        self.prepared = False
        self.cause: str | None = None
        self.owner = ""
        self._begun = False
        self._bad = 0
        self._last: Outcome | None = None
        self._window: deque[bool] = deque(maxlen=WINDOW)

    def room(self, size: int, *, ready: int = 0) -> int:
        """Return how many units may be worked at once now, with those that may lie ready beside them.

        The first few go ahead in every process that could not prepare itself: they fetch the tokens and keys that all
        others then share.
        """
        if self.proven and (self._begun or self.prepared):
            return size + ready
        return max(min(size, FIRST if self.proven else FIRST - self._bad), 0)

    def saw(self, outcome: Outcome) -> None:
        """Take note of the outcome of one unit, or of one try of it."""
        self._begun = True
        if outcome.throttled:
            return
        self._window.append(outcome.systemic)
        if not outcome.systemic:
            self.proven = True
            return
        self._last = outcome
        self._bad += 1
        if (not self.proven and self._bad >= FIRST) or (
            len(self._window) == WINDOW and sum(self._window) > WINDOW * SHARE
        ):
            self._stop(outcome)

    def all_bad(self) -> bool:
        """Call when nothing is left to do: every unit of a short run failed for a cause on our side."""
        if self._last is None or self.proven:
            return False
        self._stop(self._last)
        return True

    def _stop(self, outcome: Outcome) -> None:
        if self.cause is None:
            self.cause = outcome.message or outcome.failure_class
            self.owner = outcome.owner
