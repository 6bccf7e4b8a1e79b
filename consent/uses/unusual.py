"""Look through the ledger for uses that never were before, and tell staff, each with its explanation.

A stranger who has a way in looks at first like anybody else. What gives him away is what he does: another name, much
more than usual, many partners within seconds, in the middle of the night. The portal's own jobs and the partners'
sign-ins are left out: their rates follow from settings and partners.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from django.db.models import Count, Min, QuerySet, Sum
from django.db.models.functions import ExtractHour, TruncHour, TruncMinute

from consent.models import TokenUse
from portal.audit.models import AuditEvent
from portal.incidents import service as incidents
from portal.microsoft.diagnosis import Owner

EVERY = timedelta(minutes=10)
"""How often it is looked; each look is about the time since the one before."""
_LATE = timedelta(seconds=5)  # rows are written up to a second after their time
_USUAL = timedelta(days=30)  # what is usual is learnt from so long
LEARNT_AFTER = timedelta(days=1)  # before that nothing is usual, and nobody is told
_HOURS_LEARNT_AFTER = timedelta(days=7)
TIMES = 10
FEWEST_TOKENS = 50  # an hour; below that ten times as many is nothing
WITHIN = timedelta(seconds=10)
FEWEST_PARTNERS = 10
_PEOPLE = (AuditEvent.ActorKind.STAFF, AuditEvent.ActorKind.COMMAND)


class Cause(StrEnum):
    """What was unusual."""

    ACTOR = "token_use_new_actor"
    RATE = "token_use_ten_times"
    SPREAD = "token_use_many_partners"
    HOUR = "token_use_new_hour"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One unusual thing, with its explanation."""

    cause: Cause
    actor: str
    words: str


def look(until: datetime, *, span: timedelta = EVERY) -> list[Finding]:
    """Look at the uses of this time, tell staff what is unusual, and return it. Queries grow with those who acted."""
    until -= _LATE
    since = until - span
    first = TokenUse.objects.aggregate(first=Min("at"))["first"]
    if first is None or first > since - LEARNT_AFTER:
        return []
    recent = TokenUse.objects.filter(actor_kind__in=_PEOPLE, last_at__gt=since, last_at__lte=until)
    found: list[Finding] = []
    for actor in recent.order_by().values_list("actor", flat=True).distinct():
        mine = TokenUse.objects.filter(actor=actor, actor_kind__in=_PEOPLE)
        before = mine.filter(last_at__gt=since - _USUAL, last_at__lte=since)
        found += _of_actor(actor, recent.filter(actor=actor), mine, before, since, until)
    for one in found:
        incidents.report(one.cause, about=f"actor:{one.actor}"[:100], name=one.actor, owner=Owner.US, words=one.words)
    return found


def _of_actor(
    actor: str,
    recent: QuerySet[TokenUse],
    mine: QuerySet[TokenUse],
    before: QuerySet[TokenUse],
    since: datetime,
    until: datetime,
) -> Iterable[Finding]:
    known_since = before.aggregate(first=Min("at"))["first"]
    if known_since is None:
        partners = recent.aggregate(number=Count("partner", distinct=True))["number"]
        yield Finding(
            cause=Cause.ACTOR,
            actor=actor,
            words=(
                f"{actor} used tokens of {partners} partner(s) and never did in the {_USUAL.days} days before. Ask who "
                "that is. If nobody knows: contain, and look at the ledger of uses by this name."
            ),
        )
        return
    if (rate := _rate(mine, before, until)) is not None:
        yield Finding(cause=Cause.RATE, actor=actor, words=f"{actor} {rate} {_NEXT}")
    if (spread := _spread(recent, before)) is not None:
        yield Finding(cause=Cause.SPREAD, actor=actor, words=f"{actor} {spread} {_NEXT}")
    if known_since <= since - _HOURS_LEARNT_AFTER and (hour := _hour(recent, before)) is not None:
        yield Finding(cause=Cause.HOUR, actor=actor, words=f"{actor} {hour} {_NEXT}")


_NEXT = "Ask whoever runs it whether that was meant. If nobody knows: contain, and look at the ledger of uses."


def _rate(mine: QuerySet[TokenUse], before: QuerySet[TokenUse], until: datetime) -> str | None:
    last_hour = mine.filter(last_at__gt=until - timedelta(hours=1), last_at__lte=until)
    number = _tokens(last_hour)
    if number < FEWEST_TOKENS:
        return None
    earlier = before.filter(last_at__lte=until - timedelta(hours=1)).order_by()
    hours = (
        earlier.annotate(hour=TruncHour("last_at")).values("hour").annotate(issued=Sum("issued"), cached=Sum("cached"))
    )
    counts = [one["issued"] + one["cached"] for one in hours]
    usual = sum(counts) / len(counts) if counts else 0
    if not counts or number < TIMES * usual:
        return None
    return f"used {number:,} tokens within an hour; in an hour in which it works {usual:,.0f} are usual."


def _tokens(uses: QuerySet[TokenUse]) -> int:
    sums = uses.aggregate(issued=Sum("issued", default=0), cached=Sum("cached", default=0))
    return int(sums["issued"]) + int(sums["cached"])


def _spread(recent: QuerySet[TokenUse], before: QuerySet[TokenUse]) -> str | None:
    alone = recent.filter(run__isnull=True).order_by("last_at").values_list("last_at", "partner")
    most = _most_at_once(list(alone))
    if most < FEWEST_PARTNERS:
        return None
    minutes = before.filter(run__isnull=True).order_by().annotate(minute=TruncMinute("last_at")).values("minute")
    counts = minutes.annotate(partners=Count("partner", distinct=True)).values_list("partners", flat=True)
    usual = max(counts, default=0)
    if most <= usual:
        return None
    return (
        f"used tokens of {most} partners within {WITHIN.seconds} seconds; before, it was never more than {usual} "
        "within a minute."
    )


def _most_at_once(uses: Sequence[tuple[datetime, int]]) -> int:
    """Return of how many partners tokens were used within so many seconds, at most."""
    window: deque[tuple[datetime, int]] = deque()
    partners: Counter[int] = Counter()
    most = 0
    for at, partner in uses:
        window.append((at, partner))
        partners[partner] += 1
        while window[0][0] < at - WITHIN:
            _, gone = window.popleft()
            partners[gone] -= 1
            if not partners[gone]:
                del partners[gone]
        most = max(most, len(partners))
    return most


def _hour(recent: QuerySet[TokenUse], before: QuerySet[TokenUse]) -> str | None:
    def hours(uses: QuerySet[TokenUse]) -> set[int]:
        return set(uses.order_by().annotate(hour=ExtractHour("last_at")).values_list("hour", flat=True).distinct())

    new = hours(recent) - hours(before)
    if not new:
        return None
    named = ", ".join(f"{hour}:00" for hour in sorted(new))
    return f"used tokens in the hour from {named} UTC, and never in this hour in the {_USUAL.days} days before."
