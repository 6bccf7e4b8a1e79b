"""Each way to damage the audit trail is found and named, with the anchors outside the database (S-57).

Covers: portal.audit.anchors, portal.audit.findings, portal.audit.table, portal.audit.walking, portal.incidents.watch.
"""

# ruff: noqa: S608  # the statements are ours
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection
from django.db.models import QuerySet
from pytest_django.fixtures import Settings

from portal.audit import triggers
from portal.audit.findings import Damage
from portal.audit.models import AuditEvent
from portal.audit.trail import mac_of, record
from portal.incidents.anchoring import anchor_now
from portal.incidents.models import Incident
from portal.incidents.watch import TRAIL_BROKEN, watch_audit_trail
from tests.support.audit_table import TABLE, sql, without_triggers
from tests.support.builders import ACTOR
from tests.support.commands import run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def file(settings: Settings, tmp_path: Path) -> Path:
    """A file of anchors of this test's own."""
    settings.AUDIT_ANCHOR_FILE = str(tmp_path / "anchors" / "anchors.jsonl")
    return Path(settings.AUDIT_ANCHOR_FILE)


def write(number: int, action: str = "test.done") -> None:
    for index in range(number):
        record(action, actor=ACTOR, subject={"number": index})


def reseal(first: int) -> None:
    """Seal each entry from this one on anew, as who holds INTEGRITY_KEY and the database can."""
    before = AuditEvent.objects.filter(sequence__lt=first).order_by("-sequence").first()
    mac = before.mac if before else ""
    for event in AuditEvent.objects.filter(sequence__gte=first).order_by("sequence"):
        event.previous_mac = mac
        mac = mac_of(event)
        sql(f"UPDATE {TABLE} SET previous_mac = %s, mac = %s WHERE id = %s", event.previous_mac, mac, event.pk)


# --- the ways -----------------------------------------------------------------------------------------------------


def changed() -> None:
    sql(f"UPDATE {TABLE} SET actor = 'somebody else' WHERE sequence = 4")


def removed_in_the_middle() -> None:
    sql(f"DELETE FROM {TABLE} WHERE sequence IN (4, 5)")


def removed_at_the_beginning() -> None:
    sql(f"DELETE FROM {TABLE} WHERE sequence <= 3")


def cut_at_the_end() -> None:
    sql(f"DELETE FROM {TABLE} WHERE sequence > 6")


def emptied() -> None:
    sql(f"DELETE FROM {TABLE}")


def renumbered() -> None:
    removed_in_the_middle()
    for number in (6, 7, 8):
        sql(f"UPDATE {TABLE} SET sequence = %s WHERE sequence = %s", number - 2, number)


def spliced() -> None:
    """Two copies of the database went on apart; entry 8 of one stands behind entry 7 of the other."""
    row = AuditEvent.objects.values().get(sequence=8)
    sql(f"DELETE FROM {TABLE} WHERE sequence > 6")
    write(2, "other.branch")
    sql(f"DELETE FROM {TABLE} WHERE sequence = 8")
    AuditEvent(**{name: value for name, value in row.items() if name != "partner_key"}).save(force_insert=True)


def written_anew() -> None:
    """The tail is cut and written again, longer than before and with seals that fit."""
    sql(f"DELETE FROM {TABLE} WHERE sequence > 6")
    write(9, "other.story")


def table_of_a_copy() -> None:
    """All rows are there, and the table lacks what keeps two entries from having one number."""
    columns = ", ".join(str(field.column) for field in AuditEvent._meta.concrete_fields)
    sql(f"CREATE TABLE copied AS SELECT {columns} FROM {TABLE}")
    sql(f"DROP TABLE {TABLE}")
    sql(f"ALTER TABLE copied RENAME TO {TABLE}")


def put_back_the_table() -> None:
    with connection.schema_editor() as editor:
        editor.execute(f"DROP TABLE {TABLE}")
        editor.create_model(AuditEvent)


