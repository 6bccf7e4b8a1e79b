"""Many posts of one answer at the same moment (S-09, R-18): one redemption, one stored version, one result.

Real threads with database connections of their own; on SQLite, and on PostgreSQL with TEST_DATABASE_URL.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from consent.models import ConsentFlow, ConsentLink, PartnerConsent
from consent.sign_in import flow
from consent.vault.base import ID_NAME, PROBE_NAME
from portal.audit import walking
from portal.audit.models import AuditEvent
from tests.sandbox.world import Fault
from tests.support.portal import Browser, Portal
from tests.support.threads import at_once

POSTS = 50

pytestmark = pytest.mark.django_db(transaction=True)


def same_browser(who: Browser) -> Browser:
    """Return another window of this browser: its cookies, in an object that threads do not share."""
    window = Browser()
    window.cookies.load({name: morsel.value for name, morsel in who.cookies.items()})
    return window


def redemptions(portal: Portal) -> Counter[str]:
    return Counter(line["grant"] for line in portal.sandbox.world.ledger if line.get("grant"))


def stored_versions(portal: Portal) -> list[str]:
    """Return the files of all refresh tokens in the embedded vault."""
    not_tokens = {PROBE_NAME, ID_NAME, portal.credential_name}
    folders = [path for path in Path(settings.VAULT_URL).iterdir() if path.is_dir() and path.name not in not_tokens]
    return [file.name for folder in folders for file in folder.iterdir()]


@pytest.mark.req("S-09")
@pytest.mark.req("R-18")
def test_fifty_posts_of_one_answer_redeem_store_and_end_once(portal: Portal) -> None:
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, portal.link()))
    windows = [same_browser(who) for _ in range(POSTS)]
    # The winner waits at Microsoft, so that all others come while it works.
    portal.sandbox.world.faults.append(Fault(service="login", path="token", delay=0.5))

    ends = at_once(lambda number: portal.come_back(windows[number], answer), POSTS)

    assert Counter(end.status_code for end in ends) == {303: POSTS}
    assert len({end["Location"] for end in ends}) == 1
    # One for the code, one by which the new refresh token proves itself (S-17), one to ask Graph who it is.
    assert redemptions(portal) == {"authorization_code": 1, "refresh_token": 2}
    assert len(stored_versions(portal)) == 1
    consent = portal.consent()
    assert (consent.state, consent.generation) == ("connected", 1)
    assert ConsentFlow.objects.get().outcome == ConsentFlow.Outcome.CONNECTED
    assert ConsentLink.objects.get().closed_at is not None
    assert Counter(AuditEvent.objects.values_list("action", flat=True))["token.stored"] == 1
    assert not AuditEvent.objects.filter(action="flow.refused").exists()
    assert walking.first_broken_sequence() is None
    pages = {who.get(ends[0]["Location"]).status_code for who in windows[:5]}
    assert pages == {200}


@pytest.mark.req("S-09")
def test_fifty_posts_of_a_refusal_end_once(portal: Portal) -> None:
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, portal.link()), accept=False)
    windows = [same_browser(who) for _ in range(POSTS)]

    ends = at_once(lambda number: portal.come_back(windows[number], answer), POSTS)

    assert Counter(end.status_code for end in ends) == {303: POSTS}
    assert AuditEvent.objects.filter(action="flow.refused").count() == 1
    assert redemptions(portal) == {}
    assert stored_versions(portal) == []


@pytest.mark.req("S-09")
@pytest.mark.req("S-10")
def test_a_claim_has_exactly_one_winner(portal: Portal) -> None:
    portal.press_continue(Browser(), portal.link())
    attempt = ConsentFlow.objects.get()

    wins = at_once(lambda _: flow.claim(ConsentFlow.objects.get(pk=attempt.pk)), POSTS)

    assert Counter(wins) == {True: 1, False: POSTS - 1}


@pytest.mark.req("S-09")
@pytest.mark.req("S-10")
def test_a_link_revoked_in_the_same_moment_wins_or_loses_but_never_both(portal: Portal) -> None:
    """Either the claim came first and one token is stored, or the revocation did and nothing is."""
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, portal.link()))
    windows = [same_browser(who) for _ in range(20)]

    def work(number: int) -> Any:
        if number == 10:
            return ConsentLink.objects.update(revoked_at=ConsentLink.objects.get().created_at)
        return portal.come_back(windows[number], answer).status_code

    answers = at_once(work, 20)

    codes = redemptions(portal)["authorization_code"]
    assert codes in {0, 1}
    assert len(stored_versions(portal)) == codes
    assert PartnerConsent.objects.filter(generation=1).count() == codes
    assert set(answers) <= ({303, 400, 1} if codes else {400, 1})


@pytest.mark.req("R-18")
def test_two_windows_with_flows_of_their_own_leave_one_good_token(portal: Portal) -> None:
    """Two tabs of one link come back at once: two codes, and one record that agrees with the vault."""
    who = Browser()
    path = portal.link()
    answers = [portal.at_microsoft(portal.press_continue(who, path)) for _ in range(2)]
    windows = [same_browser(who) for _ in range(2)]

    ends = at_once(lambda number: portal.come_back(windows[number], answers[number]), 2)

    assert {end.status_code for end in ends} == {303}
    consent = portal.consent()
    assert consent.state == "connected"
    assert consent.lease_owner == ""
    outcomes = Counter(ConsentFlow.objects.values_list("outcome", flat=True))
    assert outcomes["connected"] == consent.generation
    assert outcomes["connected"] + outcomes["refused"] == 2
    assert len(stored_versions(portal)) == consent.generation


@pytest.mark.req("R-18")
def test_a_double_click_on_continue_makes_flows_that_all_work(portal: Portal) -> None:
    path = portal.link()
    who = Browser()
    who.get(path)
    windows = [same_browser(who) for _ in range(10)]

    addresses = at_once(lambda number: portal.press_continue(windows[number], path), 10)

    assert len(set(addresses)) == 10
    # The browser keeps the last cookie it was given; the flow of that answer is the one that ends.
    last = portal.at_microsoft(addresses[-1])
    assert portal.come_back(windows[-1], last).status_code == 303
    assert portal.consent().state == "connected"


@pytest.mark.req("S-57")
def test_the_audit_chain_survives_fifty_writers(portal: Portal) -> None:
    path = portal.link()
    before = AuditEvent.objects.count()

    at_once(lambda _: portal.press_continue(Browser(), path), POSTS)

    assert AuditEvent.objects.count() == before + POSTS
    assert walking.first_broken_sequence() is None
