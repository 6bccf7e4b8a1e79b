"""What the onboarding tells staff of by itself (S-60); tests/portal/incidents/test_service.py has the rest."""

from __future__ import annotations

import pytest

from consent import alarms, clients
from consent.models import ConsentFlow, PartnerConsent, WaitingToken
from consent.sign_in import approvals
from consent.tokens.service import Audience
from consent.tokens.versions import IdentityMismatch
from portal.incidents.models import Incident
from portal.microsoft.identifiers import CorrelationId
from tests.support import builders
from tests.support.portal import SERVICE_ACCOUNT, Browser, Portal


@pytest.mark.django_db
@pytest.mark.req("S-60")
def test_a_link_that_is_refused_again_and_again_is_told_once(portal: Portal) -> None:
    browser, path = Browser(), portal.link()
    for number in range(alarms.REFUSALS_THAT_ALARM + 3):
        answer = portal.at_microsoft(portal.press_continue(browser, path), accept=False)
        portal.come_back(browser, answer)
        assert Incident.objects.exists() == (number >= alarms.REFUSALS_THAT_ALARM)
    incident = Incident.objects.get()
    assert (incident.cause, incident.times) == ("link_refused_often", 3)
    assert incident.subject["link"] == ConsentFlow.objects.latest("pk").link_id


@pytest.mark.django_db
@pytest.mark.req("S-60")
@pytest.mark.req("S-15")
def test_another_account_is_told_of_until_somebody_decides(portal: Portal) -> None:
    portal.onboard()
    portal.onboard(user="second@northwind.example.com")
    waiting = WaitingToken.objects.get()
    assert Incident.objects.open().get().about == f"waiting:{waiting.pk}"
    approvals.reject(waiting, vault=clients.vault(), actor=builders.ACTOR)
    assert not Incident.objects.open().exists()


@pytest.mark.django_db
@pytest.mark.req("S-60")
@pytest.mark.req("S-51")
def test_a_token_of_another_record_is_told_of(portal: Portal) -> None:
    portal.onboard(user=SERVICE_ACCOUNT)
    consent = PartnerConsent.objects.get()
    PartnerConsent.objects.update(fingerprint="0" * 16)
    consent.refresh_from_db()
    with pytest.raises(IdentityMismatch):
        clients.tokens().access_token(
            consent, Audience.PARTNER_CENTER, by=builders.BY, correlation_id=CorrelationId("")
        )
    incident = Incident.objects.open().get()
    assert (incident.cause, incident.about) == ("identity_mismatch", f"consent:{consent.pk}")
