"""The doctor's step of the sign-in service of staff, with Entra and with another provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import responses
from pytest_django.fixtures import Settings

from consent.doctor.case import Case
from consent.doctor.staff import look_at_sign_in
from consent.doctor.steps import Result
from portal.microsoft.secret import Secret
from tests.conftest import use_sandbox
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.support import builders, doctor
from tests.support.certificates import pem
from tests.support.id_tokens import KEY, KID, jwk

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-46")]
ISSUER = "https://id.vendor.example/realms/staff"


def look() -> list[tuple[Result, str]]:
    return [(one.result, one.words) for one in look_at_sign_in(Case(actor=builders.ACTOR))]


@pytest.fixture
def other(settings: Settings) -> Iterator[tuple[responses.RequestsMock, dict[str, Any]]]:
    """Another provider than Entra; what its metadata says can be changed."""
    metadata = {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/authorize",
        "token_endpoint": f"{ISSUER}/token",
        "jwks_uri": f"{ISSUER}/keys",
    }
    doctor.staff_sign_in(settings, ISSUER)
    with responses.RequestsMock(assert_all_requests_are_fired=False) as answers:
        answers.get(f"{ISSUER}/.well-known/openid-configuration", json=metadata)
        yield answers, metadata


def test_without_a_service_it_says_so_and_fails_nothing() -> None:
    assert [one for one, _ in look()] == [Result.NOT_SEEN]


def test_entra_with_the_own_tenant_works(sandbox: Sandbox, settings: Settings) -> None:
    use_sandbox(settings, sandbox)
    doctor.staff_sign_in(settings, doctor.entra_of(sandbox, scenarios.vendor_tenant()))
    ((result, words),) = look()
    assert result is Result.WELL, words
    assert "https://portal.localhost/admin/login/callback/" in words


def test_another_provider_works_and_both_documents_are_read_each_time(other: Any) -> None:
    answers, _ = other
    key = jwk(KEY, KID)
    del key["issuer"]
    answers.get(f"{ISSUER}/keys", json={"keys": [key]})
    for _ in range(2):
        assert [one for one, _ in look()] == [Result.WELL]
    assert len(answers.calls) == 4


def test_a_provider_without_a_usable_key_fails(other: Any) -> None:
    answers, _ = other
    answers.get(f"{ISSUER}/keys", json={"keys": [{"kty": "EC", "kid": "1"}]})
    assert [one for one, _ in look()] == [Result.FAILED]


def test_a_provider_that_names_another_issuer_fails(other: Any, settings: Settings) -> None:
    answers, metadata = other
    answers.replace(
        "GET", f"{ISSUER}/.well-known/openid-configuration", json=metadata | {"issuer": "https://id.other.example"}
    )
    assert [one for one, _ in look()] == [Result.FAILED]


def test_a_credential_that_is_no_pair_of_key_and_certificate_fails(other: Any, settings: Settings) -> None:
    settings.STAFF_OIDC_CREDENTIAL = Secret("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----")
    ((result, words),) = look()
    assert result is Result.FAILED
    assert "rubbish" not in words


def test_a_certificate_that_ended_fails(other: Any, settings: Settings) -> None:
    answers, _ = other
    settings.STAFF_OIDC_CREDENTIAL = Secret(pem(days=-1))
    answers.get(f"{ISSUER}/keys", json={"keys": [jwk(KEY, KID) | {"issuer": ISSUER}]})
    assert Result.FAILED in [one for one, _ in look()]
