"""A state is put back only for a test that stands exactly where it was made, and is then the same in every part."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import time_machine
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import PartnerConsent
from consent.vault.base import SecretName, SecretVersion
from tenants.models import PartnerTenant
from tests.conftest import make_portal, use_azure_vault, use_local_vault, use_sandbox
from tests.sandbox.server import Sandbox
from tests.support import builders, remembered
from tests.support.portal import Portal
from tests.support.remembered import again

on_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="on PostgreSQL nothing is put back")


class Connecting:
    """Connects the portal, and counts how often that really happened."""

    def __init__(self, portal: Portal) -> None:
        self.portal, self.times = portal, 0
        self.name = secrets.token_hex(8)

    def really(self) -> str:
        self.times += 1
        self.portal.onboard()
        return "done"

    def __call__(self) -> str:
        return again(self.name, self.portal.sandbox.world, self.really)

    def undone(self) -> Callable[[], None]:
        """Return what leads back to where we stand now, as the end of a test does."""
        before = remembered.state(self.portal.sandbox.world)
        kept, mark = deepcopy(before.world), str(connection.savepoint())

        def back() -> None:
            connection.savepoint_rollback(mark)
            vars(self.portal.sandbox.world).update(deepcopy(kept))
            remembered.put_files(before.files)
            clients.reset()

        return back


@pytest.fixture
def connecting(portal: Portal) -> Connecting:
    return Connecting(portal)


@on_sqlite
def test_what_is_put_back_is_the_same_in_every_part(connecting: Connecting, settings: Settings, tmp_path: Path) -> None:
    world = connecting.portal.sandbox.world
    back = connecting.undone()
    assert connecting() == "done"
    made = remembered.state(world)
    seen = deepcopy(made.world)

    back()
    assert not PartnerConsent.objects.exists()
    assert connecting() == "done"
    assert connecting.times == 1
    assert remembered.state(world) == made
    assert vars(world) == seen
    consent = connecting.portal.consent()
    stored = clients.vault().read(SecretName(consent.secret_name), SecretVersion(consent.secret_version))
    assert stored.value.reveal() in world.refresh_tokens
    assert builders.partner().pk > connecting.portal.partner.pk

    back()
    (tmp_path / "elsewhere").mkdir()
    files = remembered.state(world).files
    use_local_vault(settings, tmp_path / "elsewhere")
    remembered.put_files(files)
    assert connecting() == "done"
    assert connecting.times == 1, "the same vault in another folder"


@on_sqlite
def test_a_vault_at_azure_is_put_back_as_well(db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    connecting = Connecting(make_portal(sandbox))
    back = connecting.undone()
    connecting()
    kept = deepcopy(sandbox.world.vaults)

    back()
    assert sandbox.world.vaults != kept
    connecting()
    assert connecting.times == 1
    assert sandbox.world.vaults == kept
    consent = connecting.portal.consent()
    stored = clients.vault().read(SecretName(consent.secret_name), SecretVersion(consent.secret_version))
    assert stored.value.reveal() in sandbox.world.refresh_tokens


def change_a_row(connecting: Connecting, settings: Settings) -> None:
    PartnerTenant.objects.update(name="Another")


def add_a_row(connecting: Connecting, settings: Settings) -> None:
    builders.partner()


def change_a_setting(connecting: Connecting, settings: Settings) -> None:
    settings.TOKEN_SAVE_AFTER_HOURS = 0


def change_the_sandbox(connecting: Connecting, settings: Settings) -> None:
    connecting.portal.sandbox.world.switches["access_token_seconds"] = 5000


def change_a_file(connecting: Connecting, settings: Settings) -> None:
    Path(django_settings.VAULT_URL, "note").touch(0o600)


@on_sqlite
@pytest.mark.parametrize("change", [change_a_row, add_a_row, change_a_setting, change_the_sandbox, change_a_file])
def test_a_test_that_stands_elsewhere_walks_by_itself(
    connecting: Connecting, settings: Settings, change: Callable[[Connecting, Settings], None]
) -> None:
    back = connecting.undone()
    connecting()
    back()
    change(connecting, settings)
    connecting()
    assert connecting.times == 2


@on_sqlite
def test_nothing_old_is_put_back(connecting: Connecting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "SECONDS", 0.0)
    back = connecting.undone()
    connecting()
    back()
    connecting()
    assert connecting.times == 2


@on_sqlite
def test_a_test_that_travels_in_time_walks_by_itself(connecting: Connecting) -> None:
    back = connecting.undone()
    connecting()
    back()
    with time_machine.travel(timezone.now(), tick=True):
        connecting()
    assert connecting.times == 2


@pytest.mark.django_db(transaction=True)
def test_a_test_that_commits_walks_by_itself(portal: Portal) -> None:
    acts: list[str] = []
    for _ in range(2):
        again("commits", portal.sandbox.world, lambda: acts.append("again"))
    assert acts == ["again", "again"]
