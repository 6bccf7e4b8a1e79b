"""One partner with three registrations in two products: each command and page acts on the one that was named, or asks.

Control Panel is the first product, Billing the second, and the third is Billing as the partner's own (CSP) application.

Covers: consent.admin.partner_tenants.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import secrets
from typing import Any

import jwt
import pytest

from consent import clients
from consent.access_tokens import SeveralRegistrations, get_access_token
from consent.applications import rotation
from consent.models import ApplicationRegistration, ConsentPlan, ConsentPlanItem, CustomerConsent, PartnerConsent
from consent.tokens.custody import TokenUnavailable
from portal.audit.models import AuditEvent
from portal.microsoft.secret import Secret
from portal.runs.models import Run
from tenants.models import CustomerTenant, PartnerTenant
from tests.sandbox.scenarios import PERMISSIONS, application_id, vendor_tenant
from tests.sandbox.world import GRAPH, Application, Refusal
from tests.support import builders, custody, decisions
from tests.support.commands import Ran, run
from tests.support.portal import Portal
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db(transaction=True)
WANTED = {"User.Read.All", "Directory.Read.All"}


@dataclasses.dataclass
class Three:
    """The portal, and its registrations by the words of this page, in the order in which the partner consented."""

    portal: Portal
    by_word: dict[str, ApplicationRegistration]

    @property
    def partner(self) -> PartnerTenant:
        return self.portal.partner

    def __getitem__(self, word: str) -> ApplicationRegistration:
        return self.by_word[word]

    def word_of(self, token: str) -> str:
        """Return whose token this is, by the application that Microsoft wrote into it."""
        appid = jwt.decode(token, options={"verify_signature": False})["appid"]
        return next(word for word, one in self.by_word.items() if one.application_id == appid)

    def consent(self, word: str) -> PartnerConsent:
        return PartnerConsent.objects.get(partner=self.partner, registration=self[word])

    def holders(self, customer: CustomerTenant) -> set[str]:
        """Return whose applications the customer's tenant holds, from the sandbox's own books."""
        tenant = self.portal.sandbox.world.tenants[customer.tenant_id]
        return {word for word, one in self.by_word.items() if tenant.principal_of(one.application_id) is not None}


def new_registration(portal: Portal, app_id: str, name: str, **columns: Any) -> ApplicationRegistration:
    secret = secrets.token_urlsafe(32)
    world = portal.sandbox.world
    world.applications[app_id] = Application(
        app_id=app_id,
        name=name,
        home_tenant=columns.get("home_tenant_id", vendor_tenant()),
        multi_tenant=columns.get("kind") != "csp",
        cpv=columns.get("kind") != "csp",
        redirect_uris={"https://portal.localhost/consent/callback/global"},
        permissions={resource: set(scopes) for resource, scopes in PERMISSIONS.items()},
        secrets={secret: world.now() + 86_400},
    )
    defaults = {"home_tenant_id": vendor_tenant(), "permission_set": "extended"}
    made = builders.registration(name=name, application_id=app_id, state="draft", credential=None, **defaults | columns)
    builders.grant(made, *sorted(WANTED))
    credential = rotation.add_secret(made, Secret(secret), expires_at=None, vault=clients.vault(), actor=builders.ACTOR)
    rotation.promote(credential, door=clients.tokens_with, actor=builders.ACTOR, allow_unproven=True)
    ApplicationRegistration.objects.filter(pk=made.pk).update(state="active")
    made.refresh_from_db()
    return made


@pytest.fixture
def three(portal: Portal) -> Three:
    ApplicationRegistration.objects.filter(pk=portal.registration.pk).update(name="Control Panel")
    portal.registration.refresh_from_db()
    by_word = {
        "panel": portal.registration,
        "billing": new_registration(portal, builders.guid(), "Billing"),
        "own": new_registration(
            portal, builders.guid(), "Billing", kind="csp", home_tenant_id=portal.partner.tenant_id
        ),
    }
    for registration in by_word.values():
        page = dataclasses.replace(portal, registration=registration).onboard()
        assert page.status_code == 200
    assert PartnerConsent.objects.filter(state="connected").count() == 3
    return Three(portal, by_word)


@pytest.fixture
def staff() -> Staff:
    return Staff()


def everywhere(three: Three, *words: str) -> CustomerTenant:
    """Put these applications into one customer's tenant, as if they were pushed, with the rows of them."""
    customer = custody.first_customer(three.portal)
    tenant = three.portal.sandbox.world.tenants[customer.tenant_id]
    for word in words:
        tenant.add_principal(three[word].application_id, three[word].name)
        tenant.grant(three[word].application_id, GRAPH, set(WANTED))
        CustomerConsent.objects.create(customer=customer, registration=three[word])
    return customer


