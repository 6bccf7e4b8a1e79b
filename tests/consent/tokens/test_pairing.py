"""Database and vault know each other: no other vault, and no empty folder, is taken for the database's own.

Covers: consent.models.vault.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import PartnerConsent, VaultPairing
from consent.runs.customer_sync import CUSTOMER_SYNC
from consent.runs.token_check import TOKEN_CHECK
from consent.tokens.pairing import OwnVault
from consent.tokens.service import Audience
from consent.vault.base import ID_NAME, SecretName, SecretVersion, VaultConfigurationError
from consent.vault.keys import KeyRing
from consent.vault.local import LocalVault
from portal import starting
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.errors import AccessDenied, ServerFault
from portal.microsoft.identifiers import CorrelationId
from portal.microsoft.secret import Secret
from portal.runs import service
from portal.runs.executor import Executor
from portal.runs.kinds import Kind
from portal.runs.models import Run
from tests.conftest import VAULT_NAME, make_portal, use_azure_vault, use_local_vault, use_sandbox
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault
from tests.support import builders, vault_secrets
from tests.support.commands import run
from tests.support.custody import all_versions
from tests.support.portal import Portal
from tests.support.token_checks import check
from tests.support.work import classes

EMBEDDED = pytest.mark.parametrize("portal", ["local"], indirect=True)
AT_AZURE = pytest.mark.parametrize("portal", ["azure"], indirect=True)
OTHER = "is not the vault of this database"


@pytest.fixture(params=["local", "azure"])
def portal(request: pytest.FixtureRequest, db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Portal:
    use_sandbox(settings, sandbox)
    if request.param == "local":
        use_local_vault(settings, tmp_path)
    else:
        use_azure_vault(settings, sandbox, tmp_path)
    portal = make_portal(sandbox)
    portal.connect()
    return portal


def id_in_vault() -> str:
    return clients.vault().read_newest(ID_NAME).value.reveal()


def restart() -> None:
    """Be another process from here on."""
    clients.reset()


def use_another(portal: Portal, settings: Settings, folder: Path) -> Callable[[], object]:
    """Let VAULT_URL name an empty vault. Returns what it holds."""
    restart()
    if vault_secrets.is_azure():
        settings.VAULT_URL = settings.VAULT_URL.replace(VAULT_NAME, "another")
        vaults = portal.sandbox.world.vaults
        return lambda: dict(vaults["global", "another"].secrets) if ("global", "another") in vaults else {}
    other = folder / "other"
    other.mkdir(mode=0o700)
    settings.VAULT_URL = str(other)
    return lambda: list(other.iterdir())


def test_the_first_start_writes_one_id_into_database_and_vault(portal: Portal) -> None:
    row = VaultPairing.objects.get()
    assert id_in_vault() == row.vault_id
    for _ in range(2):
        restart()
        clients.vault()
    assert VaultPairing.objects.get() == row
    assert len(all_versions(portal, ID_NAME)) == 1
    assert AuditEvent.objects.filter(action="vault.paired").count() == 1
    if not vault_secrets.is_azure():  # there the web identity may not List
        assert ID_NAME not in set(clients.inventory().names())


def test_an_empty_vault_in_its_place_is_refused_and_stays_empty(
    portal: Portal, settings: Settings, tmp_path: Path
) -> None:
    content = use_another(portal, settings, tmp_path)
    for _ in range(2):
        with pytest.raises(VaultConfigurationError, match=OTHER):
            clients.vault()
    assert not content()
    assert portal.consent().state == "connected"


def test_the_vault_of_another_database_is_refused(portal: Portal, settings: Settings, tmp_path: Path) -> None:
    use_another(portal, settings, tmp_path)
    PartnerConsent.objects.all().delete()  # it names nothing that could be missed
    foreign = (
        clients._azure_vault("")
        if vault_secrets.is_azure()
        else LocalVault.open(Path(settings.VAULT_URL), Path(settings.VAULT_KEY_FILE))
    )
    foreign.write(ID_NAME, Secret("0" * 32), tags={}, expires_at=None)
    restart()
    with pytest.raises(VaultConfigurationError, match=OTHER):
        clients.vault()
    assert foreign.read_newest(ID_NAME).value.reveal() == "0" * 32


@pytest.mark.req("R-05")
def test_what_is_read_beside_the_id_is_not_given_out_by_the_vault_of_another_database(portal: Portal) -> None:
    consent = portal.consent()
    name, version = SecretName(consent.secret_name), SecretVersion(consent.secret_version)
    VaultPairing.objects.update(vault_id="0" * 32)  # a copy: it holds the same entries, and is not ours
    restart()
    vault = clients._own_vault()  # by which the application's credential is read at the start of a run
    with pytest.raises(VaultConfigurationError, match=OTHER):
        vault.read(name, version)
    with pytest.raises(VaultConfigurationError, match=OTHER):
        vault.read_newest(name)


@EMBEDDED
@pytest.mark.parametrize("also_the_key", [False, True])
def test_a_missing_folder_is_refused_and_not_made(portal: Portal, settings: Settings, also_the_key: bool) -> None:
    folder, key = Path(settings.VAULT_URL), Path(settings.VAULT_KEY_FILE)
    folder.rename(folder.with_name("away"))
    if also_the_key:
        key.unlink()
    restart()
    with pytest.raises(VaultConfigurationError, match="is missing, although tokens were stored in it; mount its disk"):
        clients.vault()
    assert not folder.exists()
    assert key.exists() is not also_the_key


@EMBEDDED
@pytest.mark.req("S-43")
def test_a_missing_key_file_is_refused_and_no_key_is_made(portal: Portal, settings: Settings, tmp_path: Path) -> None:
    use_another(portal, settings, tmp_path)  # an empty folder, as an unmounted disk leaves it
    key = Path(settings.VAULT_KEY_FILE)
    key.unlink()
    with pytest.raises(VaultConfigurationError, match=r"its key file, .*, is missing; restore the key file"):
        clients.vault()
    assert not key.exists()


@pytest.mark.parametrize("lost", ["the row", "the entry", "both"])
def test_a_half_that_is_missing_is_written_again_where_the_vault_holds_what_the_database_names(
    portal: Portal, lost: str
) -> None:
    """An older portal's database, a copy from before the first start, or a process that died between the two."""
    before = id_in_vault()
    if lost in {"the row", "both"}:
        VaultPairing.objects.all().delete()
    if lost in {"the entry", "both"}:
        clients.vault().disable(ID_NAME, SecretVersion(all_versions(portal, ID_NAME)[-1]))
    restart()
    assert id_in_vault() == VaultPairing.objects.get().vault_id
    assert (id_in_vault() == before) is (lost != "both")


