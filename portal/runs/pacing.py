"""How fast an executor calls: shared limits in front of every request, fair shares within them, and holds after a 429.

``GuardedSession`` asks before each request (``Pace.wait``) and tells what was answered (``Pace.answered``). The threads
that call never touch the database: they take times out of memory, and the executor's own thread fetches new ones before
they run out (``replenish``).

There is a limit for each application, cloud and kind of call, one for each vault, and one of the run itself when it was
given ``--rate``; all of them are shared by all processes (``buckets``). Below them each partner has its own, kept in
memory: a process uses its part of it, which is the limit divided by the executors that are alive.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from portal.microsoft.errors import Throttled
from portal.microsoft.http import budget_left, paced
from portal.runs import buckets

HORIZON_SECONDS = 0.5  # so far ahead an executor takes times; what it does not use is lost to others
_REMEMBERED_GROUPS = 2_000
# Half of the latest answers refused, of three partners or of all that asked: it is not they, it is the application.
_LATEST, _REFUSED_SHARE, _REFUSED_PARTNERS = 20, 0.5, 3
_SAVED_AFTER_REFUSAL = 0.05  # seconds: below a limit that the service counts, a burst is what it refuses
_LONGEST_WINDOW, _MOST_TAKEN = 60.0, 10_000  # what is remembered of answers that were no refusals
_RESERVE_SECONDS = 35.0  # of a unit's time: enough for one more call after a wait


class Halted(Exception):
    """The executor stops or lost its lease: nothing more is sent. Not an outcome; the unit goes back."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose limits count for a unit."""

    application: str
    cloud: str
    group: int


@dataclass(frozen=True, slots=True)
class Rule:
    """Which limit a request counts for.

    Attributes:
        rate: calls a second of all processes.
        per_application: counts for each application and cloud, and otherwise for all calls of this name.
        saved_seconds: a time that was not used may be used so much later; what is saved so can add up to a burst.
    """

    name: str
    rate: float
    per_application: bool = True
    saved_seconds: float = 1.0

    def limit(self, place: Place) -> str:
        return f"{self.name}:{place.cloud}:{place.application}" if self.per_application else self.name


@dataclass(slots=True)
class _Limit:
    """One shared limit as this process sees it."""

    name: str
    nominal: float
    rate: float  # which is lower after complaints
    saved_seconds: float
    stocked: threading.Condition
    size: int  # times fetched at once: twice as many when they ran out, half as many when most were not used
    times: deque[float] = field(default_factory=deque)
    asked: bool = False  # whether anybody called since times were last fetched
    ran_out: bool = False
    waiting: int = 0
    unused: int = 0  # times that passed since then without a call
    held_until: float = 0.0
    leaves_at: float = 0.0  # when the call leaves that waits longest for its time
    latest: deque[tuple[int, float | None]] = field(default_factory=lambda: deque(maxlen=_LATEST))
    """Partner, and when it was refused if it was."""
    taken: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_TAKEN))
    """When answers came that were no refusals."""
    to_report: tuple[float, float] | None = None
    """Seconds to hold, and calls a second that were taken until then."""

    def is_refused(self) -> bool:
        """Tell whether the service refuses the application, and not one partner."""
        refused = [group for group, refused_at in self.latest if refused_at is not None]
        asking = {group for group, _ in self.latest}
        return len(refused) >= max(_REFUSED_PARTNERS, len(self.latest) * _REFUSED_SHARE) and len(set(refused)) >= min(
            _REFUSED_PARTNERS, len(asking)
        )

    def taken_before(self, hold: float) -> float:
        """Return how many calls a second the service took until it began to refuse.

        A service that counts by the minute asks to wait for about a minute, so the wait says how far to look back.
        """
        began = min(refused_at for _, refused_at in self.latest if refused_at is not None)
        window = min(max(hold, 1.0), _LONGEST_WINDOW)
        return sum(began - window < at <= began for at in self.taken) / window

    def forget_the_past(self, now: float) -> None:
        saved = self.saved_seconds if self.rate >= self.nominal else min(self.saved_seconds, _SAVED_AFTER_REFUSAL)
        while self.times and self.times[0] < now - saved:
            self.times.popleft()
            self.unused += 1

    def is_ready(self, now: float) -> bool:
        """Tell whether a call may leave this moment."""
        self.forget_the_past(now)
        return bool(self.times) and self.times[0] <= now and self.held_until <= now


@dataclass(slots=True)
class _Share:
    """The part of a partner's limit that this process may use: tokens of a bucket as large as one second."""

    tokens: float
    at: float
    held_until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What calls wait for: a limit, or with a ``group`` one partner's part of a service; for ``seconds`` more."""

    service: str
    seconds: float
    refused: bool
    """Whether the service asked for it; otherwise the limit's times are taken by others."""
    group: int | None = None


