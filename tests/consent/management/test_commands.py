"""The commands: help, the good way, every documented exit code, and no secret on any channel but the wanted one.

Covers: consent.management.base, consent.management.exit_codes, consent.management.selection,
consent.management.working.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.db import DatabaseError, OperationalError
from django.utils import timezone

from consent import clients
from consent.models import ConsentLink, CustomerConsent, PartnerConsent
from consent.states import count_by_state
from consent.tokens.checking import CheckResult, Verdict
from consent.vault.base import SecretName, SecretVersion, VaultConfigurationError
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from tenants.models import CustomerTenant, PartnerTag, PartnerTenant
from tests.sandbox.world import Fault, Refusal
from tests.support import builders, custody
from tests.support.commands import assert_silent, run
from tests.support.connected import two_partners
from tests.support.portal import Portal

OURS = sorted(name for name, app in get_commands().items() if app == "consent")


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


@pytest.mark.parametrize("name", OURS)
def test_every_command_explains_itself(name: str) -> None:
    command = load_command_class("consent", name)
    text = command.create_parser("manage.py", name).format_help()
    assert len(command.help) > 40
    for action in command.create_parser("manage.py", name)._actions:
        assert action.help, action.dest
    assert name in text


def test_every_command_of_ours_is_run_by_some_test() -> None:
    source = "".join(file.read_text() for file in Path(__file__).parents[2].rglob("test_*.py"))
    assert [name for name in OURS if f'"{name}"' not in source] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("issue_consent_link", "common"),
        ("sync_customers", "--partner", "contoso"),
        ("check_tokens", "--partner", "contoso"),
        ("push_consent", "contoso", "contoso"),
        ("get_access_token", "contoso", "graph", "--output", "x"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_tenant_id_that_is_none_is_a_usage_error(db: None, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert "GUID" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("issue_consent_link", "{id}"),
        ("sync_customers", "--partner", "{id}"),
        ("check_tokens", "--partner", "{id}"),
        ("push_consent", "{id}", "{id}"),
        ("get_access_token", "{id}", "graph", "--output", "x"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_unknown_partner_is_a_usage_error(db: None, arguments: tuple[str, ...]) -> None:
    ran = run(*(text.format(id=builders.guid()) for text in arguments))
    assert ran.code == 2
    assert ran.err.count("\n") <= 1


@pytest.mark.req("S-53")
@pytest.mark.parametrize("name", ["push_consent", "get_access_token"])
def test_a_disabled_partner_is_called_disabled_and_nothing_is_sent(
    connected: Portal, tmp_path: Path, name: str
) -> None:
    customer = custody.first_customer(connected)
    PartnerTenant.objects.update(switch="disabled")
    calls = len(connected.sandbox.world.ledger)
    rest = [customer.tenant_id] if name == "push_consent" else ["graph", "--output", tmp_path / "token"]

    ran = run(name, connected.partner.tenant_id, *rest)

    assert ran.code == 1
    assert "disabled" in ran.err
    assert len(connected.sandbox.world.ledger) == calls
    assert not (tmp_path / "token").exists()


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (VaultConfigurationError("VAULT_URL names nothing; fix it"), 3, "VAULT_URL"),
        (OperationalError("secret dsn"), 3, "DATABASE_URL"),
        (DatabaseError("secret dsn"), 3, "The database refused what the portal asked (DatabaseError); the log says"),
    ],
    ids=["vault", "database", "statement"],
)
def test_a_fault_of_the_deployment_ends_with_3_and_one_line(
    connected: Portal, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, words: str
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("consent.clients.renewals", broken)
    ran = run("check_tokens")
    assert ran.code == code
    assert words in ran.err
    assert "secret dsn" not in ran.err
    assert "Traceback" not in ran.err


# --- issue_consent_link -------------------------------------------------------------------------------------------


@pytest.mark.req("S-01")
def test_issue_consent_link_prints_the_address_alone_on_standard_output(portal: Portal) -> None:
    ran = run("issue_consent_link", f"{{{portal.partner.tenant_id.upper()}}}", "--days", 3)

    assert ran.code == 0
    assert ran.out.count("\n") == 1
    assert ran.out.startswith("https://portal.localhost/consent/")
    assert "Northwind Cloud" in ran.err
    link = ConsentLink.objects.get()
    assert timedelta(days=2) < link.expires_at - timezone.now() <= timedelta(days=3)
    event = AuditEvent.objects.get(action="link.issued")
    assert (event.actor_kind, event.actor.split(" ")[0]) == ("command", "issue_consent_link")


@pytest.mark.parametrize("arguments", [["--days", 0], ["--days", 91], ["--registration", 999_999]], ids=str)
def test_issue_consent_link_refuses_what_is_outside_the_rules(portal: Portal, arguments: list[object]) -> None:
    ran = run("issue_consent_link", portal.partner.tenant_id, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert not ConsentLink.objects.exists()


def test_issue_consent_link_wants_the_registration_named_when_several_fit(portal: Portal) -> None:
    other = builders.registration()
    ran = run("issue_consent_link", portal.partner.tenant_id)
    assert ran.code == 2
    assert "--registration" in ran.err

    assert run("issue_consent_link", portal.partner.tenant_id, "--registration", other.pk).code == 0
    assert ConsentLink.objects.get().registration == other


# --- sync_customers -----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)  # each page is stored in the thread that read it
def test_sync_customers_mirrors_every_chosen_partner_and_names_those_that_failed(connected: Portal) -> None:
    other = builders.partner(name="Lost Its Token")
    builders.consent(other, connected.registration, state="stopped")

    ran = run("sync_customers")

    assert ran.code == 1
    counts = "3 listed, 3 new, 0 missing; 3 relationships, 3 assignments, 0 missing"
    assert f"ok      Northwind Cloud: {counts}" in ran.out
    assert "skipped  Lost Its Token: The partner was stopped" in ran.out
    assert CustomerTenant.objects.for_partner(connected.partner).count() == 3
    assert_silent(connected, ran)
    PartnerTenant.objects.filter(pk=other.pk).update(switch="offboarded")
    assert run("sync_customers").code == 0


@pytest.mark.django_db(transaction=True)  # each page is stored in the thread that read it
@pytest.mark.parametrize("choice", ["partner", "tag", "cloud"])
def test_sync_customers_prints_json_lines_for_programs(connected: Portal, choice: str) -> None:
    builders.partner(name="Other", cloud="china")
    connected.partner.tags.add(PartnerTag.objects.create(name="gold"))
    value = {"partner": connected.partner.tenant_id, "tag": "gold", "cloud": "global"}[choice]

    ran = run("sync_customers", f"--{choice}", value, "--json")

    assert ran.code == 0
    line, summary = map(json.loads, ran.out.splitlines())
    assert summary["summary"]["classes"] == {"ok": 1}
    assert len(line.pop("correlation_id")) == 36
    assert line == {
        "partner": "Northwind Cloud",
        "tenant_id": connected.partner.tenant_id,
        "registration": connected.registration.application_id,
        "registration_name": "Example Control Panel",
        "ok": True,
        "listed": 3,
        "new": 3,
        "missing": 0,
        "relationships": 3,
        "assignments": 3,
        "gdap_missing": 0,
    }


@pytest.mark.django_db(transaction=True)  # each page is stored in the thread that read it
def test_a_list_that_lacks_too_many_customers_marks_nobody_until_somebody_says_so(connected: Portal) -> None:
    for number in range(20):
        builders.customer(connected.partner, company_name=f"Gone {number}")

    ran = run("sync_customers")
    assert ran.code == 1
    assert "lacks 20 of the 23 that were known. None was marked" in ran.out
    assert not CustomerTenant.objects.missing().exists()
    assert Incident.objects.open().get().cause == "customers_missing"

    assert run("sync_customers", "--force").code == 0
    assert CustomerTenant.objects.missing().count() == 20
    assert not Incident.objects.open().exists()


@pytest.mark.django_db(transaction=True)  # each page is stored in the thread that read it
def test_sync_customers_judges_every_customer_and_forecasts_the_end_of_gdap(connected: Portal) -> None:
    world = connected.sandbox.world
    soon = world.now() + 5 * 86_400
    ours = [one for one in world.relationships if one.partner == connected.partner.tenant_id]
    ours[0].ends, ours[1].status = soon, "terminated"

    assert run("sync_customers").code == 0

    told = {one.tenant_id: one for one in CustomerTenant.objects.all()}
    assert [told[one.customer].readiness for one in ours[:3]] == ["ready", "not_ready", "ready"]
    assert told[ours[1].customer].readiness_owner == "partner"
    consent = connected.consent()
    assert consent.forecast_cause == "gdap"
    assert consent.forecast_at is not None
    assert abs(consent.forecast_at.timestamp() - soon) < 2


@pytest.mark.django_db(transaction=True)  # each page is stored in the thread that read it
def test_sync_customers_goes_on_where_relationships_cannot_be_read_and_says_so(connected: Portal) -> None:
    connected.sandbox.world.faults.append(
        Fault(
            service="graph",
            path="delegatedAdminRelationships",
            times=9,
            status=403,
            body='{"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges."}}',
        )
    )

    ran = run("sync_customers")

    assert ran.code == 0
    assert "ok      Northwind Cloud: 3 listed, 3 new, 0 missing; Could not verify" in ran.out
    assert "DelegatedAdminRelationship.Read.All" in ran.out
    assert set(CustomerTenant.objects.values_list("readiness", "readiness_owner")) == {("unknown", "us")}


@pytest.mark.django_db(transaction=True)  # each page is stored in the thread that read it
def test_sync_customers_says_who_must_act(connected: Portal) -> None:
    custody.service_account(connected).groups.clear()
    ran = run("sync_customers", "--json")
    line = json.loads(ran.out.splitlines()[0])
    assert (ran.code, line["ok"], line["owner"]) == (1, False, "partner")
    assert line["error"]
    assert line["correlation_id"]
    assert_silent(connected, ran)


# --- check_tokens -------------------------------------------------------------------------------------------------


def test_check_tokens_reports_good_and_bad_partners(connected: Portal) -> None:
    two_partners(connected)
    assert run("check_tokens").code == 0
    tenant = next(t for t in connected.sandbox.world.tenants.values() if t.domain == "southridge.example.com")
    connected.sandbox.world.refusals.append(Refusal(code=700082, tenant_id=tenant.tenant_id, times=2))

    ran = run("check_tokens")

    assert ran.code == 1
    assert "ok      Northwind Cloud" in ran.out
    assert "needs_consent  Southridge IT" in ran.out
    assert "2 of 2: 1 needs_consent, 1 ok" in ran.out
    assert_silent(connected, ran)
    lines = [json.loads(line) for line in run("check_tokens", "--json").out.splitlines()]
    assert [line["ok"] for line in lines[:-1]].count(False) == 1
    assert {line["class"] for line in lines[:-1]} == {"ok", "needs_consent"}
    summary = lines[-1]["summary"]
    assert (summary["total"], summary["done"], summary["state"]) == (2, 2, "done")
    assert summary["classes"] == {"ok": 1, "needs_consent": 1}


def many(connected: Portal, number: int) -> None:
    """Add partners whose rows look like the connected one's."""
    for _ in range(number):
        builders.consent(builders.partner(), connected.registration)


