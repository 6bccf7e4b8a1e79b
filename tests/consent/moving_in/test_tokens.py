"""Refresh tokens that a vendor already has are adopted when they prove themselves, each once.

Covers: consent.moving_in.sources, consent.runs.import_tokens.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import ApplicationRegistration, PartnerConsent
from consent.moving_in.sources import JsonLines
from consent.runs.import_tokens import IMPORT_TOKENS, Import, at_hand
from portal.audit.models import AuditEvent
from portal.runs import service, tasks
from portal.runs.models import Run, RunItem
from portal.runs.schedule import sweep
from portal.text import number_of
from tenants.models import PartnerTenant
from tests.conftest import make_portal, use_azure_vault, use_local_vault, use_sandbox
from tests.sandbox import scenarios
from tests.sandbox.key_vault import StoredSecret
from tests.sandbox.server import Sandbox
from tests.sandbox.world import PARTNER_API, Fault
from tests.support import builders, moving_in
from tests.support.builders import ACTOR, guid
from tests.support.commands import Ran, run
from tests.support.moving_in import BAD, Brought, Input, adopted, bring, good
from tests.support.permission_sets import PRICES, made
from tests.support.portal import Portal
from tests.support.staff import Staff, told
from tests.support.threads import at_once
from tests.support.units import work_unit

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def portal(settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Portal:
    use_sandbox(settings, sandbox)
    use_local_vault(settings, tmp_path)
    return make_portal(sandbox)


def import_tokens(brought: Input | bytes, *arguments: str) -> Ran:
    """Run the command with this input; no token of it is in what was printed."""
    content = brought if isinstance(brought, bytes) else brought.lines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        ran = run("import_tokens", *arguments)
    if isinstance(brought, Input):
        assert not [token for token in brought.tokens() if token in ran.out + ran.err]
    return ran


def classes(ran: Ran) -> Counter[str]:
    """Return the classes of the result lines of ``--json``."""
    lines = [json.loads(line) for line in ran.out.splitlines()]
    return Counter(line["class"] for line in lines if "class" in line)


def test_each_way_of_being_bad_has_its_reason_and_stores_nothing(portal: Portal) -> None:
    brought = bring(portal, number=2, of_each=1)
    ran = import_tokens(brought, "--json")
    assert ran.code == 1
    expected = Counter(one.why or "ok" for one in brought.brought)
    assert classes(ran) == expected
    assert adopted() == set(brought.good())
    for item in RunItem.objects.exclude(failure_class="ok"):
        assert item.message
        assert item.owner
    # A row may be there, made before the vault was asked; it points to nothing.
    assert PartnerConsent.objects.exclude(state="connected").filter(generation__gt=0).count() == 0
    events = Counter(AuditEvent.objects.values_list("action", flat=True))
    assert (events["token.stored"], events["token.imported"]) == (2, 2)
    assert events["token.import_refused"] == RunItem.objects.exclude(failure_class="ok").count()


def test_a_registration_with_a_set_of_its_own_is_compared_with_that(portal: Portal) -> None:
    portal.registration.permission_set, portal.registration.own_set = "own", made("Prices", PRICES)
    portal.registration.save()
    brought = [good(portal, "mover-a"), good(portal, "mover-b")]
    tenant = portal.sandbox.world.tenants[brought[0].tenant_id]
    tenant.grant(portal.registration.application_id, PARTNER_API, {"user_impersonation"})
    ran = import_tokens(Input(brought), "--json")
    assert adopted() == {tenant.tenant_id}, ran.err
    assert RunItem.objects.exclude(failure_class="ok").get().owner == "partner"


def test_an_adopted_token_works_and_a_second_import_is_without_effect(portal: Portal) -> None:
    brought = bring(portal, number=3, of_each=0)
    assert import_tokens(brought).code == 0
    rows = list(PartnerConsent.objects.order_by("pk").values())
    events = AuditEvent.objects.count()
    again = import_tokens(brought)
    assert again.code == 0
    assert again.out.count("already_connected  line") == 3
    assert list(PartnerConsent.objects.order_by("pk").values()) == rows
    assert AuditEvent.objects.count() == events
    for tenant_id in brought.good():
        assert run("check_tokens", "--partner", tenant_id).code == 0


def test_a_dry_run_redeems_and_writes_nothing(portal: Portal) -> None:
    brought = bring(portal, number=2, of_each=1)
    before = portal.sandbox.world.counters.copy()
    ran = import_tokens(brought, "--dry-run", "--json")
    assert ran.code == 1
    # What only a redemption shows is still to be tried.
    assert classes(ran) == {"to_try": 10, "malformed": 1, "unknown_partner": 1, "duplicate": 1}
    assert portal.sandbox.world.counters == before
    assert not Run.objects.exists()
    assert not PartnerConsent.objects.exists()
    assert not AuditEvent.objects.filter(action__startswith="token.").exists()
    assert "Nothing was redeemed" in import_tokens(brought, "--dry-run").out


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{",
        b'{"tenant_id": "TENANT"}',
        b'{"tenant_id": "TENANT", "refresh_token": ""}',
        b'{"tenant_id": "TENANT", "refresh_token": "1.A b"}',
        b'{"tenant_id": "TENANT", "refresh_token": ["1.A"]}',
        b'{"tenant_id": "common", "refresh_token": "1.A"}',
        b'{"tenant_id": "\xff"}',
        b'{"tenant_id": "TENANT", "refresh_token": "' + b"x" * 25_001 + b'"}',
        b'{"tenant_id": "TENANT", "refresh_token": "' + b"x" * 70_000 + b'"}',
    ],
)
def test_a_line_of_another_form_is_named_by_its_number(portal: Portal, text: bytes) -> None:
    text = text.replace(b"TENANT", guid().encode())
    ran = import_tokens(b"\n" + text + b"\n")
    assert ran.code == 1
    assert "malformed  line 2, " in ran.out
    assert "xxx" not in ran.out
    assert "Traceback" not in ran.out + ran.err
    assert not PartnerConsent.objects.exists()


def test_who_is_disconnected_stopped_disabled_or_elsewhere_is_left_as_it_is(portal: Portal) -> None:
    brought = bring(portal, number=4, of_each=0)
    partners = [PartnerTenant.objects.get(tenant_id=one) for one in brought.good()]
    for partner, state in zip(partners, ("disconnected", "stopped"), strict=False):
        builders.consent(partner, portal.registration, state=state)
    PartnerTenant.objects.filter(pk=partners[2].pk).update(switch="disabled")
    PartnerTenant.objects.filter(pk=partners[3].pk).update(cloud="china")
    before = portal.sandbox.world.counters.copy()
    ran = import_tokens(brought, "--json")
    assert classes(ran) == {"disconnected": 1, "stopped": 1, "partner_off": 1, "other_cloud": 1}
    assert portal.sandbox.world.counters == before


def input_of(brought: Input) -> str:
    """Return what the run of this input is called."""
    digest = sha256("".join(sorted(one.tenant_id for one in brought.brought)).encode()).hexdigest()[:8]
    return f"standard input: {number_of(len(brought.brought), 'tenant')} (fingerprint {digest})"


def import_of(portal: Portal, brought: Input) -> Import:
    """Return what the command has at hand for this input."""
    source = JsonLines(io.BytesIO(brought.lines()))
    tenants = frozenset(line.tenant_id for line in source.lines if line.tenant_id is not None)
    return Import(source=source, registration=portal.registration, tenants=tenants)


def test_an_account_of_which_graph_does_not_say_whether_it_is_a_guest_is_not_adopted(portal: Portal) -> None:
    brought = Input([good(portal, "mover-a")])
    portal.sandbox.world.faults.append(Fault(service="graph", path="/v1.0/me", times=9, status=503, body="{}"))
    ran = import_tokens(brought, "--json")
    assert (ran.code, classes(ran), adopted()) == (1, {"member_unproven": 1}, set())
    item = RunItem.objects.get()
    assert item.owner == "us"
    assert "Run the import again" in item.message
    portal.sandbox.world.faults.clear()
    assert import_tokens(brought).code == 0
    assert adopted() == set(brought.good())


@pytest.mark.parametrize("fault", [{"status": 503, "body": ""}, {"close": "before"}], ids=["away", "cut"])
@pytest.mark.parametrize("passed", [1, 2], ids=["Graph", "Partner API"])
def test_a_failure_behind_the_first_redemption_is_ours_or_microsofts_and_no_partners(
    portal: Portal, passed: int, fault: dict[str, Any]
) -> None:
    portal.registration.permission_set, portal.registration.own_set = "own", made("Prices", PRICES)
    portal.registration.save()
    brought = Input([good(portal, "mover-a")])
    tenant_id = brought.brought[0].tenant_id
    portal.sandbox.world.tenants[tenant_id].grant(
        portal.registration.application_id, PARTNER_API, {"user_impersonation"}
    )
    portal.sandbox.world.faults.append(Fault(service="login", path="token", skip=passed, times=9, **fault))
    partner = PartnerTenant.objects.get(tenant_id=tenant_id)
    with at_hand(import_of(portal, brought)):
        outcome = work_unit(IMPORT_TOKENS, partner.pk, scope={"registration": portal.registration.pk})
        assert (outcome.ok, outcome.systemic) == (False, True)
        assert outcome.owner != "partner"
        assert not AuditEvent.objects.filter(action="token.import_refused").exists()
        portal.sandbox.world.faults.clear()
        assert work_unit(IMPORT_TOKENS, partner.pk, scope={"registration": portal.registration.pk}).ok


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (lambda portal: portal.onboard(), "ok"),
        (lambda portal: PartnerConsent.objects.update(state="connected"), "ok"),
        (lambda portal: PartnerConsent.objects.update(state="disconnected"), "disconnected"),
        (lambda portal: PartnerConsent.objects.update(state="stopped"), "stopped"),
        (lambda portal: PartnerTenant.objects.update(offboarding_since=timezone.now()), "partner_off"),
        (lambda portal: ApplicationRegistration.objects.update(state="retired"), "registration_off"),
    ],
    ids=["signed in", "connected", "disconnected", "stopped", "offboarding", "registration retired"],
)
def test_what_happens_while_a_token_proves_itself_wins_over_it(
    portal: Portal, happens: Callable[[Portal], Any], why: str
) -> None:
    world, partner = portal.sandbox.world, portal.partner
    tenant = world.tenants[partner.tenant_id]
    moving_in.grant_all(portal, tenant)
    brought = Input([Brought(tenant.tenant_id, moving_in.token_of(portal, tenant))])
    service_account = next(user.oid for user in tenant.users.values() if user.upn.startswith("service@"))
    builders.consent(partner, portal.registration, state="needs_consent", pinned_oid=service_account)
    world.faults.append(Fault(service="partnercenter", path="profiles/organization", hold=True))

    def work(number: int) -> Any:
        if number:
            return work_unit(IMPORT_TOKENS, partner.pk, scope={"registration": portal.registration.pk})
        until = time.monotonic() + 20
        while not portal.sandbox.faults.holding and time.monotonic() < until:
            time.sleep(0.01)
        happens(portal)
        row = dict(PartnerConsent.objects.values().get())
        portal.sandbox.faults.release()
        return row

    with at_hand(import_of(portal, brought)):
        before, outcome = at_once(work, 2)

    assert outcome.failure_class == why, outcome
    leased = {"lease_owner", "lease_until"}
    after = dict(PartnerConsent.objects.values().get())
    assert [name for name in before if before[name] != after[name] and name not in leased] == []
    assert not AuditEvent.objects.filter(action="token.imported").exists()


def test_another_account_than_the_pinned_one_is_refused_and_a_lost_token_is_replaced(portal: Portal) -> None:
    one, two = good(portal, "mover-a"), good(portal, "mover-b")
    for brought, pinned in ((one, guid()), (two, "")):
        tenant = portal.sandbox.world.tenants[brought.tenant_id]
        service = next(user.oid for user in tenant.users.values() if user.upn.startswith("service@"))
        partner = PartnerTenant.objects.get(tenant_id=brought.tenant_id)
        builders.consent(partner, portal.registration, state="needs_consent", pinned_oid=pinned or service)
    ran = import_tokens(Input([one, two]), "--json")
    assert classes(ran) == {"other_account": 1, "ok": 1}
    assert PartnerConsent.objects.get(partner__tenant_id=two.tenant_id).state == "connected"
    assert PartnerConsent.objects.get(partner__tenant_id=one.tenant_id).state == "needs_consent"


def test_a_fault_of_ours_stops_the_import_and_refuses_nobody(portal: Portal) -> None:
    brought = bring(portal, number=8, of_each=0)
    application = portal.sandbox.world.applications[portal.registration.application_id]
    kept, application.secrets = application.secrets, {}
    ran = import_tokens(brought)
    assert ran.code == 3, ran.out + ran.err
    assert not AuditEvent.objects.filter(action="token.import_refused").exists()
    application.secrets = kept
    clients.reset()
    stopped = Run.objects.get()
    again = "import_tokens again with the same input"
    assert "run_resume" not in ran.err
    assert f"run {again}" in ran.err
    assert stopped.state == "stopped"
    assert stopped.resume_at is None
    refused = run("run_resume", stopped.pk)
    assert (refused.code, again in refused.err) == (2, True)
    staff = Staff()
    assert again in told(staff.post(f"/admin/runs/run/{stopped.pk}/resume/", follow=True))
    assert "Resume" not in staff.get(f"/admin/runs/run/{stopped.pk}/change/").content.decode()
    assert Run.objects.get().state == "stopped"
    assert import_tokens(brought).code == 0
    assert adopted() == set(brought.good())
    assert Run.objects.exclude(pk=stopped.pk).count() <= 1


def test_a_partner_whose_token_another_process_keeps_is_waited_for_and_redeems_nothing(portal: Portal) -> None:
    brought = bring(portal, number=1, of_each=0)
    partner = PartnerTenant.objects.get(tenant_id=brought.good()[0])
    columns = {"generation": 0, "secret_version": "", "fingerprint": "", "stored_at": None, "state": "needs_consent"}
    consent = builders.consent(partner, portal.registration, **columns)
    held_until = timezone.now() + timedelta(seconds=4)
    PartnerConsent.objects.filter(pk=consent.pk).update(lease_owner="dead", lease_until=held_until)
    began = timezone.now()
    assert import_tokens(brought).code == 0
    assert timezone.now() > held_until > began
    assert adopted() == set(brought.good())
    assert portal.sandbox.world.counters["entra token 200"] == 2  # Partner Center and Graph, once each


def test_what_microsoft_does_not_answer_is_tried_again_by_the_command_only(portal: Portal) -> None:
    brought = bring(portal, number=8, of_each=0)
    portal.sandbox.world.faults.append(Fault(service="login", path="token", times=999, status=503, body=""))
    ran = import_tokens(brought)
    assert ran.code == 3, ran.out + ran.err
    stopped = Run.objects.get()
    assert (stopped.state, stopped.resume_at) == ("stopped", None)
    Run.objects.update(resume_at=timezone.now())  # as an older version left it
    assert "resumed" not in sweep()
    stopped.refresh_from_db()
    assert (stopped.state, stopped.resume_at) == ("stopped", None)
    portal.sandbox.world.faults.clear()
    clients.reset()
    assert import_tokens(brought).code == 0
    assert adopted() == set(brought.good())


def test_an_import_that_a_person_paused_goes_on_with_its_command(portal: Portal) -> None:
    brought = bring(portal, number=1, of_each=0)
    scope = {"registration": portal.registration.pk, "input": input_of(brought)}
    paused, _ = service.start(IMPORT_TOKENS, scope=scope, actor=ACTOR)
    service.pause(paused, actor=ACTOR)
    assert import_tokens(brought).code == 0
    paused.refresh_from_db()
    assert paused.state == "done"


def test_what_an_earlier_process_adopted_unwritten_is_called_by_its_class(portal: Portal) -> None:
    brought = bring(portal, number=2, of_each=0)
    scope = {"registration": portal.registration.pk, "input": input_of(brought)}
    left, _ = service.start(IMPORT_TOKENS, scope=scope, actor=ACTOR)
    for partner in PartnerTenant.objects.filter(tenant_id__in=brought.good()):
        RunItem.objects.create(run=left, key=partner.pk, group=partner.pk, label="x", turn=0, correlation_id=guid())
    Run.objects.filter(pk=left.pk).update(listed_at=timezone.now(), total=2)
    first = PartnerTenant.objects.get(tenant_id=brought.good()[0])
    builders.consent(first, portal.registration)
    ran = import_tokens(brought)
    assert ran.code == 0
    assert Counter(line.partition("  ")[0] for line in ran.out.splitlines()[:-1]) >= Counter(
        {"already_connected": 2, "adopted": 1}
    )
    assert ran.out.count("adopted  ") == 1


def test_a_worker_has_no_tokens_and_says_so_and_the_command_goes_on(portal: Portal) -> None:
    brought = bring(portal, number=3, of_each=0)
    import_tokens(Input(brought.brought[:1]))
    left, _ = service.start(IMPORT_TOKENS, scope={"registration": portal.registration.pk, "input": "x"}, actor=ACTOR)
    for partner in PartnerTenant.objects.filter(tenant_id__in=brought.good()):
        RunItem.objects.create(run=left, key=partner.pk, group=partner.pk, label="x", turn=0, correlation_id=guid())
    assert tasks.advance.func(left.pk) == "done"
    results = Counter(RunItem.objects.filter(run=left).values_list("failure_class", flat=True))
    assert results == {"ok": 1, "no_input": 2}  # one was connected already
    words = RunItem.objects.filter(run=left, failure_class="no_input").values_list("message", flat=True)[0]
    assert "Start the import again with the same input" in words
    assert not AuditEvent.objects.filter(action="token.import_refused").exists()
    assert "same input" in service.why_not_repeated(left)
    assert import_tokens(brought).code == 0
    assert adopted() == set(brought.good())


def test_an_import_that_was_left_is_cancelled_by_one_of_another_input(portal: Portal) -> None:
    brought = bring(portal, number=1, of_each=0)
    left, _ = service.start(IMPORT_TOKENS, scope={"registration": portal.registration.pk, "input": "x"}, actor=ACTOR)
    assert import_tokens(brought).code == 0
    left.refresh_from_db()
    assert left.state == "cancelled"


def test_tokens_are_read_from_another_vault_which_is_never_written(
    settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    portal = make_portal(sandbox)
    sandbox.world.vault_rights[scenarios.vault_application_id()] = {"get", "set", "list"}
    brought = Input([good(portal, f"mover{index}") for index in range(3)])
    brought.brought += [make(portal, way.replace(" ", "-")) for way, make in BAD.items() if way != "malformed"]
    address = moving_in.put_into_vault(portal, "vendors-old", brought)
    vault = sandbox.world.vaults["global", "vendors-old"]
    vault.secrets["something-else"] = StoredSecret(name="something-else", versions=[])
    vault.secrets["something-else"].versions = vault.secrets[brought.brought[0].tenant_id].versions
    vault.secrets[brought.brought[1].tenant_id].versions[0].enabled = False
    brought.brought[1].why = "not_readable"
    sandbox.world.ledger.clear()
    ran = import_tokens(b"", "--from-vault", address, "--json")
    assert ran.code == 1, ran.err
    assert "1 secret with another name" in ran.err
    assert adopted() == set(brought.good())
    assert classes(ran) == Counter(one.why or "ok" for one in brought.brought)
    calls = {line["operation"] for line in sandbox.world.ledger if line.get("vault") == "vendors-old"}
    assert calls == {"list", "get"}
    assert not [token for token in brought.tokens() if token in ran.out + ran.err]


@pytest.mark.parametrize(("number", "of_each"), [(30, 1), pytest.param(260, 5, marks=pytest.mark.release)])
def test_of_the_tokens_of_another_vault_each_is_adopted_or_has_its_reason_and_again_nothing_happens(
    settings: Settings, sandbox: Sandbox, tmp_path: Path, number: int, of_each: int
) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    portal = make_portal(sandbox)
    sandbox.world.vault_rights[scenarios.vault_application_id()] = {"get", "set", "list"}
    # A vault has no second secret of a tenant and no line of another form; eight ways to be bad are left.
    ways = [way for way in BAD if way not in {"malformed", "damaged"}]
    brought = Input([one for one in bring(portal, number, of_each, ways).brought if one.why != "duplicate"])
    assert (len(ways), len(brought.brought), len(brought.good())) == (8, number + 8 * of_each, number)
    address = moving_in.put_into_vault(portal, "vendors-old", brought)

    ran = import_tokens(b"", "--from-vault", address, "--json")

    assert ran.code == 1, ran.err
    assert adopted() == set(brought.good())
    reasons = Counter(one.why for one in brought.brought if one.why)
    assert classes(ran) == reasons + Counter({"ok": number})
    assert AuditEvent.objects.filter(action="token.imported").count() == number
    assert not [token for token in brought.tokens() if token in ran.out + ran.err]

    again = import_tokens(b"", "--from-vault", address, "--json")
    assert classes(again) == reasons + Counter({"already_connected": number})
    assert AuditEvent.objects.filter(action="token.imported").count() == number


def test_the_portals_own_vault_is_no_other_one_however_it_is_written(
    settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    make_portal(sandbox)
    scheme, _, rest = settings.VAULT_URL.partition("://")
    for own, address in (
        (settings.VAULT_URL, f"{scheme}://{rest.partition('.')[0].upper()}.{rest.partition('.')[2]}"),
        (settings.VAULT_URL.upper().replace("HTTPS", "https"), settings.VAULT_URL),
    ):
        settings.VAULT_URL = own
        ran = import_tokens(b"", "--from-vault", f"{address}/")
        assert ran.code == 3
        assert "the portal's own vault" in ran.err


@pytest.mark.parametrize(
    "address",
    ["http://x.vault.azure.net", "https://x.vault.azure.net.evil.example", "https://a@b", "https://x.example.com/v"],
)
def test_no_other_address_than_that_of_a_key_vault_is_asked(portal: Portal, address: str) -> None:
    ran = import_tokens(b"", "--from-vault", address)
    assert ran.code == 3
    assert "must look like https://name" in ran.err
