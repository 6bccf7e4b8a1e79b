"""The leak gate (S-37): canaries of every kind go through the whole thread and each refusal, and lie nowhere."""

from __future__ import annotations

import base64
import copy
import html
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

import pytest
from aiohttp import web
from django.conf import settings as configured
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db.models import Model
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.log import AdminEmailHandler
from pytest_django.fixtures import Settings

from consent import approvals, clients, demo, flow, links, views
from consent.entra import EntraClient
from consent.id_tokens import IdTokenValidator
from consent.models import ApplicationRegistration, ConsentFlow, ConsentLink, WaitingToken
from consent.registrations import store_credential
from consent.tokens import TokenService
from consent.vault.local import LocalVault
from portal.microsoft.identifiers import new_correlation_id
from portal.sandbox.entra import Answer
from portal.sandbox.server import Sandbox
from portal.sandbox.token_endpoint import answer_token_request
from portal.sandbox.world import Fault, Tamper
from portal.site.logs import redact
from tenants.models import CustomerTenant, PartnerTenant
from tenants.partner_center import PartnerCenterClient
from tests import builders
from tests.conftest import make_portal, use_azure_vault, use_sandbox
from tests.leaks import PIECE, Canaries, RecordingBrowser, Sinks, forms
from tests.portal import Portal

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.req("S-37")]

WIRE = {
    "code": "code",
    "code_verifier": "verifier",
    "client_secret": "client secret",
    "client_assertion": "client assertion",
    "access_token": "access token",
    "refresh_token": "refresh token",
    "id_token": "ID token",
}


@dataclass(slots=True, kw_only=True)
class Gate:
    """A portal whose secrets are all known, and everything that it wrote."""

    portal: Portal
    canaries: Canaries
    sinks: Sinks

    def browser(self) -> RecordingBrowser:
        return RecordingBrowser(self.canaries, self.sinks.pages)

    def command(self, name: str, *arguments: str) -> None:
        """Run a management command and keep what it prints."""
        out, err = StringIO(), StringIO()
        try:
            call_command(name, *arguments, stdout=out, stderr=err)
        except (CommandError, SystemExit) as error:
            err.write(str(error))
        self.sinks.printed.append(out.getvalue() + err.getvalue())

    def found(self) -> list[str]:
        self.canaries.add("refresh token", *self.portal.sandbox.world.refresh_tokens)
        return self.canaries.found_in(self.sinks.contents())


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Canaries:
    """Canaries that pass between the portal and the token endpoint, read at Microsoft's end."""
    canaries = Canaries()

    def listening(world: Any, cloud: Any, tenant: str, form: Any, correlation: str) -> web.Response:
        answer = answer_token_request(world, cloud, tenant, form, correlation)
        body = json.loads(bytes(answer.body))  # type: ignore[arg-type]  # the sandbox always answers bytes
        for record in (form, body):
            for name, kind in WIRE.items():
                if isinstance(record.get(name), str) and len(record[name]) >= 2 * PIECE:
                    canaries.add(kind, record[name])
        return answer

    monkeypatch.setattr("portal.sandbox.entra.answer_token_request", listening)
    return canaries


@pytest.fixture
def gate(
    portal: Portal, wire: Canaries, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Gate]:
    made = open_gate(portal, wire, settings, tmp_path, monkeypatch)
    with made.sinks.open(), error_mail(settings):
        yield made