@pytest.mark.req("R-14")
@pytest.mark.parametrize("code", [7000222, 7000215])
def test_check_tokens_stops_with_3_when_the_cause_is_ours_and_changes_no_state(connected: Portal, code: int) -> None:
    real = connected.consent()
    custody.ask(real)  # what a process asks once was asked
    for _ in range(7):
        other = builders.consent(builders.partner(), connected.registration)
        version = clients.vault().write(
            SecretName(other.secret_name),
            clients.vault().read(SecretName(real.secret_name), SecretVersion(real.secret_version)).value,
            tags={"record": f"consent-{other.pk}", "generation": "1"},
            expires_at=None,
        )
        PartnerConsent.objects.filter(pk=other.pk).update(secret_version=version, fingerprint=real.fingerprint)
    connected.sandbox.world.applications[connected.registration.application_id].secrets.clear()
    connected.sandbox.world.refusals.append(Refusal(code=code, times=1000))
    tenants = {partner.tenant_id for partner in PartnerTenant.objects.all()}
    for tenant_id in tenants - set(connected.sandbox.world.tenants):
        first = connected.sandbox.world.tenants[connected.partner.tenant_id]
        connected.sandbox.world.tenants[tenant_id] = type(first)(
            tenant_id=tenant_id, cloud="global", name="x", domain=f"{tenant_id}.example", kind="partner"
        )
    before = list(PartnerConsent.objects.order_by("pk").values_list("state", "mfa", "last_problem", "first_denied_at"))
    calls = len(connected.sandbox.world.ledger)

    ran = run("check_tokens")

    assert ran.code == 3
    assert len(connected.sandbox.world.ledger) - calls == 5
    assert "No partner's state was changed." in ran.err
    assert (
        list(PartnerConsent.objects.order_by("pk").values_list("state", "mfa", "last_problem", "first_denied_at"))
        == before
    )
    assert set(count_by_state()) == {"connected"}


