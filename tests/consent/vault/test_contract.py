"""What every vault does, shown for each: the embedded one, and Azure Key Vault over TLS against the sandbox's.

Covers: consent.vault.base.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent.vault.base import (
    MAX_SECRET_BYTES,
    PROBE_NAME,
    SECRET_VERSION,
    SecretDisabled,
    SecretName,
    SecretTooLarge,
    SecretVersion,
    Vault,
    new_secret_name,
)
from portal.microsoft.errors import InvalidRequest, NotFound, RemoteError
from portal.microsoft.secret import Secret
from tests.consent.vault.key_vault_answers import CANARY

TAGS = {"record": "41", "generation": "7"}
EXPIRES = datetime(2030, 1, 1, 12, 30, 15, 999_999, tzinfo=UTC)
UNKNOWN = SecretVersion("f" * 32)


def write(vault: Vault, name: SecretName, value: str = CANARY) -> SecretVersion:
    return vault.write(name, Secret(value), tags=TAGS, expires_at=EXPIRES)


@pytest.fixture
def name() -> SecretName:
    return new_secret_name()


def test_what_is_written_is_read_with_its_attributes(vault: Vault, name: SecretName) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    version = write(vault, name)
    stored = vault.read(name, version)
    assert (stored.name, stored.version, dict(stored.tags)) == (name, version, TAGS)
    assert stored.value.reveal() == CANARY
    assert stored.expires_at == EXPIRES.replace(microsecond=0)
    assert before <= stored.created_at <= datetime.now(UTC)


def test_tags_and_expiry_may_be_absent_and_the_expiry_may_be_past_or_elsewhere(vault: Vault, name: SecretName) -> None:
    bare = vault.read(name, vault.write(name, Secret("x"), tags={}, expires_at=None))
    assert (dict(bare.tags), bare.expires_at) == ({}, None)
    past = datetime(2020, 1, 1, 7, tzinfo=timezone(timedelta(hours=7)))
    version = vault.write(name, Secret("x"), tags={}, expires_at=past)
    assert vault.read(name, version).expires_at == past


def test_each_write_is_a_new_version_and_the_older_ones_stay(vault: Vault, name: SecretName) -> None:
    versions = [write(vault, name, f"token {number}") for number in range(5)]
    assert len(set(versions)) == 5
    assert all(SECRET_VERSION.fullmatch(version) for version in versions)
    assert [vault.read(name, version).value.reveal() for version in versions] == [f"token {n}" for n in range(5)]


def test_the_newest_version_is_the_one_written_last(vault: Vault, name: SecretName) -> None:
    write(vault, name, "first")
    last = write(vault, name, "last")
    newest = vault.read_newest(name)
    assert (newest.version, newest.value.reveal()) == (last, "last")


@pytest.mark.req("S-42")
def test_a_disabled_version_is_refused_and_the_others_are_read(vault: Vault, name: SecretName) -> None:
    old, new = write(vault, name, "old"), write(vault, name, "new")
    for _ in range(2):
        vault.disable(name, old)
    with pytest.raises(SecretDisabled):
        vault.read(name, old)
    assert vault.read(name, new).value.reveal() == "new"
    assert vault.read_newest(name).version == new


@pytest.mark.req("R-02")
def test_a_newest_version_that_is_disabled_is_not_passed_over(vault: Vault, name: SecretName) -> None:
    write(vault, name, "old")
    vault.disable(name, write(vault, name, "new"))
    with pytest.raises(SecretDisabled):
        vault.read_newest(name)


def test_unknown_secrets_and_versions_are_not_found(vault: Vault, name: SecretName) -> None:
    for call in (
        lambda: vault.read(name, UNKNOWN),
        lambda: vault.read_newest(name),
        lambda: vault.disable(name, UNKNOWN),
    ):
        with pytest.raises(NotFound):
            call()
    write(vault, name)
    for call in (lambda: vault.read(name, UNKNOWN), lambda: vault.disable(name, UNKNOWN)):
        with pytest.raises(NotFound):
            call()


def test_a_version_belongs_to_its_secret(vault: Vault, name: SecretName) -> None:
    other = new_secret_name()
    version = write(vault, name)
    write(vault, other)
    with pytest.raises(NotFound):
        vault.read(other, version)


@pytest.mark.parametrize("size", [1, 1_024, 8_192, 24_999, 25_000])
@pytest.mark.req("R-43")
def test_values_up_to_the_limit_come_back_exactly(vault: Vault, name: SecretName, size: int) -> None:
    value = ("0123456789abcdefghijk" * 1_200)[:size]
    assert vault.read(name, write(vault, name, value)).value.reveal() == value


@pytest.mark.parametrize("value", ["x" * 25_001, "x" * 1_000_000, "é" * 12_501])
@pytest.mark.req("R-43")
def test_a_larger_value_is_refused_and_the_older_one_stays(vault: Vault, name: SecretName, value: str) -> None:
    assert len(value.encode()) > MAX_SECRET_BYTES
    version = write(vault, name, "older")
    with pytest.raises(SecretTooLarge):
        write(vault, name, value)
    assert vault.read_newest(name).version == version


@pytest.mark.req("R-43")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_any_unicode_text_comes_back_exactly(vault: Vault, value: str) -> None:
    name = new_secret_name()
    assert vault.read(name, write(vault, name, value)).value.reveal() == value


@pytest.mark.parametrize("bad", ["", "../x", "a/b", "UPPER", "under_score", "dot.dot", "a" * 128, "name\n", "ünïcode"])
def test_a_name_outside_the_rule_is_refused(vault: Vault, bad: str) -> None:
    for call in (
        lambda: write(vault, SecretName(bad)),
        lambda: vault.read(SecretName(bad), UNKNOWN),
        lambda: vault.read_newest(SecretName(bad)),
        lambda: vault.disable(SecretName(bad), UNKNOWN),
    ):
        with pytest.raises(InvalidRequest):
            call()


def test_the_longest_name_works(vault: Vault, name: SecretName) -> None:
    longest = SecretName((name + "-" + "0" * 127)[:127])
    assert vault.read(longest, write(vault, longest)).value.reveal() == CANARY


@pytest.mark.parametrize("bad", ["", "1", "F" * 32, "f" * 33, "../" + "f" * 29, "f" * 32 + "\n"])
def test_a_version_outside_the_rule_is_refused(vault: Vault, name: SecretName, bad: str) -> None:
    for call in (lambda: vault.read(name, SecretVersion(bad)), lambda: vault.disable(name, SecretVersion(bad))):
        with pytest.raises(InvalidRequest):
            call()


@pytest.mark.parametrize(
    "tags",
    [
        {"partner": "contoso"},
        {"record": "contoso.example"},
        {"record": ""},
        {"generation": "x" * 65},
        {"record": "41", "generation": "7", "upn": "1"},
    ],
)
@pytest.mark.req("S-41")
def test_tags_carry_the_generation_and_the_record_only(vault: Vault, name: SecretName, tags: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="generation"):
        vault.write(name, Secret("x"), tags=tags, expires_at=None)
    with pytest.raises(NotFound):
        vault.read_newest(name)


def test_an_empty_value_a_broken_text_and_a_naive_time_are_refused(vault: Vault, name: SecretName) -> None:
    naive = datetime(2030, 1, 1)  # noqa: DTZ001
    for value, expires in ((Secret(""), None), (Secret("\ud800"), None), (Secret("x"), naive)):
        with pytest.raises(InvalidRequest):
            vault.write(name, value, tags={}, expires_at=expires)


@pytest.mark.req("R-07")
def test_the_write_check_passes_and_changes_no_secret(vault: Vault, name: SecretName) -> None:
    version = write(vault, name)
    for _ in range(3):
        vault.check_writable()
    assert vault.read_newest(name).version == version


@pytest.mark.req("R-07")
def test_the_write_check_makes_no_version_each_time(vault: Vault) -> None:
    def newest() -> str:
        try:
            return vault.read_newest(PROBE_NAME).version
        except NotFound:  # the embedded vault needs none at all
            return ""

    vault.check_writable()
    before = newest()
    vault.check_writable()
    assert newest() == before


@pytest.mark.req("S-31")
def test_no_refusal_shows_the_value(vault: Vault, name: SecretName) -> None:
    for value in (CANARY * 2_000, f"{CANARY}\ud800"):
        with pytest.raises(RemoteError) as caught:
            write(vault, name, value)
        assert CANARY not in f"{caught.value} {caught.value!r} {vars(caught.value)}"
        assert caught.value.__cause__ is None


@pytest.mark.req("S-41")
def test_new_names_are_random_and_fit_the_rule(vault: Vault) -> None:
    names = {new_secret_name() for _ in range(1_000)}
    assert len(names) == 1_000
    write(vault, names.pop())
