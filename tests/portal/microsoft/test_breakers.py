"""A host that gives no answer is left alone for half a minute; no other host, cloud or partner notices (R-19)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from portal.microsoft.breakers import FAILURES, OPEN_SECONDS, Breakers
from portal.microsoft.http import GuardedSession
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault

pytestmark = pytest.mark.req("R-19")


@dataclass(slots=True)
class Line:
    """A session to the sandbox, and a clock that the test moves."""

    sandbox: Sandbox
    session: GuardedSession
    now: float = 1000.0

    def fail(self, times: int, **fields: Any) -> Fault:
        """Take China's sign-in host away, and only that."""
        fault = Fault(service="login", path="^/china/", times=times, **(fields or {"close": "before"}))
        self.sandbox.world.faults.append(fault)
        return fault

    def ask(self, cloud: str) -> int:
        """Call the sign-in host of this cloud and return the status of its answer."""
        host = self.sandbox.clouds[cloud].authority
        return self.session.get(f"{host}/{cloud}/v2.0/.well-known/openid-configuration").status_code


@pytest.fixture
def line(sandbox: Sandbox) -> Iterator[Line]:
    session = GuardedSession(is_allowed=lambda host: True, ca_file=str(sandbox.ca_file), loopback=True)
    made = Line(sandbox, session)
    session.breakers = Breakers(lambda: made.now)
    yield made
    session.close()
    sandbox.world.faults.clear()


def test_after_ten_failures_calls_fail_fast_and_other_clouds_work(line: Line) -> None:
    fault = line.fail(1_000)
    for _ in range(FAILURES):
        with pytest.raises(requests.exceptions.ConnectionError):
            line.ask("china")
    sent = fault.times

    for _ in range(50):
        with pytest.raises(requests.exceptions.ConnectionError, match="left alone"):
            line.ask("china")

    assert fault.times == sent  # nothing left this machine
    assert [host.split(":")[0] for host in line.session.breakers.away()] == ["login.china.localhost"]
    assert line.ask("global") < 500
    assert line.ask("usgov") < 500


def test_after_the_pause_one_probe_goes_and_its_answer_decides(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    fault = line.fail(FAILURES + 1)
    for _ in range(FAILURES):
        with pytest.raises(requests.exceptions.ConnectionError):
            line.ask("china")

    line.now += OPEN_SECONDS
    with pytest.raises(requests.exceptions.ConnectionError):
        line.ask("china")  # the probe finds it still away
    assert fault.times == 0
    with pytest.raises(requests.exceptions.ConnectionError, match="left alone"):
        line.ask("china")

    line.now += OPEN_SECONDS  # recovery within a minute of its return
    assert line.ask("china") < 500
    assert line.ask("china") < 500
    assert line.session.breakers.away() == []
    assert ["no answer" in text or "answers again" in text for text in caplog.messages if "host" in text] == [True] * 2


def test_only_one_caller_probes() -> None:
    now = [0.0]
    breakers = Breakers(lambda: now[0])
    for _ in range(FAILURES):
        breakers.failed("host")
    now[0] = OPEN_SECONDS
    assert [breakers.may_send("host") for _ in range(5)] == [True, False, False, False, False]
    now[0] += OPEN_SECONDS  # the probe never came back
    assert breakers.may_send("host")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_an_answer_of_any_kind_shows_that_the_host_works(line: Line, status: int) -> None:
    line.fail(30, status=status, body="{}")
    assert [line.ask("china") for _ in range(30)] == [status] * 30


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_finds_nobody_behind_it_counts(line: Line, status: int) -> None:
    line.fail(30, status=status, body="{}")
    assert [line.ask("china") for _ in range(FAILURES)] == [status] * FAILURES
    with pytest.raises(requests.exceptions.ConnectionError, match="left alone"):
        line.ask("china")


def test_failures_between_answers_open_nothing(line: Line) -> None:
    for _ in range(3):
        line.fail(FAILURES - 1)
        for _ in range(FAILURES - 1):
            with pytest.raises(requests.exceptions.ConnectionError):
                line.ask("china")
        assert line.ask("china") < 500
    assert line.session.breakers.away() == []