def _result(consent: PartnerConsent, failure_class: str, *, systemic: bool) -> CheckResult:
    return CheckResult(
        consent_id=consent.pk,
        partner=consent.partner.name,
        ok=failure_class == "ok",
        failure_class=failure_class,
        cause="A cause.",
        owner="us",
        remedy="A remedy.",
        code="",
        systemic=systemic,
        correlation_id="",
    )


def stub_checks(monkeypatch: pytest.MonkeyPatch, classes: Callable[[int], str]) -> list[int]:
    """Replace the check itself; each marks the row as tried, as the real one does."""
    checked: list[int] = []

    guard = threading.Lock()

    def check(consent: PartnerConsent, ask: object, correlation_id: object, **more: object) -> Verdict:
        with guard:
            checked.append(consent.pk)
            failure_class = classes(len(checked))
        systemic = failure_class in {"our_credential", "temporary"}
        return Verdict(
            consent=consent,
            result=_result(consent, failure_class, systemic=systemic),
            columns={"last_try_at": timezone.now()},
        )

    monkeypatch.setattr("consent.runs.token_check.judge", check)
    return checked


@pytest.mark.req("R-14")
@pytest.mark.parametrize(
    ("classes", "code", "checked"),
    [
        (lambda number: "our_credential", 3, 5),
        (lambda number: "ok" if number == 1 else "our_credential", 1, 8),
        (lambda number: "needs_consent", 1, 8),
        (lambda number: "ok", 0, 8),
    ],
    ids=["all ours", "first good", "all theirs", "all good"],
)
def test_check_tokens_stops_only_when_the_first_five_all_fail_for_our_cause(
    connected: Portal, monkeypatch: pytest.MonkeyPatch, classes: Callable[[int], str], code: int, checked: int
) -> None:
    many(connected, 7)
    seen = stub_checks(monkeypatch, classes)
    assert run("check_tokens").code == code
    assert len(seen) == checked


