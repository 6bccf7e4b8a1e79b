"""Changing the embedded vault's key: both keys read, only the new one writes, nothing can be lost."""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from consent import clients
from consent.vault.base import SecretDisabled, SecretName, SecretVersion, VaultConfigurationError, VaultDamaged
from consent.vault.keys import KeyRing
from consent.vault.local import LocalVault
from consent.vault.rotation import RetireRefused, RotationReport, retire, rotate
from portal.audit.models import AuditEvent
from portal.microsoft.secret import Secret
from tests.conftest import use_local_vault
from tests.consent.vault.killing import forking_process, kill
from tests.support import decisions
from tests.support.commands import run

KILL_ROUNDS = int(os.environ.get("ROTATION_KILL_ROUNDS", "10"))  # 50 for the full demonstration of S-44
ITEMS = int(os.environ.get("ROTATION_ITEMS", "120"))  # 1000 for it
TAGS = {"record": "consent-41", "generation": "7"}

type Written = dict[tuple[SecretName, SecretVersion], str]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "vault-key"


def fill(vault: LocalVault, number: int) -> Written:
    """Write so many versions, every third of them disabled."""
    written: Written = {}
    for index in range(number):
        name, value = SecretName(f"rt-{index % (number // 2):032x}"), f"CANARY-{index}"
        version = vault.write(name, Secret(value), tags=TAGS, expires_at=None)
        if index % 3 == 0:
            vault.disable(name, version)
            value = ""
        written[name, version] = value
    return written


def read(vault: LocalVault, name: SecretName, version: SecretVersion) -> str:
    """Return the value; empty for a disabled version, which is decrypted too before it is refused."""
    try:
        stored = vault.read(name, version)
    except SecretDisabled:
        return ""
    assert dict(stored.tags) == TAGS
    return stored.value.reveal()


def assert_all(vault: LocalVault, written: Written) -> None:
    assert {place: read(vault, *place) for place in written} == written


def damaged(sealed: bytes) -> bytes:
    """Return it with another last byte, whatever that was."""
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


def turn(directory: Path, key_file: Path) -> RotationReport:
    return rotate(directory, key_file, progress=lambda done, of: None)


@pytest.mark.req("S-44")
def test_a_rotation_encrypts_everything_anew_and_changes_nothing_else(directory: Path, key_file: Path) -> None:
    written = fill(LocalVault.open(directory, key_file), 20)
    old = KeyRing.open(key_file)

    report = turn(directory, key_file)

    new = KeyRing.open(key_file)
    assert new.ids == [new.primary, old.primary]
    assert (report.items, report.encrypted, report.needing_older, report.damaged) == (20, 20, 0, [])
    assert_all(LocalVault(directory, new), written)
    without_old = retire(directory, key_file)
    assert without_old.older_keys == [old.primary.hex()]
    assert KeyRing.open(key_file).ids == [new.primary]
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert_all(LocalVault.open(directory, key_file), written)
    with pytest.raises(VaultConfigurationError, match="restore the right key file"):
        LocalVault(directory, old)


@pytest.mark.req("S-44")
def test_a_second_run_goes_on_with_the_same_key_and_finds_nothing_to_do(directory: Path, key_file: Path) -> None:
    fill(LocalVault.open(directory, key_file), 6)
    first, second = turn(directory, key_file), turn(directory, key_file)
    assert (second.key, second.encrypted, second.needing_older) == (first.key, 0, 0)


@pytest.mark.req("S-44")
def test_a_process_that_runs_meanwhile_reads_both_keys_and_writes_with_the_new_one(
    directory: Path, key_file: Path
) -> None:
    running = LocalVault.open(directory, key_file)
    written = fill(running, 6)
    turn(directory, key_file)
    assert_all(running, written)
    name, version = SecretName("rt-later"), SecretVersion("")
    version = running.write(name, Secret("later"), tags=TAGS, expires_at=None)
    assert running.key_id(name, version) == KeyRing.open(key_file).primary
    retire(directory, key_file)
    assert_all(running, written | {(name, version): "later"})


@pytest.mark.req("S-44")
def test_a_process_that_slept_through_a_whole_rotation_wakes_with_the_new_key(directory: Path, key_file: Path) -> None:
    sleeper, writer = LocalVault.open(directory, key_file), LocalVault.open(directory, key_file)
    written = fill(writer, 6)
    sleeper.write(SecretName("rt-sleeper"), Secret("x"), tags=TAGS, expires_at=None)
    turn(directory, key_file)
    retire(directory, key_file)
    version = sleeper.write(SecretName("rt-sleeper"), Secret("awake"), tags=TAGS, expires_at=None)
    assert sleeper.key_id(SecretName("rt-sleeper"), version) == KeyRing.open(key_file).primary
    assert_all(sleeper, written)


