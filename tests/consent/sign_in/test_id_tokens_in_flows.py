"""Bent ID tokens (S-14) in whole flows: the sandbox bends them, nothing is stored, one audit line."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests

from consent.models import ConsentFlow
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.identifiers import CONSUMERS_TENANT
from tests.sandbox.world import Fault, Tamper
from tests.support.portal import Portal
from tests.support.refusals import assert_refused, token_calls

FOREIGN = "00ff2504-aaaa-41d3-9a0c-0305e82c3302"
# What the sandbox bends, the problem that the person reads, and the word in the trail.
FLOWS: dict[str, tuple[Tamper, str, str]] = {
    "issuer of another tenant": (
        Tamper(claims={"iss": f"https://evil.example/{FOREIGN}/v2.0"}),
        "answer_refused",
        "issuer",
    ),
    "tid of another tenant": (Tamper(claims={"tid": FOREIGN}), "wrong_tenant", "tenant"),
    "personal accounts": (Tamper(claims={"tid": str(CONSUMERS_TENANT)}), "wrong_tenant", "tenant"),
    "tid missing": (Tamper(claims={"tid": None}), "answer_refused", "malformed"),
    "audience": (Tamper(claims={"aud": FOREIGN}), "answer_refused", "audience"),
    "alg none": (Tamper(id_token="none_alg"), "answer_refused", "algorithm"),
    "HS256": (Tamper(id_token="hs256"), "answer_refused", "algorithm"),
    "unknown kid": (Tamper(id_token="unknown_kid"), "answer_refused", "key"),
    "bad signature": (Tamper(id_token="bad_signature"), "answer_refused", "signature"),
    "two segments": (Tamper(id_token="two_segments"), "answer_refused", "malformed"),
    "huge": (Tamper(claims={"filler": "x" * 20_000}), "answer_refused", "malformed"),
    "missing": (Tamper(id_token="missing"), "answer_refused", "missing"),
    "jku": (Tamper(header={"jku": "https://evil.example/keys"}), "answer_refused", "malformed"),
    "x5u": (Tamper(header={"x5u": "https://evil.example/keys"}), "answer_refused", "malformed"),
    "crit": (Tamper(header={"crit": ["exp"]}), "answer_refused", "malformed"),
    "expired": (Tamper(claims={"exp": 1_600_000_000}), "answer_refused", "time"),
    "not valid yet": (Tamper(claims={"nbf": 4_000_000_000}), "answer_refused", "time"),
    "issued in the future": (Tamper(claims={"iat": 4_000_000_000}), "answer_refused", "time"),
    "exp missing": (Tamper(claims={"exp": None}), "answer_refused", "malformed"),
    "nbf missing": (Tamper(claims={"nbf": None}), "answer_refused", "malformed"),
    "version 1.0": (Tamper(claims={"ver": "1.0"}), "answer_refused", "version"),
    "oid missing": (Tamper(claims={"oid": None}), "answer_refused", "subject"),
    "guest": (Tamper(claims={"idp": "live.com"}), "personal_or_guest_account", "foreign_account"),
    "nonce of nobody": (Tamper(claims={"nonce": "A" * 43}), "start_again", "nonce"),
    "nonce missing": (Tamper(claims={"nonce": None}), "start_again", "nonce"),
    "not a text": (Tamper(members={"id_token": {"tid": FOREIGN}}), "answer_refused", "missing"),
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

    assert 400 <= page.status_code < 500, "a refusal is no fault of the server"
    assert_refused(portal, problem)
    assert ConsentFlow.objects.get().code == f"id_token_{word}"
    assert token_calls(portal) == 1  # the refresh token of a stranger is never used, not even to look
    assert not [name for name in portal.sandbox.world.counters if name.startswith("partner_center")]
    shown = page.content.decode() + repr(list(AuditEvent.objects.values_list()))
    assert "evil.example" not in shown
    assert FOREIGN not in page.content.decode()
    causes = {"wrong_tenant"} if problem == "wrong_tenant" else set()
    assert set(Incident.objects.values_list("cause", flat=True)) == causes


@pytest.mark.req("S-14")
def test_the_same_tenant_in_capitals_connects(portal: Portal) -> None:
    tenant = portal.partner.tenant_id.upper()
    authority = portal.sandbox.clouds["global"].authority
    portal.sandbox.world.tampers.append(Tamper(claims={"tid": tenant, "iss": f"{authority}/{tenant}/v2.0"}, times=9))

    portal.onboard()

    assert portal.consent().state == "connected"


@pytest.mark.parametrize("status", [400, 404, 503])
def test_signing_keys_that_are_away_are_microsofts_fault_and_stand_in_the_audit_trail(
    portal: Portal, status: int
) -> None:
    portal.sandbox.world.faults.append(
        Fault(service="login", path="discovery/v2.0/keys", status=status, body="{}", times=9)
    )

    page = portal.onboard()

    assert page.status_code == 503
    assert_refused(portal, "try_again")
    assert AuditEvent.objects.get(action="flow.refused").details["code"] == f"HTTP{status}"


def test_a_wrong_time_without_a_date_to_compare_is_a_refused_id_token_and_no_error_of_the_server(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = requests.adapters.HTTPAdapter.send

    def without_date(*args: Any, **kwargs: Any) -> Any:
        response = send(*args, **kwargs)
        response.headers.pop("Date", None)
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", without_date)
    portal.sandbox.world.tampers.append(Tamper(claims={"exp": 1_600_000_000}))

    page = portal.onboard()

    assert page.status_code == 400
    assert_refused(portal, "answer_refused")
    assert AuditEvent.objects.get(action="flow.refused").details["code"] == "id_token_time"


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
