"""A sign-in that meets 429 waits as long as it was asked to, within the one time limit of its request (R-13, R-16)."""

from __future__ import annotations

import time

import pytest

from consent.sign_in import flow
from tests.sandbox.world import Fault
from tests.support.portal import Portal
from tests.support.refusals import assert_refused, token_calls


def throttled(service: str, path: str, *, skip: int = 0, times: int = 1, retry_after: str = "1") -> Fault:
    body = '{"error": "temporarily_unavailable", "error_codes": [90055]}'
    headers = {"Retry-After": retry_after}
    return Fault(service=service, path=path, skip=skip, times=times, status=429, body=body, headers=headers)


@pytest.mark.req("R-16")
@pytest.mark.parametrize(
    "fault",
    [
        throttled("partnercenter", "profiles/organization"),
        throttled("partnercenter", "profiles/organization", times=4),
        throttled("login", "oauth2/v2.0/token", skip=1),
        throttled("login", "oauth2/v2.0/token", skip=1, times=4),
    ],
    ids=["profile", "profile four times", "proof", "proof four times"],
)
def test_a_sign_in_waits_as_long_as_it_was_asked_to_and_connects(portal: Portal, fault: Fault) -> None:
    portal.sandbox.world.faults.append(fault)
    began, times = time.monotonic(), fault.times

    page = portal.onboard()

    assert page.status_code == 200
    assert portal.consent().state == "connected"
    assert not portal.sandbox.world.faults
    assert time.monotonic() - began >= times


@pytest.mark.req("R-13")
@pytest.mark.parametrize("service", ["partnercenter", "login"])
def test_a_wait_beyond_the_time_of_the_request_is_not_begun(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    monkeypatch.setattr(flow, "WEB_SECONDS", 4.0)
    path = "profiles/organization" if service == "partnercenter" else "oauth2/v2.0/token"
    portal.sandbox.world.faults.append(throttled(service, path, skip=service == "login", times=9, retry_after="3"))
    began = time.monotonic()

    page = portal.onboard()

    assert page.status_code == 503
    assert_refused(portal, "try_again")
    assert time.monotonic() - began < 6


@pytest.mark.req("R-17")
def test_a_code_is_not_sent_again_whatever_the_answer_asks_for(portal: Portal) -> None:
    portal.sandbox.world.faults.append(throttled("login", "oauth2/v2.0/token", times=9))

    portal.onboard()

    assert_refused(portal, "try_again")
    assert token_calls(portal) == 0
    assert portal.sandbox.world.faults[0].times == 8
