"""Incidents: one open row for a cause and what it concerns, one mail a day, and pages to take them up (S-60).

Covers: portal.incidents.admin, portal.incidents.extension, portal.incidents.models,
portal.incidents.panels, portal.incidents.receivers, portal.incidents.watch.
"""

from __future__ import annotations

import smtplib
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.mail import EmailMessage
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from portal.audit.models import AuditEvent
from portal.incidents import service, telling, watch
from portal.incidents.models import Incident
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner
from tests.support import builders
from tests.support.builders import ACTOR
from tests.support.portal import Browser
from tests.support.staff import asked

WORDS = "The clock of this machine is wrong. Set it."
Capture = Callable[..., Any]


@pytest.fixture(autouse=True)
def _alerts_go_to_staff(settings: Settings) -> None:
    settings.ALERT_EMAIL = ["oncall@vendor.example"]
    settings.DEFAULT_FROM_EMAIL = "portal@vendor.example"
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}


def happened(times: int = 1, about: str = "") -> Incident:
    for _ in range(times):
        incident = report("clock_wrong", about=about, owner=Owner.US, words=WORDS, subject={"partner": 7})
    return incident


@pytest.mark.django_db
@pytest.mark.req("S-60")
def test_a_hundred_repeats_are_one_row_with_a_count_and_one_mail(
    django_capture_on_commit_callbacks: Capture, mailoutbox: list[EmailMessage]
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        happened(100)
    incident = Incident.objects.get()
    assert (incident.times, incident.owner, incident.words) == (100, "us", WORDS)
    assert [mail.to for mail in mailoutbox] == [["oncall@vendor.example"]]
    assert WORDS in mailoutbox[0].body
    assert f"/admin/incidents/incident/{incident.pk}/change/" in mailoutbox[0].body


@pytest.mark.django_db
def test_what_it_concerns_has_a_row_of_its_own_and_settling_one_leaves_the_other() -> None:
    happened(about="partner:1")
    happened(about="partner:2")
    assert settle("clock_wrong", about="partner:1") == 1
    assert settle("clock_wrong", about="partner:1") == 0
    assert list(Incident.objects.open().values_list("about", flat=True)) == ["partner:2"]


@pytest.mark.django_db
def test_what_happens_again_after_it_was_settled_is_a_new_incident_with_a_new_mail(
    django_capture_on_commit_callbacks: Capture, mailoutbox: list[EmailMessage]
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        happened()
    service.close(Incident.objects.all(), actor=ACTOR)  # a person says that it is over
    with django_capture_on_commit_callbacks(execute=True):
        happened()
    assert sorted(Incident.objects.values_list("times", flat=True)) == [1, 1]
    assert len(mailoutbox) == 2


@pytest.mark.django_db
def test_whoever_began_earlier_and_comes_later_does_not_move_time_back() -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        first = happened().last_seen_at
        clock.shift(timedelta(hours=-1))
        assert happened().last_seen_at == first


@pytest.mark.django_db
def test_a_mail_that_could_not_leave_leaves_later(
    django_capture_on_commit_callbacks: Capture, mailoutbox: list[EmailMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.mail.backends.locmem import EmailBackend

    def away(*args: Any) -> int:
        raise smtplib.SMTPServerDisconnected("canary of the server")

    with monkeypatch.context() as patch, django_capture_on_commit_callbacks(execute=True):
        patch.setattr(EmailBackend, "send_messages", away)
        happened()
    assert Incident.objects.get().mailed_at is None
    assert telling.mail(Incident.objects.all()) == 1
    assert telling.mail(Incident.objects.all()) == 0
    assert len(mailoutbox) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("change", [{"ALERT_EMAIL": []}, {"MAILERS": {}}], ids=lambda change: next(iter(change)))
def test_without_an_address_or_a_mail_server_the_row_alone_tells(
    django_capture_on_commit_callbacks: Capture,
    mailoutbox: list[EmailMessage],
    settings: Settings,
    change: dict[str, Any],
) -> None:
    for name, value in change.items():
        setattr(settings, name, value)
    with django_capture_on_commit_callbacks(execute=True):
        happened()
    assert mailoutbox == []
    assert Incident.objects.open().count() == 1


@pytest.mark.django_db
def test_an_incident_of_a_change_that_did_not_happen_did_not_happen(
    django_capture_on_commit_callbacks: Capture, mailoutbox: list[EmailMessage]
) -> None:
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        happened()
        transaction.set_rollback(True)
    assert not Incident.objects.exists()
    assert mailoutbox == []


@pytest.mark.django_db(transaction=True)
def test_sixteen_reports_at_once_are_one_row_and_one_mail(mailoutbox: list[EmailMessage]) -> None:
    barrier = threading.Barrier(16)

    def one() -> None:
        barrier.wait(10)
        happened()
        connections.close_all()

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert Incident.objects.get().times == 16
    assert len(mailoutbox) == 1


# --- the audit trail --------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.req("S-57")
def test_a_broken_trail_opens_an_incident_and_a_whole_one_settles_it(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    happened()
    service.take_up(Incident.objects.all(), actor=ACTOR)
    call_command("verify_audit_trail")
    assert "fits together" in capsys.readouterr().out
    key, settings.INTEGRITY_KEY = settings.INTEGRITY_KEY, "another key"
    with pytest.raises(CommandError, match="is damaged; see the incident") as stopped:
        call_command("verify_audit_trail")
    assert stopped.value.returncode == 1
    assert Incident.objects.open().get(cause=watch.TRAIL_BROKEN).subject == {"sequence": 1}
    settings.INTEGRITY_KEY = key
    assert watch.watch_audit_trail() == []
    assert not Incident.objects.open().filter(cause=watch.TRAIL_BROKEN).exists()


# --- the pages --------------------------------------------------------------------------------------------------------


@pytest.fixture
def staff(client: Browser, admin_user: Any) -> Browser:
    client.force_login(admin_user)
    return client


def press(staff: Browser, action: str, *keys: int, **more: str) -> Any:
    page = staff.get("/admin/incidents/incident/")
    token = page.context["csrf_token"]
    return staff.post(
        "/admin/incidents/incident/",
        {"action": action, "_selected_action": [str(key) for key in keys], "csrfmiddlewaretoken": str(token), **more},
        headers={"referer": "https://portal.localhost/admin/incidents/incident/"},
        follow=True,
    )


@pytest.mark.django_db
def test_staff_take_an_incident_up_and_settle_it_and_the_trail_knows_who(staff: Browser) -> None:
    incident = happened(3)
    for said in ("1 incident is taken up.", "Nothing was changed"):
        once = press(staff, "take_up", incident.pk).context["once"]
        assert said in press(staff, "take_up", incident.pk, _once=once).content.decode()
    incident.refresh_from_db()
    assert incident.seen_by == "admin"

    question = press(staff, "settle_incidents", incident.pk)
    assert b"Nothing is changed at Microsoft" in question.content
    assert Incident.objects.open().exists()
    press(staff, "settle_incidents", incident.pk, _once=question.context["once"])
    assert not Incident.objects.open().exists()
    actions = AuditEvent.objects.order_by("sequence").values_list("action", "actor")
    assert list(actions) == [("incident.taken_up", "admin"), ("incident.settled", "admin")]


@pytest.mark.django_db
def test_the_list_shows_open_ones_unless_asked_otherwise(staff: Browser) -> None:
    happened(about="partner:1")
    happened(about="partner:2")
    settle("clock_wrong", about="partner:1")

    def shown(query: str = "") -> list[str]:
        page = staff.get(f"/admin/incidents/incident/{query}")
        return sorted(row.about for row in page.context["cl"].result_list)

    assert shown() == ["partner:2"]
    assert shown("?state=awake") == ["partner:2"]
    assert shown("?state=new") == ["partner:2"]
    assert shown("?state=taken_up") == []
    assert shown("?state=settled") == ["partner:1"]
    assert shown("?state=all") == ["partner:1", "partner:2"]


@pytest.mark.django_db
def test_the_page_leads_to_what_it_concerns_and_the_first_page_shows_it(staff: Browser) -> None:
    builders.partner(pk=7, name="Harbour")
    incident = happened()
    page = staff.get(f"/admin/incidents/incident/{incident.pk}/change/").content.decode()
    assert '<a href="/admin/tenants/partnertenant/7/change/">Partner: Harbour</a>' in page
    waits = "/admin/incidents/incident/?state=awake&amp;owner__exact=us"
    assert f'<a href="{waits}"><span class="figure-value">1</span> incident' in staff.get("/admin/").content.decode()


@pytest.mark.django_db
def test_who_may_only_look_settles_nothing(client: Browser, django_user_model: Any) -> None:
    from django.contrib.auth.models import Permission

    person = django_user_model.objects.create_user("viewer", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_incident"))
    client.force_login(person)
    incident = happened()
    press(client, "settle_incidents", incident.pk)
    assert Incident.objects.open().exists()


@pytest.mark.django_db
@pytest.mark.parametrize("rows", [1, 20])
def test_the_number_of_queries_is_the_same_for_any_number_of_incidents(staff: Browser, rows: int) -> None:
    for number in range(rows):
        happened(about=f"partner:{number}")
    # Three more note in the session, once a minute, that it is used (S-47).
    with CaptureQueriesContext(connection) as queries:
        staff.get("/admin/incidents/incident/")
    assert len(asked(queries)) == 9
