"""How far one executor is, and what it waits for, for those who watch it."""

from __future__ import annotations

import time
from collections import Counter, deque
from datetime import timedelta

from django.utils import timezone

from portal.runs import summaries
from portal.runs.kinds import Outcome
from portal.runs.lease import Lease
from portal.runs.ledger import ASKED_TO_SLOW_DOWN
from portal.runs.limits import limit_words
from portal.runs.listening import Listener, Progress, Wait
from portal.runs.models import Run
from portal.runs.pacing import Pacer
from portal.runs.threads import Held
from portal.runs.turns import Turns

_QUIET_SECONDS = 5.0  # without a result; then the listener reports what is waited for
_REPORT_SECONDS = 0.25
_RATE_SECONDS = 10.0  # over which the rate is a mean
_OTHERS_CALL = "The calls that may leave until then are given to others."


class Reporter:
    """Tells the listener, a few times a second.

    Attributes:
        classes: results of this executor by their class.
        done_before: results of the run that it found.
    """

    def __init__(self, run: Run, size: int, listener: Listener, lease: Lease, pacer: Pacer, turns: Turns) -> None:
        self.classes: Counter[str] = Counter()
        self.done_before = 0
        self._run = run
        self._size = size
        self._listener = listener
        self._lease = lease
        self._pacer = pacer
        self._turns = turns
        now = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque([(now, 0)])
        self._last_result = self._next_look = now
        self._next_report = 0.0
        self._waits: tuple[list[Wait], int] = [], 0

    def finished(self, held: Held, outcome: Outcome) -> None:
        """Tell of a result that is committed."""
        self.classes[outcome.failure_class] += 1
        self._last_result = time.monotonic()
        self._listener.finished(held.item, outcome)

    def progress(self) -> Progress:
        (began, first), (now, last) = self._recent[0], self._recent[-1]
        waits, more = self._waits
        return Progress(
            total=self._run.total,
            done=self.done_before + self.classes.total(),
            running=min(len(self._turns.running), self._size),
            classes=self.classes,
            rate=(last - first) / (now - began) if now > began else 0.0,
            slowest=self._pacer.slowest(),
            throttled=self._pacer.throttled(),
            waits=waits,
            more_waits=more,
            quiet=self._is_quiet(),
            listed=self._run.is_listed,
        )

    def report(self) -> None:
        """Say how far it is, unless that was said a moment ago."""
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + _REPORT_SECONDS
        if not self._is_quiet():
            self._waits = [], 0
        elif now >= self._next_look:
            self._next_look = now + _QUIET_SECONDS
            self._waits = self._look_for_waits()
        self._recent.append((now, self.classes.total()))
        while len(self._recent) > 2 and self._recent[0][0] < now - _RATE_SECONDS:
            self._recent.popleft()
        self._listener.progressed(self.progress())

    def _is_quiet(self) -> bool:
        return time.monotonic() - self._last_result >= _QUIET_SECONDS

    def _look_for_waits(self) -> tuple[list[Wait], int]:
        """Return what is waited for: partners and limits in memory, then what the rows say; and how many more wait."""
        now, turns = timezone.now(), self._turns
        names = {held.item.group: held.item.label for held in (*turns.running.values(), *turns.waiting)}
        found = [
            Wait(
                who=limit_words(each.service) if each.group is None else names[each.group],
                until=now + timedelta(seconds=each.seconds),
                why=ASKED_TO_SLOW_DOWN if each.refused else _OTHERS_CALL,
            )
            for each in self._pacer.waits(1.0)
            if each.group is None or each.group in names
        ]
        rows, more = self._lease.steadily(lambda: summaries.waits_of(self._run))
        known = {each.who for each in found}
        return found + [each for each in rows if each.who not in known], more
