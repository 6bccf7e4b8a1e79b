"""What the threads of an executor do, and what they hand back. No job raises."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from django.db import InterfaceError, OperationalError

from portal.databases import trouble
from portal.microsoft.diagnosis import Owner
from portal.microsoft.errors import RemoteError, WrongSetup
from portal.microsoft.http import time_budget
from portal.runs.kinds import CONTAINED, UNEXPECTED, Contained, Context, Kind, Outcome
from portal.runs.models import RunItem
from portal.runs.pacing import Halted, Pacer, Place

log = logging.getLogger(__name__)

_CONTAINED_SECONDS = 60.0  # until such a unit is looked at again


@dataclass(slots=True)
class Held:
    """An item that this executor holds, with its subject, and the number and place by which it was begun."""

    item: RunItem
    subject: Any
    number: int = 0
    place: tuple[str, str] = ("", "")


class Worked(NamedTuple):
    """A unit was worked; without an outcome it was not, because nothing more may be sent."""

    held: Held
    outcome: Outcome | None


class Followed(NamedTuple):
    """What follows a committed result is done, as far as it could be."""

    held: Held


class Prepared(NamedTuple):
    """One thing that all units share was fetched, or was not."""

    works: bool


class Failed(NamedTuple):
    """Nothing can be worked with this setup of the portal."""

    error: WrongSetup


type Result = Worked | Followed | Prepared | Failed


class Threads:
    """Makes the jobs for the pool.

    Args:
        may_begin: whether another unit may be begun now.
    """

    def __init__(self, kind: Kind, context: Context, pacer: Pacer, may_begin: Callable[[], bool]) -> None:
        self._kind = kind
        self._context = context
        self._pacer = pacer
        self._may_begin = may_begin

    def work(self, held: Held) -> Result:
        if not self._may_begin():  # it lay ready, and must not be begun any more
            return Worked(held, None)
        if (contained := self._kind.contained(held.subject)) is not None:
            return self._contained(held, contained)
        worked = self._work(held)
        failed = isinstance(worked, Worked) and worked.outcome is not None and not worked.outcome.ok
        if failed and (contained := self._kind.contained(held.subject)) is not None:
            return self._contained(held, contained)  # that is why it failed, or nobody can tell
        return worked

    def _contained(self, held: Held, contained: Contained) -> Result:
        """Return what becomes of a unit whose subject is contained; it says nothing about anybody."""
        if contained.goes_back:
            return Worked(held, None)
        outcome = Outcome(failure_class=CONTAINED, message=contained.words, owner=Owner.US, throttled=True)
        if not self._kind.repeats:
            outcome = replace(outcome, pending=True, retry_after=_CONTAINED_SECONDS)
        return Worked(held, outcome)

    def _work(self, held: Held) -> Result:
        try:
            with self._as_unit(held):
                return Worked(held, self._kind.work(held.item.key, held.subject, self._context))
        except Halted:
            return Worked(held, None)
        except WrongSetup as error:
            return Failed(error)
        except (OperationalError, InterfaceError) as error:
            # a lost connection is no unit's fault, and its retry costs nothing; a unit is safe to work again.
            log.warning("the database was away from a unit of %s", self._kind.name, extra={"key": held.item.key})
            words = trouble(error) or f"The database was away ({type(error).__name__})."
            again = Outcome(failure_class=UNEXPECTED, message=words, owner=Owner.US, retry_after=0.0, throttled=True)
            return Worked(held, again)
        except Exception as error:
            # one bad record must not stop the run. The text of a foreign exception may hold anything.
            log.exception("a unit of %s failed in an unexpected way", self._kind.name, extra={"key": held.item.key})
            words = f"The portal failed on this record ({type(error).__name__}); the log says where."
            return Worked(held, Outcome(failure_class=UNEXPECTED, message=words, owner=Owner.US))

    def prepare(self, job: Callable[[], object]) -> Result:
        """Fetch one thing that all units share; what fails here fails again with a unit, which says why."""
        try:
            with time_budget(self._kind.seconds):
                job()
        except WrongSetup as error:
            return Failed(error)
        except Exception as error:  # noqa: BLE001  # the first unit meets it again, and tells
            log.info("not prepared: %s", error if isinstance(error, RemoteError) else type(error).__name__)
            return Prepared(works=False)
        return Prepared(works=True)

    def follow(self, chore: Callable[[], None], held: Held) -> Result:
        """Do what follows a committed result; nothing depends on it."""
        try:
            with self._as_unit(held):
                chore()
        except Halted:
            log.info("left for the next time", extra={"key": held.item.key})
        except Exception:
            log.exception("what follows a unit of %s failed", self._kind.name, extra={"key": held.item.key})
        return Followed(held)

    @contextmanager
    def _as_unit(self, held: Held) -> Iterator[None]:
        place = Place(*held.place, held.item.group)
        with time_budget(self._kind.seconds), self._pacer.unit(place):
            yield
