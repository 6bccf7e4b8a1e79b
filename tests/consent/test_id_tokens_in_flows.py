"""Bent ID tokens (S-14) in whole flows: the sandbox bends them, nothing is stored, one audit line."""

from __future__ import annotations

import re

import pytest

from consent.models import ConsentFlow
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.identifiers import CONSUMERS_TENANT
from portal.sandbox.world import Tamper
from tests.consent.test_refusals import assert_refused, token_calls
from tests.portal import Portal

FOREIGN = "00ff2504-aaaa-41d3-9a0c-0305e82c3302"
# What the sandbox bends, the problem that the person reads, and the word in the trail.
FLOWS: dict[str, tuple[Tamper, str, str]] = {
    "issuer of another tenant": (Tamper(claims={"iss": f"https://evil.example/{FOREIGN}/v2.0"}), "our_fault", "issuer"),
    "tid of another tenant": (Tamper(claims={"tid": FOREIGN}), "wrong_tenant", "tenant"),
    "personal accounts": (Tamper(claims={"tid": str(CONSUMERS_TENANT)}), "wrong_tenant", "tenant"),
    "tid missing": (Tamper(claims={"tid": None}), "wrong_tenant", "tenant"),
    "audience": (Tamper(claims={"aud": FOREIGN}), "our_fault", "audience"),
    "alg none": (Tamper(id_token="none_alg"), "our_fault", "algorithm"),
    "HS256": (Tamper(id_token="hs256"), "our_fault", "algorithm"),
    "unknown kid": (Tamper(id_token="unknown_kid"), "our_fault", "key"),
    "bad signature": (Tamper(id_token="bad_signature"), "our_fault", "signature"),
    "two segments": (Tamper(id_token="two_segments"), "our_fault", "malformed"),
    "huge": (Tamper(claims={"filler": "x" * 20_000}), "our_fault", "malformed"),
    "missing": (Tamper(id_token="missing"), "our_fault", "missing"),
    "jku": (Tamper(header={"jku": "https://evil.example/keys"}), "our_fault", "malformed"),
    "x5u": (Tamper(header={"x5u": "https://evil.example/keys"}), "our_fault", "malformed"),
    "crit": (Tamper(header={"crit": ["exp"]}), "our_fault", "malformed"),
    "expired": (Tamper(claims={"exp": 1_600_000_000}), "clock", "time"),
    "not valid yet": (Tamper(claims={"nbf": 4_000_000_000}), "clock", "time"),
    "issued in the future": (Tamper(claims={"iat": 4_000_000_000}), "clock", "time"),
    "exp missing": (Tamper(claims={"exp": None}), "clock", "time"),
    "version 1.0": (Tamper(claims={"ver": "1.0"}), "our_fault", "version"),
    "oid missing": (Tamper(claims={"oid": None}), "our_fault", "subject"),
    "guest": (Tamper(claims={"idp": "live.com"}), "personal_or_guest_account", "foreign_account"),
    "nonce of nobody": (Tamper(claims={"nonce": "A" * 43}), "start_again", "nonce"),
    "nonce missing": (Tamper(claims={"nonce": None}), "start_again", "nonce"),
    "not a text": (Tamper(members={"id_token": {"tid": FOREIGN}}), "our_fault", "missing"),
}


@pytest.mark.req("S-14")
@pytest.mark.req("S-16")
@pytest.mark.req("S-12")
@pytest.mark.parametrize(("tamper", "problem", "word"), FLOWS.values(), ids=FLOWS)
def test_a_bent_id_token_ends_the_flow_with_nothing_stored(
    portal: Portal, tamper: Tamper, problem: str, word: str
) -> None:
    tamper.times = 1  # the table's objects outlive a test
    portal.sandbox.world.tampers.append(tamper)

    page = portal.onboard()

    assert page.status_code >= 400
    assert_refused(portal, problem)
    assert ConsentFlow.objects.get().code == f"id_token_{word}"
    assert token_calls(portal) == 1  # the refresh token of a stranger is never used, not even to look
    assert not [name for name in portal.sandbox.world.counters if name.startswith("partner_center")]
    shown = page.content.decode() + repr(list(AuditEvent.objects.values_list()))
    assert "evil.example" not in shown
    assert FOREIGN not in page.content.decode()


def test_the_table_has_the_promised_length() -> None:
    assert len(FLOWS) >= 25


@pytest.mark.req("R-42")
@pytest.mark.parametrize(("minutes", "refused"), [(-10, True), (-4, False), (4, False), (10, True)])
def test_a_clock_that_is_off_by_more_than_the_leeway_refuses_new_sign_ins_and_says_by_how_much(
    portal: Portal, *, minutes: int, refused: bool
) -> None:
    portal.sandbox.world.advance(-minutes * 60)  # our clock is ahead by so many minutes

    portal.onboard()

    assert ConsentFlow.objects.get().outcome == ("refused" if refused else "connected")
    assert Incident.objects.filter(cause="clock_is_wrong").exists() == refused
    if not refused:
        return
    words = Incident.objects.get(cause="clock_is_wrong").words
    seconds = int(re.findall(r"differs by (\d+) s", words)[0])
    assert seconds == pytest.approx(600, abs=5)
    assert ("ahead" if minutes > 0 else "behind") in words
    assert ConsentFlow.objects.get().problem == "clock"

    portal.sandbox.world.advance(minutes * 60)
    portal.onboard()
    assert Incident.objects.get(cause="clock_is_wrong").settled_at is not None
