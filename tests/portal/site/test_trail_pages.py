"""The pages of the audit trail: filters, one id followed everywhere, and who read it.

Covers: portal.site.trail_filters.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.audit.trail import Actor, record
from portal.runs.models import Run, RunItem
from tests.support import builders
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db
TRAIL = "admin:audit_auditevent_changelist"


def shown(staff: Staff, **parameters: str) -> list[int]:
    """Return the numbers of the entries that the list shows, without those about readings of the trail."""
    page = staff.get(reverse(TRAIL), parameters)
    assert page.status_code == 200, page.headers.get("Location")
    return sorted(one.sequence for one in page.context["cl"].result_list if one.action != "trail.read")


@pytest.fixture
def entries() -> dict[str, Any]:
    north, south = builders.partner(name="Northwind Cloud"), builders.partner(name="Southridge")
    customer, registration = builders.customer(north), builders.registration(name="Control Panel")
    with time_machine.travel(timezone.now() - timedelta(days=10)):
        record("a.b", actor=Actor.staff("ann", None), subject={"partner": north.pk})  # 1
    record("a.b", actor=Actor.staff("bob", None), subject={"partner": south.pk})  # 2
    record("a.b", actor=Actor.command("check_tokens"), subject={"customer": customer.pk})  # 3
    record("a.b", actor=builders.ACTOR, subject={"registration": registration.pk, "customer": customer.pk + 9})  # 4
    return {"customer": customer, "registration": registration}


@pytest.mark.req("S-55")
def test_entries_are_found_by_person_partner_customer_application_and_days(entries: dict[str, Any]) -> None:
    staff = Staff()
    assert shown(staff) == [1, 2, 3, 4]
    assert shown(staff, person="ANN") == [1]
    assert shown(staff, person="check_tokens") == [3]
    assert shown(staff, person="nobody") == []
    assert shown(staff, partner="northwind") == [1]
    assert shown(staff, partner="north") == [1]
    assert shown(staff, partner="no such name") == []
    assert shown(staff, customer=entries["customer"].tenant_id) == [3]
    assert shown(staff, registration="control") == [4]
    week, old = (f"{timezone.now() - timedelta(days=days):%Y-%m-%d}" for days in (7, 10))
    assert shown(staff, at__gte=week) == [2, 3, 4]
    assert shown(staff, at__gte=old, at__lte=old) == [1], "both days count"
    assert shown(staff, at__gte=week, person="bob", partner="south") == [2]
    page = staff.get(reverse(TRAIL), {"at__gte": week, "person": "bob"}).content.decode()
    assert f'<input type="hidden" name="at__gte" value="{week}">' in page, "a form keeps the other filters"
    assert '<input type="hidden" name="person" value="bob">' in page
    assert "Take away the filter person: “bob”" in page


def test_a_day_that_is_none_is_no_error(entries: dict[str, Any]) -> None:
    assert Staff().get(reverse(TRAIL), {"at__gte": "soon"}).status_code == 302


def test_who_may_not_see_a_list_is_offered_no_filter_by_it(entries: dict[str, Any]) -> None:
    staff = Staff("audit.view_auditevent")
    page = staff.get(reverse(TRAIL)).content.decode()
    assert 'id="find-person"' in page
    assert 'id="find-partner"' not in page
    assert shown(staff, partner="northwind") == [1, 2, 3, 4], "and it does nothing"


@pytest.mark.req("R-29")
def test_the_list_asks_ten_statements_and_one_for_each_kind_of_thing_that_it_names(entries: dict[str, Any]) -> None:
    staff = Staff()
    for number in range(30):
        record("a.b", actor=builders.ACTOR, subject={"partner": 1, "customer": number, "registration": 1, "run": 2})
    staff.get(reverse(TRAIL))
    with CaptureQueriesContext(connection) as queries:
        staff.get(reverse(TRAIL))
    # Of a transaction only its statements count, not its savepoints and the lock of the chain.
    steps = ("SAVEPOINT", "RELEASE", "SELECT pg_advisory_xact_lock")
    read = [one["sql"] for one in queries if not one["sql"].startswith(steps)]
    assert len(read) <= 10 + len(["partner", "customer", "registration", "run"]), read


@pytest.mark.req("S-55")
def test_one_id_is_followed_through_entries_runs_log_and_microsoft() -> None:
    mark = "0f5c7e26-1111-4222-8333-944455556666"
    run = Run.objects.create(kind="token_check", scope_hash="x", actor_kind="system", actor="portal")
    RunItem.objects.create(run=run, key=1, group=1, label="Northwind", turn=0, correlation_id=mark)
    first = record("a.b", actor=builders.ACTOR, subject={}, correlation_id=mark)
    record("a.c", actor=builders.ACTOR, subject={}, correlation_id=mark)
    record("a.d", actor=builders.ACTOR, subject={}, correlation_id="another")
    staff = Staff()
    page = staff.get(reverse("admin:audit_auditevent_change", args=[first.pk])).content.decode()
    assert "All 2 entries with it" in page
    assert f"Run {run.pk}, unit Northwind" in page
    assert reverse("admin:runs_run_change", args=[run.pk]) in page
    assert "In the log" in page
    assert "At Microsoft" in page
    assert shown(staff, correlation_id__exact=mark) == [1, 2]


@pytest.mark.req("S-55")
def test_each_reading_of_the_trail_is_an_entry_of_the_reader(entries: dict[str, Any]) -> None:
    staff = Staff()
    partner = AuditEvent.objects.get(sequence=1).subject["partner"]
    staff.get(reverse(TRAIL), {"person": "ann"})
    staff.get(reverse(TRAIL), {"about": f"partner:{partner}"})
    staff.get(reverse("admin:tenants_partnertenant_audit", args=[partner]))
    staff.get(reverse("admin:audit_auditevent_change", args=[AuditEvent.objects.get(sequence=1).pk]))
    readings = list(AuditEvent.objects.filter(action="trail.read").order_by("sequence"))
    assert {one.actor for one in readings} == {staff.user.get_username()}
    assert [one.subject for one in readings[:3]] == [{}, {"partner": partner}, {"partner": partner}]
    assert list(readings[3].subject) == ["audit_entry"]
    assert readings[0].details == {"asked": ["person"]}, "what was looked for is named, not the words"
    Staff("tenants.view_partnertenant").get(reverse(TRAIL))
    assert AuditEvent.objects.filter(action="trail.read").count() == 4, "who may not read it did not"
