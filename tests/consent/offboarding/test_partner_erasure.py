"""erase_partner: tokens, links, attempts and people of a partner are gone; a sealed report says what remains (S-68).

Covers: consent.admin.erasures, consent.models.erasures, consent.offboarding.personal, consent.tokens.tombstones,
portal.runs.forgetting.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from consent import clients, jobs, partners
from consent.invitations import links
from consent.models import (
    ConsentFlow,
    ConsentLink,
    Erasure,
    Offboarding,
    PartnerConsent,
    PartnerImportRow,
    WaitingToken,
)
from consent.offboarding import partner_erasure, report, steps
from consent.tokens import tombstones
from consent.two_persons import OFFBOARD, offboarding_of
from consent.vault.base import ID_NAME, PROBE_NAME
from consent.vault.local import LocalVault
from portal.audit.models import AuditEvent
from portal.audit.walking import first_broken_sequence
from portal.incidents.models import Incident
from portal.runs.models import RunItem
from portal.site.models import SavedFilter
from tenants.models import CustomerTenant, PartnerContact, PartnerTenant
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault
from tests.support import builders, custody, customer_tenants, decisions, vault_secrets
from tests.support.commands import Ran, run
from tests.support.erasing import SECOND, disabled_partner, everything_logged, vault_entries, write_of_people
from tests.support.portal import SERVICE_ACCOUNT, Portal
from tests.support.schema import holders
from tests.support.staff import Staff

AT_AZURE = pytest.mark.parametrize("leaver", ["azure"], indirect=True)
AT_LOCAL = pytest.mark.parametrize("leaver", ["local"], indirect=True)


@pytest.fixture(params=["local", "azure"])
def leaver(request: pytest.FixtureRequest, db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Portal:
    """A disabled partner of whom staff wrote much, with a token and another account's waiting token."""
    return disabled_partner(request.param, settings, sandbox, tmp_path)


def erase(portal: Portal, *arguments: str | Path) -> Ran:
    """Ask, approve as another person, and do it; what is under way goes on without a question."""
    command = ["erase_partner", portal.partner.tenant_id, "--yes", *map(str, arguments)]
    asked = run(*command, "--why", "It is meant.")
    if "Asked for" not in asked.err:
        return asked
    decisions.approve()
    return run(*command)


def partner() -> PartnerTenant:
    return PartnerTenant.objects.get()


def assert_erased(portal: Portal, words: list[str]) -> None:
    """The end that every way leads to."""
    erasure = Erasure.objects.get()
    assert (erasure.state, {one["result"] for one in erasure.vault_entries}) == ("done", {"erased"})
    assert {word: found for word in (*words, SERVICE_ACCOUNT) if (found := holders(word))} == {}
    assert [token for token in portal.sandbox.world.refresh_tokens if holders(token)] == []
    kept = {PROBE_NAME, ID_NAME, portal.credential_name, tombstones.name_of(partner())}
    entries = vault_entries(portal)
    assert entries.keys() <= kept
    assert not {value for values in entries.values() for value in values} & set(portal.sandbox.world.refresh_tokens)
    assert not ConsentLink.objects.exists()
    assert not ConsentFlow.objects.exists()
    assert not WaitingToken.objects.exists()
    assert not PartnerContact.objects.exists()
    after = portal.consent()
    assert (after.state, after.generation, after.pinned_oid, after.amr) == ("disconnected", 0, "", [])
    assert partner().switch == "offboarded"
    assert first_broken_sequence() is None


# --- the good way ---------------------------------------------------------------------------------------------------