WAYS: list[tuple[Callable[[], None], Damage, str]] = [
    (changed, Damage.CHANGED, "Entry 4 was changed, or written past the portal"),
    (removed_in_the_middle, Damage.REMOVED, "Entries 4 to 5 are missing in the middle"),
    (removed_at_the_beginning, Damage.REMOVED, "Entries 1 to 3 are missing at the beginning"),
    (cut_at_the_end, Damage.CUT, "Entries 7 to 8 are missing at the end: the anchor of 20"),
    (emptied, Damage.EMPTIED, "The trail is empty: the anchor of 20"),
    (renumbered, Damage.RENUMBERED, "Entry 4 carries a wrong number: it was written as entry 6"),
    (spliced, Damage.SPLICED, "parts of two trails were put together"),
    (written_anew, Damage.REPLACED, "Entry 8 is another one than on 20"),
]


@pytest.mark.req("S-57")
@pytest.mark.parametrize(("way", "damage", "words"), WAYS, ids=[way.__name__ for way, *_ in WAYS])
def test_damage_of_the_entries_is_found_and_named(way: Callable[[], None], damage: Damage, words: str) -> None:
    write(8)
    anchor_now()
    assert run("verify_audit_trail").code == 0
    with without_triggers():
        sql(f"DELETE FROM {TABLE} WHERE sequence > 8")  # the note of that check, and of the file of anchors
        way()
    ran = run("verify_audit_trail")
    assert ran.code == 1
    assert words in ran.err
    assert damage in [one.damage for one in watch_audit_trail()], "the daily check finds what the command reported"
    assert words[:30] in Incident.objects.open().get(cause=TRAIL_BROKEN).words


@pytest.mark.req("S-57")
def test_a_table_that_was_replaced_by_a_copy_is_found() -> None:
    write(8)
    anchor_now()
    try:
        with without_triggers():
            table_of_a_copy()
        ran = run("verify_audit_trail")
    finally:
        put_back_the_table()
        sql_of_triggers()
    assert ran.code == 1
    assert "The table of the trail is not as the portal made it: two entries could have one number" in ran.err
    if connection.vendor == "postgresql":
        assert "The table of the trail is another one than on 20" in ran.err


@pytest.mark.req("S-57")
def test_a_table_made_anew_with_all_rows_is_found_until_a_person_takes_note_of_the_restore() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite tells no table from its copy")
    write(8)
    anchor_now()
    rows = [AuditEvent(**row) for row in AuditEvent.objects.values(*_COLUMNS)]
    put_back_the_table()
    QuerySet[AuditEvent](AuditEvent).bulk_create(rows)
    sql_of_triggers()
    anchor_now()  # which knows the new table

    ran = run("verify_audit_trail")

    assert ran.code == 1
    assert "The table of the trail is another one than on 20" in ran.err
    assert "--take-note" in ran.err
    assert run("verify_audit_trail", "--take-note", "restored from the backup of Sunday").code == 0
    anchor_now()
    assert run("verify_audit_trail").code == 0


_COLUMNS = [one.name for one in AuditEvent._meta.concrete_fields if not one.generated and not one.primary_key]


def sql_of_triggers() -> None:
    with connection.schema_editor() as editor:
        triggers.drop(None, editor)
        triggers.create(None, editor)


@pytest.mark.req("S-57")
def test_a_trail_without_its_table_is_told_and_nothing_fails() -> None:
    write(3)
    sql(f"ALTER TABLE {TABLE} RENAME TO hidden")
    try:
        ran = run("verify_audit_trail")
    finally:
        sql(f"ALTER TABLE hidden RENAME TO {TABLE}")
        sql_of_triggers()
    assert (ran.code, "it is not there, or is no table" in ran.err) == (1, True)