def assert_asks(three: Three, ran: Ran, *words: str) -> None:
    """It ended with 2, and each candidate stands there as it can be named."""
    assert ran.code == 2, ran.out + ran.err
    assert "--registration" in ran.err
    for word in words:
        assert f"{three[word].application_id} ({three[word].name}, number {three[word].pk})" in ran.err
    others = [three[word].application_id for word in three.by_word if word not in words]
    assert not [one for one in others if one in ran.err]


# --- tokens for programs ----------------------------------------------------------------------------------------------


def test_get_access_token_asks_which_and_then_gives_that_ones(three: Three) -> None:
    partner = three.partner.tenant_id
    calls = len(three.portal.sandbox.world.ledger)

    assert_asks(three, run("get_access_token", partner, "graph"), "panel", "billing", "own")
    assert len(three.portal.sandbox.world.ledger) == calls
    assert not AuditEvent.objects.filter(action="token.handed_out").exists()

    for word, registration in three.by_word.items():
        for name in (registration.application_id, f"{{{registration.application_id.upper()}}}", registration.pk):
            ran = run("get_access_token", partner, "graph", "--registration", name)
            assert (ran.code, three.word_of(ran.out.strip())) == (0, word)
        event = AuditEvent.objects.filter(action="token.handed_out").latest("sequence")
        assert event.subject["registration"] == registration.pk


def test_python_raises_with_the_candidates_and_takes_the_named_one(three: Three) -> None:
    partner = three.partner.tenant_id
    with pytest.raises(SeveralRegistrations) as asked:
        get_access_token(partner, "graph")
    for registration in three.by_word.values():
        assert registration.application_id in str(asked.value)

    for word, registration in three.by_word.items():
        token = get_access_token(partner, "graph", registration=registration.application_id)
        assert three.word_of(token.reveal()) == word


def test_a_customers_token_is_of_the_named_application(three: Three) -> None:
    customer = everywhere(three, "panel")
    asked = ("get_access_token", three.partner.tenant_id, "graph", "--customer", customer.tenant_id)

    assert_asks(three, run(*asked), "panel", "billing", "own")
    ran = run(*asked, "--registration", three["panel"].application_id)

    assert (ran.code, three.word_of(ran.out.strip())) == (0, "panel")


def test_a_program_that_names_none_never_becomes_another_product_when_the_partner_leaves_one(three: Three) -> None:
    PartnerConsent.objects.filter(registration=three["own"]).delete()
    PartnerConsent.objects.filter(registration=three["panel"]).update(state="disconnected")

    assert_asks(three, run("get_access_token", three.partner.tenant_id, "graph"), "panel", "billing")
    ran = run("get_access_token", three.partner.tenant_id, "graph", "--registration", three["panel"].pk)
    assert ran.code == 1
    assert "disconnected" in ran.err


def test_a_retired_registration_is_no_candidate_beside_an_active_one(three: Three) -> None:
    ApplicationRegistration.objects.exclude(pk=three["billing"].pk).update(state="retired")

    ran = run("get_access_token", three.partner.tenant_id, "graph")

    assert (ran.code, three.word_of(ran.out.strip())) == (0, "billing")


@pytest.mark.parametrize("door", ["get_access_token", "push_consent"])
def test_a_registration_that_is_none_of_this_partner_is_said_in_its_own_words(three: Three, door: str) -> None:
    abroad = builders.registration(name="Panel China", cloud="china")
    new = builders.registration(name="Third Product")
    customer = custody.first_customer(three.portal)
    rest = ["graph"] if door == "get_access_token" else [customer.tenant_id]

    def asked(registration: object) -> Ran:
        return run(door, three.partner.tenant_id, *rest, "--registration", registration)

    for unknown in (builders.guid(), 999_999, "9" * 18):
        ran = asked(unknown)
        assert (ran.code, f"no application registration {unknown}" in ran.err) == (2, True)
    for unclear in ("panel", "9" * 40):
        assert (asked(unclear).code, "application id or number" in asked(unclear).err) == (2, True)
    assert asked(abroad.pk).code == 2
    assert "Panel China is registered in" in asked(abroad.pk).err
    assert asked(new.pk).code == 1
    assert "has not consented to Third Product yet; send it a link" in asked(new.pk).err


