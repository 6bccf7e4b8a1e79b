"""Old entries move into sealed files, which verify and join what stays; a forged removal is found (S-56, S-57)."""

# ruff: noqa: S608  # the statements are ours
from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from django.utils import timezone
from pytest_django.fixtures import Settings

from portal.audit import archive, table
from portal.audit.models import AuditEvent
from portal.audit.trail import record
from portal.incidents.anchoring import anchor_now
from portal.incidents.watch import watch_audit_trail
from tests.support.audit_table import TABLE, sql, without_triggers
from tests.support.builders import ACTOR
from tests.support.commands import run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def until(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Twelve old entries in parts of five, then three young ones; return the day between."""
    settings.AUDIT_ANCHOR_FILE = str(tmp_path / "anchors.jsonl")
    monkeypatch.setattr(archive, "_MOST", 5)
    monkeypatch.setattr(archive, "_PIECE", 2)
    with time_machine.travel(timezone.now() - timedelta(days=200)):
        for index in range(12):
            record("test.done", actor=ACTOR, subject={"number": index}, details={"text": "株式会社", "share": 0.25})
        anchor_now()  # its entry is the thirteenth
    for index in range(3):
        record("test.done", actor=ACTOR, subject={"number": index})
    return f"{timezone.now() - timedelta(days=100):%Y-%m-%d}"


def archived(folder: Path, until: str) -> list[Path]:
    ran = run("archive_audit", folder, "--until", until, "--remove")
    assert ran.code == 0, ran.err
    return sorted(folder.iterdir())


@pytest.mark.req("S-57")
def test_old_entries_are_written_checked_and_removed_and_the_rest_still_verifies(until: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    ran = run("archive_audit", folder, "--until", until)
    assert (ran.code, AuditEvent.objects.filter(action="audit_trail.archived").count()) == (0, 0)
    assert AuditEvent.objects.filter(sequence=1).exists(), "without --remove all stays"

    files = archived(folder, until)

    assert [file.name[6:31] for file in files] == [
        "000000000001-000000000005",
        "000000000006-000000000010",
        "000000000011-000000000013",
    ]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert AuditEvent.objects.order_by("sequence").values_list("sequence", flat=True)[0] == 14
    assert table.faults() == [], "the trigger is back"
    marks = AuditEvent.objects.filter(action="audit_trail.archived").order_by("sequence")
    assert [mark.details["last"] for mark in marks] == [5, 10, 13]
    ran = run("verify_audit_trail", "--archives", folder)
    assert (ran.code, ran.out.count("fit together")) == (0, 3), ran.err
    record("test.done", actor=ACTOR, subject={})
    assert watch_audit_trail() == []


@pytest.mark.req("S-57")
def test_entries_that_are_removed_without_a_sealed_mark_or_beyond_it_are_found(until: str, tmp_path: Path) -> None:
    archived(tmp_path / "archive", until)
    with without_triggers():
        sql(f"DELETE FROM {TABLE} WHERE sequence = 14")
    ran = run("verify_audit_trail")
    assert ran.code == 1
    assert "Entries 1 to 14 are missing at the beginning, and no archive of them is known" in ran.err


@pytest.mark.req("S-57")
def test_a_forged_mark_hides_nothing(until: str) -> None:
    """Who writes the database, but has no INTEGRITY_KEY, claims that the first entries were archived."""
    event = AuditEvent.objects.order_by("-sequence").first()
    assert event is not None
    third = AuditEvent.objects.get(sequence=3)
    details = json.dumps({"first": 1, "last": 3, "mac": third.mac})
    with without_triggers():
        sql(
            f"UPDATE {TABLE} SET action = 'audit_trail.archived', details = %s WHERE sequence = %s",
            details,
            event.sequence,
        )
        sql(f"DELETE FROM {TABLE} WHERE sequence <= 3")
    ran = run("verify_audit_trail")
    assert ran.code == 1
    assert "Entries 1 to 3 are missing at the beginning" in ran.err


def _changed(text: list[str]) -> list[str]:
    return [line.replace('"number":2', '"number":9') for line in text]


def _without_a_line(text: list[str]) -> list[str]:
    return text[:2] + text[3:]


def _cut(text: list[str]) -> list[str]:
    return text[:-1]


def _other_before(text: list[str]) -> list[str]:
    return [text[0].replace('"before":""', f'"before":"{"0" * 64}"'), *text[1:]]


def _none(text: list[str]) -> list[str]:
    return ["no JSON\n"]


@pytest.mark.req("S-57")
@pytest.mark.parametrize("damage", [_changed, _without_a_line, _cut, _other_before, _none])
def test_a_part_that_was_changed_is_named(damage: Callable[[list[str]], list[str]], until: str, tmp_path: Path) -> None:
    first, *_ = archived(tmp_path / "archive", until)
    text = gzip.decompress(first.read_bytes()).decode().splitlines(keepends=True)
    first.write_bytes(gzip.compress("".join(damage(text)).encode()))
    ran = run("verify_audit_trail", "--archives", first.parent)
    assert ran.code == 1
    assert first.name in ran.err


@pytest.mark.req("S-57")
def test_a_part_that_is_missing_is_found_and_another_key_is_told(
    until: str, tmp_path: Path, settings: Settings
) -> None:
    first, second, third = archived(tmp_path / "archive", until)
    second.unlink()
    ran = run("verify_audit_trail", "--archives", first.parent)
    assert (ran.code, f"{third.name} does not join entry 5" in ran.err) == (1, True)
    third.unlink()
    assert "The parts end with entry 5, and the trail in the database begins behind 13" in (
        run("verify_audit_trail", "--archives", first.parent).err
    )
    settings.INTEGRITY_KEY = "another key, another key, another key, another key"
    with pytest.raises(archive.NotAPart, match="another INTEGRITY_KEY"):
        archive.read(first)


def test_what_is_young_stays_and_a_damaged_trail_is_not_archived(until: str, tmp_path: Path) -> None:
    young = f"{timezone.now() - timedelta(days=89):%Y-%m-%d}"
    ran = run("archive_audit", tmp_path / "archive", "--until", young)
    assert (ran.code, "Entries of the last 90 days stay" in ran.err) == (2, True)
    assert run("archive_audit", tmp_path / "archive", "--until", "soon").code == 2
    with without_triggers():
        sql(f"UPDATE {TABLE} SET actor = 'x' WHERE sequence = 2")
    ran = run("archive_audit", tmp_path / "archive", "--until", until, "--remove")
    assert (ran.code, "nothing was written" in ran.err) == (1, True)
    assert not (tmp_path / "archive").exists()


def test_a_run_that_was_cut_off_goes_on_with_the_files_that_are_there(until: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    part = archive.write(folder, 1, 5)
    written = part.file.stat().st_mtime_ns
    archive.remove(part, actor=ACTOR)
    files = archived(folder, until)
    assert len(files) == 3
    assert part.file.stat().st_mtime_ns == written
    with pytest.raises(archive.NotRemoved, match="does not fit to the beginning"):
        archive.remove(part, actor=ACTOR)
