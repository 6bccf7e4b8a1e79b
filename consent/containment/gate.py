"""What every process asks before it uses a token: is an emergency stop on?

A thread of its own reads the rows several times a second while anybody asks, so a question costs no query, whichever
thread asks it, and an answer is never older than ``FRESH_SECONDS``. When the database does not answer, it is unknown:
then the gate is closed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from consent.models import Containment
from portal.microsoft.waiting import about_to_wait
from portal.runs.kinds import Contained

log = logging.getLogger(__name__)

FRESH_SECONDS = 0.5
"""So old may be what an answer rests on."""
_LOOK_EVERY = 0.25  # seconds
_PATIENCE = 5.0  # seconds that a question waits for a look before it is answered with "unknown"
_IDLE_SECONDS = 10.0  # without a question the thread ends, and with it its connection
UNKNOWN = (
    "The portal cannot see whether an emergency stop is on, because the database does not answer. So no token is used; "
    "nothing was sent. Look why the database is slow or away, then try again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One emergency stop that is not over.

    Attributes:
        registration: its key; None when it is not about a registration.
        partner: likewise.
        released_to: partners with a key up to this one are free again; None for none.
        about: what it is about, in words.
    """

    key: int
    registration: int | None
    partner: int | None
    released_to: int | None
    since: datetime
    about: str

    @property
    def is_whole(self) -> bool:
        """Whether it leaves no token at all to be used."""
        return self.registration is None and self.partner is None and self.released_to is None

    @property
    def words(self) -> str:
        """Say that no token is used, since when, and who lets it go."""
        return (
            f"Emergency stop of {self.about} since {self.since:%Y-%m-%d %H:%M} UTC: no token is used and nothing was "
            "sent. Nothing is lost. It ends when two members of staff resume it (Applications, Emergency stops)."
        )

    def concerns(self, partner: int, registration: int) -> bool:
        """Tell whether this partner's token of this registration may not be used."""
        if self.registration not in {None, registration} or self.partner not in {None, partner}:
            return False
        return self.released_to is None or partner > self.released_to


def read() -> tuple[Standing, ...]:
    """Return the emergency stops that are not over; one query."""
    rows = Containment.objects.open().order_by("pk")
    columns = "pk", "registration", "partner", "released_to", "began_at", "registration__name", "partner__name"
    return tuple(
        Standing(
            key=key,
            registration=registration,
            partner=partner,
            released_to=released_to,
            since=began_at,
            about=partner_name or registration_name or "everything",
        )
        for key, registration, partner, released_to, began_at, registration_name, partner_name in rows.values_list(
            *columns
        )
    )


@dataclass(frozen=True, slots=True)
class _Look:
    began: float
    """By the monotonic clock, before the query left: what is seen may be newer, never older."""
    standing: tuple[Standing, ...]


class Gate:
    """Answers for one process. Thread-safe; ask it as often as you like.

    Args:
        look: reads what stands in the database.
    """

    def __init__(self, look: Callable[[], tuple[Standing, ...]] = read) -> None:
        self._read = look
        self._changed = threading.Condition()
        self._look: _Look | None = None
        self._asked = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False
        self._told = False  # that it is unknown; once each time

    def stop(self, partner: int, registration: int) -> Contained | None:
        """Return why this partner's token of this registration may not be used now, by their keys; None when it may."""
        look = self._fresh()
        if look is None:
            return Contained(UNKNOWN, goes_back=True)
        for one in look.standing:
            if one.concerns(partner, registration):
                return Contained(one.words, goes_back=one.is_whole)
        return None

    def stop_of_all(self) -> str:
        """Return why no token at all may be used now; empty when any may be, or when that is unknown."""
        look = self._fresh()
        return "" if look is None else next((one.words for one in look.standing if one.is_whole), "")

    def standing(self) -> Sequence[Standing] | None:
        """Return the emergency stops that are not over, for people; None when they are unknown."""
        look = self._fresh()
        return None if look is None else look.standing

    def close(self) -> None:
        """End the thread and its connection; the gate answers no more questions."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def _fresh(self) -> _Look | None:
        """Return a look that is not too old; wait for the next one where there is none, but not for ever."""
        now = self._asked = time.monotonic()
        look = self._look
        if look is not None and now - look.began <= FRESH_SECONDS:
            return look
        until = now + _PATIENCE
        about_to_wait()
        with self._changed:
            while not self._closed:
                look, now = self._look, time.monotonic()
                if look is not None and now - look.began <= FRESH_SECONDS:
                    return look
                if now >= until:
                    break
                self._asked = now
                if self._thread is None:
                    self._thread = threading.Thread(target=self._watch, name="containment", daemon=True)
                    self._thread.start()
                self._changed.wait(until - now)
            told, self._told = self._told, True
        if not told:
            log.error("it is not known whether an emergency stop is on; no token is used until it is")
        return None

    def _watch(self) -> None:
        """Look again and again while anybody asks."""
        try:
            while True:
                began = time.monotonic()
                try:
                    look = _Look(began, self._read())
                except Exception as error:  # noqa: BLE001  # then the state is unknown, and the gate is closed
                    log.warning("an emergency stop could not be looked for (%s)", type(error).__name__)
                    connection.close()
                    look = None
                with self._changed:
                    if look is not None:
                        self._look, self._told = look, False
                        self._changed.notify_all()
                    if self._closed or time.monotonic() - self._asked > _IDLE_SECONDS:
                        self._thread = None
                        return
                    self._changed.wait_for(lambda: self._closed, _LOOK_EVERY)
        finally:
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread = None
            connection.close()