@pytest.mark.req("S-44")
def test_a_running_process_does_not_take_up_a_key_file_that_knows_none_of_its_keys(
    directory: Path, key_file: Path, tmp_path: Path
) -> None:
    running = LocalVault.open(directory, key_file)
    written = fill(running, 4)
    for content in (KeyRing.open(tmp_path / "other", create=True), "no key at all"):
        key_file.write_text((tmp_path / "other").read_text() if isinstance(content, KeyRing) else content)
        version = running.write(SecretName("rt-x"), Secret("x"), tags=TAGS, expires_at=None)
        assert running.key_id(SecretName("rt-x"), version) == running.key_id(*next(iter(written)))
    assert_all(running, written)


@pytest.mark.req("S-44")
def test_the_old_key_is_not_given_up_while_anything_needs_it(directory: Path, key_file: Path) -> None:
    vault = LocalVault.open(directory, key_file)
    written = fill(vault, 6)
    KeyRing.open(key_file).save(key_file, with_new_key=True)
    before = key_file.read_bytes()
    with pytest.raises(RetireRefused, match="6 of 6 stored versions"):
        retire(directory, key_file)
    assert key_file.read_bytes() == before

    (name, version), *_ = written
    path = directory / name / version
    path.write_bytes(damaged(path.read_bytes()))
    report = turn(directory, key_file)
    assert (report.encrypted, report.needing_older) == (5, 1)
    assert report.damaged[0].startswith(f"{name}/{version}: ")
    with pytest.raises(RetireRefused, match="1 of 6"):
        retire(directory, key_file)


