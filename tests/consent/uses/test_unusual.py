"""Unusual uses: a new name, ten times as many, many partners within seconds, an hour never used before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from consent.models import ApplicationRegistration, TokenUse
from consent.uses.unusual import Cause, look
from portal.incidents.models import Incident
from tenants.models import PartnerTenant
from tests.support import builders

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-81")]
NOW = datetime(2026, 11, 30, 14, 0, tzinfo=UTC)
PANEL = "python (panel)"


@pytest.fixture
def registration() -> ApplicationRegistration:
    return builders.registration()


@pytest.fixture
def partners() -> list[PartnerTenant]:
    return [builders.partner() for _ in range(20)]


@pytest.fixture(autouse=True)
def _usual(registration: ApplicationRegistration, partners: list[PartnerTenant]) -> None:
    """The panel asks for twelve tokens between 13:00 and 15:00 on each day, of four partners in a minute at most."""
    for days in range(1, 10):
        for number in range(12):
            at = NOW - timedelta(days=days) + timedelta(minutes=-60 + 10 * number)
            for partner in partners[:1]:
                use(registration, partner, at)
        for partner in partners[:4]:
            use(registration, partner, NOW - timedelta(days=days))


def use(
    registration: ApplicationRegistration,
    partner: PartnerTenant,
    at: datetime,
    *,
    actor: str = PANEL,
    kind: str = "command",
    number: int = 1,
    run: int | None = None,
) -> None:
    TokenUse.objects.create(
        partner=partner,
        registration=registration,
        at=at,
        last_at=at,
        audience="graph",
        purpose="program",
        actor_kind=kind,
        actor=actor,
        issued=number,
        run=run,
    )


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=60 + seconds)


def test_what_is_usual_is_not_told(registration: ApplicationRegistration, partners: list[PartnerTenant]) -> None:
    for partner in partners[:4]:
        use(registration, partner, ago(1))

    assert look(NOW) == []
    assert not Incident.objects.exists()


def test_a_new_name_is_told_with_what_it_did(
    registration: ApplicationRegistration, partners: list[PartnerTenant]
) -> None:
    use(registration, partners[0], ago(1), actor="python (www-data)")

    (found,) = look(NOW)

    assert found.cause == Cause.ACTOR
    assert "python (www-data) used tokens of 1 partner(s) and never did" in found.words
    assert Incident.objects.get().name == "python (www-data)"
    assert look(NOW - timedelta(minutes=30)) == []  # of another time nothing is told


def test_ten_times_as_many_are_told_and_five_times_are_not(
    registration: ApplicationRegistration, partners: list[PartnerTenant]
) -> None:
    use(registration, partners[0], ago(1), number=45)
    assert look(NOW) == []

    use(registration, partners[0], ago(2), number=60)

    (found,) = look(NOW)
    assert found.cause == Cause.RATE
    assert "used 105 tokens within an hour" in found.words


def test_many_partners_within_seconds_are_told_and_within_minutes_are_not(
    registration: ApplicationRegistration, partners: list[PartnerTenant]
) -> None:
    for number, partner in enumerate(partners[:12]):
        use(registration, partner, ago(20 * number))
    assert look(NOW) == []

    for number, partner in enumerate(partners[:12]):
        use(registration, partner, ago(0.5 * number))

    (found,) = look(NOW)
    assert found.cause == Cause.SPREAD
    assert "12 partners within 10 seconds; before, it was never more than 4" in found.words


def test_a_run_over_many_partners_is_no_such_thing(
    registration: ApplicationRegistration, partners: list[PartnerTenant]
) -> None:
    for partner in partners:
        use(registration, partner, ago(1), run=7)

    assert look(NOW) == []


def test_an_hour_never_used_before_is_told(
    registration: ApplicationRegistration, partners: list[PartnerTenant]
) -> None:
    night = NOW.replace(hour=3)
    use(registration, partners[0], night - timedelta(minutes=-1, seconds=1))

    (found,) = look(night + timedelta(minutes=5))

    assert found.cause == Cause.HOUR
    assert "in the hour from 3:00 UTC" in found.words


@pytest.mark.parametrize("kind", ["system", "link"])
def test_the_portals_own_jobs_and_partners_are_left_out(
    registration: ApplicationRegistration, partners: list[PartnerTenant], kind: str
) -> None:
    for partner in partners:
        use(registration, partner, ago(1), actor=kind, kind=kind, number=1000)

    assert look(NOW) == []


def test_a_young_ledger_knows_nothing_usual(
    registration: ApplicationRegistration, partners: list[PartnerTenant]
) -> None:
    TokenUse.objects.all().delete()
    for partner in partners:
        use(registration, partner, ago(1))

    assert look(NOW) == []