_SQLITE_TRIGGERS = [
    ("DROP TRIGGER audit_no_delete", "the trigger audit_no_delete is missing"),
    (
        f"DROP TRIGGER audit_no_update; CREATE TRIGGER audit_no_update BEFORE UPDATE ON {TABLE} BEGIN SELECT 1; END",
        "the trigger audit_no_update is another one",
    ),
    (
        f"CREATE TRIGGER quiet BEFORE INSERT ON {TABLE} WHEN NEW.action = 'x' BEGIN SELECT RAISE(IGNORE); END",
        "there is a trigger that is not ours: quiet",
    ),
]
_CALL = "FOR EACH ROW EXECUTE FUNCTION quiet()"
_BODY = "LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$"
_POSTGRESQL_TRIGGERS = [
    (f"DROP TRIGGER audit_no_change ON {TABLE}", "the trigger audit_no_change is missing"),
    (
        f"CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger {_BODY}",
        "the trigger audit_no_change is another one",
    ),
    (f"ALTER TABLE {TABLE} DISABLE TRIGGER audit_no_change", "the trigger audit_no_change is switched off"),
    (f"ALTER TABLE {TABLE} ENABLE REPLICA TRIGGER audit_no_truncate", "the trigger audit_no_truncate is switched off"),
    (
        f"CREATE FUNCTION quiet() RETURNS trigger {_BODY}; CREATE TRIGGER quiet BEFORE INSERT ON {TABLE} {_CALL}",
        "there is a trigger that is not ours: quiet",
    ),
    (f"CREATE RULE quiet AS ON INSERT TO {TABLE} DO INSTEAD NOTHING", "a rule changes what is written"),
    (f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY", "a policy may hide rows"),
]
_UNDO = {
    "sqlite": ["DROP TRIGGER IF EXISTS quiet"],
    "postgresql": [
        f"DROP TRIGGER IF EXISTS quiet ON {TABLE}",
        "DROP FUNCTION IF EXISTS quiet",
        f"DROP RULE IF EXISTS quiet ON {TABLE}",
        f"ALTER TABLE {TABLE} DISABLE ROW LEVEL SECURITY",
    ],
}


@pytest.mark.req("S-56")
@pytest.mark.req("S-57")
@pytest.mark.parametrize("number", range(max(len(_SQLITE_TRIGGERS), len(_POSTGRESQL_TRIGGERS))))
def test_triggers_that_were_dropped_replaced_switched_off_or_added_are_found(number: int) -> None:
    cases = _SQLITE_TRIGGERS if connection.vendor == "sqlite" else _POSTGRESQL_TRIGGERS
    if number >= len(cases):
        pytest.skip("a way of the other database")
    statements, words = cases[number]
    write(2)
    assert run("verify_audit_trail").code == 0
    try:
        for statement in statements.split("; CREATE"):
            sql(statement if statement.startswith(("DROP", "ALTER", "CREATE")) else f"CREATE{statement}")
        ran = run("verify_audit_trail")
    finally:
        for statement in _UNDO[connection.vendor]:
            sql(statement)
        sql_of_triggers()
    assert ran.code == 1
    assert words in ran.err
    assert run("verify_audit_trail").code == 0, "put right, it fits"
    assert not Incident.objects.open().filter(cause=TRAIL_BROKEN).exists()


@pytest.mark.req("S-57")
@pytest.mark.parametrize("anchored", [True, False])
def test_another_integrity_key_is_told_as_that_and_cannot_be_passed_over(settings: Settings, anchored: bool) -> None:
    write(8)
    if anchored:
        anchor_now()
    settings.INTEGRITY_KEY = "another key, another key, another key, another key"
    ran = run("verify_audit_trail", "--take-note", "we have another key now")
    assert ran.code == 1
    assert "INTEGRITY_KEY is another one" in ran.err
    assert "Set the former key again" in ran.err
    assert "was changed" not in ran.err
    assert AuditEvent.objects.filter(action="audit_trail.accepted").count() == 0


# --- the file of anchors itself -----------------------------------------------------------------------------------


@pytest.mark.req("S-57")
def test_a_line_of_the_file_that_is_changed_or_taken_out_is_found(file: Path) -> None:
    write(3)
    for _ in range(3):
        anchor_now()
    good = file.read_text()
    first, second, third = good.splitlines(keepends=True)
    changed = json.dumps(json.loads(second) | {"sequence": 1}) + "\n"
    for text, words in (
        (first + changed + third, "line 2 was changed"),
        (first + third, "line 2 was taken out of its place, or lines before it were removed"),
        (second + third, "line 1 was taken out of its place"),
    ):
        file.write_text(text)
        ran = run("verify_audit_trail")
        assert (ran.code, words in ran.err) == (1, True), ran.err
    file.write_text(good)
    assert run("verify_audit_trail").code == 0


@pytest.mark.req("S-57")
def test_a_file_that_was_cut_together_with_the_trail_is_found_by_what_the_trail_noted(file: Path) -> None:
    write(3)
    anchor_now()
    short = file.read_text()
    write(3)
    anchor_now()
    assert run("verify_audit_trail").code == 0
    file.write_text(short)
    ran = run("verify_audit_trail")
    assert ran.code == 1
    assert "The file of anchors was cut: its newest line is number 1, and line 2 was compared before" in ran.err


def test_half_a_line_and_lines_of_somebody_else_are_passed_over(file: Path) -> None:
    write(2)
    anchor_now()
    with file.open("a") as more:
        more.write('{"number": 7, "file"')  # the machine died here
    write(2)
    anchor_now()
    assert [json.loads(line)["number"] for line in file.read_text().splitlines() if line.endswith("}")] == [1, 2]
    assert run("verify_audit_trail").code == 0
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.req("S-57")
def test_a_new_file_is_told_when_the_trail_knows_another_one(file: Path) -> None:
    write(2)
    anchor_now()
    assert not Incident.objects.open().exists(), "the first file is nothing to look into"
    file.unlink()
    anchor_now()
    incident = Incident.objects.open().get()
    assert incident.cause == "audit_anchors_begun_anew"
    assert "entry 3 of the audit trail knows another one" in incident.words


# --- after a restore ----------------------------------------------------------------------------------------------


@pytest.mark.req("S-57")
def test_after_a_restore_a_person_takes_note_and_what_changes_later_is_found_again() -> None:
    write(8)
    anchor_now()
    with without_triggers():
        sql(f"DELETE FROM {TABLE} WHERE sequence > 6")
        changed()
    assert run("verify_audit_trail").code == 1
    assert run("verify_audit_trail", "--take-note", "short").code == 2
    ran = run("verify_audit_trail", "--take-note", "restored from the backup of Sunday")
    assert (ran.code, "Noted by" in ran.out) == (0, True), ran.err
    note = AuditEvent.objects.get(action="audit_trail.accepted")
    assert note.actor_kind == "command"
    assert note.details["why"] == "restored from the backup of Sunday"
    assert any("are missing at the end" in words for words in note.details["found"])
    write(5)
    assert watch_audit_trail() == []
    assert not Incident.objects.open().filter(cause=TRAIL_BROKEN).exists()
    with without_triggers():
        sql(f"UPDATE {TABLE} SET actor = 'a third' WHERE sequence = 4")
    assert "Entry 4 was changed" in run("verify_audit_trail").err, "what was noted is what it held then"


@pytest.mark.req("S-57")
def test_seals_made_with_the_key_are_found_by_the_anchors_alone() -> None:
    """Who has the database and the key writes a chain that fits; the anchors know what it was."""
    write(8)
    anchor_now()
    with without_triggers():
        changed()
        reseal(4)
    ran = run("verify_audit_trail")
    assert ran.code == 1
    assert "Entry 8 is another one than on 20" in ran.err
