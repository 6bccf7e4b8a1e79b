"""Each bench runs, in small, in this process and on the database of the suite, so that none can rot (R-22, R-29).

What it measures here says nothing. The measured programs, which are processes of their own otherwise, are functions.
"""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from portal.runs import console, pool
from portal.runs import executor as executor_module
from portal.runs.registry import kinds
from tests.bench import __main__ as benches
from tests.bench import checks, consents, failing_checks, measured_portal
from tests.bench.figures import FILE, Figure, note, noted
from tests.bench.partners_at_microsoft import OwnGate, PartnersAtMicrosoft, connect
from tests.conftest import use_sandbox
from tests.sandbox.server import Sandbox

pytestmark = pytest.mark.django_db
PARTNERS = 4


class _Ended:
    """A measured program that ran to its end."""

    returncode = 0

    def __init__(self, facts: dict[str, Any]) -> None:
        self._text = json.dumps(facts)

    def communicate(self) -> tuple[str, None]:
        return self._text, None


@pytest.fixture
def place(settings: Settings, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PartnersAtMicrosoft:
    """Partners that are connected, at the suite's sandbox and in its database."""
    found = connect(sandbox, PARTNERS)
    use_sandbox(settings, sandbox)
    secret = tmp_path / "vault-credential"
    secret.touch(mode=0o600)
    secret.write_text(found.vault_secret)
    settings.VAULT_URL, settings.VAULT_IDENTITY = found.vault_url, "client-secret"
    settings.VAULT_TENANT_ID, settings.VAULT_CLIENT_ID = found.vault_tenant, found.vault_client
    settings.VAULT_CREDENTIAL_FILE = str(secret)
    settings.PARTNER_RATE = settings.CALL_RATE = 1000
    measured_portal.fill(found)

    def started(module: str, *arguments: object) -> _Ended:
        return _Ended(import_module(f"tests.bench.{module}").facts(*map(str, arguments)))

    monkeypatch.setattr(measured_portal, "started", started)
    for module, name in (
        (console, "Executor"),
        (executor_module, "Ledger"),
        (socket, "getaddrinfo"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))  # a bench replaces it, in a process of its own
    monkeypatch.setattr(console, "tune_for_batches", lambda: None)
    monkeypatch.setattr(pool, "tune_for_batches", lambda: None)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    return found


@pytest.fixture
def gate(sandbox: Sandbox) -> OwnGate:
    return OwnGate(sandbox.world)


def test_the_bulk_check_is_compared_with_its_floor(
    place: PartnersAtMicrosoft, gate: OwnGate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "partners"
    place.save(file)
    options = argparse.Namespace(processes="1", rounds=1, due=False)

    checks.compare(place, file, gate, options, in_flight=1)

    floor, ours, processor, ratios = capsys.readouterr().out.splitlines()
    assert (floor[:5], ours[:4]) == ("floor", "ours")
    assert "of processor a partner" in processor
    assert "calls a partner" in ratios


@pytest.mark.parametrize("case", [failing_checks.partners, failing_checks.two])
def test_checks_that_meet_failures(
    place: PartnersAtMicrosoft, gate: OwnGate, monkeypatch: pytest.MonkeyPatch, case: Callable[..., bool]
) -> None:
    monkeypatch.setattr(failing_checks, "WAIT", 1)
    monkeypatch.setattr(failing_checks, "MOST_RATIO", 100)
    assert case(place, gate, argparse.Namespace(in_flight=2 if case is failing_checks.two else 1))


@pytest.mark.parametrize("what", consents.WHAT)
def test_consents_are_compared_with_their_floor(
    place: PartnersAtMicrosoft, gate: OwnGate, tmp_path: Path, what: str
) -> None:
    chosen = gate.add_customers(6, f"{what}-")
    consents.fill(chosen)
    if what == "verify":
        consents.consent_to(gate, chosen)

    found = consents.measure(gate, what, chosen, processes=1, threads=1)

    kinds().pop("bench_posts", None)
    assert (found.refused, found.calls > 0, found.statements > 0) == (0, True, True)
    if what != "posts":
        other = chosen if what == "verify" else gate.add_customers(6, "floor-")
        assert consents.floor(tmp_path, place, what, other, in_flight=2, rate=0).rate > 0


@pytest.mark.parametrize(
    ("value", "is_least", "holds"),
    [(1.1, False, True), (1.11, False, False), (0.9, True, True), (0.89, True, False), (5.0, True, True)],
)
def test_a_goal_is_missed_when_it_is_by_more_than_a_tenth(value: float, is_least: bool, holds: bool) -> None:
    figure = Figure(name="a ratio", value=value, goal=1.0, is_least=is_least)
    assert figure.holds is holds
    assert ("MISSED" in figure.line()) is not holds


@pytest.mark.parametrize(("value", "code"), [(1.0, 0), (2.0, 1)])
def test_all_benches_together_end_with_1_when_one_goal_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: float, code: int
) -> None:
    def run(name: str, arguments: object, file: Path) -> bool:
        monkeypatch.setenv(FILE, str(file))
        note(Figure(name=name, value=value, goal=1.0))
        assert list(noted(file))
        return True

    monkeypatch.setattr(benches, "run", run)
    monkeypatch.setattr("sys.argv", ["bench"])

    assert benches.main() == code

    printed = capsys.readouterr().out
    assert all(name in printed for name, _ in benches.BENCHES)


def test_a_bench_that_fails_is_said_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benches, "run", lambda name, arguments, file: name != "lists")
    monkeypatch.setattr("sys.argv", ["bench"])
    assert benches.main() == 1
    assert "lists: the bench itself failed" in capsys.readouterr().out