@pytest.mark.req("S-68")
@pytest.mark.req("S-70")
@pytest.mark.django_db(transaction=True)
def test_after_offboarding_and_erasure_no_word_of_its_people_is_in_any_column_vault_entry_or_log_line(
    portal: Portal, tmp_path: Path
) -> None:
    custody.service_account(portal).name = "Konstantin Levin"
    customer_tenants.connect_customers(portal)
    portal.onboard(user=SECOND)
    words = write_of_people(portal)
    oids = [PartnerConsent.objects.get().pinned_oid, WaitingToken.objects.get().object_id]
    assert [word for word in words if not holders(word)] == [], "the search finds nothing"
    before, names = tmp_path / "offboarded.json", [PartnerConsent.objects.get().secret_name]

    with everything_logged() as lines:
        assert run("check_tokens").code == 0
        assert run("sync_customers").code == 0
        words += [
            name for pair in CustomerTenant.objects.values_list("company_name", "domain") for name in pair if name
        ]
        decisions.decided(OFFBOARD, offboarding_of(portal.partner, wait=0))
        assert run("offboard_partner", portal.partner.tenant_id, "--yes", "--wait", "0", "--report", before).code == 0
        assert holders(portal.partner.name), "an offboarding keeps the company's name"
        words += ["Konstantin Levin", SERVICE_ACCOUNT, SECOND]
        ran = erase(portal, "--report", tmp_path / "erased.json")

    assert ran.code == 0, ran.err
    assert_erased(portal, words)
    for oid in oids:
        assert holders(oid) <= {"audit_auditevent.details", "audit_auditevent.subject"}, "the trail keeps ids"
    logged = lines.getvalue()
    assert "erased" in logged or "incident" in logged or "run" in logged, "nothing was logged"
    assert [word for word in words if word.lower() in logged.lower()] == []
    assert [token for token in portal.sandbox.world.refresh_tokens if token in logged] == []
    assert set(RunItem.objects.exclude(run__kind="find_tenants").values_list("label", "message")) == {
        (f"Erased partner {portal.partner.pk}", "")
    }
    assert list(SavedFilter.objects.values_list("name", flat=True)) == ["other"]
    assert (tmp_path / "erased.json").stat().st_mode & 0o777 == 0o600
    told_report = json.loads((tmp_path / "erased.json").read_text())["report"]
    assert names[0] in [one["name"] for one in told_report["vault"]], "what the offboarding erased is told too"
    taken = {"links", "attempts to consent", "customers", "incidents", "reports of offboardings"}
    assert taken <= told_report["rows"].keys()
    remains = " ".join(one["what"] for one in told_report["remains"])
    for what in ("audit trail", "Tenant ids", "Copies of the database", "entry of the vault", "Microsoft"):
        assert what in remains
    rewritten = tmp_path / "rewritten.json"
    rewritten.write_text(report.to_file(Offboarding.objects.get()))
    for file in (before, tmp_path / "erased.json", rewritten):
        assert run("verify_report", file).out.startswith("Unchanged, and known to the audit trail"), file
    assert portal.partner.name not in rewritten.read_text()


@pytest.mark.req("S-68")
@pytest.mark.req("S-40")
def test_a_disabled_partner_is_erased_with_its_waiting_account_and_a_second_time_changes_nothing(
    leaver: Portal,
) -> None:
    words = write_of_people(leaver)
    ran = erase(leaver)
    assert (ran.code, ran.out) == (0, f"Erased: Erased partner {leaver.partner.pk}. The report says what remains.\n")
    assert_erased(leaver, words)
    first = json.loads(Erasure.objects.get().report)
    assert [one["what"] for one in first["vault"]] == ["refresh token", "token of a changed account"]
    entries, vault = AuditEvent.objects.filter(action="partner.erased").count(), vault_secrets.content(leaver)

    assert erase(leaver).code == 0

    again = json.loads(Erasure.objects.get().report)
    # The request for the second erasure, and that it waited, are all that was new.
    assert (again["rows"], again["vault"]) == ({"incidents": 1, "requests of two persons": 1}, first["vault"])
    assert vault_secrets.content(leaver) == vault
    assert AuditEvent.objects.filter(action="partner.erased").count() == entries + 1
    assert vault_secrets.found(vault_secrets.reconcile()) == []


@AT_LOCAL
@pytest.mark.req("S-68")
def test_what_staff_write_afterwards_a_second_erasure_takes_away(leaver: Portal) -> None:
    assert erase(leaver).code == 0
    words = write_of_people(leaver)
    assert erase(leaver).code == 0
    assert_erased(leaver, [word for word in words if word and not word.startswith("Erased")])


# --- refusals -------------------------------------------------------------------------------------------------------


@AT_LOCAL
def test_it_is_begun_for_nobody_who_is_active_and_says_first_what_it_would_take_away(leaver: Portal) -> None:
    words, before = write_of_people(leaver), vault_secrets.content(leaver)
    told_first = run("erase_partner", leaver.partner.tenant_id)
    assert told_first.code == 2
    assert "2 tokens would be purged" in told_first.err
    assert "1 contact removed" in told_first.err
    partners.enable(partner(), actor=builders.ACTOR)
    with pytest.raises(partner_erasure.ErasureRefused, match="is active"):  # two persons decided before it was enabled
        partner_erasure.start(partner(), approved=decisions.approval())
    refused = erase(leaver)
    assert refused.code == 2
    assert "Offboard or disable it first" in refused.err
    assert run("erase_partner", builders.guid(), "--yes").code == 2
    assert vault_secrets.content(leaver) == before
    assert all(holders(word) for word in words)
    assert not Erasure.objects.exists()


