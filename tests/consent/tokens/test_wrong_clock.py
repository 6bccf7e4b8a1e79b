"""A clock that is wrong by four minutes, either way: everything works (R-42)."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.models import PartnerConsent
from portal.incidents.models import Incident
from tests.conftest import make_portal, use_azure_vault, use_sandbox
from tests.sandbox.server import Sandbox
from tests.support import custody
from tests.support.commands import run
from tests.support.credentials import add_certificate, add_identity, promote
from tests.support.portal import Portal

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.req("R-42")]


@pytest.fixture(params=[-4, 4], ids=["behind", "ahead"])
def minutes(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def strict(sandbox: Sandbox, minutes: int) -> Sandbox:
    """A sandbox whose clock differs from ours, and that forgives nothing when an application proves itself.

    Microsoft documents no leeway for assertions, so none may be needed.
    """
    sandbox.world.switches["assertion_leeway"] = 0
    sandbox.world.advance(-minutes * 60)  # ours is ahead by so many minutes
    return sandbox


def everything_works() -> None:
    assert run("check_tokens").code == 0
    assert run("sync_customers").code == 0
    consent = PartnerConsent.objects.with_all_for_calls().get()
    assert custody.ask(consent)
    assert consent.state == "connected"
    assert not Incident.objects.open().exists()


@pytest.mark.parametrize("credential", ["secret", "certificate", "managed identity"])
def test_each_kind_of_credential_works(
    strict: Sandbox, portal: Portal, monkeypatch: pytest.MonkeyPatch, credential: str
) -> None:
    if credential != "secret":
        candidate = add_certificate(portal) if credential == "certificate" else add_identity(portal, monkeypatch)
        promote(candidate, allow_unproven=True)
    portal.onboard()
    everything_works()


def test_an_assertion_is_not_used_longer_than_the_service_takes_it(
    strict: Sandbox, portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that runs for long uses one assertion several times."""
    promote(add_certificate(portal), allow_unproven=True)
    portal.onboard()
    passed, real = [0.0], time
    monkeypatch.setattr(
        "consent.microsoft.credentials.time",
        SimpleNamespace(time=lambda: real.time() + passed[0], monotonic=lambda: real.monotonic() + passed[0]),
    )
    for _ in range(12):
        passed[0] += 50
        strict.world.advance(50)
        assert run("check_tokens").code == 0, f"after {passed[0]} s"


def test_an_azure_vault_works(strict: Sandbox, db: None, settings: Settings, tmp_path: Path) -> None:
    use_sandbox(settings, strict)
    use_azure_vault(settings, strict, tmp_path)
    make_portal(strict).onboard()
    everything_works()


def test_a_certificate_that_was_made_a_moment_ago_can_be_promoted(portal: Portal) -> None:
    portal.onboard()
    candidate = add_certificate(portal)
    type(candidate).objects.filter(pk=candidate.pk).update(starts_at=timezone.now() + timedelta(minutes=4))
    candidate.refresh_from_db()

    assert promote(candidate) == portal.partner
