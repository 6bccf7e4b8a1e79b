"""offboard_partner: every customer first, then every door, and a sealed report that lists each object and its proof.

Covers: consent.models.offboardings, consent.offboarding.report, portal.audit.seals.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients, jobs
from consent.customers import applying
from consent.customers.consents import PushRefused, check_customer
from consent.invitations import links
from consent.models import ConsentFlow, ConsentLink, CustomerConsent, Offboarding, PartnerConsent, PartnerImportRow
from consent.moving_in.partners import read
from consent.offboarding import steps
from consent.offboarding.disconnect import disconnect
from consent.offboarding.report import to_file
from consent.states import state_of
from consent.tokens.custody import TokenUnavailable
from consent.two_persons import OFFBOARD, offboarding_of
from portal.audit import trail
from portal.audit.models import AuditEvent
from portal.audit.walking import first_broken_sequence
from portal.incidents.models import Incident
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.runs import service
from portal.runs.executor import Executor
from portal.runs.models import Run, RunItem
from tenants.models import CustomerTenant, PartnerContact, PartnerTenant
from tests.conftest import make_portal, use_azure_vault, use_sandbox
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault
from tests.support import builders, custody, customer_tenants, decisions, vault_secrets
from tests.support.moving_in import csv_of, file_row
from tests.support.portal import Browser, Portal

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def granted(portal: Portal) -> list[CustomerTenant]:
    """A partner with a contact, and three customers that hold our consent."""
    builders.contact(portal.partner, "anna@northwind.example.com")
    people = {"Contact addresses": "anna@northwind.example.com"}
    brought = csv_of(file_row("Northwind", portal.partner.tenant_id, **people))
    read(brought, file_name="partners.csv", actor=builders.ACTOR)
    return customer_tenants.connect_customers(portal)


def command(portal: Portal, *arguments: str) -> tuple[int, str, str]:
    """Run the command, of which a second person approved; return exit code, output and errors."""
    if "--yes" in arguments and not Offboarding.objects.exists():
        decisions.decided(OFFBOARD, offboarding_of(portal.partner, wait=0))
    out, err = StringIO(), StringIO()
    try:
        call_command("offboard_partner", portal.partner.tenant_id, "--wait", "0", *arguments, stdout=out, stderr=err)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue(), err.getvalue()
    except CommandError as refused:
        return refused.returncode, out.getvalue(), str(refused)
    return 0, out.getvalue(), err.getvalue()


def verify(file: Path) -> tuple[int, str]:
    out, err = StringIO(), StringIO()
    try:
        call_command("verify_report", str(file), stdout=out, stderr=err)
    except SystemExit as ended:
        return int(ended.code or 0), err.getvalue()
    return 0, out.getvalue()


def partner() -> PartnerTenant:
    return PartnerTenant.objects.get(name="Northwind Cloud")


def assert_offboarded(portal: Portal, customers: list[CustomerTenant]) -> None:
    """The end that every way leads to."""
    one = Offboarding.objects.get()
    assert (one.state, one.remaining, state_of(partner())) == ("done", 0, "offboarded")
    assert [customer_tenants.holds(portal, customer) for customer in customers] == [set()] * len(customers)
    assert set(CustomerConsent.objects.values_list("state", flat=True)) == {"absent"}
    assert not ConsentLink.objects.usable().exists()
    assert portal.consent().state == "disconnected"
    assert custody.enabled_versions(portal, portal.consent()) == []
    report = json.loads(one.report)
    assert report["counts"] == {
        "customers": 3,
        "customers_never_read": 0,
        "proven_absent": 3,
        "remaining": 0,
        "contacts_erased": 1,
    }
    assert not PartnerContact.objects.exists()
    assert not PartnerImportRow.objects.exclude(contact_addresses="", notes="").exists()
    assert not PartnerTenant.objects.filter(search_text__finds="anna@northwind.example.com").exists()
    assert first_broken_sequence() is None
    assert portal.sandbox.world.crossings == []


# --- the good way ---------------------------------------------------------------------------------------------------


def test_customers_first_then_links_and_tokens_and_a_report_of_every_object(
    portal: Portal, granted: list[CustomerTenant], tmp_path: Path
) -> None:
    open_link, _ = links.issue(portal.partner, portal.registration, actor=builders.ACTOR)
    name = portal.consent().secret_name
    file = tmp_path / "report.json"

    code, out, _ = command(portal, "--yes", "--report", str(file))

    assert code == 0, out
    assert_offboarded(portal, granted)
    document = json.loads(file.read_text())
    report = document["report"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert report["partner"]["tenant_id"] == portal.partner.tenant_id
    assert {one["tenant_id"] for one in report["customers"]} == {customer.tenant_id for customer in granted}
    for one in report["customers"]:
        assert one["proven_absent"]
        assert one["removed_by_us"]
        assert (one["before"]["evidence"], one["after"]["evidence"]) == ("directory", "sign_in")
        assert one["before"]["grants"][0]["resource"] == GRAPH_APPLICATION_ID
        assert one["before"]["grants"][0]["id"]
        assert set(one["before"]["grants"][0]["scopes"]) == customer_tenants.WANTED
        assert (one["after"]["service_principal"], one["after"]["grants"]) == ("", [])
        assert one["before"]["at"] <= one["after"]["at"]
    assert [(one["link"], bool(one["revoked_at"]), bool(one["used_at"])) for one in report["links"]] == [
        (open_link.pk - 1, False, True),
        (open_link.pk, True, False),
    ]
    assert [(one["name"], one["result"]) for one in report["vault"]] == [(name, "erased")]
    assert custody.all_versions(portal, name) == []
    kept = " ".join(one["what"] + one["who"] + one["do"] for one in report["remains_at_microsoft"])
    for words in ("enterprise application", "Revoke sessions", "GDAP", "audit logs"):
        assert words in kept
    assert verify(file)[0] == 0
    assert AuditEvent.objects.filter(action="partner.offboarded").count() == 1


def test_the_token_lives_until_the_last_customer_is_done(
    portal: Portal, granted: list[CustomerTenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, int]] = []
    real = steps.remaining

    def look(one: Offboarding) -> Any:
        seen.append(
            (
                state_of(partner()),
                portal.consent().state,
                sum(bool(customer_tenants.holds(portal, each)) for each in granted),
            )
        )
        return real(one)

    monkeypatch.setattr(steps, "remaining", look)

    command(portal, "--yes")

    assert seen[0] == ("offboarding", "connected", 0)


@pytest.mark.req("S-53")
def test_from_the_first_moment_no_link_works_and_nothing_is_pushed(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    browser = Browser()
    path = portal.link()
    answer = portal.at_microsoft(portal.press_continue(browser, path))
    steps.start(portal.partner, approved=decisions.approval())

    portal.come_back(browser, answer)

    assert ConsentFlow.objects.latest("pk").outcome not in {"connected", "connected_mfa_missing"}
    assert Browser().get(path).status_code == 404
    assert ConsentLink.objects.filter(revoked_at__isnull=True, closed_at__isnull=True).count() == 0
    ConsentLink.objects.update(revoked_at=None, closed_at=None)  # as one that was made at the same moment
    assert not ConsentLink.objects.live().exists()
    shown: list[Any] = list(ConsentLink.objects.with_progress())
    assert {link.progress for link in shown} == {"off"}
    now = partner()
    with pytest.raises(links.LinkRefused, match="being offboarded"):
        links.issue(now, portal.registration, actor=builders.ACTOR)
    with pytest.raises(PushRefused, match="being offboarded"):
        check_customer(CustomerTenant.objects.select_related("partner").get(pk=granted[0].pk), portal.registration)


@pytest.mark.req("S-53")
def test_after_the_end_no_cached_token_is_used_any_more(portal: Portal, granted: list[CustomerTenant]) -> None:
    held = portal.consent()
    custody.ask(held)
    command(portal, "--yes")
    assert clients.tokens()._cache == {}
    calls = len(portal.sandbox.world.ledger)

    with pytest.raises(TokenUnavailable):
        custody.ask(held)

    assert len(portal.sandbox.world.ledger) == calls


def test_doing_it_again_does_nothing_and_says_so(portal: Portal, granted: list[CustomerTenant]) -> None:
    command(portal, "--yes")
    calls, report = len(portal.sandbox.world.ledger), Offboarding.objects.get().report

    code, out, _ = command(portal, "--yes")

    assert (code, len(portal.sandbox.world.ledger)) == (0, calls)
    assert out.startswith("Offboarded; 0 customers remain.")
    assert Offboarding.objects.get().report == report


def test_without_yes_it_says_what_it_would_touch_and_does_nothing(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    builders.customer(portal.partner)
    portal.link()
    with pytest.raises(
        CommandError, match=r"our consent \(Example Control Panel\) in 3 customer tenants would be removed"
    ) as refused:
        call_command("offboard_partner", portal.partner.tenant_id)

    assert refused.value.returncode == 2
    assert "1 link closed, 1 token switched off and erased" in str(refused.value)
    assert "Never read: 1 customer " in str(refused.value)
    assert not Offboarding.objects.exists()
    assert partner().offboarding_since is None


# --- what remains ---------------------------------------------------------------------------------------------------


def test_while_a_customer_remains_the_partner_waits_with_a_living_token_until_somebody_decides(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    customer_tenants.end_relationship(portal, granted[0])

    code, out, err = command(portal, "--yes")

    one = Offboarding.objects.get()
    assert (code, one.state, one.remaining) == (1, "waiting", 1)
    assert f"remains  {granted[0].company_name} (Example Control Panel): unknown." in out
    assert "Who must act: partner." in out
    assert "--finish" in err
    assert (state_of(partner()), portal.consent().state) == ("offboarding", "connected")
    custody.ask(portal.consent())
    assert Incident.objects.open().filter(cause="offboarding_waits", about=f"partner:{portal.partner.pk}").exists()
    assert jobs._offboard() == "0 of 0 done", "nobody decides but a person"

    code, _, err = command(portal, "--yes", "--finish", "--why", "They will not answer.")

    assert (code, "A second person decides" in err) == (1, True), "the first approval holds while no customer remains"
    assert portal.consent().state == "connected"
    decisions.approve()
    assert jobs._offboard() == "1 of 1 done"
    code, _, _ = command(portal, "--yes")
    one.refresh_from_db()
    assert (code, one.state, one.remaining, state_of(partner())) == (1, "done", 1, "offboarded")
    assert one.decided_by
    report = json.loads(one.report)
    assert report["finished_with_remaining_customers"]
    left = next(each for each in report["customers"] if not each["proven_absent"])
    assert (left["tenant_id"], left["owner"]) == (granted[0].tenant_id, "partner")
    assert "No active GDAP relationship" in left["reason"]
    assert any("Each customer's administrator" in each["who"] for each in report["remains_at_microsoft"])
    assert not Incident.objects.open().filter(cause="offboarding_waits").exists()


def test_a_204_that_removes_nothing_keeps_the_partner_waiting(portal: Portal, granted: list[CustomerTenant]) -> None:
    portal.sandbox.world.switches |= {"consent_removes_nothing": True, "consent_delete_status": 204}

    code, _, _ = command(portal, "--yes")

    assert (code, Offboarding.objects.get().remaining) == (1, 3)
    assert set(CustomerConsent.objects.values_list("state", flat=True)) == {"granted"}

    portal.sandbox.world.switches["consent_removes_nothing"] = False
    assert command(portal, "--yes")[0] == 0, "tried again"
    assert_offboarded(portal, granted)
    assert Run.objects.filter(kind="apply_plan").count() == 2


def test_a_proof_from_before_the_offboarding_is_none(portal: Portal, granted: list[CustomerTenant]) -> None:
    CustomerConsent.objects.update(state="absent", verified_at=timezone.now())
    one = steps.start(portal.partner, approved=decisions.approval())

    assert steps.remaining(one).count() == 3


def test_a_partner_without_a_usable_token_can_still_be_offboarded_by_decision(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    disconnect(portal.consent(), vault=clients.vault(), actor=builders.ACTOR)

    assert command(portal, "--yes")[0] == 1
    assert command(portal, "--yes", "--finish", "--why", "There is no token.")[0] == 1
    decisions.approve()
    assert command(portal, "--yes")[0] == 1

    report = json.loads(Offboarding.objects.get().report)
    assert report["counts"]["remaining"] == 3
    assert {each["owner"] for each in report["customers"]} == {"us"}
    assert all("no usable token" in each["reason"] for each in report["customers"])


def test_only_what_waits_can_be_decided(portal: Portal, granted: list[CustomerTenant]) -> None:
    one = steps.start(portal.partner, approved=decisions.approval())

    with pytest.raises(steps.OffboardingRefused):
        steps.finish_anyway(one, approved=decisions.approval())

    assert partner().is_active


# --- crashes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment",
    [
        "consent.customers.applying._observe",
        "consent.offboarding.steps.erase_all",
        "consent.offboarding.erasure.erase_tokens",
        "consent.offboarding.steps.build",
        "consent.offboarding.steps.record",
    ],
)
def test_whatever_step_it_dies_in_going_on_leads_to_the_same_end(
    portal: Portal, granted: list[CustomerTenant], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Died(BaseException):
        """As a process that ends: nobody catches it."""

    if moment == "consent.customers.applying._observe":  # an executor that stops after the first customers
        one = steps.start(portal.partner, approved=decisions.approval(), wait_seconds=0)
        assert one.run is not None
        executor = Executor(one.run, concurrency=1)
        real, seen = applying._observe, []

        def observe(work: Any, there: Any, **more: Any) -> Any:
            seen.append(there)
            if len(seen) > 3:
                executor.stop()
            return real(work, there, **more)

        monkeypatch.setattr(applying, "_observe", observe)
        executor.work()
    else:

        def dies(*arguments: Any, **named: Any) -> Any:
            if moment.endswith("record") and arguments[0] != "partner.offboarded":
                return real_record(*arguments, **named)
            raise Died

        real_record = trail.record
        monkeypatch.setattr(moment, dies)
        with pytest.raises(Died):
            command(portal, "--yes")
    monkeypatch.undo()
    assert Offboarding.objects.get().state in {"removing", "closing"}

    assert command(portal, "--yes")[0] == 0

    assert_offboarded(portal, granted)
    assert {one["result"] for one in json.loads(Offboarding.objects.get().report)["vault"]} == {"erased"}
    assert AuditEvent.objects.filter(action="partner.offboarded").count() == 1


def test_a_killed_process_is_taken_over_and_each_customer_is_removed_once(
    settings: Settings, portal: Portal, granted: list[CustomerTenant]
) -> None:
    held = Fault(service="partnercenter", path="applicationconsents", skip=1, hold=True)
    portal.sandbox.world.faults.append(held)
    decisions.decided(OFFBOARD, offboarding_of(portal.partner, wait=0))
    child = subprocess.Popen(
        [sys.executable, "manage.py", "offboard_partner", portal.partner.tenant_id, "--yes", "--concurrency", "1"],
        cwd=ROOT,
        env=environment(portal),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 30
        while not portal.sandbox.faults.holding:
            assert child.poll() is None, "it ended too early"
            assert time.monotonic() < until
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait(10)
    portal.sandbox.world.faults.clear()
    portal.sandbox.faults.release()
    one = Offboarding.objects.get()
    assert one.state == "removing"
    assert RunItem.objects.exclude(state="done").count() >= 2
    assert sum(not customer_tenants.holds(portal, customer) for customer in granted) in {1, 2}, "in the middle"
    assert partner().is_active, "the token is kept"

    assert command(portal, "--yes")[0] == 0

    assert_offboarded(portal, granted)
    removed = [line for line in customer_tenants.booked(portal, "delete consent") if line["status"] == 200]
    assert len(removed) == 3, "one effect each"


def environment(portal: Portal) -> dict[str, str]:
    """Return the environment in which another process is this portal."""
    database = connection.settings_dict
    url = f"sqlite:///{database['NAME']}"
    if connection.vendor != "sqlite":
        place = f"{database['HOST']}:{database['PORT']}/{database['NAME']}"
        url = f"postgres://{database['USER']}:{database['PASSWORD']}@{place}"
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "DATABASE_URL": url,
        "TEST_ENDPOINTS": str(portal.sandbox.port),
        "TEST_CA_FILE": str(portal.sandbox.ca_file),
        "VAULT_URL": django_settings.VAULT_URL,
        "VAULT_KEY_FILE": django_settings.VAULT_KEY_FILE,
    }


def test_the_schedule_finishes_what_workers_worked(portal: Portal, granted: list[CustomerTenant]) -> None:
    assert command(portal, "--yes", "--background")[0] == 0
    run = Run.objects.get(kind="apply_plan")
    assert jobs._offboard() == "0 of 0 done"

    Executor(run).work()

    assert jobs._offboard() == "1 of 1 done"
    assert_offboarded(portal, granted)


def test_a_cancelled_run_leaves_the_partner_waiting(portal: Portal, granted: list[CustomerTenant]) -> None:
    one = steps.start(portal.partner, approved=decisions.approval())
    assert one.run is not None
    service.cancel(one.run, actor=builders.ACTOR)

    jobs._offboard()

    one.refresh_from_db()
    assert (one.state, one.remaining, state_of(partner())) == ("waiting", 3, "offboarding")


# --- the vault ------------------------------------------------------------------------------------------------------


@pytest.fixture
def azure(db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Portal:
    """A portal whose own identity may get and set only, beside a Key Vault."""
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    sandbox.world.vault_rights[scenarios.vault_application_id()] = {"get", "set"}
    return make_portal(sandbox)


@pytest.mark.req("S-69")
@pytest.mark.parametrize(
    ("rights", "protected", "result"),
    [
        (set(), False, "disabled"),
        ({"delete"}, False, "recoverable"),
        ({"delete", "purge"}, False, "erased"),
        ({"delete", "purge"}, True, "recoverable"),
    ],
    ids=["no right", "delete only", "delete and purge", "purge protection"],
)
def test_the_report_says_what_became_of_each_vault_entry_and_a_restored_database_revives_nobody(
    azure: Portal, settings: Settings, tmp_path: Path, rights: set[str], protected: bool, result: str
) -> None:
    customers = customer_tenants.connect_customers(azure)
    azure.sandbox.world.switches["vault_purge_protection"] = protected
    if rights:
        settings.VAULT_ERASE_IDENTITY = vault_secrets.add_identity(azure.sandbox, "Erase", rights, tmp_path)
    consents = list(PartnerConsent.objects.values())
    before = partner()

    assert command(azure, "--yes")[0] == 0

    report = json.loads(Offboarding.objects.get().report)
    assert [(one["name"], one["result"]) for one in report["vault"]] == [(consents[0]["secret_name"], result)]
    said = any("vault" in one["what"] for one in report["remains_at_microsoft"])
    assert said == (result != "erased")
    assert all(not customer_tenants.holds(azure, customer) for customer in customers)

    for row in consents:  # an older database comes back
        PartnerConsent.objects.filter(pk=row["id"]).update(**row)
    PartnerTenant.objects.filter(pk=azure.partner.pk).update(switch=before.switch, offboarding_since=None)
    redemptions = len(custody.redemptions(azure))
    clients.reset()
    with pytest.raises(Exception, match="vault"):
        custody.ask(azure.consent())
    assert len(custody.redemptions(azure)) == redemptions


def test_a_vault_that_is_away_leaves_it_closing_and_the_schedule_tries_again(
    azure: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers = customer_tenants.connect_customers(azure)
    builders.contact(azure.partner, "anna@northwind.example.com")
    away = Fault(service="vault", method="PATCH|DELETE", status=403, body="{}", times=99)
    azure.sandbox.world.faults.append(away)

    code, _, err = command(azure, "--yes")

    assert (code, Offboarding.objects.get().state, state_of(partner())) == (1, "closing", "offboarded")
    assert "vault did not do its part" in err
    azure.sandbox.world.faults.clear()
    assert jobs._offboard() == "1 of 1 done"
    assert_offboarded(azure, customers)


# --- the report -----------------------------------------------------------------------------------------------------


def test_a_changed_report_an_unknown_one_and_another_key_are_told_apart(
    portal: Portal, granted: list[CustomerTenant], tmp_path: Path, settings: Settings
) -> None:
    file = tmp_path / "report.json"
    command(portal, "--yes", "--report", str(file))
    original = file.read_text()
    assert verify(file)[1].startswith("Unchanged, and known to the audit trail")

    document = json.loads(original)
    file.write_text(json.dumps(document))
    assert verify(file)[0] == 0, "the layout of the file says nothing"

    document["report"]["customers"][0]["proven_absent"] = False
    file.write_text(json.dumps(document))
    assert verify(file) == (1, "The seal does not fit: it was changed.\n")

    file.write_text(original)
    key = settings.INTEGRITY_KEY
    settings.INTEGRITY_KEY = "another key that is long enough for anything"
    assert verify(file) == (1, "The seal does not fit: it was sealed under another INTEGRITY_KEY.\n")
    settings.INTEGRITY_KEY = key

    from portal.audit.seals import canonical, seal

    forged = json.loads(original)["report"] | {"offboarding": 99}
    sealed = seal(canonical(forged))
    value = {"algorithm": "HMAC-SHA256", "key_id": sealed.key_id, "value": sealed.value}
    file.write_text(json.dumps({"report": forged, "seal": value}))
    assert verify(file)[1].startswith("The seal fits, but the audit trail does not know it")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"report": {}, "seal": {}}', "nonsense"])
def test_what_is_no_report_is_a_usage_error(db: None, tmp_path: Path, content: str) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    with pytest.raises(CommandError) as refused:
        call_command("verify_report", str(file))
    assert refused.value.returncode == 2
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("verify_report", str(tmp_path / "nowhere"))


@pytest.mark.req("S-69")
def test_the_report_holds_no_secret_and_the_database_neither(portal: Portal, granted: list[CustomerTenant]) -> None:
    token = clients.vault().read_newest(portal.consent().secret_name).value.reveal()  # type: ignore[arg-type]
    command(portal, "--yes")

    content = to_file(Offboarding.objects.get())

    assert token not in content
    assert portal.client_secret not in content
    assert "@" not in content, "nobody's address"
