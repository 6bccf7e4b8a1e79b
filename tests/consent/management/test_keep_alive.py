"""keep_alive: no token dies silently, and nobody is asked in a loop (R-11)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.db.models import DateTimeField, Value
from django.db.models.functions import Now
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import PartnerConsent
from consent.states import state_of
from portal.incidents.models import Incident
from portal.runs.models import Run
from tenants.models import PartnerTenant
from tests.sandbox.world import Refusal
from tests.support import custody
from tests.support.portal import Portal

START = timezone.now()
AGES = ["token_not_renewed_60_days", "token_not_renewed_75_days", "token_not_renewed_85_days", "token_expired"]
EACH_DAY = range(1, 121)
AROUND_ALERTS = [1, 2, 3, 59, 60, 61, 74, 75, 76, 84, 85, 86, 89, 90, 91, 120]
# Engine and tests share one database connection only without a transaction around the test.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _a_long_lived_client_secret(portal: Portal) -> None:
    """Hold our own credential apart from what is tested here."""
    for application in portal.sandbox.world.applications.values():
        application.secrets = dict.fromkeys(application.secrets, START.timestamp() + 86_400 * 1000)


@contextmanager
def travel(moment: datetime) -> Iterator[None]:
    """Set Python's clock and the database's, which tells when a token was stored (R-42)."""

    def as_sql(self: Now, compiler: Any, connection: Any, **more: Any) -> Any:
        return compiler.compile(Value(timezone.now(), output_field=DateTimeField()))

    with pytest.MonkeyPatch.context() as patch, time_machine.travel(moment, tick=True):
        for name in ("as_sql", "as_sqlite", "as_postgresql"):
            patch.setattr(Now, name, as_sql, raising=False)
        yield


def rotate_strictly(portal: Portal, settings: Settings) -> None:
    portal.sandbox.world.switches["rotation"] = "strict"
    settings.TOKEN_SAVE_AFTER_HOURS = 0
    clients.reset()


def keep_alive(*arguments: str) -> int:
    """Run the command and return its exit code."""
    try:
        call_command("keep_alive", *arguments, stdout=StringIO(), stderr=StringIO())
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def day_by_day(portal: Portal, days: Iterable[int], look: Callable[[int, PartnerConsent], None]) -> None:
    """Run the daily command on these days after the sign-in, as a scheduler does, and look afterwards."""
    began = portal.consent().consented_at
    for day in days:
        with travel(began + timedelta(days=day, minutes=5)):
            keep_alive()
            look(day, portal.consent())


@pytest.mark.req("R-11")
@pytest.mark.parametrize(
    "check_hours",
    [
        pytest.param(24, marks=pytest.mark.release, id="checked daily"),
        pytest.param(720, id="checked as seldom as possible"),
    ],
)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_over_120_days_a_healthy_token_is_never_older_than_31_days(
    portal: Portal, settings: Settings, strict: bool, check_hours: int
) -> None:
    settings.TOKEN_CHECK_HOURS = check_hours
    if strict:
        rotate_strictly(portal, settings)
    ages: list[timedelta] = []

    def look(day: int, consent: PartnerConsent) -> None:
        assert consent.state == "connected"
        assert consent.stored_at is not None
        ages.append(timezone.now() - consent.stored_at)

    with travel(START):
        portal.connect()
    day_by_day(portal, range(1, 121), look)

    assert max(ages) < timedelta(days=30)
    assert not Incident.objects.filter(cause__in=AGES).exists()


@pytest.mark.req("R-11")
@pytest.mark.req("R-15")
@pytest.mark.parametrize(
    ("code", "state_before", "strict", "days"),
    [
        (7000222, "connected", False, AROUND_ALERTS),
        pytest.param(7000222, "connected", True, EACH_DAY, marks=pytest.mark.release),
        pytest.param(50057, "needs_consent", False, EACH_DAY, marks=pytest.mark.release),
        (700082, "needs_consent", False, EACH_DAY),
        pytest.param(700082, "needs_consent", True, EACH_DAY, marks=pytest.mark.release),
    ],
)
def test_a_partner_that_fails_from_day_1_alerts_on_days_60_75_and_85_and_is_expired_on_day_90(
    portal: Portal, settings: Settings, code: int, state_before: str, strict: bool, days: Sequence[int]
) -> None:
    if strict:
        rotate_strictly(portal, settings)
    opened: dict[int, str] = {}
    states: dict[int, str] = {}

    def look(day: int, consent: PartnerConsent) -> None:
        for incident in Incident.objects.filter(cause__in=AGES):
            if incident.cause not in opened.values():
                opened[day] = incident.cause
            assert incident.times == 1, "told once"
        states[day] = consent.state

    with travel(START):
        portal.connect()
    portal.sandbox.world.refusals.append(Refusal(code=code, tenant_id=portal.partner.tenant_id, times=10_000))
    calls = len(custody.redemptions(portal))
    day_by_day(portal, days, look)

    assert opened == dict(zip([60, 75, 85, 90], AGES, strict=True))
    assert (states[89], states[90], states[120]) == (state_before, "expired", "expired")
    assert [one.cause for one in Incident.objects.open().filter(cause__in=AGES)] == ["token_expired"]
    assert Incident.objects.filter(cause__in=AGES).count() == 4, "told once each"
    assert state_of(PartnerTenant.objects.get()) == "attention"
    tried = len(custody.redemptions(portal)) - calls
    assert tried == 2 if code == 700082 else tried < 95, "never in a loop"

    portal.sandbox.world.refusals.clear()
    with travel(START + timedelta(days=121)):
        portal.onboard()
        assert portal.consent().state == "connected"
        assert portal.consent().alerted_days == 0
    assert not Incident.objects.open().exclude(cause="run_stopped").exists()


@pytest.mark.req("R-11")
@pytest.mark.parametrize(
    ("strict", "every", "written"),
    [
        pytest.param(False, timedelta(hours=5), 1, id="in ten days"),
        pytest.param(True, timedelta(minutes=30), 48, id="strict, in a day"),
    ],
)
def test_48_renewals_write_one_version_a_week_unless_each_must_be_saved(
    portal: Portal, settings: Settings, strict: bool, every: timedelta, written: int
) -> None:
    if strict:
        rotate_strictly(portal, settings)
    with travel(START):
        portal.onboard()
    first = portal.consent().generation
    for number in range(1, 49):
        with travel(START + every * number + timedelta(seconds=20)):
            custody.ask(portal.consent(), fresh=True)

    assert portal.consent().generation - first == written


@pytest.mark.req("R-14")
def test_a_run_that_stops_for_our_cause_leaves_no_lease_behind(portal: Portal) -> None:
    portal.connect()
    portal.sandbox.world.refusals.append(Refusal(code=7000222, tenant_id=portal.partner.tenant_id, times=10))
    codes: list[int] = []
    with travel(timezone.now() + timedelta(days=2)):
        codes.append(keep_alive())
    assert codes == [3]
    assert (portal.consent().lease_owner, portal.consent().state) == ("", "connected")
    portal.sandbox.world.refusals.clear()
    portal.onboard()
    assert portal.consent().generation == 2


def test_when_nothing_is_due_nothing_is_asked_and_no_run_is_made(portal: Portal) -> None:
    portal.connect()
    calls = len(custody.redemptions(portal))
    assert keep_alive() == 0
    assert keep_alive("--json") == 0
    assert len(custody.redemptions(portal)) == calls
    assert not Run.objects.exists()
