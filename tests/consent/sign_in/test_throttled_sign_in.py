"""A sign-in that meets 429 waits as long as it was asked to, within the one time limit of its request (R-13, R-16)."""

from __future__ import annotations

import time

import pytest

from consent.sign_in import flow, proof
from tests.sandbox.world import Fault
from tests.support.portal import Portal
from tests.support.refusals import assert_refused, token_calls


def throttled(service: str, path: str, *, skip: int = 0, times: int = 1, retry_after: str = "1") -> Fault:
    body = '{"error": "temporarily_unavailable", "error_codes": [90055]}'
    headers = {"Retry-After": retry_after}
    return Fault(service=service, path=path, skip=skip, times=times, status=429, body=body, headers=headers)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited, without waiting."""
    found: list[float] = []
    for policy in (proof.PATIENT, proof._THROTTLED_ONLY):
        monkeypatch.setattr(policy, "sleep", found.append)
    return found


PROFILE, PROOF = ("partnercenter", "profiles/organization"), ("login", "oauth2/v2.0/token")
each_service = pytest.mark.parametrize("asked", [PROFILE, PROOF], ids=["profile", "proof"])


def connects(portal: Portal, fault: Fault) -> None:
    portal.sandbox.world.faults.append(fault)
    assert portal.onboard().status_code == 200
    assert portal.consent().state == "connected"
    assert not portal.sandbox.world.faults


@pytest.mark.req("R-16")
@each_service
def test_a_sign_in_waits_as_long_as_it_was_asked_to_and_connects(portal: Portal, asked: tuple[str, str]) -> None:
    began = time.monotonic()
    connects(portal, throttled(*asked, skip=asked == PROOF))
    assert time.monotonic() - began >= 1


@pytest.mark.req("R-16")
@each_service
def test_a_sign_in_waits_again_as_often_as_it_is_asked_to(
    portal: Portal, slept: list[float], asked: tuple[str, str]
) -> None:
    connects(portal, throttled(*asked, skip=asked == PROOF, times=4, retry_after="2"))
    assert slept == [2.0] * 4


@pytest.mark.req("R-13")
@each_service
def test_a_wait_beyond_the_time_of_the_request_is_not_begun(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, str]
) -> None:
    monkeypatch.setattr(flow, "WEB_SECONDS", 1.9)  # one second of waiting fits in, and not another
    portal.sandbox.world.faults.append(throttled(*asked, skip=asked == PROOF, times=9))
    began = time.monotonic()

    page = portal.onboard()

    assert page.status_code == 503
    assert_refused(portal, "try_again")
    assert portal.sandbox.world.faults[0].times >= 7
    assert time.monotonic() - began < 4


@pytest.mark.req("R-17")
def test_a_code_is_not_sent_again_whatever_the_answer_asks_for(portal: Portal) -> None:
    portal.sandbox.world.faults.append(throttled("login", "oauth2/v2.0/token", times=9))

    portal.onboard()

    assert_refused(portal, "try_again")
    assert token_calls(portal) == 0
    assert portal.sandbox.world.faults[0].times == 8
