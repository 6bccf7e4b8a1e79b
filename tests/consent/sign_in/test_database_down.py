"""The database is away while the partner is at Microsoft, and while we check the answer (R-37).

The connection itself is broken: the portal asks for a database at an address where none is.
"""

from __future__ import annotations

from typing import Any

import pytest
import time_machine
from django.db import connection
from django.utils import timezone

from consent import views
from consent.models import ConsentFlow
from consent.sign_in import flow
from portal.audit.models import AuditEvent
from tests.sandbox.entra import Answer
from tests.support.database_down import no_database
from tests.support.portal import Browser, Portal

pytestmark = [pytest.mark.req("R-37"), pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def _probe_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_probe", flow.WriteProbe())


def redemptions(portal: Portal) -> int:
    return sum(line.get("grant") == "authorization_code" for line in portal.sandbox.world.ledger)


def at_microsoft(portal: Portal, who: Browser) -> Answer:
    return portal.at_microsoft(portal.press_continue(who, portal.link()))


@pytest.mark.req("R-07")
def test_a_database_that_is_away_at_the_callback_costs_no_code(portal: Portal) -> None:
    who = Browser()
    answer = at_microsoft(portal, who)
    lines = AuditEvent.objects.count()
    with no_database():
        for _ in range(3):
            page = portal.come_back(who, answer)
            assert page.status_code == 503
            assert "nothing was lost" in page.content.decode()
            assert "reload this page" in page.content.decode()
            assert "no-store" in page["Cache-Control"]
    assert redemptions(portal) == 0
    assert AuditEvent.objects.count() == lines
    assert ConsentFlow.objects.get().claimed_at is None

    retried = portal.come_back(who, answer)

    assert retried.status_code == 303
    assert redemptions(portal) == 1
    assert portal.consent().generation == 1
    assert "connected" in who.get(retried["Location"]).content.decode()


def test_a_database_lost_between_code_and_record_is_not_called_harmless(portal: Portal) -> None:
    who = Browser()
    answer = at_microsoft(portal, who)
    away: list[Any] = []

    def lose(execute: Any, sql: str, *rest: Any) -> Any:
        if redemptions(portal) and not away:
            away.append(no_database())
            away[0].__enter__()
            connection.ensure_connection()
        return execute(sql, *rest)

    with connection.execute_wrapper(lose):
        page = portal.come_back(who, answer)
    away[0].__exit__(None, None, None)

    assert page.status_code == 503
    text = page.content.decode()
    assert "We were interrupted" in text
    assert "nothing was lost" not in text
    assert ConsentFlow.objects.get().reference in text
    assert redemptions(portal) == 1

    portal.onboard(who)  # the same advice for everybody: once more
    assert portal.consent().state == "connected"


def test_a_check_that_nobody_finishes_does_not_say_for_ever_that_it_is_working(portal: Portal) -> None:
    who = Browser()
    at_microsoft(portal, who)
    row = ConsentFlow.objects.get()
    assert flow.claim(row)
    path = f"/consent/result/{row.public_id}"
    assert who.get(path).status_code == 202
    with time_machine.travel(timezone.now() + views._LONGEST_CHECK * 2, tick=False):
        page = who.get(path)
    assert page.status_code == 503
    assert "We were interrupted" in page.content.decode()
    assert row.reference in page.content.decode()
