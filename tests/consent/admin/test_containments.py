"""Emergency stops in the admin: one press stops, two persons resume, and every page says it."""

from __future__ import annotations

import pytest
from django.urls import reverse

from consent import clients
from consent.models import Containment
from portal.decisions.models import Decision
from tests.support import builders
from tests.support.portal import Browser
from tests.support.staff import Staff, told
from tests.support.workers import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.req("S-80")]
ADD = "/admin/consent/containment/add/"
_HERE = {"referer": f"https://portal.localhost{ADD}"}


def begin(who: Browser, **fields: object) -> Containment:
    answer = who.post(ADD, {"reason": "a stranger", "registration": "", "partner": "", **fields}, headers=_HERE)
    assert answer.status_code == 302, answer.content.decode()
    until(lambda: clients.gate().standing(), "the gate")
    return Containment.objects.get()


def button(who: Staff, one: Containment, name: str) -> str:
    page = who.get(reverse(f"admin:consent_containment_{name}", args=[one.pk]))
    return told(who.confirm(page))


def test_one_press_stops_and_every_page_of_staff_says_so() -> None:
    who, reader = Staff(), Staff("audit.view_auditevent")

    one = begin(who)

    assert (one.began_by, one.state) == (who.user.get_username(), Containment.State.ON)
    for person in (who, reader):
        page = person.get("/admin/").content.decode()
        assert "Emergency stop of everything." in page
        assert page.count('role="alert"') == 1
    assert reverse("admin:consent_containment_change", args=[one.pk]) not in reader.get("/admin/").content.decode()


def test_two_persons_resume_and_the_first_one_alone_does_not() -> None:
    first, second = Staff(), Staff("consent.view_containment", "consent.resume_containment")
    one = begin(first)
    address = reverse("admin:consent_containment_change", args=[one.pk])

    page = first.get(reverse("admin:consent_containment_ask_to_resume", args=[one.pk]))
    assert "Another person decides" in told(first.confirm(page, why="The credential is rotated."))
    decision = Decision.objects.get()
    assert decision.preview["subject"] == {"containment": one.pk}
    request = reverse("admin:decisions_decision_change", args=[decision.pk])
    shown = second.get(address).content.decode()
    assert request in shown
    assert "Ask to resume" not in shown
    approve = reverse("admin:decisions_decision_approve_request", args=[decision.pk])
    assert "another person decides" in told(first.confirm(first.get(approve)))
    one.refresh_from_db()
    assert one.state == Containment.State.ON
    assert "over" in told(second.confirm(second.get(approve)))  # no partner waits, so there is no wave
    one.refresh_from_db()
    assert (one.state, one.resume_asked_by, one.resumed_by) == (
        Containment.State.OVER,
        first.user.get_username(),
        second.user.get_username(),
    )
    until(lambda: clients.gate().standing() == (), "the gate")
    assert "Emergency stop" not in first.get("/admin/audit/auditevent/").content.decode().partition("<h1")[0]


def test_who_may_only_look_neither_stops_nor_resumes() -> None:
    one = begin(Staff())
    reader = Staff("consent.view_containment")

    assert reader.get(reverse("admin:consent_containment_change", args=[one.pk])).status_code == 200
    assert reader.get(ADD).status_code == 403
    assert reader.post(ADD, {"reason": "x"}, headers=_HERE).status_code == 403
    for name in ("ask_to_resume", "go_on", "contain_again"):
        assert reader.get(reverse(f"admin:consent_containment_{name}", args=[one.pk])).status_code == 403


def test_a_registration_or_a_partner_but_not_both() -> None:
    who, registration, partner = Staff(), builders.registration(), builders.partner()

    page = who.post(
        ADD, {"reason": "x", "registration": registration.pk, "partner": partner.tenant_id}, headers=_HERE
    ).content.decode()

    assert "not both" in page
    assert (
        "No partner has this tenant id"
        in who.post(
            ADD, {"reason": "x", "registration": "", "partner": builders.guid()}, headers=_HERE
        ).content.decode()
    )
    assert begin(who, partner=partner.tenant_id).partner == partner


def test_the_page_of_a_partner_leads_to_the_stop_of_this_partner() -> None:
    who, partner = Staff(), builders.partner()

    led = who.choose("tenants_partnertenant", "stop_partner", partner.pk)
    page = who.get(led["Location"]).content.decode()

    assert f'value="{partner.tenant_id}"' in page
    assert "Stop all use of tokens</button>" in page
    assert not Containment.objects.exists()
