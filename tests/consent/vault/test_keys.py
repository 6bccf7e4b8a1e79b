"""The key file of the embedded vault.

Covers: consent.vault.private_files.
"""

from __future__ import annotations

import base64
import copy
import pickle
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from consent.vault.base import SecretName, VaultConfigurationError
from consent.vault.keys import KeyRing
from consent.vault.local import LocalVault
from portal.microsoft.secret import Secret
from tests.consent.vault.conftest import FIRST_KEY, SECOND_KEY

NAME = SecretName("rt-one")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "vault-key"


def put(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def line(key: bytes) -> bytes:
    return base64.b64encode(key) + b"\n"


@pytest.mark.req("S-43")
def test_the_first_start_makes_a_private_key_file_and_the_second_uses_it(directory: Path, key_file: Path) -> None:
    vault = LocalVault.open(directory, key_file)
    version = vault.write(NAME, Secret("token"), tags={}, expires_at=None)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    assert [path.name for path in key_file.parent.iterdir()] == ["vault-key"]
    assert LocalVault.open(directory, key_file).read(NAME, version).value.reveal() == "token"


@pytest.mark.req("S-43")
def test_no_new_key_is_made_while_data_exists(directory: Path, key_file: Path) -> None:
    LocalVault.open(directory, key_file).write(NAME, Secret("token"), tags={}, expires_at=None)
    key_file.unlink()
    with pytest.raises(VaultConfigurationError) as caught:
        LocalVault.open(directory, key_file)
    assert str(key_file) in str(caught.value)
    assert "restore the key file from its backup" in str(caught.value)
    assert not key_file.exists()


def test_a_first_start_that_stored_nothing_may_start_again_without_a_key(directory: Path, key_file: Path) -> None:
    LocalVault.open(directory, key_file).check_writable()
    key_file.unlink()
    LocalVault.open(directory, key_file)


@pytest.mark.req("S-43")
def test_of_many_first_starts_at_once_one_makes_the_key(directory: Path, key_file: Path) -> None:
    barrier = Barrier(8)

    def start(_: int) -> bytes:
        barrier.wait()
        return KeyRing.open(key_file, create=True).primary

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(8)))) == 1
    assert [path.name for path in key_file.parent.iterdir()] == ["vault-key"]


@pytest.mark.parametrize("size", [0, 1, 16, 31, 33, 64])
@pytest.mark.req("S-43")
def test_a_key_of_another_length_is_refused(key_file: Path, size: int) -> None:
    put(key_file, b"# keys\n" + line(bytes(size)))
    with pytest.raises(VaultConfigurationError, match="32" if size else "no key") as caught:
        KeyRing.open(key_file)
    assert str(key_file) in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o644])
@pytest.mark.req("S-43")
def test_a_key_file_open_to_others_is_refused(key_file: Path, mode: int) -> None:
    put(key_file, line(FIRST_KEY), mode)
    with pytest.raises(VaultConfigurationError, match="chmod 600"):
        KeyRing.open(key_file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n# nothing but remarks\n",
        b"not base64!\n",
        "schlüssel".encode(),
        b"\xff\xfe\x00",
        line(FIRST_KEY) * 2,
        line(FIRST_KEY)[:-3] + b"\n",
        FIRST_KEY,
        b"#" * 200_000,
    ],
)
@pytest.mark.req("S-43")
def test_what_is_not_a_key_file_is_refused_without_showing_it(key_file: Path, content: bytes) -> None:
    put(key_file, content)
    with pytest.raises(VaultConfigurationError) as caught:
        KeyRing.open(key_file)
    assert str(key_file) in str(caught.value)
    assert line(FIRST_KEY).decode()[:8] not in str(caught.value)


def test_a_missing_key_file_and_a_directory_in_its_place_are_refused(key_file: Path) -> None:
    with pytest.raises(VaultConfigurationError, match="does not exist"):
        KeyRing.open(key_file)
    key_file.mkdir(parents=True)
    with pytest.raises(VaultConfigurationError, match=str(key_file)):
        KeyRing.open(key_file)


def test_a_key_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VaultConfigurationError, match="cannot be made"):
        KeyRing.open(tmp_path / "file" / "key", create=True)


@pytest.mark.req("S-44")
def test_a_key_file_holds_several_keys_and_remarks_and_the_first_key_is_the_primary(key_file: Path) -> None:
    put(key_file, b"# new\r\n" + line(SECOND_KEY) + b"\n# old\n  " + line(FIRST_KEY))
    ring = KeyRing.open(key_file)
    assert ring.primary == KeyRing([SECOND_KEY]).primary
    assert KeyRing([FIRST_KEY]).primary in ring


@pytest.mark.req("S-43")
def test_a_secret_key_that_is_a_vault_key_is_noticed_in_every_spelling() -> None:
    ring = KeyRing([SECOND_KEY, FIRST_KEY])
    encoded = base64.b64encode(FIRST_KEY).decode()
    for text in (encoded, encoded.rstrip("="), f" {encoded}\n", FIRST_KEY.hex(), FIRST_KEY.hex().upper()):
        assert ring.holds(text), text
    assert KeyRing([b"an ASCII secret of thirty-two bt"]).holds("an ASCII secret of thirty-two bt")
    assert not ring.holds("django-insecure-something-else-entirely")
    assert not ring.holds("")


@pytest.mark.req("S-31")
def test_a_key_ring_shows_and_gives_away_no_key() -> None:
    ring = KeyRing([FIRST_KEY])
    for text in (repr(ring), str(ring), f"{ring}", repr(vars(ring))):
        assert line(FIRST_KEY).decode()[:12] not in text
        assert FIRST_KEY.hex()[:12] not in text
        assert repr(FIRST_KEY)[2:20] not in text
    with pytest.raises(TypeError):
        pickle.dumps(ring)
    with pytest.raises(TypeError):
        copy.deepcopy(ring)
