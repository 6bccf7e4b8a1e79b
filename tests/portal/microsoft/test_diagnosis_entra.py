"""Each known answer of the sign-in service goes over the wire into our client, and comes out as the right sentence.

Covers: consent.microsoft.entra, portal.microsoft.diagnosis.entra_accounts, portal.microsoft.diagnosis.entra_ours,
portal.microsoft.diagnosis.rows.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from consent.microsoft.credentials import ClientSecret
from consent.microsoft.entra import EntraClient
from portal.microsoft import errors
from portal.microsoft.clouds import GLOBAL
from portal.microsoft.diagnosis import (
    Diagnosis,
    FailureClass,
    Owner,
    callback_error_codes,
    diagnose,
    diagnose_token_error,
    entra,
    services,
)
from portal.microsoft.errors import RemoteError
from portal.microsoft.http import GuardedSession
from portal.microsoft.identifiers import ApplicationId, CorrelationId, TenantId
from portal.microsoft.secret import Secret
from tests.support.entra_answers import ENTRA, FATAL, NOT_CONSENTED, ODD, PRIVATE, answer
from tests.support.sentences import check_words

TENANT = TenantId("6a1f0c52-9d3b-4e7a-8c21-5b0d9e4f7a10")
APPLICATION = ApplicationId("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
CORRELATION = CorrelationId("a2f3c4d5-6e7f-4081-92a3-b4c5d6e7f809")
TOKEN_URL = f"{GLOBAL.authority}/{TENANT}/oauth2/v2.0/token"
RAISED: dict[str, type[RemoteError]] = {
    "needs_consent": errors.ConsentRequired,
    "needs_interaction": errors.InteractionRequired,
    "mfa": errors.MfaRequired,
    "our_credential": errors.AuthenticationFailed,
    "protocol_error": errors.InvalidRequest,
    "not_found": errors.NotFound,
    "throttled": errors.Throttled,
    "temporary": errors.ServerFault,
    "unknown": errors.UnexpectedResponse,
}


def class_of(expected: str) -> FailureClass:
    return FailureClass("needs_interaction" if expected == "mfa" else expected)


def redeem(session: GuardedSession, *, customer_tenant: bool = False) -> RemoteError:
    client = EntraClient(
        cloud=GLOBAL,
        application_id=APPLICATION,
        credential=ClientSecret(Secret("the client secret")),
        session=session,
        correlation_id=CORRELATION,
    )
    with pytest.raises(RemoteError) as caught:
        client.redeem_refresh_token(
            tenant_id=TENANT,
            refresh_token=Secret("the refresh token"),
            scope=GLOBAL.partner_center_scope,
            customer_tenant=customer_tenant,
        )
    assert PRIVATE not in f"{caught.value!s}{caught.value!r}{caught.value.__dict__}"
    return caught.value


def post_answers(wire: responses.RequestsMock, body: str | bytes, status: int = 400, **keywords: Any) -> None:
    keywords.setdefault("content_type", "application/json; charset=utf-8")
    wire.post(TOKEN_URL, body=body, status=status, **keywords)


@pytest.mark.req("R-15")
@pytest.mark.parametrize(("number", "error", "suberror", "expected", "owner", "customer_owner"), ENTRA, ids=str)
def test_each_number_of_entra_has_its_sentence_at_both_kinds_of_tenant(
    wire: responses.RequestsMock,
    session: GuardedSession,
    number: int,
    error: str,
    suberror: str,
    expected: str,
    owner: str,
    customer_owner: str,
) -> None:
    post_answers(wire, answer(error, [number], suberror), 401 if error == "invalid_client" else 400)

    raised = redeem(session)
    assert type(raised) is RAISED[expected]
    assert raised.code == f"AADSTS{number}"
    diagnosis = diagnose(raised)
    assert diagnosis.failure_class is class_of(expected)
    assert diagnosis.owner == owner
    assert diagnosis.key == f"AADSTS{number}"
    assert diagnosis.retry is (expected in {"throttled", "temporary"})
    assert diagnosis.fatal_for_token is (number in FATAL)
    assert diagnosis.not_consented is (number in NOT_CONSENTED)
    check_words(diagnosis)

    at_customer = redeem(session, customer_tenant=True)
    assert type(at_customer) is RAISED[expected]
    diagnosis = diagnose(at_customer)
    assert diagnosis.failure_class is class_of(expected)
    assert diagnosis.owner == customer_owner
    assert not diagnosis.fatal_for_token
    check_words(diagnosis)


def test_no_row_of_entra_is_left_out_of_the_table_above() -> None:
    assert sorted(number for number, *_ in ENTRA) == sorted(entra.NUMBERS)
    codes = len(entra.NUMBERS) + sum(map(len, services.CODES.values()))
    families = 22 + 14  # two families of numbers share one sentence each
    assert codes - families >= 150


@pytest.mark.req("R-15")
@pytest.mark.parametrize(("numbers", "error", "suberror", "status", "expected", "key"), ODD, ids=str)
def test_protocol_fields_decide_and_numbers_only_refine(
    wire: responses.RequestsMock,
    session: GuardedSession,
    numbers: tuple[int, ...],
    error: str,
    suberror: str,
    status: int,
    expected: str,
    key: str,
) -> None:
    post_answers(wire, answer(error, numbers, suberror), status)
    raised = redeem(session)
    diagnosis = diagnose(raised)
    assert (diagnosis.failure_class, raised.code) == (class_of(expected), key)
    assert type(raised) is RAISED[expected]
    assert diagnosis.fatal_for_token is (expected == "needs_consent" and key in {f"AADSTS{each}" for each in FATAL})
    check_words(diagnosis)


@pytest.mark.parametrize("customer_tenant", [False, True])
def test_what_a_client_raised_reads_exactly_as_the_answer_did(customer_tenant: bool) -> None:
    for numbers, error, suberror, status in [
        *(((number,), error, suberror, 400) for number, error, suberror, *_ in ENTRA),
        *((numbers, error, suberror, status) for numbers, error, suberror, status, *_ in ODD),
    ]:
        read = diagnose_token_error(
            error=error, suberror=suberror, error_codes=numbers, status=status, customer_tenant=customer_tenant
        )
        raised = read.error("entra", "redeem", status=status, code=read.key, detail=read.cause)
        assert diagnose(raised) == replace(read, key=raised.code), (numbers, error, suberror)


@pytest.mark.req("R-15")
@pytest.mark.parametrize(
    ("body", "status", "content_type"),
    [
        ("", 400, "application/json"),
        ("", 200, "application/json"),
        ("<html><title>Sign in</title></html>", 400, "text/html"),
        ("<html>proxy</html>", 200, "text/html"),
        (answer("invalid_grant", [700082]), 400, "text/html"),
        ("[]", 400, "application/json"),
        ("null", 400, "application/json"),
        ('"invalid_grant"', 400, "application/json"),
        ('{"error":', 400, "application/json"),
        ('{"error": "invalid_grant", "error": "invalid_client"}', 400, "application/json"),
        ('{"error": ""}', 400, "application/json"),
        (answer(None, [700082]), 400, "application/json"),
        ('{"error": NaN}', 400, "application/json"),
        ('{"a":' * 50_000, 400, "application/json"),
        (b"\xff\xfe{}", 400, "application/json"),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_protocol_error_and_nobodys_lost_token(
    wire: responses.RequestsMock, session: GuardedSession, body: str | bytes, status: int, content_type: str
) -> None:
    post_answers(wire, body, status, content_type=content_type)
    raised = redeem(session)
    diagnosis = diagnose(raised)
    assert type(raised) is errors.UnexpectedResponse
    assert diagnosis.failure_class is FailureClass.PROTOCOL_ERROR
    assert diagnosis.failure_class.systemic
    check_words(diagnosis)


@pytest.mark.req("R-15")
@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (answer("invalid_grant", [50173], "bad_token"), 200, "needs_consent"),  # an error with the wrong status
        (answer("invalid_grant", [50173], error_description=None), 400, "needs_consent"),
        (answer("invalid_grant", [50173], error_description="x" * 20_000), 400, "needs_consent"),
        (answer("invalid_grant", error_codes=None), 400, "needs_consent"),
        (answer("invalid_grant", [987654]), 400, "unknown"),
        (answer("invalid_grant", [70002, 987654]), 400, "unknown"),
        (answer("invalid_grant", [987654], "bad_token"), 400, "needs_consent"),
        (answer("interaction_required", [987654]), 400, "unknown"),
        (answer("invalid_client", [987654]), 401, "our_credential"),
        (answer("temporarily_unavailable", [987654]), 503, "temporary"),
        (answer("invalid_grant", error_codes="50173"), 400, "needs_consent"),
        (answer("invalid_grant", error_codes=["50173", None, {}, 1.5]), 400, "needs_consent"),
        (answer("invalid_grant", [50076]).replace("{", '{"suberror": 7, ', 1), 400, "mfa"),
        (answer("invalid_grant", [50076], claims='{"access_token":{}}'), 400, "mfa"),
        (answer("invalid_client", [7000222]), 400, "our_credential"),
        ("", 500, "temporary"),
        ("<html>gateway</html>", 502, "temporary"),
        ("upstream request timeout", 504, "temporary"),
        ("", 429, "throttled"),
        ("<html>slow down</html>", 429, "throttled"),
    ],
)
def test_missing_and_odd_fields_do_not_change_the_class(
    wire: responses.RequestsMock, session: GuardedSession, body: str, status: int, expected: str
) -> None:
    post_answers(wire, body, status)
    raised = redeem(session)
    assert type(raised) is RAISED[expected]
    assert diagnose(raised).failure_class is class_of(expected)


def test_a_long_wait_is_read_and_capped(wire: responses.RequestsMock, session: GuardedSession) -> None:
    post_answers(wire, answer("temporarily_unavailable", [90055]), 429, headers={"Retry-After": "9999"})
    assert redeem(session).retry_after == 300


def test_the_missing_consent_of_a_customer_is_pushed_by_us_and_its_policy_is_its_own() -> None:
    def at_customer(number: int, error: str) -> Diagnosis:
        return diagnose_token_error(error=error, error_codes=[number], status=400, customer_tenant=True)

    absent = at_customer(65001, "invalid_grant")
    assert absent.not_consented
    assert absent.remedy == "Push the consent to this customer."
    assert not at_customer(700082, "invalid_grant").not_consented
    assert at_customer(700082, "invalid_grant").remedy.startswith("Check the partner's token")
    assert "Conditional Access" in at_customer(50076, "invalid_grant").remedy
    assert "GDAP" in at_customer(50020, "invalid_grant").remedy
    assert not diagnose_token_error(error="invalid_grant", status=400, customer_tenant=True).not_consented
    assert diagnose_token_error(
        error="invalid_grant", suberror="consent_required", status=400, customer_tenant=True
    ).not_consented


unknown_numbers = st.integers().filter(lambda number: number not in entra.NUMBERS)


@pytest.mark.req("R-15")
@given(
    error=st.one_of(st.sampled_from(sorted(entra.ERRORS)), st.text(max_size=40)),
    suberror=st.one_of(st.sampled_from(["", *sorted(entra.SUBERRORS)]), st.text(max_size=20)),
    numbers=st.lists(unknown_numbers, max_size=4),
    status=st.sampled_from([None, 200, 400, 401, 403, 404, 408, 429, 500, 503]),
    customer_tenant=st.booleans(),
)
def test_an_unknown_number_makes_nothing_worse_and_blames_no_partner_where_the_error_alone_would(
    error: str, suberror: str, numbers: list[int], status: int | None, customer_tenant: bool
) -> None:
    without = diagnose_token_error(error=error, suberror=suberror, status=status, customer_tenant=customer_tenant)
    with_numbers = diagnose_token_error(
        error=error, suberror=suberror, error_codes=numbers, status=status, customer_tenant=customer_tenant
    )
    assert re.fullmatch(r"[A-Za-z0-9_.\-]{1,60}", without.key)
    assert not with_numbers.fatal_for_token
    lost = without.failure_class in {FailureClass.NEEDS_CONSENT, FailureClass.NEEDS_INTERACTION}
    if (
        lost
        and suberror.strip().lower() not in entra.SUBERRORS
        and any(1000 <= number <= 99_999_999 for number in numbers)
    ):
        assert (with_numbers.failure_class, with_numbers.owner) == (FailureClass.UNKNOWN, Owner.US)
        assert with_numbers.remedy.startswith("Look at")
    else:
        assert replace(with_numbers, key="") == replace(without, key="")


@pytest.mark.req("R-15")
@given(
    error=st.sampled_from(sorted(entra.ERRORS)),
    suberror=st.sampled_from(["", *sorted(entra.SUBERRORS)]),
    numbers=st.lists(st.sampled_from(sorted(entra.NUMBERS)), min_size=1, max_size=3),
    status=st.sampled_from([200, 400, 401, 429, 503]),
    customer_tenant=st.booleans(),
)
def test_no_number_kills_a_token_that_the_protocol_did_not_call_lost(
    error: str, suberror: str, numbers: list[int], status: int, customer_tenant: bool
) -> None:
    read = diagnose_token_error(
        error=error, suberror=suberror, error_codes=numbers, status=status, customer_tenant=customer_tenant
    )
    if read.fatal_for_token:
        assert entra.ERRORS[error].failure_class is FailureClass.NEEDS_CONSENT
        assert read.failure_class is FailureClass.NEEDS_CONSENT
        assert status < 429
        assert not customer_tenant
    if status == 503:
        assert read.failure_class in {FailureClass.TEMPORARY, FailureClass.THROTTLED}
    if status == 429:
        assert read.failure_class is FailureClass.THROTTLED


@pytest.mark.req("S-23")
@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("AADSTS65004: User declined to consent to access the app.", (65004,)),
        ("AADSTS900971", (900971,)),
        ("AADSTS9002313: Invalid request.\r\nTrace ID: 1", (9002313,)),
        ("AADSTS50105: AADSTS7000112 in the middle", (50105,)),
        ("", ()),
        ("User declined. AADSTS65004", ()),
        (" AADSTS65004", ()),
        ("aadsts65004", ()),
        ("AADSTS650", ()),
        ("AADSTS123456789", ()),
        ("AADSTS65004x", ()),
        ("AADSTS٦٥٠٠٤", ()),
        ("x" * 3000 + "AADSTS65004", ()),
        ("AADSTS" + "1" * 1_000_000, ()),
        ("<b>AADSTS65004</b>", ()),
    ],
)
def test_a_callbacks_description_gives_its_leading_number_and_nothing_else(text: str, codes: tuple[int, ...]) -> None:
    assert callback_error_codes(text) == codes
