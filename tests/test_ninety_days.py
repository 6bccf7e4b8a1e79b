"""The simulation of ninety days in small: the schedule keeps its promises, and a broken rule shows (R-11, R-45).

``python -m tests.bench.ninety_days`` is the same for more partners and longer.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import connection

from tests.bench.simulation.clock import moved
from tests.bench.simulation.microsoft import Service, Weather
from tests.bench.simulation.portal import SimulatedPortal

START = datetime(2026, 12, 1, tzinfo=UTC)
AWAY_HOURS = 3.25  # three tries by itself are over by then
_HOUR = 3600.0


@pytest.mark.django_db
def test_nothing_is_late_although_microsoft_was_away_and_then_slow() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("the clock of a database server cannot be moved")
    with moved(START) as clock:
        away, slow = clock.seconds + 2.5 * _HOUR, clock.seconds + 7 * _HOUR - 60
        weather = Weather(away=(away, away + AWAY_HOURS * _HOUR), slow=(slow, slow + _HOUR / 4))
        portal = SimulatedPortal(clock, weather, partners=24, customers=7, at_once=16)
        books = portal.live(8.5, step_seconds=_HOUR / 2)
    assert books.late(AWAY_HOURS) == []
    how = {(service, was) for _, service, was in portal.microsoft.calls}
    assert {(Service.SIGN_IN, "ok"), (Service.SIGN_IN, "429"), (Service.SIGN_IN, "no answer")} <= how