@pytest.mark.req("S-44")
def test_an_item_is_not_replaced_by_one_that_does_not_read(
    directory: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = LocalVault.open(directory, key_file)
    written = fill(vault, 2)
    seal = LocalVault._seal
    monkeypatch.setattr(LocalVault, "_seal", lambda *arguments: damaged(seal(*arguments)))
    for place in written:
        with pytest.raises(VaultDamaged):
            vault.reseal(*place)
    monkeypatch.undo()
    assert_all(vault, written)


@pytest.mark.req("S-44")
def test_two_rotations_do_not_run_at_once(directory: Path, key_file: Path) -> None:
    fill(LocalVault.open(directory, key_file), 2)
    descriptor = os.open(directory, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(VaultConfigurationError, match="Another rotation"):
        turn(directory, key_file)
    os.close(descriptor)
    turn(directory, key_file)


@pytest.mark.req("S-44")
def test_only_the_vaults_own_user_may_rotate(directory: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(LocalVault.open(directory, key_file), 2)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    before = key_file.read_bytes()
    with pytest.raises(VaultConfigurationError, match="belongs to another user"):
        turn(directory, key_file)
    assert key_file.read_bytes() == before


@pytest.mark.req("S-44")
def test_a_key_file_that_cannot_be_replaced_is_told_and_nothing_is_encrypted(
    directory: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = fill(LocalVault.open(directory, key_file), 2)
    before = key_file.read_bytes()

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(VaultConfigurationError, match="cannot be replaced: Permission denied; it is unchanged"):
            turn(directory, key_file)
    assert key_file.read_bytes() == before
    assert_all(LocalVault.open(directory, key_file), written)


@pytest.mark.req("S-44")
def test_whenever_a_rotation_is_killed_everything_reads_and_the_next_run_goes_on(
    directory: Path, key_file: Path
) -> None:
    running = LocalVault.open(directory, key_file)
    written = fill(running, ITEMS)
    names = list(written)
    moments = random.Random(44)
    whole = time.monotonic()
    turn(directory, key_file)
    whole = time.monotonic() - whole
    retire(directory, key_file)
    retired = 0
    with forking_process("rotators", directory, key_file) as fork:
        for _ in range(KILL_ROUNDS):
            child = fork()
            until = time.monotonic() + moments.uniform(0, whole * 0.6)
            while time.monotonic() < until:
                place = moments.choice(names)
                assert read(running, *place) == written[place]
            kill(child)
            assert len(KeyRing.open(key_file).ids) <= 2
            fresh = LocalVault.open(directory, key_file)
            for place in moments.sample(names, 20):
                assert read(fresh, *place) == written[place]
            needing = sum(fresh.key_id(*place) != KeyRing.open(key_file).primary for place in written)
            if needing:
                with pytest.raises(RetireRefused, match=f"{needing} of {ITEMS}"):
                    retire(directory, key_file)
            else:
                retire(directory, key_file)
                retired += 1
    report = turn(directory, key_file)
    assert (report.items, report.needing_older, report.damaged) == (ITEMS, 0, [])
    retire(directory, key_file)
    assert_all(LocalVault.open(directory, key_file), written)
    assert_all(running, written)
    assert [path.name for path in key_file.parent.iterdir() if "vault-key" in path.name] == ["vault-key"]
    assert list(directory.rglob("*.tmp")) == []
    assert retired < KILL_ROUNDS


# --- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.req("S-43")
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path, other: path.write_bytes(path.read_bytes()[:10]), "cut or too large"),
        (lambda path, other: path.write_bytes(damaged(path.read_bytes())), "damaged or was encrypted with another"),
        (lambda path, other: path.write_bytes(b"x" * 200), "damaged"),
        (lambda path, other: path.write_bytes(other.read_bytes()), "it was moved or swapped"),
        (
            lambda path, other: path.write_bytes(path.read_bytes()[:6] + b"\1" * 8 + path.read_bytes()[14:]),
            "needs the key 0101010101010101, which is not in the key file",
        ),
    ],
    ids=["cut", "changed", "noise", "swapped", "no key"],
)
def test_a_damaged_version_is_named_with_what_is_wrong(
    directory: Path, key_file: Path, harm: Callable[[Path, Path], object], words: str
) -> None:
    vault = LocalVault.open(directory, key_file)
    first, second = (SecretName(f"rt-{letter * 32}") for letter in "ab")
    versions = [vault.write(name, Secret("CANARY"), tags=TAGS, expires_at=None) for name in (first, second)]
    harm(directory / first / versions[0], directory / second / versions[1])
    (info,) = vault.versions(first)
    assert words in info.damage
    assert (info.enabled, dict(info.tags)) == (False, {})
    if words.endswith("swapped"):
        assert f"{second}/{versions[1]}" in info.damage
    assert vault.versions(second)[0].damage == ""
    assert "CANARY" not in info.damage


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def vault(db: None, settings: Settings, tmp_path: Path) -> LocalVault:
    use_local_vault(settings, tmp_path)
    vault = clients.inventory()
    assert isinstance(vault, LocalVault)
    return vault


@pytest.mark.req("S-50")
def test_the_command_rotates_and_retires_and_says_what_to_do_with_the_old_key(
    vault: LocalVault, settings: Settings
) -> None:
    written = fill(vault, 4)
    first = run("rotate_vault_key")
    assert first.code == 0
    assert "5 of 5 versions encrypted anew" in first.out  # the vault's id is the fifth
    assert "Back up the key file now" in first.out
    unasked = run("rotate_vault_key", "--retire")
    assert (unasked.code, "Say why with --why" in unasked.err) == (2, True)
    waits = run("rotate_vault_key", "--retire", "--why", "Rotated a week ago.")
    assert (waits.code, "nothing was done yet. A second person decides until" in waits.err) == (1, True)
    assert len(KeyRing.open(Path(settings.VAULT_KEY_FILE)).ids) == 2
    decisions.approve()
    second = run("rotate_vault_key", "--retire")
    assert second.code == 0
    assert "Backups of the vault that were made before the rotation still need the old key" in second.out
    assert_all(vault, written)
    assert [event.action for event in AuditEvent.objects.order_by("sequence")] == [
        "vault.paired",
        "vault.key_rotated",
        "decision.asked",
        "decision.approved",
        "decision.done",
        "vault.key_retired",
    ]
    again = run("rotate_vault_key", "--json")
    assert '"encrypted": 5' in again.out
    assert "CANARY" not in first.out + second.out + again.out + first.err + second.err + again.err


def test_the_command_ends_with_1_while_something_needs_the_old_key(vault: LocalVault, settings: Settings) -> None:
    written = fill(vault, 4)
    assert run("rotate_vault_key").code == 0
    (name, version), *_ = written
    path = Path(settings.VAULT_URL) / name / version
    path.write_bytes(damaged(path.read_bytes()))
    ran = run("rotate_vault_key")
    assert ran.code == 1
    assert f"damaged  {name}/{version}: " in ran.out
    KeyRing.open(Path(settings.VAULT_KEY_FILE)).save(Path(settings.VAULT_KEY_FILE), with_new_key=True)
    refused = run("rotate_vault_key", "--retire")
    assert refused.code == 1
    assert "still need an older key; nothing was changed" in refused.err


def test_the_command_says_that_key_vault_and_a_vault_without_its_key_are_not_for_it(
    vault: LocalVault, settings: Settings
) -> None:
    fill(vault, 2)
    Path(settings.VAULT_KEY_FILE).unlink()
    ran = run("rotate_vault_key")
    assert ran.code == 3
    assert "restore the key file from its backup" in ran.err
    settings.VAULT_URL = "https://example.vault.azure.net"
    ran = run("rotate_vault_key")
    assert ran.code == 2
    assert "nothing to rotate" in ran.err