@pytest.mark.django_db(transaction=True)
def test_of_several_processes_at_the_first_start_one_decides(settings: Settings, tmp_path: Path) -> None:
    use_local_vault(settings, tmp_path)
    barrier = threading.Barrier(4)
    failures: list[Exception] = []

    def start() -> None:
        vault = LocalVault.open(Path(settings.VAULT_URL), Path(settings.VAULT_KEY_FILE))
        barrier.wait()
        try:
            OwnVault(vault, settings.VAULT_URL).compare()
        except Exception as error:  # noqa: BLE001  # told below
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert id_in_vault() == VaultPairing.objects.get().vault_id
    assert AuditEvent.objects.filter(action="vault.paired").count() == 1


@AT_AZURE
def test_a_vault_that_does_not_answer_at_the_start_stops_no_start(portal: Portal) -> None:
    restart()
    portal.sandbox.world.faults.append(Fault(service="vault", status=503, body="{}", times=1))
    starting.check()
    assert portal.consent().state == "connected"


@AT_AZURE
def test_a_vault_that_did_not_answer_at_the_start_is_compared_before_its_first_use(
    portal: Portal, settings: Settings, tmp_path: Path
) -> None:
    content = use_another(portal, settings, tmp_path)
    portal.sandbox.world.faults.append(Fault(service="vault", path=ID_NAME, status=403, body="{}"))
    starting.check()

    calls = len(portal.sandbox.world.ledger)
    with pytest.raises(VaultConfigurationError, match=OTHER):
        clients.tokens().access_token(
            portal.consent(), Audience.PARTNER_CENTER, by=builders.BY, correlation_id=CorrelationId("c"), fresh=True
        )
    assert not content()
    assert not redemptions(portal, calls)
    assert portal.consent().state == "connected"