def test_an_application_id_of_two_clouds_is_the_one_of_the_partners_cloud(three: Three) -> None:
    builders.registration(name="Panel China", cloud="china", application_id=application_id())

    ran = run("get_access_token", three.partner.tenant_id, "graph", "--registration", application_id())

    assert (ran.code, three.word_of(ran.out.strip())) == (0, "panel")
    assert run("check_tokens", "--registration", application_id()).code == 2  # of which cloud?
    assert run("check_tokens", "--registration", application_id(), "--cloud", "global").code == 0


# --- commands over partners and customers -----------------------------------------------------------------------------


def test_push_consent_asks_which_and_pushes_that_one(three: Three) -> None:
    customer = custody.first_customer(three.portal)
    partner = three.partner.tenant_id

    assert_asks(three, run("push_consent", partner, customer.tenant_id), "panel", "billing", "own")
    assert three.holders(customer) == set()
    ran = run("push_consent", partner, customer.tenant_id, "--registration", three["billing"].pk, "--json")

    assert ran.code == 0, ran.out + ran.err
    assert three.holders(customer) == {"billing"}
    line = json.loads(ran.out.splitlines()[0])
    assert (line["tenant_id"], line["customer"], line["registration"]) == (
        partner,
        customer.tenant_id,
        three["billing"].application_id,
    )
    assert CustomerConsent.objects.get().registration == three["billing"]


def test_remove_consent_asks_which_and_counts_tenants_and_removes_that_one_only(three: Three) -> None:
    customer = everywhere(three, "panel", "billing")
    chosen = ("remove_consent", "--customer", customer.tenant_id)

    for more in ((), ("--yes",), ("--dry-run",)):
        assert_asks(three, run(*chosen, *more), "panel", "billing")
    assert three.holders(customer) == {"panel", "billing"}

    ran = run(*chosen, "--registration", three["billing"].application_id)
    assert ran.code == 2
    assert f"1 customer tenant would lose our application {three['billing'].application_id} (Billing" in ran.err
    ran = run(*chosen, "--registration", three["billing"].application_id, "--yes", "--json")

    assert ran.code == 0, ran.out + ran.err
    assert three.holders(customer) == {"panel"}
    [line, summary] = [json.loads(line) for line in ran.out.splitlines()]
    assert (line["registration"], line["tenant_id"], line["customer"]) == (
        three["billing"].application_id,
        three.partner.tenant_id,
        customer.tenant_id,
    )
    assert summary["summary"]["total"] == 1


def test_a_tenant_of_two_partners_is_one_tenant(three: Three) -> None:
    customer = everywhere(three, "panel")
    second = builders.partner()
    again = builders.customer(second, tenant_id=customer.tenant_id)
    builders.consent(second, three["panel"])
    CustomerConsent.objects.create(customer=again, registration=three["panel"])

    ran = run("remove_consent", "--customer", customer.tenant_id)

    assert "1 customer tenant would lose" in ran.err


def test_verify_consents_reads_each_one_and_each_line_says_which(three: Three) -> None:
    customer = everywhere(three, "panel", "billing")

    ran = run("verify_consents", "--customer", customer.tenant_id, "--new")

    for name in (
        "Control Panel",
        f"Billing, {three['billing'].application_id}",
        f"Billing, {three['own'].application_id}",
    ):
        assert f"{customer} ({name})" in ran.out, ran.out + ran.err
    states = dict(CustomerConsent.objects.values_list("registration", "state"))
    assert states == {three["panel"].pk: "granted", three["billing"].pk: "granted", three["own"].pk: "absent"}

    one = run("verify_consents", "--registration", three["panel"].application_id, "--json")
    [line, _] = [json.loads(line) for line in one.out.splitlines()]
    assert (line["registration"], line["registration_name"], line["customer"], line["tenant_id"]) == (
        three["panel"].application_id,
        "Control Panel",
        customer.tenant_id,
        three.partner.tenant_id,
    )