@pytest.mark.django_db(transaction=True)
def test_check_tokens_checks_each_of_many_partners_once_oldest_first(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    PartnerConsent.objects.update(last_try_at=timezone.now())
    partners = PartnerTenant.objects.bulk_create(
        [PartnerTenant(name=f"P{number}", tenant_id=builders.guid()) for number in range(1200)]
    )
    PartnerConsent.objects.bulk_create(
        [
            PartnerConsent(
                partner=partner,
                registration=connected.registration,
                state="connected",
                consented_at=timezone.now(),
                pinned_oid=builders.guid(),
                generation=1,
                secret_name=f"rt-{number}",
                secret_version="0" * 32,
                fingerprint="0" * 16,
                stored_at=timezone.now(),
                mfa="proven",
                last_try_at=timezone.now() - timedelta(hours=number + 1),
            )
            for number, partner in enumerate(partners)
        ]
    )
    checked = stub_checks(monkeypatch, lambda number: "ok")

    assert run("check_tokens").code == 0

    assert len(checked) == len(set(checked)) == 1201
    oldest = PartnerConsent.objects.get(partner=partners[-1]).pk
    assert oldest in checked[:256]  # the first few are begun while the others are still being listed
    assert connected.consent().pk in checked[-128:]


def test_check_tokens_without_any_partner_is_good(db: None) -> None:
    ran = run("check_tokens")
    first, second = ran.out.splitlines()
    assert (ran.code, first.partition(": ")[2]) == (0, "0 of 0")
    assert second.startswith("Nothing fits this selection today.")


# --- push_consent -------------------------------------------------------------------------------------------------


def test_push_consent_prints_what_was_read_in_the_tenant(connected: Portal) -> None:
    customer = custody.first_customer(connected)

    ran = run("push_consent", connected.partner.tenant_id, customer.tenant_id)
    again = run("push_consent", connected.partner.tenant_id, customer.tenant_id, "--json")

    assert (ran.code, again.code) == (0, 0)
    assert f"{customer}: granted" in ran.out
    assert "Directory.Read.All, User.Read.All" in ran.out
    line = json.loads(again.out.splitlines()[0])
    assert (line["customer"], line["state"], line["owner"]) == (customer.tenant_id, "granted", "")
    assert_silent(connected, ran)


@pytest.mark.parametrize("arguments", [("push_consent", "x", "y"), ("remove_consent", "--yes"), ("apply_plan", 1)])
def test_what_skips_nothing_refuses_to_be_asked_about_it(arguments: tuple[object, ...]) -> None:
    assert "unrecognized arguments: --skipped" in run(str(arguments[0]), *arguments[1:], "--skipped").err


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda portal: portal.sandbox.world.relationships.clear(), "No active GDAP relationship"),
        (lambda portal: portal.sandbox.world.switches.update(consent_grants_nothing=True), "does not show"),
        (lambda portal: CustomerTenant.objects.update(missing_since=timezone.now()), "Nothing was sent"),
        (
            lambda portal: portal.sandbox.world.faults.append(Fault(service="graph", status=403, body="{}")),
            "Who must act",
        ),
    ],
    ids=["blocked", "waiting", "refused", "error"],
)
def test_push_consent_ends_with_1_when_it_is_not_granted(
    connected: Portal, break_it: Callable[[Portal], object], words: str
) -> None:
    customer = custody.first_customer(connected)
    break_it(connected)

    ran = run("push_consent", connected.partner.tenant_id, customer.tenant_id, "--wait", 0)

    assert ran.code == 1
    assert words in ran.out + ran.err
    assert not CustomerConsent.objects.filter(state="granted").exists()
    assert_silent(connected, ran)


