"""The admin consent endpoint: a first step for the whole tenant that proves nobody and gives no token."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.utils import timezone

from consent.applications import addresses
from consent.invitations import links
from consent.models import ConsentFlow, ConsentLink, PartnerConsent
from consent.states import state_of
from portal.audit.models import AuditEvent
from tests.support import builders
from tests.support.portal import Browser, Portal


def link(portal: Portal) -> str:
    _, address = links.issue(
        portal.partner, portal.registration, actor=builders.ACTOR, kind=ConsentLink.Kind.ADMIN_CONSENT
    )
    return urlsplit(address.reveal()).path


def come_back(who: Browser, cloud: str = "global", **fields: str) -> Any:
    return who.get(f"/consent/admin-consent/{cloud}?{urlencode(fields)}")


@pytest.fixture
def started(portal: Portal) -> tuple[Browser, str]:
    who = Browser()
    location = portal.press_continue(who, link(portal))
    parts = urlsplit(location)
    assert parts.path == f"/{portal.partner.tenant_id}/v2.0/adminconsent"
    return who, parse_qs(parts.query)["state"][0]


def test_it_ends_as_consented_without_a_token(portal: Portal, started: tuple[Browser, str]) -> None:
    who, state = started
    other = builders.guid()

    response = come_back(who, admin_consent="True", tenant=other, state=state)

    assert response.status_code == 303
    assert state not in response["Location"]
    page = who.get(response["Location"])
    assert "One step is left" in page.content.decode()
    attempt = ConsentFlow.objects.get()
    assert attempt.outcome == "admin_consented"
    assert not PartnerConsent.objects.exists()
    assert state_of(portal.partner) == "invited"
    assert ConsentLink.objects.get().closed_at is not None
    assert not [name for name in portal.sandbox.world.counters if "token" in name]
    event = AuditEvent.objects.get(action="flow.admin_consented")
    assert other not in repr(event.subject) + repr(event.details) + page.content.decode()


def test_through_the_sandboxs_own_pages_it_grants_the_whole_tenant(portal: Portal) -> None:
    application = portal.sandbox.world.applications[portal.registration.application_id]
    application.redirect_uris.add(addresses.admin_consent_redirect_uri("global"))
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, link(portal)))
    assert answer.method == "GET"

    response = who.get(f"{urlsplit(answer.url).path}?{urlencode(answer.fields)}")

    assert response.status_code == 303
    assert ConsentFlow.objects.get().outcome == "admin_consented"
    assert portal.sandbox.world.tenants[portal.partner.tenant_id].principal_of(application.app_id)


def test_a_declined_consent_is_said_so(portal: Portal, started: tuple[Browser, str]) -> None:
    who, state = started
    hostile = "AADSTS65004: <script>alert(1)</script>"
    response = come_back(who, admin_consent="True", error="access_denied", error_description=hostile, state=state)
    page = who.get(response["Location"])
    assert "<script>alert" not in page.content.decode()
    assert (ConsentFlow.objects.get().outcome, ConsentFlow.objects.get().problem) == ("refused", "declined")


@pytest.mark.req("S-07")
@pytest.mark.req("S-09")
@pytest.mark.req("S-10")
def test_another_browser_a_replay_and_a_revoked_link_change_nothing(
    portal: Portal, started: tuple[Browser, str]
) -> None:
    who, state = started
    assert come_back(Browser(), admin_consent="True", state=state).status_code == 400
    assert ConsentFlow.objects.get().outcome == "open"
    ConsentLink.objects.update(revoked_at=timezone.now())
    assert come_back(who, admin_consent="True", state=state).status_code == 400
    ConsentLink.objects.update(revoked_at=None)
    first = come_back(who, admin_consent="True", state=state)
    again = come_back(who, admin_consent="True", error="access_denied", state=state)
    assert (again.status_code, again["Location"]) == (303, first["Location"])
    assert ConsentFlow.objects.get().outcome == "admin_consented"


@pytest.mark.req("S-19")
def test_each_kind_of_flow_has_its_own_callback(portal: Portal, started: tuple[Browser, str]) -> None:
    who, state = started
    signing_in = Browser()
    answer = portal.at_microsoft(portal.press_continue(signing_in, portal.link()))
    assert come_back(signing_in, admin_consent="True", state=answer.fields["state"]).status_code == 400
    assert come_back(who, "china", admin_consent="True", state=state).status_code == 400
    assert set(ConsentFlow.objects.values_list("outcome", flat=True)) == {"open"}


@pytest.mark.parametrize(
    "query",
    ["", "admin_consent=True", "state=x", "admin_consent=False&state={state}", "state={state}&state={state}"],
)
def test_a_malformed_answer_is_refused(started: tuple[Browser, str], query: str) -> None:
    who, state = started
    response = who.get("/consent/admin-consent/global?" + query.format(state=state))
    assert response.status_code == 400
    assert ConsentFlow.objects.get().outcome == "open"
