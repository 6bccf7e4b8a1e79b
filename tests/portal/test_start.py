"""A start notes which settings are in force, by digests only; a command notes who ran it (S-55)."""

from __future__ import annotations

import getpass
import json
from unittest import mock

import pytest
from django.conf import settings as real
from django.db import OperationalError
from pytest_django.fixtures import Settings

from portal import starting
from portal.audit.models import AuditEvent
from portal.audit.walking import first_broken_sequence
from portal.commands import Utility
from portal.microsoft.secret import Secret
from portal.start import digests, note_settings

pytestmark = pytest.mark.django_db


def events(action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=action).order_by("sequence"))


@pytest.mark.req("S-55")
def test_each_start_is_an_entry_that_names_the_settings_that_changed(settings: Settings) -> None:
    note_settings()
    note_settings()
    settings.LINK_LIFETIME_DAYS = 3
    settings.AUDIT_ANCHOR_URL = Secret("https://sink.example/canary-key")
    note_settings()
    first, second, third = events("settings.in_force")
    assert {"SECRET_KEY", "LINK_LIFETIME_DAYS", "DATABASES"} <= set(first.details["digests"])
    assert first.details["changed"] == sorted(first.details["digests"])
    assert "changed" not in second.details, "nothing changed: no list"
    assert third.details["changed"] == ["AUDIT_ANCHOR_URL", "LINK_LIFETIME_DAYS"]
    assert first_broken_sequence() is None
    written = json.dumps([one.details for one in (first, second, third)])
    for secret in (real.SECRET_KEY, real.INTEGRITY_KEY, "canary", str(real.DATABASES["default"]["NAME"])):
        assert secret not in written


@pytest.mark.req("S-55")
def test_a_start_of_a_process_that_takes_work_notes_it() -> None:
    with mock.patch("consent.clients.vault"):  # which another check of a start asks
        starting.check()
    assert len(events("settings.in_force")) == 1


def test_digests_are_the_same_in_each_process_and_depend_on_the_key(settings: Settings) -> None:
    before = digests()
    assert digests() == before
    settings.INTEGRITY_KEY = "another key, another key, another key, another key"
    assert all(digests()[name] != digest for name, digest in before.items())


@pytest.mark.req("S-55")
@pytest.mark.parametrize(
    ("argv", "noted"),
    [
        (["run_status", "12", "--failed", "--partner=canary", "--tag", "canary"], ["--failed", "--partner", "--tag"]),
        (["shell"], None),
        (["createsuperuser"], None),
        (["run_status", "--help"], False),
        (["check", "--deploy"], False),
        (["help", "run_status"], False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_command_notes_who_ran_it_and_with_which_options(argv: list[str], noted: list[str] | bool | None) -> None:
    Utility(["manage.py", *argv]).fetch_command(argv[-1] if argv[0] == "help" else argv[0])
    found = events("command.run")
    if noted is False:
        assert found == []
        return
    assert [one.actor for one in found] == [f"{argv[0]} ({getpass.getuser()})"]
    assert found[0].details == ({"options": noted} if noted else {})


def test_a_database_that_is_away_stops_no_command() -> None:
    with mock.patch("portal.receivers.record", side_effect=OperationalError):
        Utility(["manage.py", "run_status"]).fetch_command("run_status")
