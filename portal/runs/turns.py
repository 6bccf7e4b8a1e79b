"""Whose turn it is: the units that one executor holds, shared fairly between partners (R-31)."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator

from portal.runs.threads import Held


class Turns:
    """Units that wait, in their order, and those that are at work.

    Args:
        size: units at once; they lie ready beside them for threads that end first.
        per_group: most units of one partner at once; 0 for a share of the size.

    Attributes:
        waiting: units in their order.
        running: units at work, or ready for a thread, by item.
        startable: units that wait for a free thread only, at the last look.
    """

    def __init__(self, size: int, per_group: int) -> None:
        self.startable = 0
        self._size = size
        self._per_group = per_group
        self.waiting: deque[Held] = deque()
        self.running: dict[int, Held] = {}
        self._groups: Counter[int] = Counter()  # units at work of each partner

    def next(
        self, room: int, *, held_for: Callable[[int], float], put_off: Callable[[Held, float], None]
    ) -> Iterator[Held]:
        """Yield units to begin: in order, but of no partner more than its share, and none that must wait.

        Args:
            room: units at work at once, with those that lie ready for a thread.
            held_for: seconds that a partner has to wait.
            put_off: takes a unit whose partner has to wait.
        """
        groups = len({held.item.group for held in self.waiting} | set(self._groups))
        share = max(math.ceil(self._size / max(groups, 1)), 1)
        share = min(share, self._per_group or share)
        passed: list[Held] = []
        while len(self.running) < room and self.waiting:
            held = self.waiting.popleft()
            group = held.item.group
            if (seconds := held_for(group)) > 0:
                put_off(held, seconds)
            elif self._groups[group] >= share:
                passed.append(held)
            else:
                self._groups[group] += 1
                self.running[held.item.pk] = held
                yield held
        self.startable = len(self.waiting)
        self.waiting.extendleft(reversed(passed))

    def end(self, held: Held) -> None:
        """Take note that a unit is not at work any more."""
        del self.running[held.item.pk]
        self._groups[held.item.group] -= 1
        if not self._groups[held.item.group]:
            del self._groups[held.item.group]

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)
