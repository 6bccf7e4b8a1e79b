"""All kinds of bulk work and all jobs of the schedule: what the modules ``work`` and ``jobs`` of the apps declare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache

from portal.extensions import declared
from portal.runs.kinds import Kind


class UnknownKind(LookupError):
    """No app declares this kind; it may belong to another version of the portal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something that is done again and again.

    Attributes:
        name: a word; kept in the row.
        label: for people.
        every: time from one start to the next.
        work: does it, or starts a run that does, and returns what was done in a few words. It gets the times that came
            due and are not done yet, the earliest first: one, or more when nothing ran meanwhile, at most 24.
    """

    name: str
    label: str
    every: timedelta
    work: Callable[[Sequence[datetime]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The kinds of bulk work of one app.

    Attributes:
        former: kinds that an older version worked, by name, with their words: their runs are read, and never worked.
    """

    kinds: Sequence[Kind] = ()
    former: Mapping[str, str] = field(default_factory=dict)


@cache
def kinds() -> dict[str, Kind]:
    """Return all kinds by name."""
    return {kind.name: kind for work in _declared() for kind in work.kinds}


@cache
def jobs() -> dict[str, Job]:
    """Return all jobs by name. A command that works a run has no use for what they import."""
    return {job.name: job for each in declared("jobs", "JOBS", tuple) for job in each}


@cache
def _declared() -> tuple[Work, ...]:
    return tuple(declared("work", "WORK", Work))


def kind_named(name: str) -> Kind:
    """Return a kind. Raises UnknownKind."""
    try:
        return kinds()[name]
    except KeyError:
        raise UnknownKind(f"No part of this portal does work of the kind {name!r}.") from None


def labels() -> dict[str, str]:
    """Return the words for all kinds, by name, also for those that only an older version worked."""
    former = {name: label for work in _declared() for name, label in work.former.items()}
    return dict(sorted((former | {name: kind.label for name, kind in kinds().items()}).items()))
