"""What a process knows of emergency stops: never older than half a second, and closed when nobody knows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from consent.containment import gate as gates
from consent.containment.gate import FRESH_SECONDS, UNKNOWN, Gate, Standing
from portal.microsoft.waiting import before_waiting
from tests.support.threads import at_once

pytestmark = pytest.mark.req("S-80")
NOW = datetime(2026, 11, 30, 10, tzinfo=UTC)


def standing(
    *, registration: int | None = None, partner: int | None = None, released_to: int | None = None
) -> Standing:
    return Standing(
        key=1, registration=registration, partner=partner, released_to=released_to, since=NOW, about="everything"
    )


class Database:
    """What a gate reads: rows that a test changes, or no answer."""

    def __init__(self) -> None:
        self.rows: tuple[Standing, ...] = ()
        self.reads = 0
        self.answers = threading.Event()
        self.answers.set()
        self.error: Exception | None = None

    def __call__(self) -> tuple[Standing, ...]:
        self.reads += 1
        self.answers.wait(10)
        if self.error is not None:
            raise self.error
        return self.rows


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def gate(database: Database) -> Iterator[Gate]:
    gate = Gate(database)
    yield gate
    database.answers.set()
    gate.close()


def seconds_until(condition: Callable[[], object]) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 5
        time.sleep(0.01)
    return time.monotonic() - began


def words(gate: Gate, partner: int = 7, registration: int = 3) -> str:
    stop = gate.stop(partner, registration)
    return "" if stop is None else stop.words


def test_a_stop_is_known_within_half_a_second_and_so_is_its_end(gate: Gate, database: Database) -> None:
    assert words(gate) == ""

    database.rows = (standing(),)
    assert seconds_until(lambda: words(gate)) <= FRESH_SECONDS
    database.rows = ()
    assert seconds_until(lambda: not words(gate)) <= FRESH_SECONDS


def test_when_the_database_stops_answering_the_gate_closes(
    gate: Gate, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "_PATIENCE", 0.2)
    assert words(gate) == ""

    database.answers.clear()

    assert seconds_until(lambda: words(gate) == UNKNOWN) <= FRESH_SECONDS + 0.3
    stop = gate.stop(7, 3)
    assert stop is not None
    assert stop.goes_back  # nobody is to blame, and nothing is concluded
    assert gate.stop_of_all() == ""  # so that no run is held for a database that restarts
    assert gate.standing() is None
    database.answers.set()
    assert seconds_until(lambda: words(gate) == "") < 1


def test_an_error_of_the_database_closes_it_until_it_answers_again(
    gate: Gate, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "_PATIENCE", 0.2)
    database.error = RuntimeError("the connection is closed")

    assert words(gate) == UNKNOWN

    database.error = None
    assert seconds_until(lambda: words(gate) == "") < 1


def test_who_waits_for_a_look_gives_back_what_the_look_may_need(gate: Gate) -> None:
    said = []
    with before_waiting(lambda: said.append("waits")):
        words(gate)
        words(gate)
    assert said == ["waits"], "the second found the look of the first"


def test_any_number_of_questions_cost_a_few_reads_a_second(gate: Gate, database: Database) -> None:
    def ask(_: int) -> int:
        until, asked = time.monotonic() + 1, 0
        while time.monotonic() < until:
            assert gate.stop(7, 3) is None
            asked += 1
        return asked

    assert sum(at_once(ask, 8)) > 1000
    assert database.reads <= 8


def test_without_a_question_nothing_is_read(gate: Gate, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_IDLE_SECONDS", 0.1)
    words(gate)
    seconds_until(lambda: not [one for one in threading.enumerate() if one.name == "containment"])
    reads = database.reads
    time.sleep(FRESH_SECONDS + 0.1)

    assert database.reads == reads
    assert words(gate) == ""  # and the next one is answered by a new look
    assert database.reads == reads + 1


@pytest.mark.parametrize(
    ("stop", "partner", "registration", "stopped"),
    [
        (standing(), 7, 3, True),
        (standing(registration=3), 7, 3, True),
        (standing(registration=3), 7, 4, False),
        (standing(partner=7), 7, 4, True),
        (standing(partner=7), 8, 3, False),
        (standing(released_to=0), 7, 3, True),
        (standing(released_to=7), 7, 3, False),
        (standing(released_to=7), 8, 3, True),
        (standing(registration=3, released_to=7), 8, 4, False),
    ],
)
def test_whom_a_stop_concerns(
    gate: Gate, database: Database, stop: Standing, partner: int, registration: int, stopped: bool
) -> None:
    database.rows = (stop,)

    assert bool(words(gate, partner, registration)) is stopped


def test_only_a_stop_of_everything_holds_whole_runs(gate: Gate, database: Database) -> None:
    database.rows = (standing(registration=3), standing(partner=7), standing(released_to=0))
    assert gate.stop_of_all() == ""

    database.rows = (*database.rows, standing())
    assert seconds_until(gate.stop_of_all) <= FRESH_SECONDS