def test_new_rows_are_made_for_the_named_registration_only(three: Three) -> None:
    customer = custody.first_customer(three.portal)
    run("verify_consents", "--customer", customer.tenant_id, "--registration", three["billing"].pk)
    assert list(CustomerConsent.objects.values_list("registration", flat=True)) == [three["billing"].pk]


def test_check_tokens_says_of_each_token_which_it_is_and_checks_the_named_one_only(three: Three) -> None:
    three.portal.sandbox.world.refusals.append(Refusal(code=700082, client_id=three["billing"].application_id, times=9))

    ran = run("check_tokens")
    lines = [json.loads(line) for line in run("check_tokens", "--json").out.splitlines()][:-1]

    assert ran.code == 1
    assert f"needs_consent  Northwind Cloud (Billing, {three['billing'].application_id})" in ran.out
    assert "ok      Northwind Cloud (Control Panel)" in ran.out
    assert {(line["registration"], line["ok"]) for line in lines} == {
        (three["panel"].application_id, True),
        (three["billing"].application_id, False),
        (three["own"].application_id, True),
    }
    assert {(line["partner"], line["tenant_id"]) for line in lines} == {("Northwind Cloud", three.partner.tenant_id)}
    only = run("check_tokens", "--registration", three["panel"].pk)
    assert (only.code, "1 of 1: 1 ok" in only.out) == (0, True)
    assert [unit.label for unit in Run.objects.latest("pk").items.all()] == ["Northwind Cloud (Control Panel)"]


def test_age_is_that_of_each_token_and_not_of_its_partner(three: Three) -> None:
    assert run("check_tokens", "--registration", three["panel"].pk).code == 0
    PartnerConsent.objects.exclude(registration=three["panel"]).update(last_try_at=None)

    ran = run("check_tokens", "--age", 1)

    assert "2 of 2: 2 ok" in ran.out


def test_keep_alive_takes_a_registration_too(three: Three) -> None:
    PartnerConsent.objects.update(next_try_at="2020-01-01T00:00Z")
    ran = run("keep_alive", "--registration", three["own"].pk)
    assert "1 of 1: 1 ok" in ran.out
    assert f"(Billing, {three['own'].application_id})" in ran.out


def test_a_sync_is_read_with_the_oldest_consent_that_works_and_says_so(three: Three) -> None:
    """The lists are the partner's, whichever application reads them; a second product does not take over."""

    def used() -> tuple[int, str]:
        ran = run("sync_customers", "--json")
        return ran.code, json.loads(ran.out.splitlines()[0])["registration_name"]

    assert used() == (0, "Control Panel")
    assert "read with the token of Control Panel" in run("sync_customers").out
    PartnerConsent.objects.filter(registration=three["panel"]).update(state="needs_consent")
    assert used() == (0, "Billing")
    three.portal.sandbox.world.ledger.clear()
    named = run("sync_customers", "--registration", three["own"].application_id, "--json")
    assert json.loads(named.out.splitlines()[0])["registration"] == three["own"].application_id


def test_a_plan_and_a_link_ask_which(three: Three) -> None:
    custody.first_customer(three.portal)
    partner = three.partner.tenant_id

    assert_asks(three, run("plan_consents", "--partner", partner), "panel", "billing", "own")
    assert_asks(three, run("issue_consent_link", partner), "panel", "billing", "own")
    assert run("plan_consents", "--partner", partner, "--registration", three["own"].pk).code == 0
    assert ConsentPlan.objects.get().registration == three["own"]
    ran = run("issue_consent_link", partner, "--registration", three["billing"].application_id)
    assert (ran.code, "Billing" in ran.err) == (0, True)
    assert three.partner.links.latest("pk").registration == three["billing"]
    abroad = builders.registration(name="Panel China", cloud="china")
    ran = run("issue_consent_link", partner, "--registration", abroad.pk)
    assert (ran.code, "Panel China is registered in" in ran.err) == (2, True)


