"""The leak gate (S-37): canaries of every kind go through the whole thread and each refusal, and lie nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from django.conf import settings as configured
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients, views
from consent.applications import rotation
from consent.invitations import links
from consent.microsoft.entra import EntraClient
from consent.microsoft.id_tokens import IdTokenValidator
from consent.models import ApplicationRegistration, ConsentFlow, ConsentLink, WaitingToken
from consent.sign_in import approvals, flow
from consent.tokens.service import TokenService
from consent.vault.local import LocalVault
from portal.microsoft.identifiers import new_correlation_id
from portal.runs.models import RunItem
from tenants.models import CustomerTenant
from tenants.partner_center import PartnerCenterClient
from tests.conftest import make_portal, use_azure_vault, use_sandbox
from tests.leaks.conftest import WIRE, Gate, error_mail, open_gate
from tests.leaks.sinks import Canaries
from tests.leaks.walks import ALWAYS, assert_clean, crawl_admin, onboarding
from tests.sandbox.demo import story
from tests.sandbox.entra import Answer
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault, Tamper
from tests.support import builders

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.req("S-37")]


# --- the thread ----------------------------------------------------------------------------------------------------


def run_thread(gate: Gate) -> None:
    """From the link to a granted customer, by the product's own doors."""
    portal = gate.portal
    assert portal.onboard(gate.browser()).status_code == 200
    tenant = portal.partner.tenant_id
    gate.command("sync_customers", "--partner", tenant)
    gate.command("check_tokens", "--partner", tenant)
    gate.command("check_tokens", "--json")
    customer = CustomerTenant.objects.first()
    assert customer is not None
    gate.command("push_consent", str(tenant), customer.tenant_id, "--wait", "1")
    assert customer.consents.get().state == "granted"
    crawl_admin(gate)


FLOW = (*ALWAYS, "state", "nonce", "flow cookie")
REDEEMED = (*FLOW, "code", "verifier", "access token", "refresh token", "ID token")


@pytest.mark.req("S-30")
@pytest.mark.req("S-32")
@pytest.mark.req("S-35")
def test_the_whole_thread_leaves_no_secret_anywhere(gate: Gate) -> None:
    run_thread(gate)
    assert_clean(gate, *REDEEMED, "vault key")


