"""The pages of incidents: groups with what helps them all, and what people decide about many and about one.

Covers: portal.incidents.admin, portal.incidents.remedies, consent.admin.causes, portal.site.causes, portal.site.asking.
"""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consent import alarms
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident, IncidentNote
from portal.incidents.service import report, settle_all
from portal.microsoft.diagnosis import Owner
from portal.site.extension_points import causes
from tests.support import builders
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db
GROUPS = "/admin/incidents/incident/groups/"


def mfa_missing(number: int) -> None:
    registration = builders.registration()
    for _ in range(number):
        alarms.report(alarms.Cause.MFA_MISSING, builders.consent(builders.partner(), registration))


def press(staff: Staff, action: str, cause: str = "mfa_missing", **more: str) -> object:
    return staff.post(GROUPS, {"action": action, "cause": cause, "owner": "partner", **more})


def test_every_cause_of_consents_has_a_title_of_its_own() -> None:
    titles = [causes()[cause].title for cause in alarms.Cause]
    assert len(set(titles)) == len(titles)
    assert str(Incident(cause="mfa_missing", name="Harbour")) == "Harbour: MFA missing"
    assert str(Incident(cause="token_expired", name="Harbour")) == "Harbour: token expired"


def test_the_section_opens_with_groups_that_name_whom_they_concern() -> None:
    mfa_missing(2)
    customer = builders.customer(builders.partner(name="Harbour"), company_name="Fabrikam")
    report(
        "customer_grants_lost", about="x", name="x", owner=Owner.US, words="Look.", subject={"customer": customer.pk}
    )
    report("certificate_refused", about="host:a", name="a.example", owner=Owner.US, words="Look at it.")
    page = Staff().get(GROUPS)
    shown = page.content.decode()
    assert page.context["section"].address == GROUPS
    assert [one.title for one in page.context["section"].lists if one.active] == ["By cause"]
    assert re.findall(r'<h2 id="group-\d+">(.*?)</h2>', shown) == [
        "Certificate refused", "Customer grants lost", "MFA missing",
    ]  # fmt: skip
    for partner in Incident.objects.filter(cause="mfa_missing"):
        assert reverse("admin:tenants_partnertenant_change", args=[partner.subject["partner"]]) in shown
    assert ">Fabrikam</a>" in shown
    assert ">a.example</a>" in shown
    assert "Let the partner enforce MFA" in shown
    assert "?cause=mfa_missing&amp;owner__exact=partner" in shown
    assert ">2 incidents</a>" in shown


def test_the_groups_cost_the_same_queries_for_many_incidents() -> None:
    staff = Staff()
    mfa_missing(2)
    staff.get(GROUPS)
    counts = []
    for _ in range(2):
        mfa_missing(4)
        with CaptureQueriesContext(connection) as queries:
            staff.get(GROUPS)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_one_button_leads_to_what_helps_the_whole_group() -> None:
    mfa_missing(3)
    staff = Staff()
    keys = [str(one.subject["partner"]) for one in Incident.objects.all()]
    [group] = staff.get(GROUPS).context["groups"]
    assert (group.remedy.label, [str(key) for key in group.remedy.keys]) == ("Check again", keys)
    asked = staff.choose("tenants_partnertenant", group.remedy.action, *keys)
    assert asked.status_code == 200
    assert "Check tokens now" in asked.content.decode()


def test_what_the_person_may_not_do_is_not_offered() -> None:
    mfa_missing(1)
    staff = Staff("incidents.view_incident", "tenants.view_partnertenant")
    shown = staff.get(GROUPS)
    assert shown.context["groups"][0].remedy is None
    assert 'value="settle_incidents"' not in shown.content.decode()
    assert press(staff, "settle_incidents").status_code == 403  # type: ignore[attr-defined]
    assert Staff("tenants.view_partnertenant").get(GROUPS).status_code == 403