def open_gate(
    portal: Portal, wire: Canaries, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Gate:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(views, "_probe", flow.WriteProbe())
    wire.add("client secret", portal.client_secret)
    wire.add("key of this deployment", settings.SECRET_KEY, settings.INTEGRITY_KEY)
    key_file = Path(settings.VAULT_KEY_FILE)
    if not settings.VAULT_URL.startswith("https://"):
        lines = key_file.read_text().splitlines()
        wire.add("vault key", *(line for line in lines if line and not line.startswith("#")))
    # The key file and the vault identity's credential are where those secrets live.
    sinks = Sinks(files=tmp_path, apart_from={key_file.name, "vault-credential"})
    return Gate(portal=portal, canaries=wire, sinks=sinks)


@contextmanager
def error_mail(settings: Settings) -> Iterator[None]:
    """Django's error mail in HTML, for our own errors as well as for Django's, as an operator would switch it on.

    The report is raw, so that S-33 is what keeps it clean. The subject is Django's own and holds the path, which for a
    link is its token: a mail handler needs the redaction of messages, as every handler of ours has it.
    """
    settings.ADMINS = ["operations@vendor.example"]
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    handler = AdminEmailHandler(include_html=True)
    handler.setLevel(logging.ERROR)
    handler.addFilter(_message_redacted)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _message_redacted(record: logging.LogRecord) -> logging.LogRecord:
    record = copy.copy(record)
    record.msg, record.args = redact(record.getMessage()), None
    return record


# --- the gate proves itself ----------------------------------------------------------------------------------------

PLANTED = "pLanTed-C4nary_9f3B7kQzW1xY5tR8uV2mN6sD0gH/+=&\"'<é"


@pytest.mark.parametrize(
    "written",
    [
        PLANTED,
        PLANTED[:PIECE],
        PLANTED[-PIECE:],
        quote(PLANTED, safe=""),
        quote_plus(PLANTED),
        json.dumps(PLANTED),
        html.escape(PLANTED),
        PLANTED.encode().hex(),
        PLANTED.encode().hex().upper(),
        *(base64.b64encode(b"x" * offset + PLANTED.encode() + b"yz").decode() for offset in range(3)),
        *(base64.urlsafe_b64encode(b"x" * offset + PLANTED.encode() + b"yz").decode() for offset in range(3)),
    ],
)
def test_every_form_of_a_canary_is_found(written: str) -> None:
    canaries = Canaries()
    canaries.add("planted", PLANTED)
    assert canaries.found_in({"sink": f"before {written} behind".encode()}) == ["planted in sink"]
    assert canaries.found_in({"sink": b"nothing to see"}) == []


def test_a_canary_that_is_short_is_refused() -> None:
    with pytest.raises(ValueError, match="proves nothing"):
        Canaries().add("short", "secret")
    assert all(len(form) >= PIECE for form in forms(PLANTED))


CANARY = "zzplantedcanaryzz0123456789zzplantedzz"


def plant_in_log(gate: Gate) -> None:
    logging.getLogger("consent.flow").debug("the value is %s", CANARY)


def plant_in_library_log(gate: Gate) -> None:
    logging.getLogger("msal.application").debug("the value is %s", CANARY)


def plant_in_exception(gate: Gate) -> None:
    with pytest.raises(RuntimeError):
        EntraClient.redeem_refresh_token(
            clients.entra(gate.portal.registration, builders.guid()),  # type: ignore[arg-type]
            tenant_id=gate.portal.partner.tenant,
            refresh_token=Raising(),  # type: ignore[arg-type]
            scope="x",
        )


class Raising:
    def reveal(self) -> str:
        raise RuntimeError(f"the value is {CANARY}")


def plant_on_page_and_in_table(gate: Gate) -> None:
    PartnerTenant.objects.update(name=CANARY)
    gate.browser().get(gate.portal.link())


def plant_in_command(gate: Gate) -> None:
    PartnerTenant.objects.update(name=CANARY)
    gate.command("push_consent", gate.portal.partner.tenant_id, builders.guid())


def plant_in_audit(gate: Gate) -> None:
    from portal.audit.trail import record

    record("planted", actor=builders.ACTOR, subject={}, details={"value": CANARY})


def plant_in_mail(gate: Gate) -> None:
    logging.getLogger("consent.flow").error("the value is %s", CANARY)


def plant_in_file(gate: Gate) -> None:
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write(CANARY)


def plant_in_vault(gate: Gate) -> None:
    Path(configured.VAULT_URL, "leftover.tmp").write_text(CANARY)


def plant_in_session(gate: Gate) -> None:
    from django.contrib.sessions.backends.db import SessionStore

    store = SessionStore()
    store["value"] = CANARY
    store.save()


def plant_in_cache(gate: Gate) -> None:
    cache.set("place", CANARY)


@pytest.mark.parametrize(
    ("plant", "sinks"),
    [
        (plant_in_log, {"log as JSON", "log for a console", "our own raw log"}),
        (plant_in_library_log, {"log as JSON", "log for a console"}),
        (plant_in_exception, {"exceptions"}),
        (plant_on_page_and_in_table, {"pages", "database"}),
        (plant_in_command, {"printed"}),
        (plant_in_audit, {"audit trail", "database"}),
        (plant_in_mail, {"mails"}),
        (plant_in_file, {"files"}),
        (plant_in_vault, {"files"}),
        (plant_in_session, {"sessions"}),
        (plant_in_cache, {"cache"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_leak_planted_in_a_sink_is_found_there(gate: Gate, plant: Callable[[Gate], None], sinks: set[str]) -> None:
    gate.canaries.add("planted", CANARY)

    plant(gate)

    found = {hit.removeprefix("planted in ") for hit in gate.found() if hit.startswith("planted in ")}
    cache.clear()
    assert sinks <= found


def test_every_sink_has_a_planted_leak_or_is_a_database_file() -> None:
    marks = test_a_leak_planted_in_a_sink_is_found_there.pytestmark  # type: ignore[attr-defined]
    planted = set().union(*(sinks for mark in marks if mark.name == "parametrize" for _, sinks in mark.args[1]))
    assert set(Sinks(files=Path("/nonexistent"), apart_from=set()).contents()) - planted == {"database file"}


# --- the thread ----------------------------------------------------------------------------------------------------


def crawl_admin(gate: Gate) -> None:
    """Look at every list and every object as the most powerful member of staff."""
    who = gate.browser()
    who.force_login(User.objects.create_superuser("anna", password=None))
    who.get(reverse("admin:index"))
    for model in site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        assert who.get(reverse(f"{name}_changelist")).status_code == 200
        objects: list[Model] = list(model._default_manager.all()[:3])
        for one in objects:
            for page in ("change", "history"):
                try:
                    who.get(reverse(f"{name}_{page}", args=[one.pk]))
                except NoReverseMatch:
                    continue


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


def assert_clean(gate: Gate, *kinds: str) -> None:
    found = gate.found()
    assert set(kinds) <= gate.canaries.kinds(), "a secret that should have passed was not seen"
    assert found == []


ALWAYS = ("client secret", "key of this deployment", "link")
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
    secret, der = demo._certificate()
    pem = secret.reveal()
    private = pem.partition("-----BEGIN CERTIFICATE")[0]
    gate.canaries.add("private key", *(line for line in private.splitlines() if len(line) == 64))
    registration = gate.portal.registration
    gate.portal.sandbox.world.applications[registration.application_id].certificates.append(der)
    store_credential(
        registration,
        secret,
        kind="certificate",
        expires_at=timezone.now() + timedelta(days=30),
        vault=clients.vault(),
        actor=builders.ACTOR,
    )
    run_thread(gate)
    assert_clean(gate, *REDEEMED, "private key", "client assertion")


# --- each refusal --------------------------------------------------------------------------------------------------


def onboarding(gate: Gate, **choices: Any) -> None:
    gate.portal.onboard(gate.browser(), **choices)


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
    clients._credential(
        gate.portal.registration.credential_kind,
        gate.portal.registration.credential_name,
        gate.portal.registration.credential_version,
    )
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

    monkeypatch.setattr("portal.sandbox.entra.answer_token_request", echo)
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
    gate.portal.onboard(gate.browser()) if name == "read" else None

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
        clients.reset()
        with pytest.raises(RuntimeError):
            gate.command("check_tokens")
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
    assert ApplicationRegistration.objects.get().credential_name
    assert_clean(gate, "client secret")