@AT_LOCAL
def test_an_offboarding_that_is_not_done_comes_first(leaver: Portal) -> None:
    partners.enable(partner(), actor=builders.ACTOR)
    steps.start(partner(), approved=decisions.approval())
    PartnerTenant.objects.update(switch="disabled")
    with pytest.raises(partner_erasure.ErasureRefused, match="being offboarded"):
        partner_erasure.start(partner(), approved=decisions.approval())


@AT_AZURE
@pytest.mark.req("S-68")
@pytest.mark.req("S-40")
def test_without_the_right_to_delete_no_row_is_emptied_staff_are_told_and_the_schedule_goes_on(
    leaver: Portal, settings: Settings
) -> None:
    identity, settings.VAULT_ERASE_IDENTITY = settings.VAULT_ERASE_IDENTITY, ""
    words = write_of_people(leaver)
    ran = erase(leaver)
    assert ran.code == 1
    assert "Set VAULT_ERASE_IDENTITY" in ran.err
    assert all(holders(word) for word in words)
    assert (Erasure.objects.get().state, partner().switch) == ("erasing", "offboarded")
    assert custody.enabled_versions(leaver, leaver.consent()) == []
    incident = Incident.objects.open().get(cause="erasure_unfinished")
    assert "may not delete" in incident.words
    assert jobs._erase() == "0 of 1 done"

    settings.VAULT_ERASE_IDENTITY = identity
    clients.reset()

    assert jobs._erase() == "1 of 1 done"
    assert_erased(leaver, words)
    assert not Incident.objects.open().filter(cause="erasure_unfinished").exists()
    assert jobs._erase() == "0 of 0 done"


@AT_AZURE
@pytest.mark.req("S-68")
def test_what_the_vault_keeps_recoverable_the_report_names_with_its_end(leaver: Portal) -> None:
    leaver.sandbox.world.switches["vault_purge_protection"] = True
    words = write_of_people(leaver)
    ran = erase(leaver)
    assert ran.code == 0
    assert "2 can be recovered by its administrator" in ran.out
    assert {word: found for word in words if (found := holders(word))} == {}
    made = json.loads(Erasure.objects.get().report)
    assert {one["result"] for one in made["vault"]} == {"recoverable"}
    assert "retention ends" in made["remains"][0]["until"]


# --- cut off --------------------------------------------------------------------------------------------------------


class Died(BaseException):
    """As a process that ends: nobody catches it."""


@AT_AZURE
@pytest.mark.req("S-68")
@pytest.mark.parametrize("close", ["before", "after"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "^/secrets/rt-"),
        ("DELETE", "^/secrets/rt-"),
        ("DELETE", "^/deletedsecrets/rt-"),
        ("GET", "^/secrets/er-"),
        ("PUT", "^/secrets/er-"),
    ],
    ids=["switch off", "delete", "purge", "look for the tombstone", "write the tombstone"],
)
def test_whatever_call_it_ends_at_a_second_run_leads_to_the_same_end(
    leaver: Portal, method: str, path: str, close: str
) -> None:
    words = write_of_people(leaver)
    fault = Fault(service="vault", method=method, path=path, close=close, times=50)
    leaver.sandbox.world.faults.append(fault)
    assert erase(leaver).code == 1
    assert fault.times < 50, "the vault was not asked"
    assert partner().switch == "offboarded"
    told_staff = Incident.objects.open().get(cause="erasure_unfinished").words
    assert "vault" in told_staff.partition("every ten minutes. ")[2].lower(), "it says what failed and what to do"
    assert all(holders(word) for word in words), "rows are emptied last, and together"
    leaver.sandbox.world.faults.clear()

    assert erase(leaver).code == 0

    assert_erased(leaver, words)


