"""Each known answer of Partner Center, Graph and the vaults goes over the wire and comes out as the right sentence."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from consent.microsoft.application_consents import ApplicationConsentClient
from consent.microsoft.directory import DirectoryClient
from consent.vault.azure import IDENTITY_REFUSED, NO_MANAGED_IDENTITY, open_azure_vault
from consent.vault.azure_keys import KEY_DENIED
from consent.vault.base import NameBlocked, SecretDisabled, SecretTooLarge, VaultDamaged
from consent.vault.keys import KeyRing
from consent.vault.local import LocalVault
from portal.microsoft import errors
from portal.microsoft.api import RetryPolicy
from portal.microsoft.clouds import GLOBAL
from portal.microsoft.diagnosis import (
    FailureClass,
    Owner,
    diagnose,
    diagnose_api_error,
    entra,
    rows,
    services,
)
from portal.microsoft.errors import NotSent, RemoteError
from portal.microsoft.http import GuardedSession
from portal.microsoft.identifiers import ApplicationId, CorrelationId, RequestId, TenantId
from portal.microsoft.secret import Secret
from tenants.partner_center import PartnerCenterClient
from tests.consent.vault.key_vault_answers import NAME, VERSION, Answering, FixedCredential, write
from tests.support.entra_answers import PRIVATE
from tests.support.sentences import check_words, is_plain_sentence

TENANT = TenantId("6a1f0c52-9d3b-4e7a-8c21-5b0d9e4f7a10")
APPLICATION = ApplicationId("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
CORRELATION = CorrelationId("a2f3c4d5-6e7f-4081-92a3-b4c5d6e7f809")
TOKEN_URL = f"{GLOBAL.authority}/{TENANT}/oauth2/v2.0/token"


# --- Partner Center, Graph ----------------------------------------------------------------------------------------

# code, status, what is raised, class, owner
PARTNER_CENTER: list[tuple[str, int, type[RemoteError], str, str]] = [
    ("400", 401, errors.AuthenticationFailed, "our_credential", "us"),
    ("800001", 401, errors.AuthenticationFailed, "our_credential", "us"),
    ("900421", 401, errors.MfaRequired, "needs_interaction", "partner"),
    ("10001", 401, errors.MfaRequired, "needs_interaction", "partner"),
    ("3000", 400, errors.InvalidRequest, "protocol_error", "us"),
    ("800002", 400, errors.InvalidRequest, "protocol_error", "us"),
    ("900118", 400, errors.InvalidRequest, "protocol_error", "us"),
    ("900127", 400, errors.InvalidRequest, "protocol_error", "us"),
    ("2006", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("2032", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("20002", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("900123", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("900124", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("900149", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("900150", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("1000", 404, errors.NotFound, "not_found", "us"),
    ("60002", 404, errors.NotFound, "not_found", "partner"),
    ("60003", 404, errors.NotFound, "not_found", "us"),
    ("800015", 404, errors.NotFound, "not_found", "us"),
    ("2055", 400, errors.Conflict, "unknown", "us"),
    ("800003", 500, errors.ServerFault, "temporary", "nobody"),
    ("900192", 500, errors.ServerFault, "temporary", "nobody"),
    ("0", 501, errors.UnexpectedResponse, "unknown", "microsoft"),
    # the status overrules: what a gateway or a limit says is not the caller's fault
    ("900150", 503, errors.ServerFault, "temporary", "nobody"),
    ("900421", 429, errors.Throttled, "throttled", "nobody"),
    ("800003", 403, errors.AccessDenied, "not_permitted", "partner"),
    # unknown codes
    ("424242", 400, errors.InvalidRequest, "protocol_error", "us"),
    ("424242", 401, errors.AuthenticationFailed, "our_credential", "us"),
    ("424242", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("424242", 404, errors.NotFound, "not_found", "us"),
    ("424242", 405, errors.InvalidRequest, "protocol_error", "us"),
    ("424242", 408, errors.ServerFault, "temporary", "nobody"),
    ("424242", 409, errors.Conflict, "unknown", "us"),
    ("424242", 412, errors.Conflict, "unknown", "us"),
    ("424242", 418, errors.UnexpectedResponse, "unknown", "us"),
    ("424242", 429, errors.Throttled, "throttled", "nobody"),
    ("424242", 502, errors.ServerFault, "temporary", "nobody"),
]
# status, what the description holds, code, what is raised, class, owner
APPLICATION_CONSENTS: list[tuple[int, str, str, type[RemoteError], str, str]] = [
    (400, "Permission entry already exists.", "already_exists", errors.AlreadyExists, "unknown", "us"),
    (409, "anything", "already_exists", errors.AlreadyExists, "unknown", "us"),
    (400, "The tenant lacks a service principal for X", "resource_missing", errors.NotFound, "not_found", "customer"),
    (403, "Insufficient privileges to", "insufficient_privileges", errors.AccessDenied, "not_permitted", "partner"),
]
GRAPH: list[tuple[str, int, type[RemoteError], str, str]] = [
    ("Request_BadRequest", 400, errors.InvalidRequest, "protocol_error", "us"),
    ("BadRequest", 400, errors.InvalidRequest, "protocol_error", "us"),
    ("invalidRequest", 400, errors.InvalidRequest, "protocol_error", "us"),
    ("Request_UnsupportedQuery", 400, errors.InvalidRequest, "protocol_error", "us"),
    ("Directory_ExpiredPageToken", 400, errors.InvalidRequest, "protocol_error", "us"),
    ("InvalidAuthenticationToken", 401, errors.AuthenticationFailed, "our_credential", "us"),
    ("insufficient_claims", 401, errors.InteractionRequired, "needs_interaction", "partner"),
    ("Authorization_IdentityNotFound", 403, errors.AuthenticationFailed, "our_credential", "us"),
    ("Authorization_RequestDenied", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("accessDenied", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("AccessDenied", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("Forbidden", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("Request_ResourceNotFound", 404, errors.NotFound, "not_found", "us"),
    ("ResourceNotFound", 404, errors.NotFound, "not_found", "us"),
    ("itemNotFound", 404, errors.NotFound, "not_found", "us"),
    ("NotFound", 404, errors.NotFound, "not_found", "us"),
    ("Request_MultipleObjectsWithSameKeyValue", 409, errors.AlreadyExists, "unknown", "us"),
    ("nameAlreadyExists", 409, errors.AlreadyExists, "unknown", "us"),
    ("conflict", 409, errors.Conflict, "unknown", "us"),
    ("preconditionFailed", 412, errors.Conflict, "unknown", "us"),
    ("TooManyRequests", 429, errors.Throttled, "throttled", "nobody"),
    ("activityLimitReached", 429, errors.Throttled, "throttled", "nobody"),
    ("generalException", 500, errors.ServerFault, "temporary", "nobody"),
    ("serviceNotAvailable", 503, errors.ServerFault, "temporary", "nobody"),
    ("UnknownError", 500, errors.ServerFault, "temporary", "nobody"),
    ("Authorization_RequestDenied", 504, errors.ServerFault, "temporary", "nobody"),
    ("generalException", 403, errors.AccessDenied, "not_permitted", "partner"),
    ("SomethingNew", 400, errors.InvalidRequest, "protocol_error", "us"),
    ("SomethingNew", 418, errors.UnexpectedResponse, "unknown", "us"),
]


def client_arguments(session: GuardedSession, base_url: str) -> dict[str, Any]:
    return {
        "base_url": base_url,
        "session": session,
        "token_source": lambda: Secret("the access token"),
        "correlation_id": CORRELATION,
        "retry": RetryPolicy(tries=1),
    }


@pytest.mark.parametrize(("code", "status", "kind", "expected", "owner"), PARTNER_CENTER)
def test_each_code_of_partner_center_has_its_sentence(
    wire: responses.RequestsMock,
    session: GuardedSession,
    code: str,
    status: int,
    kind: type[RemoteError],
    expected: str,
    owner: str,
) -> None:
    body = json.dumps({"code": code, "description": PRIVATE, "data": [], "source": "PartnerApiServiceCore"})
    url = f"{GLOBAL.partner_center}/v1/profiles/organization"
    wire.get(url, body=body, status=status, content_type="application/json")
    with pytest.raises(RemoteError) as caught:
        PartnerCenterClient(**client_arguments(session, GLOBAL.partner_center)).organization_profile()
    check_service_answer(caught.value, f"partner_center:{code}", kind, expected, owner)


@pytest.mark.parametrize(("status", "text", "code", "kind", "expected", "owner"), APPLICATION_CONSENTS)
def test_each_text_of_the_application_consent_api_has_its_sentence(
    wire: responses.RequestsMock,
    session: GuardedSession,
    status: int,
    text: str,
    code: str,
    kind: type[RemoteError],
    expected: str,
    owner: str,
) -> None:
    wire.post(
        f"{GLOBAL.partner_center}/v1/customers/{TENANT}/applicationconsents",
        json={"code": "3000", "description": f"{text} {PRIVATE}"},
        status=status,
    )
    with pytest.raises(RemoteError) as caught:
        ApplicationConsentClient(**client_arguments(session, GLOBAL.partner_center)).create(
            customer=TENANT,
            application_id=APPLICATION,
            display_name="Example",
            resource=APPLICATION,
            scopes=["User.Read.All"],
            request_id=RequestId("f6d0b1a4-8d1c-4c53-9a5e-0e6c1d2b3a49"),
        )
    check_service_answer(caught.value, f"partner_center:{code}", kind, expected, owner)


@pytest.mark.parametrize("number", sorted(set(entra.NUMBERS) - {70002}))
def test_a_code_of_the_sign_in_service_that_partner_center_passes_on_is_read_for_the_customer(
    wire: responses.RequestsMock, session: GuardedSession, number: int
) -> None:
    wire.post(
        f"{GLOBAL.partner_center}/v1/customers/{TENANT}/applicationconsents",
        json={"code": "3000", "description": f"AADSTS70002: {PRIVATE} AADSTS{number}: {PRIVATE} Trace ID: {TENANT}"},
        status=400,
    )
    with pytest.raises(RemoteError) as caught:
        ApplicationConsentClient(**client_arguments(session, GLOBAL.partner_center)).create(
            customer=TENANT,
            application_id=APPLICATION,
            display_name="Example",
            resource=APPLICATION,
            scopes=["User.Read.All"],
            request_id=RequestId("f6d0b1a4-8d1c-4c53-9a5e-0e6c1d2b3a49"),
        )
    wanted = entra.NUMBERS[number].read(f"AADSTS{number}", customer_tenant=True)
    diagnosis = diagnose(caught.value)
    assert (diagnosis.key, diagnosis.cause, diagnosis.owner) == (wanted.key, wanted.cause, wanted.owner)
    assert diagnosis.failure_class is wanted.failure_class
    assert not diagnosis.fatal_for_token
    assert PRIVATE not in f"{caught.value!s}{caught.value.__dict__}{diagnosis}"


@pytest.mark.parametrize(("code", "status", "kind", "expected", "owner"), GRAPH)
def test_each_code_of_graph_has_its_sentence(
    wire: responses.RequestsMock,
    session: GuardedSession,
    code: str,
    status: int,
    kind: type[RemoteError],
    expected: str,
    owner: str,
) -> None:
    body = json.dumps({"error": {"code": code, "message": PRIVATE, "innerError": {"date": "2026-05-01T10:00:00"}}})
    challenge = f'Bearer realm="", authorization_uri="https://x.example", error="{code}", claims="eyJhIjoxfQ=="'
    wire.post(f"{GLOBAL.graph}/v1.0/$batch", json={"responses": []})  # no part is whole: each is asked for by itself
    wire.get(
        re.compile(re.escape(f"{GLOBAL.graph}/v1.0/servicePrincipals")),
        body=body.replace("insufficient_claims", "InvalidAuthenticationToken"),
        status=status,
        content_type="application/json",
        headers={"WWW-Authenticate": challenge} if status == 401 else {},
    )
    with pytest.raises(RemoteError) as caught:
        DirectoryClient(**client_arguments(session, GLOBAL.graph)).presence(APPLICATION)
    check_service_answer(caught.value, f"graph:{code}", kind, expected, owner)


def check_service_answer(raised: RemoteError, key: str, kind: type[RemoteError], expected: str, owner: str) -> None:
    diagnosis = diagnose(raised)
    assert type(raised) is kind
    assert (diagnosis.key, diagnosis.failure_class, diagnosis.owner) == (key, expected, owner)
    assert diagnosis.error is kind
    assert diagnosis.retry is raised.retryable
    assert not diagnosis.fatal_for_token
    assert PRIVATE not in f"{raised!s}{raised.__dict__}{diagnosis}"
    check_words(diagnosis)


# --- the vault ----------------------------------------------------------------------------------------------------

VAULT: list[tuple[int, str, str, type[RemoteError], str, str]] = [
    (400, "BadParameter", "", errors.InvalidRequest, "protocol_error", "us"),
    (400, "BadArgument", "", errors.InvalidRequest, "protocol_error", "us"),
    (401, "Unauthorized", "", errors.AuthenticationFailed, "our_credential", "us"),
    (403, "Forbidden", "", errors.AccessDenied, "our_credential", "us"),
    (403, "Forbidden", "AccessDenied", errors.AccessDenied, "our_credential", "us"),
    (403, "Forbidden", "ForbiddenByRbac", errors.AccessDenied, "our_credential", "us"),
    (403, "Forbidden", "ForbiddenByFirewall", errors.AccessDenied, "our_credential", "us"),
    (403, "Forbidden", "ForbiddenByConnection", errors.AccessDenied, "our_credential", "us"),
    (403, "Forbidden", "SecretDisabled", SecretDisabled, "unknown", "us"),
    (403, "Forbidden", "KeyDisabled", errors.AccessDenied, "our_credential", "us"),
    (404, "KeyNotFound", "", errors.NotFound, "our_credential", "us"),
    (404, "SecretNotFound", "", errors.NotFound, "unknown", "us"),
    (404, "VaultNotFound", "", errors.NotFound, "unknown", "us"),
    (409, "Conflict", "ObjectIsDeletedButRecoverable", NameBlocked, "unknown", "us"),
    (409, "Conflict", "ObjectIsBeingDeleted", errors.ServerFault, "temporary", "nobody"),
    (409, "Conflict", "ObjectIsBeingRecovered", errors.ServerFault, "temporary", "nobody"),
    (429, "Throttled", "", errors.Throttled, "throttled", "nobody"),
    (500, "InternalServerError", "", errors.ServerFault, "temporary", "us"),
    # unknown codes and none
    (400, "NewCode", "", errors.InvalidRequest, "protocol_error", "us"),
    (403, "Forbidden", "NewInner", errors.AccessDenied, "our_credential", "us"),
    (404, "", "", errors.NotFound, "unknown", "us"),
    (409, "Conflict", "", errors.ServerFault, "temporary", "nobody"),
    (418, "", "", errors.UnexpectedResponse, "protocol_error", "us"),
    (503, "", "", errors.ServerFault, "temporary", "us"),
]


_vaults = count(1)  # the SDK remembers challenges per host


@pytest.mark.parametrize(("status", "code", "inner", "kind", "expected", "owner"), VAULT)
def test_each_code_of_the_key_vault_has_its_sentence_and_none_blames_a_partner(
    wire: responses.RequestsMock,
    session: GuardedSession,
    status: int,
    code: str,
    inner: str,
    kind: type[RemoteError],
    expected: str,
    owner: str,
) -> None:
    vault_url = f"https://diagnosis-{next(_vaults)}.vault.azure.net"
    service = Answering(wire, vault_url)
    service.refuse(status, code, inner)
    with pytest.raises(RemoteError) as caught:
        open_azure_vault(vault_url, FixedCredential, session=session).read(NAME, VERSION)
    diagnosis = diagnose(caught.value)
    assert type(caught.value) is kind
    assert (diagnosis.failure_class, diagnosis.owner) == (expected, owner)
    assert diagnosis.key == f"vault:{inner or code or status}"
    assert diagnosis.failure_class.systemic
    assert diagnosis.error is kind
    check_words(diagnosis)


def test_the_vaults_inner_codes_tell_apart_what_its_status_does_not() -> None:
    def read(code: str) -> type[RemoteError]:
        return diagnose_api_error(service="vault", status=409, code=code).error

    assert read("ObjectIsDeletedButRecoverable") is errors.Conflict
    assert read("ObjectIsBeingDeleted") is errors.ServerFault
    assert read("Conflict") is errors.ServerFault


@pytest.mark.parametrize(
    ("number", "expected", "cause"),
    [
        (errno.ENOSPC, "temporary", "The vault's disk is full."),
        (errno.EDQUOT, "temporary", "The vault's disk is full."),
        (errno.EFBIG, "temporary", "The vault's disk is full."),
        (errno.EIO, "temporary", "The vault's disk has a fault."),
        (errno.EACCES, "our_credential", "The system does not let the portal use the vault's files."),
        (errno.EPERM, "our_credential", "The system does not let the portal use the vault's files."),
        (errno.EROFS, "our_credential", "The system does not let the portal use the vault's files."),
        (errno.ENOTDIR, "temporary", "The vault's disk has a fault."),
    ],
)
def test_each_fault_of_the_embedded_vaults_disk_has_its_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: str, cause: str
) -> None:
    vault = LocalVault(tmp_path / "vault", KeyRing([bytes(32)]))

    def fail(*_: object) -> None:
        raise OSError(number, "the disk's own words")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RemoteError) as caught:
        write(vault)  # type: ignore[arg-type]  # the helper is for both kinds of vault
    diagnosis = diagnose(caught.value)
    assert (diagnosis.failure_class, diagnosis.owner, diagnosis.cause) == (expected, "us", cause)
    check_words(diagnosis)


@pytest.mark.parametrize(
    ("error", "expected", "cause"),
    [
        (errors.NotFound("vault", "read"), "unknown", "The vault holds no such secret."),
        (VaultDamaged("vault", "read"), "unknown", "The stored secret is damaged or was encrypted with another key."),
        (errors.ServerFault("vault", "read", detail="the directory is gone"), "temporary", "The directory is gone."),
        (errors.Unreachable("vault", "read"), "temporary", "The vault has a fault."),
        (errors.Throttled("vault", "read"), "throttled", "The vault asks us to slow down."),
        (SecretTooLarge("vault", "write"), "protocol_error", "The vault did not accept the request."),
        (
            errors.UnexpectedResponse("vault", "read"),
            "protocol_error",
            "The answer of the vault does not have the documented form.",
        ),
    ],
)
def test_a_vault_in_files_has_sentences_without_status_and_code(error: RemoteError, expected: str, cause: str) -> None:
    diagnosis = diagnose(error)
    assert (diagnosis.failure_class, diagnosis.owner, diagnosis.cause) == (expected, diagnosis.owner, cause)
    assert diagnosis.error is type(error)
    check_words(diagnosis)


def test_no_row_of_the_services_is_left_out_of_the_tables_above() -> None:
    assert {code for code, *_ in PARTNER_CENTER} | {row[2] for row in APPLICATION_CONSENTS} >= set(
        services.PARTNER_CENTER
    )
    assert {code for code, *_ in GRAPH} >= set(services.GRAPH)
    disk = {"ENOSPC", "EDQUOT", "EFBIG", "EIO", "EACCES", "EPERM", "EROFS"}
    # Of tests/consent/vault/test_azure_identity.py and tests/consent/applications/test_key_pairs.py.
    own = {IDENTITY_REFUSED, NO_MANAGED_IDENTITY, KEY_DENIED}
    assert {inner or code for _, code, inner, *_ in VAULT} | disk | own >= set(services.VAULT)


# --- everything ---------------------------------------------------------------------------------------------------


def family(kind: type[RemoteError] = RemoteError) -> Iterator[type[RemoteError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from family(below)


ALL_ROWS = [
    *entra.NUMBERS.values(),
    *entra.ERRORS.values(),
    *entra.SUBERRORS.values(),
    *(row for table in services.CODES.values() for row in table.values()),
]


def test_every_sentence_of_the_table_is_plain() -> None:
    for words in {words for row in ALL_ROWS for words in (row.words, row.in_customer)}:
        assert is_plain_sentence(words.cause), words.cause
        assert is_plain_sentence(words.remedy), words.remedy
        assert len(words.cause) + len(words.remedy) < 299


@given(
    kind=st.sampled_from(sorted(set(family()), key=lambda each: each.__name__)),
    service=st.sampled_from(["entra", "partner_center", "graph", "vault", "api", ""]),
    status=st.one_of(st.none(), st.integers(min_value=-5, max_value=1000)),
    code=st.one_of(
        st.sampled_from(["", "AADSTS50076", "AADSTS", "AADSTS²", "900421", "Forbidden", "SecretNotFound"]),
        st.text(max_size=80),
    ),
)
def test_every_error_has_an_answer(kind: type[RemoteError], service: str, status: int | None, code: str) -> None:
    error = kind(service, "something", status=status, code=code)
    diagnosis = diagnose(error)
    assert issubclass(kind, diagnosis.error)
    assert diagnosis.error is kind or kind is NotSent  # which differs for whoever may not do a thing twice
    assert diagnosis.retry is error.retryable
    assert diagnosis.failure_class is not FailureClass.OK
    check_words(diagnosis)


@given(
    service=st.text(max_size=20),
    status=st.one_of(st.none(), st.integers(), st.sampled_from([408, 429, 503])),
    code=st.text(max_size=80),
)
def test_every_answer_of_a_service_has_a_sentence(service: str, status: int | None, code: str) -> None:
    diagnosis = diagnose_api_error(service=service, status=status, code=code)
    check_words(diagnosis)
    assert diagnosis.key.startswith(f"{service}:")
    if status in {408, 429, 500, 502, 503, 504}:
        assert diagnosis.retry


@pytest.mark.req("R-14")
def test_only_what_a_tenant_can_put_right_is_not_systemic() -> None:
    blame = {each for each in FailureClass if not each.systemic}
    assert blame == {"ok", "needs_consent", "needs_interaction", "not_permitted", "not_found"}
    for table in (entra.NUMBERS, services.PARTNER_CENTER, services.GRAPH):
        for code, row in table.items():
            if row.words.owner in {Owner.PARTNER, Owner.CUSTOMER}:
                assert not row.failure_class.systemic or code == 50088, code


def test_a_code_in_two_tables_is_refused() -> None:
    one = rows.rows(FailureClass.UNKNOWN, Owner.US, {1: ("Cause.", "Remedy.")})
    with pytest.raises(ValueError, match="in two tables"):
        rows.merged(one, one)