def test_a_credential_is_added_by_the_application_id_as_well(three: Three) -> None:
    ran = run("promote_credential", three["billing"].application_id, "--roll-back")
    assert (ran.code, "no earlier credential" in ran.err) == (1, True)
    assert (run("promote_credential", builders.guid()).code, run("add_credential", 999_999, "federated").code) == (2, 2)


# --- pages ------------------------------------------------------------------------------------------------------------


def ids_on(page: str, three: Three) -> set[str]:
    return {word for word, one in three.by_word.items() if one.application_id in page}


@pytest.mark.parametrize(
    ("address", "parameter"),
    [
        ("consent/partnerconsent", "registration__id__exact"),
        ("consent/customerconsent", "registration__id__exact"),
        ("consent/consentobservation", "registration__id__exact"),
        ("consent/consentflow", "link__registration__id__exact"),
    ],
)
def test_each_list_names_the_registration_and_is_filtered_by_it(
    three: Three, staff: Staff, address: str, parameter: str
) -> None:
    everywhere(three, "panel", "billing", "own")
    run("verify_consents")

    page = staff.get(f"/admin/{address}/")
    assert ids_on(page.content.decode(), three) == {"panel", "billing", "own"}
    assert f"?{parameter}={three['own'].pk}" in page.content.decode()
    page = staff.get(f"/admin/{address}/", {parameter: three["own"].pk})
    assert len(page.context["cl"].result_list) == 1
    assert ids_on(page.content.decode(), three) == {"own"}


@pytest.mark.parametrize(
    ("model", "tenant_column"),
    [
        ("consent_partnerconsent", "Partner tenant id"),
        ("consent_customerconsent", "Partner tenant id"),
        ("consent_consentobservation", "Customer tenant id"),
        ("consent_consentflow", "Partner tenant id"),
    ],
)
def test_each_export_names_tenant_and_registration(three: Three, staff: Staff, model: str, tenant_column: str) -> None:
    customer = everywhere(three, "panel", "billing", "own")
    run("verify_consents")
    keys = [row.pk for row in staff.get(f"/admin/{model.replace('_', '/')}/").context["cl"].result_list]

    answer = staff.choose(model, "export_csv", *keys)

    rows = list(csv.DictReader(b"".join(answer.streaming_content).decode().splitlines()))
    tenant = customer.tenant_id if tenant_column == "Customer tenant id" else three.partner.tenant_id
    assert {row[tenant_column] for row in rows} == {tenant}
    assert {row["Registration application (client) id"] for row in rows} == {
        one.application_id for one in three.by_word.values()
    }


def test_disconnecting_names_the_application_and_leaves_the_others(three: Three, staff: Staff) -> None:
    page = staff.choose("consent_partnerconsent", "disconnect_partners", three.consent("panel").pk)
    assert "Northwind Cloud (Control Panel)" in page.content.decode()
    assert "Northwind Cloud (Control Panel): disconnected" in told(staff.confirm(page))
    assert [three.consent(word).state for word in three.by_word] == ["disconnected", "connected", "connected"]
    with pytest.raises(TokenUnavailable, match="disconnected"):
        get_access_token(three.partner.tenant_id, "graph", registration=three["panel"].application_id)
    token = get_access_token(three.partner.tenant_id, "graph", registration=three["billing"].application_id)
    assert three.word_of(token.reveal()) == "billing"


def test_the_removal_page_counts_tenants_and_names_each_registration(three: Three, staff: Staff) -> None:
    everywhere(three, "panel", "billing", "own")
    keys = CustomerConsent.objects.exclude(registration=three["own"]).values_list("pk", flat=True)

    page = staff.choose("consent_customerconsent", "remove_consents", *keys)

    text = page.content.decode()
    assert "In 1 customer tenant our applications are deleted with all grants: " in text
    assert "Control Panel in 1 customer tenant; " in text
    assert f"Billing, {three['billing'].application_id} in 1 customer tenant." in text
    assert three["own"].application_id not in text
    assert "1 customer tenant left to the workers" in told(staff.confirm(page))
    chosen = ConsentPlanItem.objects.filter(plan__run=Run.objects.latest("pk"), action="remove")
    of_plans = set(chosen.values_list("plan__registration", "customer"))
    assert of_plans == set(CustomerConsent.objects.filter(pk__in=keys).values_list("registration", "customer"))
    assert len(chosen) == 2