@AT_AZURE
def test_of_many_threads_one_asks_for_the_id_and_all_learn_that_it_did_not_come(portal: Portal) -> None:
    restart()
    own, world = clients._own_vault(), portal.sandbox.world
    world.faults.append(Fault(service="vault", path=ID_NAME, status=403, body="{}", times=9, delay=0.3))
    refused: list[AccessDenied] = []

    def ask() -> None:
        with pytest.raises(AccessDenied) as caught:
            own.compare()
        refused.append(caught.value)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 4
    assert world.faults[0].times == 8
    with pytest.raises(AccessDenied):  # and it is asked again
        own.compare()
    assert world.faults[0].times == 7


# --- a run of a process that has just begun -----------------------------------------------------------------------


def redemptions(portal: Portal, after: int) -> list[Any]:
    return [line for line in list(portal.sandbox.world.ledger)[after:] if line.get("grant") == "refresh_token"]


@AT_AZURE
@pytest.mark.req("R-45")
def test_the_vaults_id_is_read_beside_the_listing_and_what_else_all_units_share(portal: Portal) -> None:
    restart()
    world, faults = portal.sandbox.world, portal.sandbox.faults
    world.faults.append(Fault(service="vault", path=ID_NAME, hold=True))
    calls = len(world.ledger)
    beside: list[str] = []
    redeemed: list[Any] = []

    def look() -> None:
        until = time.monotonic() + 3
        while time.monotonic() < until and not ("keys" in beside and beside.count("get") >= 2):
            time.sleep(0.01)
            beside[:] = [line["operation"] for line in list(world.ledger)[calls:]] if faults.holding else []
        redeemed.extend(redemptions(portal, calls))
        faults.release()

    watch = threading.Thread(target=look)
    watch.start()
    done, _ = check()
    watch.join()

    assert classes(done) == {"ok": 1}
    assert "keys" in beside
    assert beside.count("get") in {2, 3}  # id, credential, perhaps a token; they wait for it: see the next test
    assert not redeemed


@pytest.mark.parametrize(("kind", "at_once"), [(TOKEN_CHECK, 16), (TOKEN_CHECK, 1), (CUSTOMER_SYNC, 1)])
def test_a_run_with_another_vault_ends_before_any_token_is_touched(
    portal: Portal, settings: Settings, tmp_path: Path, kind: Kind, at_once: int
) -> None:
    content, before = use_another(portal, settings, tmp_path), vault_secrets.row(portal.consent())
    calls = len(portal.sandbox.world.ledger)
    begun, _ = service.start(kind, scope={}, actor=builders.ACTOR, concurrency=at_once)

    with pytest.raises(VaultConfigurationError, match=OTHER):
        Executor(begun).work()

    assert vault_secrets.row(portal.consent()) == before
    assert not content()
    assert not redemptions(portal, calls)
    assert not begun.items.exclude(state="waiting").exists()
    begun.refresh_from_db()
    assert begun.state == Run.State.OPEN


# --- while the portal runs ----------------------------------------------------------------------------------------