@dataclass(slots=True)
class Latency:
    """How long a kind of call takes, for people who watch."""

    calls: int = 0
    seconds: float = 0.0
    throttled: int = 0


class Pacer:
    """Paces all calls of one executor.

    Args:
        rule_of: names the limit of a request by host and path.
        per_group: calls a second of one partner.
        run_rule: the run's own limit.
        alive: tells whether the executor still holds its lease and wants to go on.
        request_refill: called from any thread when times ran out; wakes the thread that replenishes.
        threads: how many call at once; some times for each of them are kept in stock, and at most half a second.
        inline: whether the only thread that calls is also the one that replenishes.
    """

    def __init__(
        self,
        *,
        rule_of: Callable[[str, str], Rule],
        per_group: float,
        run_rule: Rule | None,
        alive: Callable[[], bool],
        request_refill: Callable[[], None],
        threads: int = 1,
        inline: bool = False,
    ) -> None:
        self._rule_of = rule_of
        self._per_group = per_group
        self._run_rule = run_rule
        self._alive = alive
        self._request_refill = request_refill
        self._threads = threads
        self._inline = inline
        self._lock = threading.Lock()
        self._limits: dict[str, _Limit] = {}
        self._shares: OrderedDict[tuple[int, str], _Share] = OrderedDict()
        self._local = threading.local()
        self.executors = 1
        self.latency: dict[str, Latency] = {}
        self.calls = 0

    @contextmanager
    def unit(self, place: Place) -> Iterator[None]:
        """Pace all calls of this thread for one unit."""
        self._local.place = place
        with paced(self):
            yield

    # --- what the session calls, in the threads -------------------------------------------------------------------

    def wait(self, netloc: str, path: str) -> None:
        """Wait until this request may leave.

        Raises:
            Halted: the executor stops.
            Throttled: it would take longer than the unit has; nothing was sent.
        """
        self._check()
        place: Place = self._local.place
        rule = self._rule_of(netloc, path)
        rules = [rule] if self._run_rule is None else [self._run_rule, rule]
        with self._lock:
            may_leave = self._may_leave(place, rule.name, [self._limit(each, place) for each in rules])
        if not may_leave:
            self._wait_share(place.group, rule.name)
            for each in rules:
                self._wait_limit(each, place)
        self.calls += 1

    def _may_leave(self, place: Place, service: str, limits: list[_Limit]) -> bool:
        """Take what a call needs if all of it is there; the most frequent case, with the lock taken once."""
        now = time.monotonic()
        share = self._refilled_share(place.group, service, now)
        if share.held_until > now or share.tokens < 1 or not all(limit.is_ready(now) for limit in limits):
            return False
        share.tokens -= 1
        for limit in limits:
            limit.times.popleft()
            limit.asked = True
        return True

    def answered(self, netloc: str, path: str, status: int, retry_after: float | None, seconds: float) -> None:
        """Learn from an answer; a 429 holds the partner, and when several partners get one, the application."""
        place: Place = self._local.place
        rule = self._rule_of(netloc, path)
        with self._lock:
            latency = self.latency.setdefault(rule.name, Latency())
            latency.calls += 1
            latency.seconds += seconds
            limit = self._limit(rule, place)
            now = time.monotonic()
            limit.latest.append((place.group, now if status == 429 else None))
            if status != 429:
                limit.taken.append(now)
                return
            latency.throttled += 1
            hold = retry_after if retry_after is not None else 10.0
            self._share(place.group, rule.name, now).held_until = now + hold
            if limit.is_refused():
                taken = limit.taken_before(hold) * self.executors  # the others of this run were answered about as much
                limit.latest.clear()
                limit.held_until = max(limit.held_until, now + hold)
                limit.times.clear()
                longest = max(hold, limit.to_report[0]) if limit.to_report else hold
                limit.to_report = longest, limit.to_report[1] if limit.to_report else taken
                self._request_refill()

    def _wait_share(self, group: int, service: str) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                share = self._refilled_share(group, service, now)
                held = share.held_until - now
                if held <= 0 and share.tokens >= 1:
                    share.tokens -= 1
                    return
                pause = held if held > 0 else (1 - share.tokens) / self._share_rate()
            self._sleep(pause, service)

    def _share_rate(self) -> float:
        return self._per_group / max(self.executors, 1)

    def _refilled_share(self, group: int, service: str, now: float) -> _Share:
        share = self._share(group, service, now)
        share.tokens = min(max(self._per_group, 1.0), share.tokens + (now - share.at) * self._share_rate())
        share.at = now
        return share

    def _share(self, group: int, service: str, now: float) -> _Share:
        key = (group, service)
        share = self._shares.get(key)
        if share is None:
            while len(self._shares) >= _REMEMBERED_GROUPS:
                self._shares.popitem(last=False)
            share = self._shares[key] = _Share(max(self._per_group, 1.0), now)
        else:
            self._shares.move_to_end(key)
        return share

    def _limit(self, rule: Rule, place: Place) -> _Limit:
        name = rule.limit(place)
        limit = self._limits.get(name)
        if limit is None:
            size = min(4 * self._threads, _most_at_once(rule.rate))
            condition = threading.Condition(self._lock)
            limit = self._limits[name] = _Limit(name, rule.rate, rule.rate, rule.saved_seconds, condition, size)
        return limit

    def _wait_limit(self, rule: Rule, place: Place) -> None:
        with self._lock:
            limit = self._limit(rule, place)
        while True:
            leaves_at = self._next_time(limit)
            pause = leaves_at - time.monotonic()
            if pause > 0:
                with self._lock:
                    limit.leaves_at = max(limit.leaves_at, leaves_at)
                self._sleep(pause, limit.name)
            with self._lock:
                if limit.held_until <= time.monotonic():
                    return
            # The service complained meanwhile: this time was one of a faster rate.

    def _next_time(self, limit: _Limit) -> float:
        """Wait until there is a time to take, and return it."""
        with self._lock:
            limit.asked = True
            limit.waiting += 1
        try:
            while True:
                self._check()
                with self._lock:
                    now = time.monotonic()
                    limit.forget_the_past(now)
                    if limit.times:
                        return limit.times.popleft()
                    held = limit.held_until - now
                    limit.ran_out = limit.ran_out or held <= 0
                if held > 0:
                    self._sleep(held, limit.name)
                elif self._inline:
                    self.replenish()
                else:
                    self._request_refill()
                    with self._lock:
                        if not limit.times:
                            limit.stocked.wait(0.25)
        finally:
            with self._lock:
                limit.waiting -= 1

    def _sleep(self, seconds: float, about: str) -> None:
        """Wait in slices, so that a stop is noticed. Raises Throttled when the unit has not so much time."""
        if seconds > max(budget_left() - _RESERVE_SECONDS, 1.0):
            raise Throttled(about.partition(":")[0], "keep to the limit", retry_after=seconds)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check()
            time.sleep(min(left, 0.5))
        self._check()

    def _check(self) -> None:
        if not self._alive():
            raise Halted

    # --- what the executor calls, in its own thread ---------------------------------------------------------------

    def replenish(self) -> None:
        """Report complaints and fetch times for what is being asked for; at most one statement a limit."""
        now = time.monotonic()
        with self._lock:
            limits = list(self._limits.values())
        for limit in limits:
            if limit.to_report is not None:
                report, limit.to_report = limit.to_report, None
                buckets.complain(limit.name, *report)
            with self._lock:
                if limit.held_until > now:
                    continue
                limit.forget_the_past(now)
                if not (limit.asked or limit.waiting) or len(limit.times) >= max(limit.size / 2, limit.waiting, 1):
                    continue
                if limit.ran_out:
                    limit.size *= 2
                elif limit.unused > limit.size / 2:
                    limit.size //= 2
                calls = limit.size = min(max(limit.size, limit.waiting, 1), _most_at_once(limit.rate))
                limit.asked = limit.ran_out = False
                limit.unused = 0
            grant = buckets.take(limit.name, limit.nominal, calls)
            first = time.monotonic() + grant.delay
            with self._lock:
                limit.rate = grant.rate
                limit.times.extend(first + number / grant.rate for number in range(grant.calls))
                limit.stocked.notify(grant.calls)

    def held_for(self, group: int) -> float:
        """Return how many seconds this partner has to wait, so that its units need not take up threads."""
        now = time.monotonic()
        with self._lock:
            shares = (self._shares.get((group, service)) for service in self.latency)
            return max((share.held_until - now for share in shares if share is not None), default=0.0)

    def waits(self, least_seconds: float) -> list[Waiting]:
        """Return the limits and partners whose next call leaves only after ``least_seconds`` or more."""
        now = time.monotonic()
        with self._lock:
            found = [
                Waiting(
                    service=limit.name,
                    seconds=max(limit.held_until, limit.leaves_at) - now,
                    refused=limit.held_until > now,
                )
                for limit in self._limits.values()
            ]
            found += [
                Waiting(service=service, seconds=share.held_until - now, refused=True, group=group)
                for (group, service), share in self._shares.items()
                if share.held_until > now
            ]
        return [each for each in found if each.seconds >= least_seconds]

    def all_held(self) -> bool:
        """Tell whether a whole limit is held, so that no new unit should begin."""
        now = time.monotonic()
        with self._lock:
            return any(limit.held_until > now for limit in self._limits.values())

    def slowest(self) -> Mapping[str, float]:
        """Return the mean seconds of a call, by service."""
        with self._lock:
            return {name: one.seconds / one.calls for name, one in self.latency.items() if one.calls}

    def throttled(self) -> int:
        with self._lock:
            return sum(one.throttled for one in self.latency.values())


def _most_at_once(rate: float) -> int:
    return max(int(rate * HORIZON_SECONDS), 1)
