"""Key Vault of the sandbox, over the wire; through Microsoft's own SDK: ``test_key_vault_sdk``."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from tests.sandbox.key_vault import VaultState
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.vault_caller import CANARY, EVERYTHING, VaultCaller
from tests.sandbox.tests.wire import Reply, Wire


@pytest.fixture
def vault(sandbox: Sandbox, wire: Wire) -> VaultCaller:
    return VaultCaller(sandbox, wire)


def error_of(reply: Reply) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    return reply.status, error["code"], error.get("innererror", {}).get("code")


# --- challenge and rights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["authorization", "authorization_uri"])
def test_a_request_without_a_token_gets_the_challenge(vault: VaultCaller, style: str) -> None:
    vault.world.switches["vault_challenge"] = style
    reply = vault.call("PUT", "/secrets/any", token="")
    assert error_of(reply) == (401, "Unauthorized", None)
    assert "AKV10000" in reply.json()["error"]["message"]
    assert reply.headers["WWW-Authenticate"] == (
        f'Bearer {style}="{vault.cloud.authority}/{vault.tenant_id}", resource="{vault.resource}"'
    )


def test_every_answer_carries_the_services_headers(vault: VaultCaller) -> None:
    reply = vault.call("GET", "/secrets/absent", headers={"x-ms-client-request-id": "abc"})
    assert reply.headers["x-ms-client-request-id"] == "abc"
    for name in ("x-ms-request-id", "x-ms-keyvault-region", "x-ms-keyvault-service-version"):
        assert reply.headers[name]
    assert "addr=127.0.0.1" in reply.headers["x-ms-keyvault-network-info"]
    assert reply.headers["Strict-Transport-Security"]


def test_a_token_for_another_audience_or_tenant_or_time_is_refused(vault: VaultCaller) -> None:
    good = vault.token()
    assert vault.call("GET", "/secrets/any", token=vault.token(vault.cloud.graph)).status == 401
    partner = next(one.tenant_id for one in vault.world.tenants.values() if one.kind == "partner")
    reply = vault.call("GET", "/secrets/any", token=vault.token(tenant_id=partner))
    assert (reply.status, "AKV10032" in reply.text) == (401, True)
    assert vault.call("GET", "/secrets/any", token=good).status == 404
    vault.world.advance(5000)
    assert vault.call("GET", "/secrets/any", token=good).status == 401


def test_a_vault_may_belong_to_another_tenant(vault: VaultCaller) -> None:
    partner = next(one.tenant_id for one in vault.world.tenants.values() if one.kind == "partner")
    vault.world.vaults["global", vault.name] = VaultState(tenant_id=partner)
    assert partner in vault.call("GET", "/secrets/any", token="").headers["WWW-Authenticate"]
    assert vault.call("GET", "/secrets/any").status == 401
    assert vault.call("GET", "/secrets/any", token=vault.token(tenant_id=partner)).status == 404


def test_a_cloud_without_a_vendor_has_no_vault(vault: VaultCaller) -> None:
    vault.world.clear()
    assert error_of(vault.call("GET", "/secrets/any", token="")) == (404, "VaultNotFound", None)


@pytest.mark.parametrize("inner", ["AccessDenied", "ForbiddenByRbac"])
@pytest.mark.req("S-40")
def test_an_identity_has_get_and_set_and_nothing_else_unless_told(vault: VaultCaller, inner: str) -> None:
    vault.world.switches["vault_denied"] = inner
    version = vault.version(vault.put("token"))
    assert vault.call("GET", "/secrets/token/").status == 200
    assert vault.call("PATCH", f"/secrets/token/{version}", {"attributes": {"enabled": True}}).status == 200
    for method, path in (
        ("GET", "/secrets"),
        ("GET", "/secrets/token/versions"),
        ("GET", "/deletedsecrets"),
        ("DELETE", "/secrets/token"),
        ("POST", "/deletedsecrets/token/recover"),
        ("DELETE", "/deletedsecrets/token"),
    ):
        assert error_of(vault.call(method, path)) == (403, "Forbidden", inner)
    vault.allow("set")
    assert error_of(vault.call("GET", "/secrets/token/")) == (403, "Forbidden", inner)
    vault.allow("get")
    assert error_of(vault.put("token")) == (403, "Forbidden", inner)


# --- versions -----------------------------------------------------------------------------------------------------


def test_each_write_makes_a_version_and_old_ones_stay_readable(vault: VaultCaller) -> None:
    first, second = vault.version(vault.put("token", "one")), vault.version(vault.put("token", "two"))
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    for path, value in (("", "two"), ("/", "two"), (f"/{first}", "one"), (f"/{first}/", "one"), (f"/{second}", "two")):
        assert vault.call("GET", f"/secrets/token{path}").json()["value"] == value
    assert error_of(vault.call("GET", f"/secrets/token/{'0' * 32}")) == (404, "SecretNotFound", None)
    assert error_of(vault.call("GET", "/secrets/token/rubbish")) == (400, "BadParameter", None)


def test_a_bundle_has_the_documented_members(vault: VaultCaller) -> None:
    now = int(vault.world.now())
    attributes = {"enabled": True, "nbf": 1767225600, "exp": 1775001600}
    more = {"contentType": "application/x-refresh-token", "tags": {"app": "x"}, "attributes": attributes}
    bundle = vault.put("token", **more).json()
    assert bundle["id"].startswith(f"{vault.url}/secrets/token/")
    assert {name: bundle[name] for name in ("value", "contentType", "tags")} == {
        "value": CANARY,
        "contentType": "application/x-refresh-token",
        "tags": {"app": "x"},
    }
    created, updated = bundle["attributes"].pop("created"), bundle["attributes"].pop("updated")
    assert now <= created == updated <= now + 5
    assert bundle["attributes"] == attributes | {"recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90}


def test_a_write_replaces_tags_and_attributes_too(vault: VaultCaller) -> None:
    vault.put("token", tags={"a": "b"}, contentType="text/plain", attributes={"exp": 1775001600})
    bundle = vault.put("token").json()
    assert not {"tags", "contentType"} & bundle.keys()
    assert "exp" not in bundle["attributes"]


def test_an_update_changes_what_it_names_and_shows_no_value(vault: VaultCaller) -> None:
    version = vault.version(vault.put("token", tags={"a": "b"}, contentType="text/plain"))
    vault.world.advance(100)
    body = vault.call("PATCH", f"/secrets/token/{version}", {"attributes": {"enabled": False}}).json()
    assert "value" not in body
    assert (body["tags"], body["contentType"], body["attributes"]["enabled"]) == ({"a": "b"}, "text/plain", False)
    assert body["attributes"]["updated"] >= body["attributes"]["created"] + 100
    newest = vault.call("PATCH", "/secrets/token/", {"tags": {}, "attributes": {"enabled": True}}).json()
    assert (newest["attributes"]["enabled"], "tags" in newest) == (True, False)
    assert vault.call("PATCH", "/secrets/absent/", {"tags": {}}).status == 404


@pytest.mark.parametrize("inner", ["SecretDisabled", ""])
@pytest.mark.req("S-42")
def test_a_disabled_version_is_refused_and_the_others_are_not(vault: VaultCaller, inner: str) -> None:
    vault.world.switches["vault_disabled_inner"] = inner
    old, new = vault.version(vault.put("token", "one")), vault.version(vault.put("token", "two"))
    vault.call("PATCH", f"/secrets/token/{old}", {"attributes": {"enabled": False}})
    assert error_of(vault.call("GET", f"/secrets/token/{old}")) == (403, "Forbidden", inner or None)
    assert vault.call("GET", f"/secrets/token/{new}").status == 200


def test_times_of_validity_are_information_only(vault: VaultCaller) -> None:
    vault.put("token", attributes={"nbf": 4102444800, "exp": 946684800})
    assert vault.call("GET", "/secrets/token/").status == 200


def test_names_that_differ_in_case_are_one_secret_unless_switched(vault: VaultCaller) -> None:
    vault.put("Token", "one")
    assert vault.call("GET", "/secrets/tOKEN/").json()["value"] == "one"
    vault.world.switches["vault_case_sensitive"] = True
    vault.put("Other", "two")
    assert vault.call("GET", "/secrets/other/").status == 404


@pytest.mark.req("R-09")
def test_a_read_without_version_may_see_a_write_late(vault: VaultCaller) -> None:
    vault.world.switches["vault_replication_seconds"] = 30
    version = vault.version(vault.put("token"))
    assert vault.call("GET", "/secrets/token/").status == 404
    assert vault.call("GET", f"/secrets/token/{version}").status == 200
    vault.world.advance(31)
    assert vault.call("GET", "/secrets/token/").status == 200


# --- rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["under_score", "a" * 128, "dot.ted", "%20"])
def test_a_name_outside_the_rule_is_refused(vault: VaultCaller, name: str) -> None:
    assert error_of(vault.put(name)) == (400, "BadParameter", None)
    assert error_of(vault.call("GET", f"/secrets/{name}/")) == (400, "BadParameter", None)


def test_a_value_may_have_25000_bytes_and_not_one_more(vault: VaultCaller) -> None:
    assert vault.put("a" * 127, "ä" * 12_500).status == 200
    assert error_of(vault.put("token", "ä" * 12_500 + "x")) == (400, "BadParameter", None)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"value": None},
        {"value": 7},
        {"value": "x", "tags": {str(number): "" for number in range(16)}},
        {"value": "x", "tags": {"a": "b" * 257}},
        {"value": "x", "tags": {"a": 1}},
        {"value": "x", "tags": []},
        {"value": "x", "contentType": "c" * 256},
        {"value": "x", "attributes": {"enabled": "yes"}},
        {"value": "x", "attributes": {"exp": "tomorrow"}},
    ],
    ids=lambda body: json.dumps(body)[:40],
)
def test_a_malformed_write_is_refused_and_stores_nothing(vault: VaultCaller, body: Any) -> None:
    assert error_of(vault.call("PUT", "/secrets/token", body)) == (400, "BadParameter", None)
    assert vault.call("GET", "/secrets/token/").status == 404


def test_any_api_version_is_accepted_but_one_must_be_named(vault: VaultCaller) -> None:
    for version in ("7.0", "7.6", "2016-10-01", "2031-01-01"):
        assert vault.call("GET", "/secrets/absent/", query=f"api-version={version}").status == 404
    assert error_of(vault.call("GET", "/secrets/absent/", query="")) == (400, "BadParameter", None)


def test_other_methods_and_paths_are_refused_after_the_challenge(vault: VaultCaller) -> None:
    assert vault.call("GET", "/keys", token="").status == 401
    assert error_of(vault.call("POST", "/secrets/token")) == (405, "MethodNotAllowed", None)


# --- lists --------------------------------------------------------------------------------------------------------


def test_a_list_has_pages_of_at_most_25_and_shows_neither_values_nor_versions(vault: VaultCaller) -> None:
    vault.allow(*EVERYTHING)
    for number in range(30):
        vault.put(f"secret-{number:02}")
    first = vault.call("GET", "/secrets").json()
    assert len(first["value"]) == 25
    assert first["value"][0]["id"] == f"{vault.url}/secrets/secret-00"
    assert CANARY not in json.dumps(first)
    second = vault.wire.get(first["nextLink"], token=vault.token()).json()
    assert (len(second["value"]), second["nextLink"]) == (5, None)
    assert vault.call("GET", "/secrets", query="api-version=7.4&maxresults=26").status == 400
    assert len(vault.call("GET", "/secrets", query="api-version=7.4&maxresults=3").json()["value"]) == 3


def test_versions_are_listed_and_those_of_an_absent_secret_are_none(vault: VaultCaller) -> None:
    vault.allow(*EVERYTHING)
    versions = {vault.version(vault.put("token")) for _ in range(3)}
    listed = vault.call("GET", "/secrets/token/versions").json()["value"]
    assert {item["id"].rpartition("/")[2] for item in listed} == versions
    assert vault.call("GET", "/secrets/absent/versions").json() == {"value": [], "nextLink": None}


# --- soft delete --------------------------------------------------------------------------------------------------


@pytest.mark.req("S-41")
def test_a_deleted_name_is_reserved_until_recovered_or_purged(vault: VaultCaller) -> None:
    vault.allow(*EVERYTHING)
    version = vault.version(vault.put("token"))
    deleted = vault.call("DELETE", "/secrets/token").json()
    assert deleted["recoveryId"] == f"{vault.url}/deletedsecrets/token"
    assert deleted["scheduledPurgeDate"] - deleted["deletedDate"] == 90 * 86400
    assert "value" not in deleted
    assert vault.call("GET", f"/secrets/token/{version}").status == 404
    assert error_of(vault.put("token")) == (409, "Conflict", "ObjectIsDeletedButRecoverable")
    assert vault.call("POST", "/deletedsecrets/token/recover").status == 200
    assert vault.call("GET", f"/secrets/token/{version}").json()["value"] == CANARY
    vault.call("DELETE", "/secrets/token")
    assert (vault.call("DELETE", "/deletedsecrets/token")).status == 204
    assert vault.put("token").status == 200
    assert vault.call("GET", f"/secrets/token/{version}").status == 404


def test_a_running_deletion_shows_404_and_refuses_writes(vault: VaultCaller) -> None:
    vault.allow(*EVERYTHING)
    vault.world.switches["vault_delete_seconds"] = 10
    vault.put("token")
    vault.call("DELETE", "/secrets/token")
    assert vault.call("GET", "/deletedsecrets/token").status == 404
    assert vault.call("GET", "/deletedsecrets").json()["value"] == []
    assert error_of(vault.put("token")) == (409, "Conflict", "ObjectIsBeingDeleted")
    vault.world.advance(11)
    assert vault.call("GET", "/deletedsecrets/token").status == 200
    assert error_of(vault.put("token")) == (409, "Conflict", "ObjectIsDeletedButRecoverable")


def test_a_running_recovery_shows_404_and_refuses_writes(vault: VaultCaller) -> None:
    vault.allow(*EVERYTHING)
    vault.world.switches["vault_recover_seconds"] = 10
    vault.put("token")
    vault.call("DELETE", "/secrets/token")
    assert vault.call("POST", "/deletedsecrets/token/recover").status == 200
    assert vault.call("GET", "/secrets/token/").status == 404
    assert error_of(vault.put("token")) == (409, "Conflict", "ObjectIsBeingRecovered")
    vault.world.advance(11)
    assert vault.put("token").status == 200


@pytest.mark.req("S-68")
def test_purge_protection_keeps_a_deleted_secret_until_its_purge_date(vault: VaultCaller) -> None:
    vault.allow(*EVERYTHING)
    vault.world.switches["vault_purge_protection"] = True
    assert vault.put("token").json()["attributes"]["recoveryLevel"] == "Recoverable"
    vault.call("DELETE", "/secrets/token")
    assert error_of(vault.call("DELETE", "/deletedsecrets/token")) == (403, "Forbidden", "ForbiddenByPolicy")
    vault.world.advance(90 * 86400 + 1)
    assert vault.call("GET", "/deletedsecrets/token").status == 404
    assert vault.put("token").status == 200


# --- limits, faults, books ----------------------------------------------------------------------------------------


@pytest.mark.req("R-08")
def test_throttling_names_a_time_only_when_switched(vault: VaultCaller) -> None:
    vault.world.switches["vault_limit"] = 2
    assert [vault.put("token").status for _ in range(3)] == [200, 200, 429]
    reply = vault.put("token")
    assert error_of(reply) == (429, "Throttled", None)
    assert ("VaultRequestTypeLimitReached" in reply.text, "Retry-After" in reply.headers) == (True, False)
    vault.world.switches["vault_retry_after"] = True
    assert vault.put("token").headers["Retry-After"] == "10"
    vault.name = "another-vault"
    assert vault.put("token").status == 200


def test_a_claims_challenge_refuses_one_token_and_accepts_the_next(vault: VaultCaller) -> None:
    vault.world.switches["vault_claims_challenge"] = True
    first, second = vault.token(), vault.token()
    reply = vault.call("GET", "/secrets/absent/", token=first)
    header = reply.headers["WWW-Authenticate"]
    assert (reply.status, 'error="insufficient_claims"' in header) == (401, True)
    claims = json.loads(base64.b64decode(header.partition('claims="')[2].rstrip('"')))
    assert claims["access_token"]["nbf"]["essential"] is True
    assert vault.call("GET", "/secrets/absent/", token=second).status == 404
    assert vault.call("GET", "/secrets/absent/", token=first).status == 401


@pytest.mark.req("S-37")
def test_values_are_in_no_ledger_and_no_representation(vault: VaultCaller) -> None:
    vault.put("token")
    vault.call("GET", "/secrets/token/")
    vault.put("token", CANARY * 2000)
    assert CANARY not in repr(vault.world.ledger) + repr(vault.world.vaults)
    assert vault.world.counters["vault set 200"] == 1
    assert [(line["operation"], line["status"]) for line in vault.world.ledger] == [
        ("set", 200),
        ("get", 200),
        ("set", 400),
    ]
    assert vault.world.ledger[0]["client"] == vault.application.app_id