@pytest.mark.parametrize(
    ("permission", "own", "buttons"),
    [
        ("settle_incident", {"take_up", "settle_incidents"}, ["Take up", "Settle"]),
        ("note_incident", {"add_note"}, ["Note"]),
        ("snooze_incident", {"put_off_incidents", "wake_incidents"}, ["Put off"]),
    ],
)
def test_each_decision_has_a_permission_of_its_own(permission: str, own: set[str], buttons: list[str]) -> None:
    mfa_missing(1)
    staff = Staff("incidents.view_incident", f"incidents.{permission}")
    shown = staff.get(GROUPS).content.decode()
    assert set(re.findall(r'name="action" value="(\w+)"', shown)) == own - {"wake_incidents"}
    for action in ("take_up", "add_note", "put_off_incidents", "wake_incidents", "settle_incidents"):
        assert press(staff, action).status_code == (200 if action in own else 403)  # type: ignore[attr-defined]
    page = staff.get(reverse("admin:incidents_incident_change", args=[Incident.objects.get().pk]))
    assert [button.title for button, _ in page.context["buttons"]] == buttons


@pytest.mark.parametrize(
    ("action", "fields", "trail", "said"),
    [
        ("take_up", {}, "incident.taken_up", "2 incidents are taken up."),
        ("add_note", {"words": "Called them."}, "incident.noted", "The note stands on 2 incidents."),
        ("put_off_incidents", {"hours": "24"}, "incident.snoozed", "2 incidents are put off until"),
        ("settle_incidents", {}, "incident.settled", "2 incidents are settled."),
    ],
)
def test_a_decision_about_a_group_asks_first_and_is_written_down_for_each(
    action: str, fields: dict[str, str], trail: str, said: str
) -> None:
    mfa_missing(2)
    report("token_expired", about="consent:0", name="another", owner=Owner.PARTNER, words="Look.")
    staff = Staff()
    asked = press(staff, action)
    assert "2 rows are affected" in asked.content.decode()  # type: ignore[attr-defined]
    assert not AuditEvent.objects.filter(action=trail).exists()
    after = staff.confirm(asked, **fields)
    assert said in told(after)
    assert after.request["PATH_INFO"] == GROUPS
    assert AuditEvent.objects.filter(action=trail, actor=staff.user.username).count() == 2


def test_what_is_put_off_stands_apart_and_is_woken() -> None:
    mfa_missing(1)
    staff = Staff()
    staff.confirm(press(staff, "put_off_incidents"), hours="4")
    page = staff.get(GROUPS)
    assert (len(page.context["groups"]), len(page.context["asleep"])) == (0, 1)
    assert timedelta(hours=3) < Incident.objects.get().snoozed_until - timezone.now() < timedelta(hours=5)  # type: ignore[operator]
    staff.confirm(press(staff, "wake_incidents", asleep="1"))
    page = staff.get(GROUPS)
    assert (len(page.context["groups"]), len(page.context["asleep"])) == (1, 0)


def test_an_empty_note_is_asked_again_and_nothing_is_spent() -> None:
    mfa_missing(1)
    staff = Staff()
    again = staff.confirm(press(staff, "add_note"), words=" ")
    assert "_once" in again.content.decode()
    staff.confirm(again, words="Called them.")
    assert IncidentNote.objects.get().words == "Called them."


def test_settled_ones_stand_with_the_line_of_their_recovery() -> None:
    report("certificate_refused", about="host:a", name="a.example", owner=Owner.US, words="Look at it.")
    settle_all("certificate_refused", about=["host:a"])
    shown = Staff().get(GROUPS).content.decode()
    assert "a.example: certificate refused: over since" in shown
    assert "seen once." in shown
    assert "Nothing needs to be looked into." in shown


def test_the_buttons_of_one_incident_fit_its_state() -> None:
    mfa_missing(1)
    staff = Staff()
    incident = Incident.objects.get()
    page = reverse("admin:incidents_incident_change", args=[incident.pk])

    def offered() -> list[str]:
        return [button.title for button, _ in staff.get(page).context["buttons"]]

    assert offered() == ["Take up", "Note", "Put off", "Settle"]
    staff.confirm(staff.get(reverse("admin:incidents_incident_take_up_one", args=[incident.pk])))
    staff.confirm(staff.get(reverse("admin:incidents_incident_put_off_one", args=[incident.pk])), hours="1")
    assert offered() == ["Note", "Wake up", "Settle"]
    after = staff.confirm(staff.get(reverse("admin:incidents_incident_settle_one", args=[incident.pk])))
    assert after.request["PATH_INFO"] == page
    assert offered() == ["Note"]
    assert "over since" in after.content.decode()
