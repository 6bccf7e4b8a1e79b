"""The embedded vault: encryption, files, crashes. What every vault does is in test_contract.py."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from consent.vault.base import SecretDisabled, SecretName, SecretVersion, VaultConfigurationError, VaultDamaged
from consent.vault.keys import KeyRing
from consent.vault.local import LocalVault
from portal.microsoft.errors import AccessDenied, NotFound, RemoteError, ServerFault
from portal.microsoft.secret import Secret
from tests.consent.vault.conftest import FIRST_KEY, SECOND_KEY
from tests.consent.vault.key_vault_answers import CANARY
from tests.consent.vault.killing import forking_process, kill
from tests.consent.vault.writers import NAME as KILLED_NAME
from tests.consent.vault.writers import value_of

NAME = SecretName("rt-one")
OTHER = SecretName("rt-two")
KILL_ROUNDS = int(os.environ.get("VAULT_KILL_ROUNDS", "30"))  # 500 for the full demonstration of R-39


def write(vault: LocalVault, value: str = CANARY, name: SecretName = NAME) -> SecretVersion:
    return vault.write(
        name,
        Secret(value),
        tags={"record": "41", "generation": "7"},
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    )


def read(vault: LocalVault, version: SecretVersion, name: SecretName = NAME) -> str:
    return vault.read(name, version).value.reveal()


def all_bytes(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


# --- encryption ---------------------------------------------------------------------------------------------------


@pytest.mark.req("S-43")
def test_every_changed_byte_is_damage(local_vault: LocalVault, directory: Path) -> None:
    version = write(local_vault)
    path = directory / NAME / version
    envelope = path.read_bytes()
    for position in range(len(envelope)):
        for change in (0x01, 0x20, 0x80):
            changed = bytearray(envelope)
            changed[position] ^= change
            path.write_bytes(changed)
            with pytest.raises(VaultDamaged):
                local_vault.read(NAME, version)
            with pytest.raises(VaultDamaged):
                local_vault.read_newest(NAME)
    path.write_bytes(envelope)
    assert read(local_vault, version) == CANARY


@pytest.mark.req("S-43")
def test_every_cut_and_every_addition_is_damage(local_vault: LocalVault, directory: Path) -> None:
    version = write(local_vault)
    path = directory / NAME / version
    envelope = path.read_bytes()
    for length in range(len(envelope)):
        path.write_bytes(envelope[:length])
        with pytest.raises(VaultDamaged):
            local_vault.read(NAME, version)
    for addition in (b"\0", bytes(100_000)):
        path.write_bytes(envelope + addition)
        with pytest.raises(VaultDamaged):
            local_vault.read(NAME, version)


@pytest.mark.req("S-43")
def test_files_of_two_secrets_cannot_be_swapped(local_vault: LocalVault, directory: Path) -> None:
    one, two = write(local_vault), write(local_vault, name=OTHER)
    first, second = directory / NAME / one, directory / OTHER / two
    envelope = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(envelope)
    for name, version in ((NAME, one), (OTHER, two)):
        with pytest.raises(VaultDamaged):
            local_vault.read(name, version)


@pytest.mark.req("S-43")
def test_a_file_does_not_read_as_another_secret_of_the_same_version(local_vault: LocalVault, directory: Path) -> None:
    version = write(local_vault)
    write(local_vault, name=OTHER)
    shutil.copy(directory / NAME / version, directory / OTHER / version)
    with pytest.raises(VaultDamaged):
        local_vault.read(OTHER, version)


@pytest.mark.req("S-43")
def test_an_old_version_cannot_take_the_place_of_the_newest(local_vault: LocalVault, directory: Path) -> None:
    old, new = write(local_vault, "old"), write(local_vault, "new")
    (directory / NAME / old).rename(directory / NAME / new)
    with pytest.raises(VaultDamaged):
        local_vault.read_newest(NAME)


@pytest.mark.req("S-43")
def test_two_writes_of_one_value_differ_and_show_nothing(local_vault: LocalVault, directory: Path) -> None:
    one, two = write(local_vault), write(local_vault)
    first, second = ((directory / NAME / version).read_bytes() for version in (one, two))
    assert first[-60:] != second[-60:]
    assert CANARY.encode() not in all_bytes(directory)


@pytest.mark.req("S-43")
def test_a_foreign_key_is_damage_and_never_an_absent_secret(directory: Path) -> None:
    foreign = LocalVault(directory, KeyRing([SECOND_KEY]))
    version = write(LocalVault(directory, KeyRing([FIRST_KEY])))
    with pytest.raises(VaultDamaged) as caught:
        foreign.read(NAME, version)
    assert "which is not in the key file" in str(caught.value)


@pytest.mark.req("S-43")
def test_a_vault_does_not_open_with_the_wrong_key_file(directory: Path) -> None:
    write(LocalVault(directory, KeyRing([FIRST_KEY])))
    with pytest.raises(VaultConfigurationError, match="restore the right key file"):
        LocalVault(directory, KeyRing([SECOND_KEY]))


@pytest.mark.req("S-44")
def test_older_keys_read_and_only_the_first_one_writes(directory: Path) -> None:
    before = write(LocalVault(directory, KeyRing([FIRST_KEY])))
    both = LocalVault(directory, KeyRing([SECOND_KEY, FIRST_KEY]))
    after = write(both, "newer")
    assert read(both, before) == CANARY
    (directory / NAME / before).unlink()
    assert read(LocalVault(directory, KeyRing([SECOND_KEY])), after) == "newer"


@pytest.mark.req("S-43")
def test_a_disabled_version_is_sealed_again_with_its_attributes(local_vault: LocalVault, directory: Path) -> None:
    version = write(local_vault)
    path = directory / NAME / version
    enabled = path.read_bytes()
    local_vault.disable(NAME, version)
    disabled = path.read_bytes()
    assert b'"enabled":false' in disabled
    path.write_bytes(disabled.replace(b'"enabled":false', b'"enabled":true'))
    with pytest.raises(VaultDamaged):
        local_vault.read(NAME, version)
    assert enabled[-30:] != disabled[-30:]


def test_disabling_a_damaged_version_says_so_and_changes_nothing(local_vault: LocalVault, directory: Path) -> None:
    version = write(local_vault)
    path = directory / NAME / version
    path.write_bytes(path.read_bytes()[:-1])
    damaged = path.read_bytes()
    with pytest.raises(VaultDamaged):
        local_vault.disable(NAME, version)
    assert path.read_bytes() == damaged


# --- versions and files -------------------------------------------------------------------------------------------


@pytest.mark.req("R-42")
def test_the_newest_version_does_not_depend_on_the_clock(local_vault: LocalVault) -> None:
    with time_machine.travel(datetime(2031, 5, 1, tzinfo=UTC)) as clock:
        write(local_vault, "first")
        clock.shift(timedelta(days=-900))
        write(local_vault, "second")
        assert local_vault.read_newest(NAME).value.reveal() == "second"


def test_a_newest_version_that_is_disabled_is_not_passed_over(local_vault: LocalVault) -> None:
    write(local_vault, "first")
    local_vault.disable(NAME, write(local_vault, "second"))
    with pytest.raises(SecretDisabled):
        local_vault.read_newest(NAME)


# --- what was switched off long ago ---------------------------------------------------------------------------------

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=31)
BEFORE = NOW - timedelta(days=30)


def old_version(
    vault: LocalVault, directory: Path, *, enabled: bool = False, off: datetime = LONG_AGO
) -> SecretVersion:
    """Write a version 40 days ago, which was last changed, by being switched off, at ``off``."""
    with time_machine.travel(NOW - timedelta(days=40), tick=False):
        version = write(vault, "old")
    if not enabled:
        vault.disable(NAME, version)
    os.utime(directory / NAME / version, (off.timestamp(), off.timestamp()))
    return version


@pytest.mark.req("S-42")
def test_only_what_was_switched_off_long_ago_and_is_not_named_is_removed(
    local_vault: LocalVault, directory: Path
) -> None:
    gone = [old_version(local_vault, directory) for _ in range(3)]
    enabled = old_version(local_vault, directory, enabled=True)
    lately_off = old_version(local_vault, directory, off=NOW - timedelta(days=29))
    named = old_version(local_vault, directory)
    damaged = old_version(local_vault, directory)
    (directory / NAME / damaged).write_bytes(b"cut")
    os.utime(directory / NAME / damaged, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))
    newest = old_version(local_vault, directory)
    entries: list[None] = []

    assert local_vault.prune(BEFORE, {named}, lambda: entries.append(None)) == 3

    left = {each.version for each in local_vault.versions(NAME)}
    assert left == {enabled, lately_off, named, damaged, newest}
    assert not left & set(gone)
    assert entries == [None]
    assert local_vault.prune(BEFORE, {named}) == 0
    assert write(local_vault) > newest, "versions go on counting"


def test_a_version_that_was_copied_or_sealed_anew_is_kept_for_longer(local_vault: LocalVault, directory: Path) -> None:
    version = old_version(local_vault, directory)
    write(local_vault)
    local_vault.reseal(NAME, version)
    assert local_vault.prune(BEFORE, set()) == 0


@pytest.mark.req("S-42")
def test_pruning_that_is_cut_off_leaves_whole_versions_and_is_begun_again(
    local_vault: LocalVault, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = [old_version(local_vault, directory) for _ in range(4)]
    unlink = Path.unlink
    removed: list[str] = []

    def dies_at_the_third(path: Path, **options: bool) -> None:
        if len(removed) == 2:
            raise KeyboardInterrupt
        unlink(path, **options)
        removed.append(path.name)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            local_vault.prune(BEFORE, set())
    assert [each.damage for each in local_vault.versions(NAME)] == ["", ""]
    assert local_vault.prune(BEFORE, set()) == 1
    assert [each.version for each in local_vault.versions(NAME)] == versions[-1:]


@pytest.mark.req("S-43")
def test_directories_and_files_are_private(local_vault: LocalVault, directory: Path) -> None:
    mask = os.umask(0)
    try:
        write(local_vault)
        local_vault.check_writable()
    finally:
        os.umask(mask)
    for path in (directory, *directory.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_directory_open_to_others_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o750)
    with pytest.raises(VaultConfigurationError, match="chmod 700"):
        LocalVault(directory, KeyRing([FIRST_KEY]))


def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VaultConfigurationError, match="cannot be used"):
        LocalVault(tmp_path / "file" / "vault", KeyRing([FIRST_KEY]))


@pytest.mark.req("S-43")
def test_a_vanished_directory_is_a_fault_and_not_an_absent_secret(local_vault: LocalVault, directory: Path) -> None:
    version = write(local_vault)
    shutil.rmtree(directory)
    for call in (
        lambda: local_vault.read(NAME, version),
        lambda: local_vault.read_newest(NAME),
        lambda: local_vault.disable(NAME, version),
        lambda: write(local_vault),
        local_vault.check_writable,
    ):
        with pytest.raises(ServerFault):
            call()
    assert not directory.exists()


@pytest.mark.parametrize("name", ["../rt-two", "..", ".", "", "/etc/passwd", "rt/one", "RT-ONE", "rt-one\n", "a" * 128])
@pytest.mark.req("S-36")
def test_no_name_leads_out_of_the_vault(local_vault: LocalVault, directory: Path, name: str) -> None:
    before = sorted(directory.parent.rglob("*"))
    version = SecretVersion("0" * 32)
    for call in (
        lambda: write(local_vault, name=SecretName(name)),
        lambda: local_vault.read(SecretName(name), version),
        lambda: local_vault.read_newest(SecretName(name)),
        lambda: local_vault.disable(SecretName(name), version),
    ):
        with pytest.raises(RemoteError) as caught:
            call()
        assert not isinstance(caught.value, NotFound)
    assert sorted(directory.parent.rglob("*")) == before


# --- writers at the same time, crashes, full disks ----------------------------------------------------------------


@pytest.mark.req("R-39")
def test_threads_that_write_one_secret_do_not_disturb_each_other(directory: Path) -> None:
    def write_some(number: int) -> list[tuple[SecretVersion, str]]:
        vault = LocalVault(directory, KeyRing([FIRST_KEY]))
        return [(write(vault, f"{number}-{turn}"), f"{number}-{turn}") for turn in range(10)]

    with ThreadPoolExecutor(8) as pool:
        written = [pair for pairs in pool.map(write_some, range(8)) for pair in pairs]
    vault = LocalVault(directory, KeyRing([FIRST_KEY]))
    assert {version: read(vault, version) for version, _ in written} == dict(written)
    assert len({version[:8] for version, _ in written}) == 80
    assert vault.read_newest(NAME).version == max(version for version, _ in written)


@pytest.mark.req("R-39")
def test_opening_the_vault_leaves_a_running_write_alone(
    local_vault: LocalVault, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(local_vault)
    opening = threading.Thread(target=LocalVault, args=(directory, KeyRing([FIRST_KEY])))
    fsync = os.fsync

    def open_meanwhile(descriptor: int) -> None:
        if opening.ident is None:
            opening.start()
            opening.join(0.2)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", open_meanwhile)
    version = write(local_vault, "during")
    opening.join(5)
    assert not opening.is_alive()
    assert read(local_vault, version) == "during"


@pytest.mark.req("R-39")
def test_a_leftover_of_a_killed_writer_is_ciphertext_and_is_cleaned(
    local_vault: LocalVault, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def die(self: Path, target: Path) -> None:
        raise KilledError

    version = write(local_vault, "before")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(KilledError):
            write(local_vault)
    leftovers = list(directory.rglob("*.tmp"))
    assert len(leftovers) == 1
    assert CANARY.encode() not in leftovers[0].read_bytes()

    vault = LocalVault(directory, KeyRing([FIRST_KEY]))
    assert list(directory.rglob("*.tmp")) == []
    assert vault.read_newest(NAME).version == version


@pytest.mark.req("R-39")
def test_readers_see_whole_versions_whenever_two_writers_are_killed(tmp_path: Path, directory: Path) -> None:
    key_file = tmp_path / "key"
    vault = LocalVault.open(directory, key_file)
    moments = random.Random(39)
    reads = 0
    with forking_process("writers", directory, key_file) as fork:
        for _ in range(KILL_ROUNDS):
            writers = [fork(), fork()]
            until = time.monotonic() + moments.uniform(0.005, 0.08)
            while time.monotonic() < until:
                try:
                    newest = vault.read_newest(KILLED_NAME)
                except (NotFound, SecretDisabled):
                    continue
                assert newest.value.reveal() == value_of(int(newest.tags["generation"]))
                reads += 1
            for writer in writers:
                kill(writer)
            for leftover in directory.rglob("*.tmp"):
                assert b"CANARY" not in leftover.read_bytes()
    vault = LocalVault.open(directory, key_file)
    assert list(directory.rglob("*.tmp")) == []
    enabled = 0
    for entry in (directory / KILLED_NAME).iterdir():
        try:
            whole = vault.read(KILLED_NAME, SecretVersion(entry.name))
        except SecretDisabled:  # decrypted too: the flag is believed only after the tag was right
            continue
        assert whole.value.reveal() == value_of(int(whole.tags["generation"]))
        enabled += 1
    assert enabled
    assert reads


@pytest.mark.parametrize(
    ("number", "kind", "sentence"),
    [
        (errno.ENOSPC, ServerFault, "The vault's disk is full"),
        (errno.EDQUOT, ServerFault, "The vault's disk is full"),
        (errno.EFBIG, ServerFault, "The vault's disk is full"),
        (errno.EIO, ServerFault, "The vault's disk has a fault"),
        (errno.EROFS, AccessDenied, "The system does not let us use the vault's files"),
        (errno.EACCES, AccessDenied, "The system does not let us use the vault's files"),
    ],
)
@pytest.mark.req("R-38")
def test_a_fault_of_the_disk_is_one_clear_error_and_older_versions_stay(
    local_vault: LocalVault,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[RemoteError],
    sentence: str,
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    version = write(local_vault, "older")
    files = sorted(directory.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        for call in (lambda: write(local_vault), lambda: local_vault.disable(NAME, version)):
            with pytest.raises(kind) as caught:
                call()
            assert sentence in str(caught.value)
            assert errno.errorcode[number] in str(caught.value)
        assert read(local_vault, version) == "older"
    assert sorted(directory.rglob("*")) == files
    assert read(local_vault, write(local_vault, "newer")) == "newer"


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.req("R-38")
@pytest.mark.req("R-07")
def test_writes_that_do_not_fit_fail_cleanly_and_the_check_sees_it_before(
    local_vault: LocalVault, directory: Path
) -> None:
    version = write(local_vault, "older")
    failures: list[RemoteError] = []
    with file_size_limit(2_000):
        with pytest.raises(ServerFault):
            local_vault.check_writable()
        for _ in range(200):
            try:
                write(local_vault, "y" * 3_000)
            except RemoteError as error:
                failures.append(error)
    assert [type(failure) for failure in failures] == [ServerFault] * 200
    assert list(directory.rglob("*.tmp")) == []
    local_vault.check_writable()
    assert read(local_vault, version) == "older"
    assert read(local_vault, write(local_vault, "y" * 3_000)) == "y" * 3_000


@pytest.mark.req("R-38")
def test_a_vault_on_a_disk_that_cannot_be_written_still_reads(
    local_vault: LocalVault, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = write(local_vault)
    (directory / NAME / "half.tmp").write_bytes(b"half")

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert read(LocalVault(directory, KeyRing([FIRST_KEY])), version) == CANARY


@pytest.mark.req("R-07")
def test_the_write_check_leaves_one_file_and_no_version(local_vault: LocalVault, directory: Path) -> None:
    local_vault.check_writable()
    before = sorted(directory.rglob("*"))
    local_vault.check_writable()
    assert sorted(directory.rglob("*")) == before
    with pytest.raises(NotFound):
        local_vault.read_newest(SecretName("portal-write-probe"))