def test_push_consent_knows_only_the_partners_own_customers(connected: Portal) -> None:
    foreign = builders.customer(builders.partner())
    ran = run("push_consent", connected.partner.tenant_id, foreign.tenant_id)
    assert ran.code == 2
    assert "sync_customers" in ran.err


# --- get_access_token ---------------------------------------------------------------------------------------------


def test_get_access_token_writes_a_private_new_file_and_records_it(connected: Portal, tmp_path: Path) -> None:
    file = tmp_path / "token"
    old = os.umask(0)
    try:
        ran = run("get_access_token", connected.partner.tenant_id, "graph", "--output", file)
    finally:
        os.umask(old)

    assert (ran.code, ran.out) == (0, "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().count(".") == 2
    assert file.read_text() not in ran.err
    event = AuditEvent.objects.get(action="token.handed_out")
    assert event.details == {"audience": "graph", "to": "file"}
    assert event.actor.startswith("get_access_token (")


def test_get_access_token_goes_into_a_pipe(connected: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    customer = custody.first_customer(connected)
    custody.consent_directly(connected, customer, {"User.Read.All"})

    ran = run("get_access_token", connected.partner.tenant_id, "graph", "--customer", customer.tenant_id)

    assert ran.code == 0
    assert ran.out.strip().count(".") == 2
    event = AuditEvent.objects.get(action="token.handed_out")
    assert event.details["to"] == "standard output"
    assert event.subject["customer"] == customer.pk


def test_get_access_token_refuses_a_terminal_unless_told_otherwise(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = len(connected.sandbox.world.ledger)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    ran = run("get_access_token", connected.partner.tenant_id, "graph")

    assert (ran.code, ran.out) == (2, "")
    assert "terminal" in ran.err
    assert len(connected.sandbox.world.ledger) == calls
    assert not AuditEvent.objects.filter(action="token.handed_out").exists()
    assert run("get_access_token", connected.partner.tenant_id, "graph", "--show").code == 0


@pytest.mark.parametrize("kind", ["file", "dangling link", "folder missing", "directory"])
def test_get_access_token_never_writes_over_or_through_something(connected: Portal, tmp_path: Path, kind: str) -> None:
    path, elsewhere = tmp_path / "token", tmp_path / "elsewhere"
    if kind == "file":
        path.write_text("mine")
    elif kind == "dangling link":
        path.symlink_to(elsewhere)
    elif kind == "directory":
        path.mkdir()
    else:
        path = tmp_path / "missing" / "token"

    ran = run("get_access_token", connected.partner.tenant_id, "graph", "--output", path)

    assert ran.code == 2
    assert str(path) in ran.err
    assert not elsewhere.exists()
    if kind == "file":
        assert path.read_text() == "mine"


def test_get_access_token_does_not_write_over_a_file_that_appears_meanwhile(
    connected: Portal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text("mine")
    monkeypatch.setattr(Path, "exists", lambda self: False)

    ran = run("get_access_token", connected.partner.tenant_id, "graph", "--output", path)

    assert ran.code == 2
    assert path.read_text() == "mine"


def test_get_access_token_says_no_before_any_call_for_what_does_not_exist(connected: Portal, tmp_path: Path) -> None:
    calls = len(connected.sandbox.world.ledger)
    foreign = builders.customer(builders.partner())
    ran = run(
        "get_access_token",
        connected.partner.tenant_id,
        "graph",
        "--customer",
        foreign.tenant_id,
        "--output",
        tmp_path / "token",
    )
    assert ran.code == 2
    never = builders.partner(name="Never Consented")
    ran = run("get_access_token", never.tenant_id, "graph", "--output", tmp_path / "token")
    assert ran.code == 1
    assert "has not consented yet" in ran.err
    assert len(connected.sandbox.world.ledger) == calls
    assert not (tmp_path / "token").exists()


@pytest.mark.req("S-58")
def test_without_a_record_no_token_leaves(connected: Portal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise DatabaseError("no space")

    monkeypatch.setattr("consent.access_tokens.record", full)
    ran = run("get_access_token", connected.partner.tenant_id, "graph", "--output", tmp_path / "token")
    assert ran.code == 3
    assert not (tmp_path / "token").exists()


@pytest.mark.parametrize("code", [50173, 7000215])
def test_get_access_token_explains_a_refusal(connected: Portal, tmp_path: Path, code: int) -> None:
    connected.sandbox.world.refusals.append(Refusal(code=code))
    ran = run("get_access_token", connected.partner.tenant_id, "graph", "--output", tmp_path / "token")
    assert ran.code == 1
    assert f"AADSTS{code}" in ran.err
    assert "Who must act" in ran.err
    assert_silent(connected, ran)