@pytest.mark.req("S-30")
@pytest.mark.req("S-32")
def test_the_whole_thread_with_azure_key_vault_leaves_no_secret_anywhere(
    db: None,
    wire: Canaries,
    settings: Settings,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    gate = open_gate(make_portal(sandbox), wire, settings, tmp_path, monkeypatch)
    gate.canaries.add("vault credential", Path(settings.VAULT_CREDENTIAL_FILE).read_text())
    with gate.sinks.open(), error_mail(settings):
        run_thread(gate)
    assert_clean(gate, *REDEEMED, "vault credential")


@pytest.mark.req("S-39")
def test_a_certificate_leaves_neither_its_key_nor_an_assertion_anywhere(gate: Gate) -> None:
    secret, der = story._certificate(days=30)
    pem = secret.reveal()
    private = pem.partition("-----BEGIN CERTIFICATE")[0]
    gate.canaries.add("private key", *(line for line in private.splitlines() if len(line) == 64))
    registration = gate.portal.registration
    gate.portal.sandbox.world.applications[registration.application_id].certificates.append(der)
    credential = rotation.add_certificate(registration, secret, vault=clients.vault(), actor=builders.ACTOR)
    rotation.promote(credential, door=clients.tokens_with, actor=builders.ACTOR, allow_unproven=True)
    run_thread(gate)
    assert_clean(gate, *REDEEMED, "private key", "client assertion")


# --- each refusal --------------------------------------------------------------------------------------------------


def bent(**changes: Any) -> Callable[[Gate], None]:
    def run(gate: Gate) -> None:
        gate.portal.sandbox.world.tampers.append(Tamper(**changes))
        onboarding(gate)

    return run


def faulty(**fault: Any) -> Callable[[Gate], None]:
    def run(gate: Gate) -> None:
        gate.portal.sandbox.world.faults.append(Fault(**fault))
        onboarding(gate)

    return run


def other_browser(gate: Gate) -> None:
    mine, other = gate.browser(), gate.browser()
    answer = gate.portal.at_microsoft(gate.portal.press_continue(mine, gate.portal.link()))
    gate.canaries.add("code", answer.fields["code"])
    assert gate.portal.come_back(other, answer).status_code == 400


def replayed(gate: Gate) -> None:
    who = gate.browser()
    answer = gate.portal.at_microsoft(gate.portal.press_continue(who, gate.portal.link()))
    for _ in range(2):
        assert gate.portal.come_back(who, answer).status_code == 303


def malformed(gate: Gate) -> None:
    """The same fields where they must not be: in the query, in JSON, twice."""
    who = gate.browser()
    answer = gate.portal.at_microsoft(gate.portal.press_continue(who, gate.portal.link()))
    gate.canaries.add("code", answer.fields["code"])
    path = "/consent/callback/global"
    assert who.get(path, answer.fields).status_code == 405
    assert who.post(path, json.dumps(answer.fields), content_type="application/json").status_code == 400
    assert who.post(path, answer.fields).status_code == 400
    for wrong in ("/consent/callback/china", "/consent/callback/nowhere", "/nowhere"):
        assert gate.portal.come_back(who, Answer(wrong, "POST", answer.fields)).status_code in {400, 404}
    assert who.get("/nowhere", answer.fields).status_code == 404


def mfa_enforced(gate: Gate) -> None:
    gate.portal.sandbox.world.switches["mfa_enforced"] = True
    onboarding(gate, mfa=False)


def role_missing(gate: Gate) -> None:
    for tenant in gate.portal.sandbox.world.tenants.values():
        for user in tenant.users.values():
            user.groups.clear()
    onboarding(gate)


def vault_away(gate: Gate) -> None:
    who = gate.browser()
    answer = gate.portal.at_microsoft(gate.portal.press_continue(who, gate.portal.link()))
    gate.canaries.add("code", answer.fields["code"])
    folder = Path(configured.VAULT_URL)
    folder.rename(folder.with_name("away"))
    assert gate.portal.come_back(who, answer).status_code == 503


def vault_breaks_after_the_code_was_spent(gate: Gate) -> None:
    who = gate.browser()
    answer = gate.portal.at_microsoft(gate.portal.press_continue(who, gate.portal.link()))
    assert views._probe(clients.vault())
    clients.entra(gate.portal.registration, new_correlation_id())  # parsed, as after the first use
    folder = Path(configured.VAULT_URL)
    folder.rename(folder.with_name("away"))
    gate.portal.come_back(who, answer)


def link_expired(gate: Gate) -> None:
    who = gate.browser()
    path = gate.portal.link()
    location = gate.portal.press_continue(who, path)
    ConsentLink.objects.update(created_at=timezone.now() - timedelta(days=20), expires_at=timezone.now())
    assert who.get(path).status_code == 404
    assert who.post(f"{path}start").status_code == 403
    answer = gate.portal.at_microsoft(location)
    gate.canaries.add("code", answer.fields["code"])
    assert gate.portal.come_back(who, answer).status_code == 400


def flow_expired(gate: Gate) -> None:
    who = gate.browser()
    answer = gate.portal.at_microsoft(gate.portal.press_continue(who, gate.portal.link()))
    gate.canaries.add("code", answer.fields["code"])
    ConsentFlow.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert gate.portal.come_back(who, answer).status_code == 400


def another_account(gate: Gate, decision: str = "") -> None:
    """A second account of the right tenant waits for approval, under its own name in the vault (S-15)."""
    onboarding(gate)
    onboarding(gate, user="second@northwind.example.com")
    waiting = WaitingToken.objects.get()
    if decision == "approve":
        tools, correlation_id = clients.consent_tools(), new_correlation_id()
        approvals.approve(waiting, tools=tools, actor=builders.ACTOR, correlation_id=correlation_id)
    elif decision == "reject":
        approvals.reject(waiting, vault=clients.vault(), actor=builders.ACTOR)


def admin_consent(gate: Gate) -> None:
    """The first step without a token; its answer comes in a query string, state included."""
    issued = links.issue(
        gate.portal.partner, gate.portal.registration, actor=builders.ACTOR, kind=ConsentLink.Kind.ADMIN_CONSENT
    )
    application = gate.portal.sandbox.world.applications[gate.portal.registration.application_id]
    application.redirect_uris.add("https://portal.localhost/consent/admin-consent/global")
    who = gate.browser()
    location = gate.portal.press_continue(who, urlsplit(issued[1].reveal()).path)
    answer = gate.portal.at_microsoft(location)
    for path in (answer.url, answer.url.replace("global", "china"), answer.url + "/nowhere"):
        who.get(urlsplit(path).path, answer.fields)
    assert ConsentFlow.objects.get().outcome == ConsentFlow.Outcome.ADMIN_CONSENTED


def swapped_account(gate: Gate) -> None:
    """A renewal that answers for another account stops the partner."""
    onboarding(gate)
    gate.portal.sandbox.world.tampers.append(Tamper(claims={"oid": builders.guid()}))
    gate.command("check_tokens")
    assert gate.portal.consent().state == "stopped"


REFUSALS: dict[str, tuple[Callable[[Gate], None], tuple[str, ...]]] = {
    "wrong tenant": (bent(claims={"tid": "00ff2504-aaaa-41d3-9a0c-0305e82c3302"}), REDEEMED),
    "wrong nonce": (bent(claims={"nonce": "A" * 43}), REDEEMED),
    "bad signature": (bent(id_token="bad_signature"), REDEEMED),
    "no refresh token": (bent(drop=("refresh_token",)), FLOW),
    "an answer without an access token": (bent(drop=("access_token",)), FLOW),
    "declined": (lambda gate: onboarding(gate, accept=False), FLOW),
    "other browser": (other_browser, (*FLOW, "code")),
    "replay": (replayed, REDEEMED),
    "malformed": (malformed, (*FLOW, "code")),
    "MFA missing": (lambda gate: onboarding(gate, mfa=False), REDEEMED),
    "MFA enforced": (mfa_enforced, REDEEMED),
    "role missing": (role_missing, REDEEMED),
    "sign-in service down": (faulty(service="login", path="token", close="before"), FLOW),
    "sign-in service silent after the effect": (faulty(service="login", path="token", close="after"), FLOW),
    "sign-in service says no JSON": (faulty(service="login", path="token", status=500, body="<html>"), FLOW),
    "keys unreadable": (faulty(service="login", path="keys", status=503, times=9), REDEEMED),
    "Partner Center down": (faulty(service="partnercenter", status=503), REDEEMED),
    "Partner Center redirects": (
        faulty(service="partnercenter", status=302, headers={"Location": "https://evil.example/"}),
        REDEEMED,
    ),
    "vault away after the code was spent": (vault_breaks_after_the_code_was_spent, REDEEMED),
    "vault away": (vault_away, (*FLOW, "code")),
    "expired link": (link_expired, (*FLOW, "code")),
    "expired flow": (flow_expired, (*FLOW, "code")),
    "another account waits": (another_account, REDEEMED),
    "another account is approved": (lambda gate: another_account(gate, "approve"), REDEEMED),
    "another account is rejected": (lambda gate: another_account(gate, "reject"), REDEEMED),
    "consent of the whole tenant": (admin_consent, (*ALWAYS, "state", "flow cookie")),
    "swapped account": (swapped_account, REDEEMED),
}


@pytest.mark.req("S-16")
@pytest.mark.parametrize(("run", "kinds"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_leaves_no_secret_anywhere(gate: Gate, run: Callable[[Gate], None], kinds: tuple[str, ...]) -> None:
    run(gate)
    assert_clean(gate, *kinds)


@pytest.mark.req("S-23")
def test_a_sign_in_service_that_repeats_the_request_in_its_error_tells_nobody(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def echo(world: Any, cloud: Any, tenant: str, form: Any, correlation: str) -> web.Response:
        for name in ("code", "code_verifier", "client_secret"):
            gate.canaries.add(WIRE[name], form[name])
        told = " ".join(form.values())
        body = {"error": told, "error_description": f"AADSTS50000: {told}", "suberror": told, "trace_id": told}
        return web.json_response(body, status=400)

    monkeypatch.setattr("tests.sandbox.entra.answer_token_request", echo)
    onboarding(gate)
    assert_clean(gate, *FLOW, "code", "verifier")


# --- bugs of ours --------------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[object, str]] = {
    "looking the flow up": (flow, "find"),
    "claiming it": (flow, "claim"),
    "redeeming the code": (EntraClient, "redeem_code"),
    "validating the ID token": (IdTokenValidator, "validate"),
    "keeping what was proven": (flow, "_keep"),
    "proving the refresh token": (EntraClient, "redeem_refresh_token"),
    "asking Partner Center": (PartnerCenterClient, "organization_profile"),
    "storing the token": (TokenService, "store_new_consent"),
    "writing the vault": (LocalVault, "write"),
    "ending the flow": (flow, "_end"),
    "writing the refusal": (flow, "_end_refused"),
    "showing the result": (views, "_outcome_page"),
    "starting": (flow, "start"),
    "reading the token afterwards": (LocalVault, "read"),
}


@pytest.mark.req("S-33")
@pytest.mark.parametrize("debug", [False, True], ids=["production", "DEBUG"])
@pytest.mark.parametrize(("owner", "name"), BROKEN.values(), ids=BROKEN)
def test_a_bug_in_any_step_mails_and_shows_no_secret(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, settings: Settings, owner: object, name: str, debug: bool
) -> None:
    settings.DEBUG = debug
    if name == "read":
        gate.portal.onboard(gate.browser())
        clients.reset()
        clients.vault()  # the bug is in a unit of work, not in the start

    def broken(*args: object, **kwargs: object) -> None:
        kept = (args, kwargs)  # a local variable that holds whatever was passed, as real code would
        raise RuntimeError(f"a bug near {len(kept)} things")

    if name == "_end_refused":
        gate.portal.sandbox.world.tampers.append(Tamper(id_token="missing"))
    monkeypatch.setattr(owner, name, broken)
    who = gate.browser()
    who.raise_request_exception = False
    path = gate.portal.link()
    if name == "read":
        gate.command("check_tokens")  # a bug in one unit of work ends that unit only
        assert RunItem.objects.get().failure_class not in {"", "ok"}
    elif name == "start":
        token = who.get(path).content.decode().partition('csrfmiddlewaretoken" value="')[2][:64]
        who.post(
            f"{path}start",
            {"csrfmiddlewaretoken": token},
            headers={"referer": "https://portal.localhost" + path},
        )
    else:
        answer = gate.portal.at_microsoft(gate.portal.press_continue(who, path))
        gate.canaries.add("code", answer.fields["code"])
        response = gate.portal.come_back(who, answer)
        if response.status_code == 303:
            who.get(response["Location"])
    mailed = gate.sinks.contents()["mails"]
    assert name == "read" or b"a bug near 2 things" in mailed or b"RuntimeError" in mailed
    assert_clean(gate, *ALWAYS)


def test_a_registration_never_shows_its_credential(gate: Gate) -> None:
    crawl_admin(gate)
    gate.canaries.add("link", "A" * 43)
    assert ApplicationRegistration.objects.get().credential is not None
    assert_clean(gate, "client secret")