@EMBEDDED
@pytest.mark.req("R-05")
def test_a_disk_that_is_unmounted_while_the_portal_runs_is_a_fault_and_takes_no_new_token(
    portal: Portal, settings: Settings
) -> None:
    consent, vault, folder = portal.consent(), clients.vault(), Path(settings.VAULT_URL)
    folder.rename(folder.with_name("away"))
    folder.mkdir(mode=0o700)  # what lies below the mount

    name, version = SecretName(consent.secret_name), SecretVersion(consent.secret_version)
    for call in (
        lambda: vault.read(name, version),
        lambda: vault.read_newest(name),
        lambda: vault.write(SecretName("rt-" + "0" * 32), Secret("new"), tags={}, expires_at=None),
        vault.check_writable,
    ):
        with pytest.raises(ServerFault, match="its disk is not mounted"):
            call()
    assert list(folder.iterdir()) == []


# --- what stops ---------------------------------------------------------------------------------------------------


@pytest.mark.req("R-33")
@pytest.mark.parametrize("command", ["check_tokens", "sync_customers", "keep_alive", "clean_up", "vault_reconcile"])
def test_a_command_stops_before_its_work_and_blames_no_partner(
    portal: Portal, settings: Settings, tmp_path: Path, command: str
) -> None:
    PartnerConsent.objects.update(next_try_at=timezone.now())  # keep_alive has something to do
    content, before = use_another(portal, settings, tmp_path), vault_secrets.row(portal.consent())
    runs = Run.objects.count()

    ran = run(command)

    assert ran.code == 3
    assert ran.err.count("\n") <= 1
    assert OTHER in ran.err
    assert "no partner has to consent again" in ran.err
    assert vault_secrets.row(portal.consent()) == before
    assert not content()
    assert Run.objects.count() == runs
    assert not Incident.objects.open().exists()


@EMBEDDED
def test_a_worker_does_not_start(portal: Portal, settings: Settings, tmp_path: Path) -> None:
    use_another(portal, settings, tmp_path)
    with pytest.raises(CommandError, match=OTHER) as caught:
        call_command("worker", "--once")
    assert caught.value.returncode == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("command", "who"),
    [
        (["-c", "import portal.wsgi"], "The portal"),
        (
            ["-m", "celery", "-A", "portal.runs.celery", "worker", "--pool", "threads", "--concurrency", "1"],
            "The worker",
        ),
    ],
    ids=["web", "Celery"],
)
def test_a_process_ends_with_one_sentence_and_the_code_that_gunicorn_does_not_repeat(
    settings: Settings, tmp_path: Path, command: list[str], who: str
) -> None:
    use_local_vault(settings, tmp_path)
    VaultPairing.objects.create(pk=1, vault_id="1" * 32)
    LocalVault(tmp_path / "vault", KeyRing.open(tmp_path / "vault-key", create=True)).write(
        ID_NAME, Secret("0" * 32), tags={}, expires_at=None
    )
    ended = subprocess.run(
        [sys.executable, *command],
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "DATABASE_URL": _url(),
            "CELERY_BROKER_URL": "memory://",
            "VAULT_URL": settings.VAULT_URL,
            "VAULT_KEY_FILE": settings.VAULT_KEY_FILE,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(f"{who} does not start: VAULT_URL leads to ")


def _url() -> str:
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    place = f"{database['HOST']}:{database['PORT']}/{database['NAME']}"
    return f"postgres://{database['USER']}:{database['PASSWORD']}@{place}"


# --- the former one is lost for good ------------------------------------------------------------------------------


def test_a_new_vault_is_taken_only_when_it_is_said(portal: Portal, settings: Settings, tmp_path: Path) -> None:
    former = id_in_vault()
    use_another(portal, settings, tmp_path)
    assert run("vault_reconcile", "--new-vault", "--dry-run").code == 2
    restart()

    ran = run("vault_reconcile", "--new-vault")

    assert ran.code == 1
    assert "token_missing" in ran.out
    restart()
    assert id_in_vault() == VaultPairing.objects.get().vault_id != former
    assert AuditEvent.objects.filter(action="vault.replaced").count() == 1
    assert django_settings.VAULT_URL == settings.VAULT_URL
