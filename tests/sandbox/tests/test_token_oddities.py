"""Refusals and bent answers on demand: what tests of the portal switch on."""

from __future__ import annotations

import datetime
import json
import re

import jwt
import pytest

from tests.sandbox import refusals
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import GUID, SERVICE_ACCOUNT, STRANGER, Vendor, Wire, claims_of, code_of
from tests.sandbox.world import Refusal, Tamper


def test_a_refusal_has_exactly_the_documented_form(vendor: Vendor, sandbox: Sandbox) -> None:
    refresh = vendor.refresh_token()
    sandbox.world.refusals.append(Refusal(code=50076))
    correlation = "11111111-2222-4333-8444-555555555555"

    reply = vendor.refresh(refresh, headers={"client-request-id": correlation})

    body = reply.json()
    assert reply.status == 400
    assert reply.headers["Content-Type"].startswith("application/json")
    assert (body["error"], body["suberror"], body["error_codes"]) == ("invalid_grant", "basic_action", [50076])
    assert body["correlation_id"] == correlation
    assert body["trace_id"] == reply.headers["x-ms-request-id"]
    assert re.fullmatch(GUID, body["trace_id"])
    datetime.datetime.strptime(body["timestamp"], "%Y-%m-%d %H:%M:%SZ").replace(tzinfo=datetime.UTC)
    assert body["error_description"].split("\r\n")[1:] == [
        f"Trace ID: {body['trace_id']}",
        f"Correlation ID: {correlation}",
        f"Timestamp: {body['timestamp']}",
    ]
    assert "capolids" in json.loads(body["claims"])["access_token"]
    assert vendor.refresh(refresh).status == 200


@pytest.mark.parametrize("code", sorted(refusals.KNOWN))
def test_every_code_can_be_had_on_demand(vendor: Vendor, sandbox: Sandbox, code: int) -> None:
    sandbox.world.refusals.append(Refusal(code=code))

    reply = vendor.refresh("1.A")

    error, suberror, status = refusals.KNOWN[code]
    assert (code_of(reply), reply.status) == (code, status)
    assert (reply.json()["error"], reply.json().get("suberror", "")) == (error, suberror)
    assert ("Retry-After" in reply.headers) == (status in {429, 503})


def test_the_codes_of_the_minimal_set_are_all_known() -> None:
    assert {
        50076, 50079, 50057, 50173, 53003, 54005, 65001, 65004, 70000, 70008, 70011, 70043, 700016, 700027, 700082,
        700084, 7000112, 7000215, 7000218, 7000222, 90002, 90094, 90099, 9002313, 500011, 50011, 900144, 901002, 501481,
        50020, 50196, 90055,
    } <= refusals.KNOWN.keys()  # fmt: skip


def test_refusals_hit_whom_they_are_for_as_often_as_they_say(vendor: Vendor, sandbox: Sandbox) -> None:
    mine, other = vendor.refresh_token(), vendor.refresh_token(STRANGER)
    sandbox.world.refusals += [
        Refusal(code=53003, times=2, upn=SERVICE_ACCOUNT),
        Refusal(code=50053, tenant_id=vendor.tenant_of(STRANGER)[0].tenant_id),
        Refusal(code=90033, client_id="another"),
    ]

    assert [vendor.refresh(mine).status for _ in range(3)] == [400, 400, 200]
    assert code_of(vendor.refresh(other, "southridge.example.com")) == 50053
    assert vendor.refresh(other, "southridge.example.com").status == 200


@pytest.mark.parametrize(
    "how", ["missing", "none_alg", "hs256", "unknown_kid", "bad_signature", "two_segments", "huge"]
)
def test_id_tokens_can_be_bent(vendor: Vendor, sandbox: Sandbox, wire: Wire, how: str) -> None:
    key = jwt.PyJWK(wire.get(f"{vendor.cloud.authority}/common/discovery/v2.0/keys").json()["keys"][0])
    sandbox.world.tampers.append(Tamper(id_token=how))

    bent, normal = vendor.tokens().get("id_token"), vendor.tokens()["id_token"]

    assert jwt.decode(normal, key, ["RS256"], audience=vendor.application.app_id)["tid"]
    match how:
        case "missing":
            assert bent is None
        case "none_alg" | "hs256":
            assert bent is not None
            assert jwt.get_unverified_header(bent)["alg"] == how.removesuffix("_alg").upper().replace("NONE", "none")
        case "unknown_kid":
            assert bent is not None
            assert jwt.get_unverified_header(bent)["kid"] != key.key_id
        case "huge":
            assert bent is not None
            assert len(bent) > 900_000
        case _:
            assert bent is not None
            with pytest.raises(jwt.InvalidTokenError):
                jwt.decode(bent, key, ["RS256"], audience=vendor.application.app_id)


def test_claims_header_and_members_of_the_answer_can_be_bent(vendor: Vendor, sandbox: Sandbox) -> None:
    sandbox.world.tampers.append(
        Tamper(
            grant_type="authorization_code",
            claims={"tid": "another", "nonce": None},
            header={"jku": "https://evil.example/keys"},
            access_claims={"tid": "another", "amr": None},
            members={"expires_in": "3599"},
            drop=("refresh_token",),
        )
    )

    answer = vendor.tokens()

    assert "refresh_token" not in answer
    assert answer["expires_in"] == "3599"
    identity, access = claims_of(answer["id_token"]), claims_of(answer["access_token"])
    assert (identity["tid"], access["tid"]) == ("another", "another")
    assert "nonce" not in identity
    assert "amr" not in access
    assert jwt.get_unverified_header(answer["id_token"])["jku"] == "https://evil.example/keys"
    assert "refresh_token" in vendor.tokens()
