"""The audit trail is checked in pieces by key, from where the last check ended (S-57)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal.audit import walking
from portal.audit.models import AuditEvent
from portal.audit.trail import record
from portal.incidents.models import Incident
from portal.incidents.watch import watch_audit_trail
from tests.support.audit_table import TABLE, sql, without_triggers
from tests.support.builders import ACTOR
from tests.support.commands import run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "_PIECE", 10)


def write(number: int) -> None:
    for index in range(number):
        record("test.done", actor=ACTOR, subject={"number": index})


def change(sequence: int, assignment: str = "action = 'test.forged'") -> None:
    """Change an entry past the portal."""
    with without_triggers():
        sql(f"UPDATE {TABLE} SET {assignment} WHERE sequence = {sequence}")  # noqa: S608


def broken() -> int | None:
    """Check the trail, and return the number of the entry that is found not to fit."""
    (found,) = watch_audit_trail()
    return found.sequence


def read_of(queries: CaptureQueriesContext) -> int:
    """Return how many queries read entries to check them."""
    return sum("ORDER BY" in each["sql"] and "sequence" in each["sql"] and ">" in each["sql"] for each in queries)


@pytest.mark.req("S-57")
def test_a_check_reads_what_is_new_and_a_whole_one_reads_all() -> None:
    write(45)
    for expected, more in ((5, 0), (1, 4), (1, 0)):
        write(more)
        with CaptureQueriesContext(connection) as queries:
            assert watch_audit_trail() == []
        assert read_of(queries) == expected
        assert all("DECLARE" not in each["sql"] for each in queries)
    with CaptureQueriesContext(connection) as queries:
        call_command("verify_audit_trail")
    assert read_of(queries) >= 5


@pytest.mark.req("S-57")
def test_a_break_after_the_last_check_is_found_and_stays_until_it_fits() -> None:
    write(25)
    assert watch_audit_trail() == []
    write(10)
    change(30)
    assert broken() == 30
    assert broken() == 30, "the next day as well"
    assert Incident.objects.open().get().subject == {"sequence": 30}


@pytest.mark.req("S-57")
def test_a_break_before_the_last_check_is_found_by_the_command_and_from_then_on() -> None:
    write(25)
    assert watch_audit_trail() == []
    change(5)
    assert watch_audit_trail() == []
    ran = run("verify_audit_trail")
    assert ran.code == 1
    assert "Entry 5 was changed" in ran.err
    assert broken() == 5


@pytest.mark.req("S-57")
@pytest.mark.parametrize("spoilt", ["note", "entry"])
def test_a_forged_note_of_a_check_is_not_believed(spoilt: str) -> None:
    write(25)
    assert watch_audit_trail() == []
    change(5)
    if spoilt == "note":
        change(26, f"details = '{json.dumps({'verified_to': 25, 'mac': '0' * 64})}'")
    else:  # the entry that the note names
        change(25, f"mac = '{'0' * 64}'")
    assert broken() == 5


def test_a_check_that_is_cut_off_goes_on_where_it_was() -> None:
    write(45)
    pieces: list[int] = []

    class Stopped(Exception):
        pass

    def between() -> None:
        pieces.append(1)
        if len(pieces) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        watch_audit_trail(between=between)
    assert walking.last_walk().sequence == 30
    with CaptureQueriesContext(connection) as queries:
        assert watch_audit_trail() == []
    assert read_of(queries) == 2


def test_an_empty_trail_fits_and_says_nothing() -> None:
    assert watch_audit_trail() == []
    assert not AuditEvent.objects.exists()


def test_entries_that_are_written_meanwhile_are_left_to_the_next_check() -> None:
    write(15)
    seen: list[Any] = []
    for at in walking.walk():
        seen.append(at.sequence)
        write(5)
    assert seen == [10, 15]
