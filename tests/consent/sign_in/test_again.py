"""Trying again from a page of refusal: the browser that made the attempt needs no mail, and no other gets in."""

from __future__ import annotations

import pytest
from django.utils import timezone

from consent.models import ConsentFlow, ConsentLink
from tests.sandbox.entra import Answer
from tests.support.portal import Browser, Portal

pytestmark = pytest.mark.django_db


def refused(portal: Portal, who: Browser) -> str:
    """Let the person cancel at Microsoft, and return the address of the page that they then read."""
    answer: Answer = portal.at_microsoft(portal.press_continue(who, portal.link()), accept=False)
    return str(portal.come_back(who, answer)["Location"])


def again(who: Browser, result: str) -> str:
    page = who.get(result).content.decode()
    public_id = result.rsplit("/", 1)[-1]
    address = f"/consent/again/{public_id}/"
    assert f'href="{address}">Try again</a>' in page
    return address


@pytest.mark.req("S-02", "S-61")
def test_a_person_who_cancelled_tries_again_from_the_page_and_is_connected(portal: Portal) -> None:
    who = Browser()
    address = again(who, refused(portal, who))

    page = who.get(address)
    assert "Connect your partner tenant" in page.content.decode()
    assert "form-action 'self' http" in page["Content-Security-Policy"]
    assert ConsentFlow.objects.count() == 1, "opening it starts nothing"

    answer = portal.at_microsoft(portal.press_continue(who, address))
    assert "Your tenant is connected" in who.get(portal.come_back(who, answer)["Location"]).content.decode()
    assert ConsentLink.objects.get().closed_at


@pytest.mark.req("S-03", "S-07")
def test_another_browser_and_a_dead_link_get_the_page_of_a_dead_link(portal: Portal) -> None:
    who = Browser()
    address = again(who, refused(portal, who))
    stranger = Browser().get(address)
    ConsentLink.objects.update(revoked_at=timezone.now())
    dead = who.get(address)
    for answer in (stranger, dead):
        assert answer.status_code == 404
        assert answer.content == Browser().get("/consent/" + "x" * 43 + "/").content
    assert ConsentFlow.objects.count() == 1


@pytest.mark.req("S-21")
def test_starting_again_needs_the_forms_own_value(portal: Portal) -> None:
    who = Browser()
    address = again(who, refused(portal, who))
    assert who.post(address + "start", headers={"referer": "https://portal.localhost" + address}).status_code == 403
    assert ConsentFlow.objects.count() == 1