def test_a_customers_row_shows_each_consent_and_is_found_by_each(three: Three, staff: Staff) -> None:
    customer = everywhere(three, "panel", "billing")
    CustomerConsent.objects.filter(registration=three["panel"]).update(
        state="failed", owner="us", reason="Panel was refused."
    )
    CustomerConsent.objects.filter(registration=three["billing"]).update(
        state="absent", owner="partner", reason="Billing was removed."
    )
    address = "/admin/tenants/customertenant/"

    def found(**query: str | int) -> bool:
        return [row.pk for row in staff.get(address, query).context["cl"].result_list] == [customer.pk]

    page = staff.get(address).content.decode()
    for text in ("Control Panel", "Billing", "Panel was refused.", "Billing was removed."):
        assert text in page
    assert (found(consent="failed"), found(consent="absent"), found(who="us"), found(who="partner")) == (True,) * 4
    panel, own = three["panel"].pk, three["own"].pk
    assert (found(registration=panel, consent="failed"), found(registration=panel, consent="absent")) == (True, False)
    assert (found(registration=own, consent="none"), found(registration=panel, consent="none")) == (True, False)
    assert "Billing was removed." not in staff.get(address, {"registration": panel}).content.decode()


def test_the_export_of_customers_asks_which_registration(three: Three, staff: Staff) -> None:
    customer = everywhere(three, "panel", "billing")
    CustomerConsent.objects.filter(registration=three["panel"]).update(state="failed")

    asked = staff.choose("tenants_customertenant", "export_csv", customer.pk)
    assert "Filter by the application registration" in told(staff.get(asked["Location"]))
    answer: Any = staff.post(
        f"/admin/tenants/customertenant/?registration={three['panel'].pk}",
        {"action": "export_csv", "_selected_action": [customer.pk], "index": 0},
        headers={"referer": "https://portal.localhost/admin/"},
    )

    [row] = csv.DictReader(b"".join(answer.streaming_content).decode().splitlines())
    assert (row["Consent registration"], row["Consent application id"], row["Consent state"]) == (
        "Control Panel",
        three["panel"].application_id,
        "Failed",
    )


def test_a_partners_page_counts_customers_for_each_registration(three: Three, staff: Staff) -> None:
    everywhere(three, "panel", "billing")
    CustomerConsent.objects.filter(registration=three["billing"]).update(state="failed")

    page = staff.get(f"/admin/tenants/partnertenant/{three.partner.pk}/change/").content.decode()

    for text in ("<h3>Control Panel</h3>", f"<h3>Billing, {three['billing'].application_id}</h3>"):
        assert text in page
    assert f"consent=failed&amp;registration={three['billing'].pk}" in page
    assert f"consent=none&amp;registration={three['own'].pk}" in page


# --- offboarding: the whole partner, so all of them -------------------------------------------------------------------


def test_offboarding_names_each_registration_and_counts_a_tenant_once(three: Three) -> None:
    customer = everywhere(three, "panel", "billing")
    partner = three.partner.tenant_id

    ran = run("offboard_partner", partner)
    assert ran.code == 2
    assert (
        f"(Control Panel, Billing, {three['billing'].application_id}) in 1 customer tenant would be removed" in ran.err
    )
    # Nothing is known of the third application there, which would stay behind.
    assert "Never read: 1 customer " in ran.err
    three.portal.sandbox.world.relationships.clear()
    assert run("offboard_partner", partner, "--yes", "--wait", 0, "--why", "It is meant.").code == 1
    decisions.approve()
    ran = run("offboard_partner", partner, "--yes", "--wait", 0)

    assert ran.code == 1
    assert "1 customers remain" in ran.err
    assert f"remains  {customer} (Control Panel)" in ran.out
    assert f"remains  {customer} (Billing)" in ran.out
    run("offboard_partner", partner, "--yes", "--finish", "--wait", 0, "--why", "They will not answer.")
    decisions.approve()
    report = run("offboard_partner", partner, "--yes", "--wait", 0)
    assert "Offboarded; 1 customers remain" in report.out
    counts = json.loads(three.partner.offboardings.get().report)["counts"]
    assert (counts["customers"], counts["remaining"], counts["customers_never_read"]) == (1, 1, 1)
