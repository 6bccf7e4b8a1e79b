"""Disabling a partner stops everything; enabling it tells the truth about where it stands."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from consent import clients
from consent.models import ConsentLink, PartnerConsent
from consent.partners import disable, enable
from consent.states import state_of
from consent.tokens.custody import TokenUnavailable
from consent.tokens.service import Audience
from portal.audit.models import AuditEvent
from portal.microsoft.identifiers import new_correlation_id
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.portal import Browser, Portal

pytestmark = pytest.mark.req("S-53")


def test_a_disabled_partner_is_worked_for_by_nobody(portal: Portal) -> None:
    portal.connect()
    consent, path = portal.consent(), portal.link()
    clients.tokens().access_token(consent, Audience.GRAPH, by=builders.BY, correlation_id=new_correlation_id())
    calls = len(portal.sandbox.world.ledger)

    assert disable(portal.partner, actor=builders.ACTOR)

    with pytest.raises(TokenUnavailable):
        clients.tokens().access_token(consent, Audience.GRAPH, by=builders.BY, correlation_id=new_correlation_id())
    assert Browser().get(path).status_code == 404
    assert len(portal.sandbox.world.ledger) == calls
    assert not disable(portal.partner, actor=builders.ACTOR)
    assert AuditEvent.objects.filter(action="partner.disabled").count() == 1


@pytest.mark.parametrize(
    ("consent", "expected"), [(None, "new"), ("connected", "connected"), ("needs_consent", "attention")]
)
def test_enabling_says_where_the_partner_stands(db: None, consent: str | None, expected: str) -> None:
    partner = builders.partner(switch="disabled")
    if consent:
        builders.consent(partner, builders.registration())
        PartnerConsent.objects.update(state=consent)

    assert enable(partner, actor=builders.ACTOR)

    assert state_of(PartnerTenant.objects.get()) == expected
    assert not enable(partner, actor=builders.ACTOR)


def test_an_offboarded_partner_is_not_enabled(db: None) -> None:
    assert not enable(builders.partner(switch="offboarded"), actor=builders.ACTOR)


def test_staff_confirm_before_it_happens(portal: Portal) -> None:
    who = Browser()
    who.force_login(User.objects.create_superuser("admin"))
    who.handler.enforce_csrf_checks = False
    address = "/admin/tenants/partnertenant/"
    asked = {"action": "disable_partners", "_selected_action": [str(portal.partner.pk)]}

    page = who.post(address, asked)

    assert portal.partner.name in page.content.decode()
    assert state_of(portal.partner) == "new"
    who.post(address, asked | {"_once": page.context["once"]})
    assert PartnerTenant.objects.get(pk=portal.partner.pk).switch == "disabled"
    event = AuditEvent.objects.get(action="partner.disabled")
    assert event.actor == "admin"
    assert not ConsentLink.objects.usable().exists()