@AT_LOCAL
@pytest.mark.req("S-68")
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (LocalVault, "disable"),
        (LocalVault, "erase"),
        (LocalVault, "write"),
        (partner_erasure, "forget"),
        (partner_erasure, "seal"),
        (partner_erasure, "record"),
    ],
    ids=lambda one: one if isinstance(one, str) else one.__name__.rpartition(".")[2],
)
def test_whatever_step_it_dies_in_a_second_run_leads_to_the_same_end(
    leaver: Portal, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    words, real, seen = write_of_people(leaver), getattr(owner, name), []

    def dies(*arguments: Any, **named: Any) -> Any:
        answer = real(*arguments, **named)  # the effect is there, and nobody learns of it
        if arguments[0] == "partner.erasure_started":
            return answer
        seen.append(answer)
        raise Died

    monkeypatch.setattr(owner, name, dies)
    with pytest.raises(Died):
        erase(leaver)
    monkeypatch.undo()
    assert seen
    assert (Erasure.objects.get().state, partner().switch) == ("erasing", "offboarded")
    assert all(holders(word) for word in words), "rows are emptied last, and together"

    assert erase(leaver).code == 0

    assert_erased(leaver, words)
    assert AuditEvent.objects.filter(action="partner.erased").count() == 1


@AT_LOCAL
@pytest.mark.req("S-68")
def test_an_entry_whose_version_the_row_never_learned_is_purged_too(leaver: Portal) -> None:
    cut_off = vault_secrets.write_orphan("CANARY-of-a-sign-in-that-was-cut-off")[0]
    WaitingToken.objects.create(
        consent=leaver.consent(),
        object_id=builders.guid(),
        secret_name=cut_off,
        mfa="proven",
        expires_at=WaitingToken.objects.get().expires_at,
    )
    assert erase(leaver).code == 0
    assert_erased(leaver, [])


# --- an older database ----------------------------------------------------------------------------------------------


@pytest.mark.req("S-69")
def test_an_older_database_brings_an_erased_partner_back_as_closed_and_staff_are_told(leaver: Portal) -> None:
    consents, row = list(PartnerConsent.objects.values()), PartnerTenant.objects.values().get()
    assert erase(leaver).code == 0
    Erasure.objects.all().delete()  # as the older copy has it
    PartnerTenant.objects.filter(pk=row["id"]).update(**row | {"switch": "on"})
    for each in consents:
        PartnerConsent.objects.filter(pk=each["id"]).update(**each)
    back = partner()
    link, _ = links.issue(back, leaver.registration, actor=builders.ACTOR)
    clients.reset()

    found = dict(vault_secrets.found(vault_secrets.reconcile(max_share=100)))

    assert found["erased_partner_is_back"] == "partner closed; its rows are still there"
    assert partner().switch == "offboarded"
    assert not ConsentLink.objects.usable().filter(pk=link.pk).exists()
    told_staff = Incident.objects.open().get(about=f"partner:{back.pk}")
    assert "erase the partner again" in told_staff.words
    assert AuditEvent.objects.filter(action="vault.partner_closed").count() == 1
    vault_secrets.reconcile(max_share=100)
    assert AuditEvent.objects.filter(action="vault.partner_closed").count() == 1

    assert erase(leaver).code == 0
    assert vault_secrets.found(vault_secrets.reconcile()) == []
    assert not Incident.objects.open().exists()


def test_a_tombstone_tells_a_reader_of_the_vault_nothing_and_cannot_be_made_without_the_key(
    db: None, settings: Settings
) -> None:
    one, other = builders.partner(), builders.partner()
    name = tombstones.name_of(one)
    assert name != tombstones.name_of(other)
    assert one.tenant_id.replace("-", "")[:8] not in name
    settings.INTEGRITY_KEY = "another key that is long enough for anything"
    assert tombstones.name_of(one) != name


# --- the admin ------------------------------------------------------------------------------------------------------


@AT_LOCAL
@pytest.mark.req("S-68")
def test_staff_erase_by_typing_the_name_and_read_what_remains(leaver: Portal) -> None:
    words, name = write_of_people(leaver), leaver.partner.name
    staff = Staff()
    asked = staff.choose("tenants_partnertenant", "erase_partners", leaver.partner.pk)
    assert "Purged from the vault: 2 tokens" in asked.content.decode()
    wrong = staff.confirm(asked, typed_name="Somebody else")
    assert "This is not the name of the chosen partner" in wrong.content.decode()
    assert not Erasure.objects.exists()
    assert "why" in staff.confirm(wrong, typed_name=name).context["form"].errors
    page = staff.confirm(wrong, typed_name=name, why="The partner asks for it.").content.decode()
    assert "second person" in page
    assert not Erasure.objects.exists()
    decisions.approve()
    jobs._erase()
    page = staff.get(f"/admin/consent/erasure/{Erasure.objects.get().pk}/change/").content.decode()
    assert_erased(leaver, words)
    assert "The seal fits" in page
    assert "What remains" in page
    one = Erasure.objects.get()
    assert name not in page
    answer = staff.post(f"/admin/consent/erasure/{one.pk}/report/")
    assert json.loads(answer.content)["report"]["erasure"] == one.pk
    assert PartnerImportRow.objects.exclude(name="").count() == 0
    assert CustomerTenant.objects.exclude(company_name="").count() == 0


@AT_LOCAL
def test_without_the_permission_the_action_is_not_offered(leaver: Portal) -> None:
    staff = Staff("tenants.view_partnertenant", "tenants.change_partnertenant", "consent.offboard_partner")
    assert "erase_partners" not in staff.get("/admin/tenants/partnertenant/").content.decode()
    staff.choose("tenants_partnertenant", "erase_partners", leaver.partner.pk)
    assert not Erasure.objects.exists()
