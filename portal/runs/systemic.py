"""Tell a fault on our side from faults of partners (R-14)."""

from __future__ import annotations

from collections import Counter, deque

from django.conf import settings

from portal.microsoft.diagnosis import Owner
from portal.runs.kinds import Blame, Outcome

FIRST = 5  # distinct units at the start
WINDOW = 50
SHARE = 0.2  # of the window
_LOOK = 10  # outcomes of one application over which a blame is judged
Place = tuple[str, str]  # application id and cloud


class Blames:
    """Finds out whether units are blamed for what is ours: the same cause for nearly all that were well.

    An application that was disabled looks like thousands of partners that switched it off. So a blame is held back
    until ten more outcomes of the same application came, or no more come. Outcomes of other applications say nothing
    about it.

    Outcomes are judged in the order in which their units were begun. Those that were under way when an application was
    disabled come late and may be good; among the failures that came before them they would speak for the application.

    Args:
        at_once: units that are worked at once; this many may still be good when an application is disabled.
    """

    def __init__(self, at_once: int) -> None:
        self._look = max(_LOOK, settings.SAME_CAUSE_FEWEST)
        self._wait = self._look + at_once
        self._seen: Counter[Place] = Counter()
        self._latest: dict[Place, deque[str]] = {}  # the causes of what was well before; "" of what works
        self._held: dict[int, tuple[Place, Blame, int]] = {}  # by the outcome's id, which lives as long as it is held
        self._begun = self._judged = 0  # numbers of units
        self._early: dict[int, tuple[Outcome, Place] | None] = {}  # by number: a unit before them is still at work
        self.question = ""

    def begin(self) -> int:
        """Return the number of a unit that is begun now; ``saw`` must be called for each."""
        self._begun += 1
        return self._begun

    @property
    def waiting(self) -> int:
        """How many units ended and are not judged, because one that was begun before them is still at work."""
        return len(self._early)

    def saw(self, number: int, outcome: Outcome | None, place: Place) -> bool:
        """Take note of how a unit ended; return whether a blame was believed, which shows that we are well.

        Args:
            outcome: one that is not on our side; None for what says nothing about anybody.
        """
        self._early[number] = None if outcome is None else (outcome, place)
        believed = False
        while self._judged + 1 in self._early:
            self._judged += 1
            believed = self._judge(self._early.pop(self._judged)) or believed
        return believed

    def _judge(self, seen: tuple[Outcome, Place] | None) -> bool:
        if seen is None:
            return False
        outcome, place = seen
        self._seen[place] += 1
        latest = self._latest.setdefault(place, deque(maxlen=self._look))
        if (blame := outcome.blame) is not None:
            self._held[id(outcome)] = place, blame, self._seen[place]
            if blame.was_well:
                latest.append(blame.cause)
            if len(latest) == self._look:
                self._ask(place, blame)
        elif outcome.ok:
            latest.append("")
        return self._let_go(place)

    def holds(self, outcome: Outcome) -> bool:
        if outcome.blame is None:
            return False
        return id(outcome) in self._held or any(seen and seen[0] is outcome for seen in self._early.values())

    def over(self) -> bool:
        """No more outcomes come: judge by what there is; return whether something is what it seems to be."""
        for number in sorted(self._early):
            self._judge(self._early.pop(number))
        self._judged = self._begun
        for place, blame, _ in list(self._held.values()):
            self._ask(place, blame)
        if self.question or not self._held:
            return False
        self._held.clear()
        return True

    def _ask(self, place: Place, blame: Blame) -> None:
        latest = self._latest[place]
        number = latest.count(blame.cause)
        share = settings.SAME_CAUSE_PERCENT * len(latest) / 100
        if not self.question and number >= max(settings.SAME_CAUSE_FEWEST, share):
            self.question = f"{blame.question} Seen for {number} of the last {len(latest)} that were well before."

    def _let_go(self, place: Place) -> bool:
        """Believe what enough later outcomes did not call in question; return whether there was any."""
        if self.question:
            return False
        believed = [
            key
            for key, (of, _, number) in self._held.items()
            if of == place and self._seen[place] - number >= self._wait
        ]
        for key in believed:
            del self._held[key]
        return bool(believed)


class Watch:
    """Watches the outcomes of one executor.

    Until one unit showed that we ourselves are well, only as many are begun as may fail; their results are held back.
    A throttled unit shows nothing, and a blamed one nothing yet.

    Args:
        at_once: units that the executor works at once.

    Attributes:
        proven: some unit had an outcome that is not on our side.
        prepared: what all units share was fetched, so that the first units need not go ahead for it.
        cause: why the run has to stop, in words; None while it need not.
        passes: the cause may pass without anybody acting.
    """

    def __init__(self, at_once: int = 1) -> None:
        self.proven = False
        self.prepared = False
        self.cause: str | None = None
        self.owner = ""
        self.passes = False
        self._begun = False
        self._bad = 0
        self._last: Outcome | None = None
        self._window: deque[bool] = deque(maxlen=WINDOW)
        self._blames = Blames(at_once)

    def room(self, size: int, *, ready: int = 0) -> int:
        """Return how many units may be worked at once now, with those that may lie ready beside them.

        The first few go ahead in every process that could not prepare itself: they fetch the tokens and keys that all
        others then share. One that takes long must not let all others fail meanwhile, since they are judged after it.
        """
        if self.proven and (self._begun or self.prepared):
            return size + ready
        return max(min(size, FIRST if self.proven else FIRST - self._bad - self._blames.waiting), 0)

    def begin(self) -> int:
        """Return the number of a unit, or of a try of it, that is begun now."""
        return self._blames.begin()

    def saw(self, number: int, outcome: Outcome | None, place: Place = ("", "")) -> None:
        """Take note of the outcome of one unit, or of one try of it.

        Args:
            number: that ``begin`` returned for it.
            outcome: None when it was not worked.
            place: application and cloud by which it was worked.
        """
        says_something = outcome is not None and not (outcome.throttled or outcome.systemic)
        believed = self._blames.saw(number, outcome if says_something else None, place)
        self.proven = self.proven or believed
        if self._blames.question:
            self._stop(self._blames.question, Owner.US)
        if outcome is None:
            return
        self._begun = True
        if outcome.throttled:
            return
        self._window.append(outcome.systemic)
        if not outcome.systemic:
            self.proven = self.proven or outcome.blame is None
            return
        self._last = outcome
        self._bad += 1
        if (not self.proven and self._bad >= FIRST) or (
            len(self._window) == WINDOW and sum(self._window) > WINDOW * SHARE
        ):
            self._stop_for(outcome)

    def holds(self, outcome: Outcome) -> bool:
        """Tell whether a result may not be written yet, because we may be to blame for it."""
        return self._blames.holds(outcome) or (outcome.systemic and not outcome.throttled and not self.proven)

    def over(self) -> bool:
        """Call when nothing is left to do. Returns whether the run has to stop: every unit of a short one failed for a
        cause on our side, or nearly all are blamed for the same.
        """
        self.proven = self._blames.over() or self.proven
        if self._blames.question:
            self._stop(self._blames.question, Owner.US)
        elif self._last is not None and not self.proven:
            self._stop_for(self._last)
        return self.cause is not None

    def _stop_for(self, outcome: Outcome) -> None:
        self._stop(outcome.message or outcome.failure_class, outcome.owner, passes=outcome.retry_after is not None)

    def _stop(self, cause: str, owner: str, *, passes: bool = False) -> None:
        if self.cause is None:
            self.cause, self.owner, self.passes = cause, owner, passes
