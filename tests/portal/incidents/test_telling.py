"""Alerts, recoveries and the digest: what comes and goes calls once, and what people put off calls nobody (S-60)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.mail import EmailMessage
from django.utils import timezone
from pytest_django.fixtures import Settings

from portal.audit.models import AuditEvent
from portal.incidents import service, telling
from portal.incidents.models import Incident, IncidentNote
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner
from portal.runs.jobs import JOBS
from tests.support.builders import ACTOR

pytestmark = pytest.mark.django_db(transaction=True)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _alerts_go_to_staff(settings: Settings) -> None:
    settings.ALERT_EMAIL = ["oncall@vendor.example"]
    settings.DEFAULT_FROM_EMAIL = "portal@vendor.example"
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(timezone.now(), tick=False) as travelling:
        yield travelling


def happened(cause: str = "vault_down", about: str = "", **more: Any) -> Incident:
    given = {"owner": Owner.US, "words": "The vault gives no answer. See whether it runs.", **more}
    return report(cause, about=about, **given)


def tick() -> None:
    """Do what the schedule does every ten minutes, by the job that it starts."""
    [job] = [job for job in JOBS if job.name == "alerts"]
    job.work(())


@pytest.mark.req("S-60")
def test_twenty_flips_in_an_hour_are_one_alert_and_one_recovery(
    clock: time_machine.Traveller, mailoutbox: list[EmailMessage], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "portal.incidents")
    for flip in range(20):
        happened()
        clock.shift(MINUTE)
        settle("vault_down")
        clock.shift(2 * MINUTE)
        if flip % 3 == 0:
            tick()
    for _ in range(6):
        clock.shift(10 * MINUTE)
        tick()

    incident = Incident.objects.get()
    assert (incident.times, incident.came_back) == (20, 19)
    assert [mail.subject.partition("] ")[2] for mail in mailoutbox] == ["Vault down", "Recovered: Vault down"]
    assert "seen 20 times, came back 19 times in between" in mailoutbox[1].body
    assert [record.message for record in caplog.records].count("incident recovered") == 1


def test_what_happens_after_the_recovery_is_a_new_incident(
    clock: time_machine.Traveller, mailoutbox: list[EmailMessage]
) -> None:
    happened()
    settle("vault_down")
    clock.shift(telling.HOLD)
    tick()
    happened()
    assert Incident.objects.count() == 2
    assert len(mailoutbox) == 3


def test_a_recovery_whose_mail_cannot_leave_is_told_later(
    clock: time_machine.Traveller, mailoutbox: list[EmailMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.mail.backends.locmem import EmailBackend

    def away(*args: Any) -> int:
        raise OSError("the mail server is away")

    happened()
    settle("vault_down")
    clock.shift(telling.HOLD)
    with monkeypatch.context() as patch:
        patch.setattr(EmailBackend, "send_messages", away)
        tick()
    assert len(mailoutbox) == 1
    tick()
    tick()
    assert [mail.subject.partition("] ")[2] for mail in mailoutbox[1:]] == ["Recovered: Vault down"]


def test_beside_a_sandbox_each_mail_is_printed_once(
    clock: time_machine.Traveller, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.MAILERS = {"default": {"BACKEND": "portal.mail.PrintingBackend"}}
    happened()
    tick()
    settle("vault_down")
    clock.shift(telling.HOLD)
    tick()
    tick()
    printed = capsys.readouterr().out
    assert (printed.count("] Vault down"), printed.count("] Recovered: Vault down")) == (1, 1)


def test_what_is_put_off_calls_nobody_until_its_time(
    clock: time_machine.Traveller, mailoutbox: list[EmailMessage]
) -> None:
    happened()
    everything = Incident.objects.all()
    assert service.snooze(everything, until=timezone.now() + timedelta(days=1), actor=ACTOR) == 1
    happened()
    tick()
    assert len(mailoutbox) == 1, "only the first alert"
    assert "0 incidents open, 1 put off" in telling.digest()
    clock.shift(timedelta(days=1))
    tick()
    tick()
    assert len(mailoutbox) == 2
    assert service.wake(everything, actor=ACTOR) == 0, "it is awake already"
    service.snooze(everything, until=timezone.now() + timedelta(days=1), actor=ACTOR)
    assert service.wake(everything, actor=ACTOR) == 1
    tick()
    assert len(mailoutbox) == 2


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=-1), timedelta(days=30, seconds=1)])
def test_an_incident_is_not_put_off_into_the_past_or_for_ever(clock: time_machine.Traveller, ahead: timedelta) -> None:
    happened()
    with pytest.raises(ValueError, match="at most 30 days ahead"):
        service.snooze(Incident.objects.all(), until=timezone.now() + ahead, actor=ACTOR)
    assert not AuditEvent.objects.exists()


def test_each_decision_is_in_the_trail_with_its_person_and_a_note_keeps_its_text_to_itself() -> None:
    keys = {happened(about=f"partner:{number}", name="x").pk for number in (1, 2)}
    everything = Incident.objects.all()
    service.take_up(everything, actor=ACTOR)
    service.note(everything, " Called them; they look into it. ", actor=ACTOR)
    service.snooze(everything, until=timezone.now() + timedelta(hours=2), actor=ACTOR)
    assert service.take_up(everything, actor=ACTOR) == 0
    assert service.close(everything, actor=ACTOR) == 2
    assert service.close(everything, actor=ACTOR) == 0

    events = AuditEvent.objects.values_list("action", "actor", "subject")
    actions = ("incident.taken_up", "incident.noted", "incident.snoozed", "incident.settled")
    assert {(action, actor, subject["incident"]) for action, actor, subject in events} == {
        (action, ACTOR.name, key) for action in actions for key in keys
    }
    assert "Called them" not in repr(list(AuditEvent.objects.values()))
    assert set(IncidentNote.objects.values_list("words", "by")) == {("Called them; they look into it.", ACTOR.name)}


@pytest.mark.parametrize("words", ["", "  ", "x" * 1001])
def test_an_empty_or_endless_note_is_refused(words: str) -> None:
    happened()
    with pytest.raises(ValueError, match="between 1 and 1,000"):
        service.note(Incident.objects.all(), words, actor=ACTOR)
    assert not IncidentNote.objects.exists()


def test_the_digest_says_once_a_day_who_must_act_and_why(
    clock: time_machine.Traveller, mailoutbox: list[EmailMessage], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "portal.incidents")
    happened()
    for number in range(7):
        happened("mfa_missing", about=f"consent:{number}", name=f"Partner {number}", owner=Owner.PARTNER)
    clock.shift(timedelta(days=3))
    happened("mfa_missing", about="consent:7", name="Partner 7", owner=Owner.PARTNER)
    mailoutbox.clear()
    [job] = [job for job in JOBS if job.name == "incident_digest"]
    assert job.every == timedelta(days=1)

    assert job.work(()) == "9 incidents open (The partner: 8, Us: 1), 0 put off, 0 recovered"

    [mail] = mailoutbox
    lines = mail.body.splitlines()
    since = f"{timezone.now() - timedelta(days=3):%Y-%m-%d}"
    named = "; ".join(f"Partner {number}" for number in range(5))
    assert f"- MFA missing, 8 since {since}, 1 of them new: {named} and 3 more" in lines
    assert f"- Vault down, 1 since {since}" in lines
    assert any(record.message == "incident digest" and record.open == 9 for record in caplog.records)  # type: ignore[attr-defined]


def test_a_digest_of_nothing_is_a_line_of_the_log_and_no_mail(mailoutbox: list[EmailMessage]) -> None:
    assert telling.digest() == "0 incidents open, 0 put off, 0 recovered"
    assert mailoutbox == []
