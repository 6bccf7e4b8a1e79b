"""Incidents of one cause and one owner stand together, with the partners and customers that they concern."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consent import alarms
from portal.incidents import service
from portal.incidents.groups import Group, groups
from portal.incidents.models import Incident
from portal.incidents.service import report
from portal.microsoft.diagnosis import Owner
from tests.support import builders

pytestmark = pytest.mark.django_db


def shown() -> list[Group]:
    return groups(Incident.objects.open(), timezone.now())


def test_incidents_of_one_cause_and_owner_are_one_group_with_names_and_pages() -> None:
    registration = builders.registration()
    consents = [builders.consent(builders.partner(name=f"Partner {number}"), registration) for number in range(3)]
    for consent in consents:
        alarms.report(alarms.Cause.MFA_MISSING, consent)
    customer = builders.customer(consents[0].partner, company_name="Fabrikam")
    report(
        "grants_lost",
        about=f"customer:{customer.pk}",
        name="x",
        owner=Owner.US,
        words="Look.",
        subject={"customer": customer.pk, "plan": 1},
    )
    report("vault_down", owner=Owner.US, words="See whether it runs.")

    lost, down, mfa = shown()

    assert (mfa.title, mfa.owner, len(mfa.incidents), mfa.taken_up) == ("MFA missing", Owner.PARTNER, 3, 0)
    partners = mfa.affected["partner"]
    assert partners.count == 3
    assert set(partners.shown) == {
        (consent.partner.name, reverse("admin:tenants_partnertenant_change", args=[consent.partner_id]))
        for consent in consents
    }
    assert "Let the partner enforce MFA" in mfa.words
    assert mfa.since <= mfa.last
    assert [text for text, _ in lost.affected["customer"].shown] == ["Fabrikam"]
    assert down.affected["partner"].count == 0


def test_one_partner_with_several_incidents_counts_once_and_a_group_says_what_is_taken_up_and_put_off() -> None:
    partner = builders.partner()
    for number in range(2):
        alarms.report(
            alarms.Cause.MFA_MISSING, builders.consent(partner, builders.registration(name=f"Application {number}"))
        )
    service.take_up(Incident.objects.filter(pk=Incident.objects.latest("pk").pk), actor=builders.ACTOR)
    service.snooze(Incident.objects.all(), until=timezone.now() + timedelta(hours=1), actor=builders.ACTOR)
    [group] = shown()
    assert (group.affected["partner"].count, group.taken_up, group.asleep) == (1, 1, 2)


def test_a_thousand_incidents_take_the_queries_of_one() -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            shown()
        return len(captured)

    def make(number: int) -> None:
        partner = builders.partner(name=f"Partner {number}")
        subject = {"partner": partner.pk, "customer": number}
        report("drift", about=f"partner:{partner.pk}", name="x", owner=Owner.PARTNER, words="x", subject=subject)

    make(1)
    few = queries()
    for number in range(2, 60):
        make(number)
    assert queries() == few == 3
    [group] = shown()
    assert group.affected["partner"].count == 59
    assert len(group.affected["partner"].shown) == 20
    assert group.affected["customer"].shown == [], "what is not there any more has no page"
