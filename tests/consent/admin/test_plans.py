"""Plans in the admin: make, read, filter, export, undo; each behind its permission.

Covers: consent.admin.applying.
"""

from __future__ import annotations

import csv
import io
import json
from html import unescape
from typing import Any

import pytest
from dj_queue.models import Job
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.admin import plans as pages
from consent.customers.plans import make_plan
from consent.models import ApplicationGrant, ApplicationRegistration, ConsentPlan, CustomerConsent
from consent.selection import EVERYTHING
from portal.audit.models import AuditEvent
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.runs.models import Run
from tenants.models import CustomerTenant, PartnerTenant
from tests.support import builders, custody, decisions
from tests.support.customer_tenants import WANTED, holds
from tests.support.plans import first_customers, requests, work
from tests.support.portal import Portal
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db

PARTNERS, CUSTOMERS = "tenants_partnertenant", "tenants_customertenant"
LIST, ITEMS = "/admin/consent/consentplan/", "/admin/consent/consentplanitem/"
LOOKING = ("consent.view_consentplan", "consent.view_consentplanitem")


@pytest.fixture(autouse=True)
def _allow_list(settings: Settings) -> None:
    scopes = ("User.Read.All", "Directory.Read.All", "Group.Read.All")
    settings.CONSENT_GRANT_ALLOW_LIST = [f"{GRAPH_APPLICATION_ID}/{scope}" for scope in scopes]


@pytest.fixture
def registration() -> ApplicationRegistration:
    made = builders.registration()
    builders.grant(made, "User.Read.All", "Directory.Read.All")
    return made


@pytest.fixture
def partner(registration: ApplicationRegistration) -> PartnerTenant:
    made = builders.partner(name="Northwind")
    builders.consent(made, registration)
    return made


@pytest.fixture
def customers(partner: PartnerTenant, registration: ApplicationRegistration) -> list[CustomerTenant]:
    """One to create, one to narrow, one as it shall be, one blocked."""
    new, more, good, blocked = (builders.customer(partner) for _ in range(4))
    builders.customer_consent(more, registration, "User.Read.All", "Directory.Read.All", "Group.Read.All")
    builders.customer_consent(good, registration, "User.Read.All", "Directory.Read.All")
    builders.customer_consent(
        blocked, registration, state="blocked", reason="No accepted role.", owner="partner", verified_at=None
    )
    return [new, more, good, blocked]


@pytest.fixture
def plan(customers: list[CustomerTenant], registration: ApplicationRegistration) -> ConsentPlan:
    return make_plan(registration, EVERYTHING, actor=builders.ACTOR)


@pytest.fixture
def staff() -> Staff:
    return Staff()


def page_of(plan: ConsentPlan, end: str = "change") -> str:
    return f"{LIST}{plan.pk}/{end}/"


def shown(page: Any) -> list[int]:
    return [item.customer_id for item in page.context["cl"].result_list]


def figures(page: Any, panel: int = 0) -> dict[str, str]:
    return {figure.label: figure.value for figure in page.context["panels"][panel].figures}


# --- making ------------------------------------------------------------------------------------------------------


def test_chosen_customers_are_planned_once_and_nothing_is_sent(
    staff: Staff, customers: list[CustomerTenant], registration: ApplicationRegistration
) -> None:
    new, more, *_ = customers
    asked = staff.choose(CUSTOMERS, "plan_consent_of_customers", new.pk, more.pk)
    assert "Nothing is sent:" in " ".join(asked.content.decode().split())
    assert not ConsentPlan.objects.exists()

    page = staff.confirm(asked, registration=registration.pk)

    plan = ConsentPlan.objects.get()
    assert page.request["PATH_INFO"] == page_of(plan)
    assert (plan.scope, plan.created_by) == ({"customers": [new.pk, more.pk]}, staff.user.get_username())
    assert figures(page) == {
        "Create": "1",
        "Widen": "0",
        "Narrow": "1",
        "Nothing to do": "0",
        "Blocked": "0",
        "Only by DELETE and POST": "1",
    }
    staff.confirm(asked, registration=registration.pk)
    assert ConsentPlan.objects.count() == 1, "the button works once"


def test_chosen_partners_are_planned_with_all_their_customers(
    staff: Staff, customers: list[CustomerTenant], partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    builders.customer(builders.partner())
    asked = staff.choose(PARTNERS, "plan_consent_of_partners", partner.pk)
    staff.confirm(asked, registration=registration.pk)
    plan = ConsentPlan.objects.get()
    assert plan.scope == {"partner": [partner.tenant_id]}
    assert set(plan.items.values_list("customer", flat=True)) == {customer.pk for customer in customers}


def test_partners_without_customers_make_no_plan_of_everybody(
    staff: Staff, customers: list[CustomerTenant], registration: ApplicationRegistration
) -> None:
    empty = builders.partner()
    answer = staff.choose(PARTNERS, "plan_consent_of_partners", empty.pk)
    assert "no customers" in told(staff.get(answer["Location"]))
    assert not ConsentPlan.objects.exists()


def test_what_takes_longer_than_a_page_is_left_to_the_command(
    staff: Staff, customers: list[CustomerTenant], partner: PartnerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_LIMIT", 3)
    answer = staff.choose(PARTNERS, "plan_consent_of_partners", partner.pk)
    assert "Plan for fewer partners at a time." in told(staff.get(answer["Location"]))


def test_why_no_plan_can_be_made_is_said(
    staff: Staff, customers: list[CustomerTenant], registration: ApplicationRegistration
) -> None:
    asked = staff.choose(CUSTOMERS, "plan_consent_of_customers", customers[0].pk)
    ApplicationGrant.objects.all().delete()
    assert "no wanted grants yet" in told(staff.confirm(asked, registration=registration.pk))


@pytest.mark.parametrize(
    ("model", "name"), [(PARTNERS, "plan_consent_of_partners"), (CUSTOMERS, "plan_consent_of_customers")]
)
def test_who_may_not_add_plans_makes_none(customers: list[CustomerTenant], model: str, name: str) -> None:
    looking = Staff("tenants.view_partnertenant", "tenants.view_customertenant", *LOOKING)
    key = customers[0].pk if model == CUSTOMERS else customers[0].partner_id
    assert b"_once" not in looking.choose(model, name, key).content
    assert not ConsentPlan.objects.exists()


# --- reading -----------------------------------------------------------------------------------------------------


def test_the_page_counts_names_reasons_and_leads_to_the_customers(
    staff: Staff, plan: ConsentPlan, customers: list[CustomerTenant]
) -> None:
    new, more, good, blocked = customers
    page = staff.get(page_of(plan))
    assert figures(page)["Blocked"] == "1"
    (panel,) = page.context["panels"]
    assert [(row.label, row.detail) for row in panel.rows] == [("1 × No accepted role.", "Who must act: partner")]
    leads = {figure.label: shown(staff.get(figure.link)) for figure in panel.figures}
    assert leads == {
        "Create": [new.pk],
        "Widen": [],
        "Narrow": [more.pk],
        "Nothing to do": [good.pk],
        "Blocked": [blocked.pk],
        "Only by DELETE and POST": [more.pk],
    }
    assert shown(staff.get(panel.rows[0].link)) == [blocked.pk]


def test_the_page_of_an_applied_plan_shows_what_came_of_it(
    staff: Staff, plan: ConsentPlan, customers: list[CustomerTenant]
) -> None:
    new, more, *_ = customers
    plan.items.filter(customer=more).update(result="failed", message="Microsoft refused it.", owner="microsoft")
    plan.state, plan.applied_at, plan.applied_by = "stopped", timezone.now(), "anna"
    plan.save()
    page = staff.get(page_of(plan))
    came, _ = page.context["panels"]
    assert figures(page) == {"Open": "1", "Failed": "1"}
    assert {figure.label: shown(staff.get(figure.link)) for figure in came.figures} == {
        "Open": [new.pk],
        "Failed": [more.pk],
    }
    assert came.rows[0].label == "1 × Microsoft refused it."
    assert shown(staff.get(came.rows[0].link)) == [more.pk]
    assert "anna" in page.content.decode()


def test_the_page_says_what_moved_since_the_plan_was_made(
    staff: Staff, plan: ConsentPlan, customers: list[CustomerTenant]
) -> None:
    def said() -> list[str]:
        return [row.label for row in staff.get(page_of(plan)).context["panels"][0].rows if row.tone == "warn"]

    assert said() == []
    CustomerConsent.objects.filter(customer=customers[1]).update(verified_at=timezone.now())
    assert said() == [], "read again, and as it was"
    CustomerConsent.objects.filter(customer=customers[1]).update(actual_grants={})
    assert said() == ["1 × the tenant was read since, and holds other grants: it would be held back."]
    ApplicationGrant.objects.update(scopes=["User.Read.All"])
    assert said()[0] == "Version 1 of the wanted grants is not what we want any more: all of it would be held back."


def test_the_customers_of_a_plan_can_be_filtered_searched_and_opened(
    staff: Staff, plan: ConsentPlan, customers: list[CustomerTenant], partner: PartnerTenant
) -> None:
    new, more, _, blocked = customers
    of_plan = f"{ITEMS}?plan__id__exact={plan.pk}"
    assert len(shown(staff.get(of_plan))) == 4
    for query, expected in (
        ("action__exact=narrow", [more.pk]),
        ("owner=partner", [blocked.pk]),
        ("result__exact=done", []),
        (f"customer__partner__id__exact={partner.pk}&action__exact=create", [new.pk]),
        (f"q={more.tenant_id}", [more.pk]),
        (f'q="{new.company_name}"', [new.pk]),
    ):
        assert shown(staff.get(f"{of_plan}&{query}")) == expected, query
    text = staff.get(f"{ITEMS}{plan.items.get(customer=more).pk}/change/").content.decode()
    assert "Takes away Group.Read.All." in text
    assert "Microsoft Graph: Group.Read.All" in text


@pytest.mark.parametrize("path", [LIST, ITEMS, "plan"])
def test_lists_and_page_cost_the_same_for_few_customers_and_for_many(
    staff: Staff, plan: ConsentPlan, partner: PartnerTenant, registration: ApplicationRegistration, path: str
) -> None:
    def queries(of: ConsentPlan) -> int:
        address = page_of(of) if path == "plan" else path
        staff.get(address)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert staff.get(address).status_code == 200
        return len(captured)

    few = queries(plan)
    for _ in range(10):
        builders.customer(partner)
    assert queries(make_plan(registration, EVERYTHING, actor=builders.ACTOR)) == few


# --- exporting ---------------------------------------------------------------------------------------------------


@pytest.mark.req("S-64", "S-55")
def test_a_plan_is_exported_as_json_and_csv_and_that_is_audited(
    plan: ConsentPlan, customers: list[CustomerTenant]
) -> None:
    looking = Staff(*LOOKING, "portal_site.export_list")
    answer: Any = looking.get(page_of(plan, "json"))
    document = json.loads(b"".join(answer.streaming_content))
    assert answer["Content-Disposition"] == f'attachment; filename="consent-plan-{plan.pk}.json"'
    assert answer["Cache-Control"].startswith("no-store, private")
    assert answer["Content-Type"] == "application/json; charset=utf-8"
    assert (document["plan"], document["counts"]["blocked"], len(document["items"])) == (plan.pk, 1, 4)
    answer = looking.get(page_of(plan, "csv"))
    text = b"".join(answer.streaming_content).decode()
    assert [row["action"] for row in csv.DictReader(io.StringIO(text))] == ["create", "narrow", "nothing", "blocked"]
    events = AuditEvent.objects.filter(action="list.exported", subject__plan=plan.pk)
    assert sorted((event.details["format"], event.details["rows"]) for event in events) == [("csv", 4), ("json", 4)]


# --- undoing -----------------------------------------------------------------------------------------------------


def test_a_plan_is_undone_by_another_plan(staff: Staff, plan: ConsentPlan, customers: list[CustomerTenant]) -> None:
    assert "changed nothing" in told(staff.confirm(staff.get(page_of(plan, "undo"))))
    plan.items.filter(customer=customers[0]).update(snapshot={}, phase="posting", result="done")
    asked = staff.get(page_of(plan, "undo"))
    assert ConsentPlan.objects.count() == 1
    page = staff.confirm(asked)
    undo = ConsentPlan.objects.latest("pk")
    assert (undo.purpose, undo.scope, undo.items.get().customer) == ("undo", {"undo": plan.pk}, customers[0])
    assert page.request["PATH_INFO"] == page_of(undo)


def test_chosen_customers_of_a_plan_are_undone_alone(
    staff: Staff, plan: ConsentPlan, customers: list[CustomerTenant], registration: ApplicationRegistration
) -> None:
    plan.items.filter(customer__in=customers[:2]).update(snapshot={}, phase="posting", result="done")
    item = plan.items.get(customer=customers[0])
    other = make_plan(registration, EVERYTHING, actor=builders.ACTOR).items.get(customer=customers[0])
    answer = staff.choose("consent_consentplanitem", "undo_items", item.pk, other.pk)
    assert "Choose customers of one plan." in told(staff.get(answer["Location"]))

    asked = staff.choose("consent_consentplanitem", "undo_items", item.pk)
    assert f">{customers[0].company_name}<" in asked.content.decode()
    staff.confirm(asked)

    undo = ConsentPlan.objects.latest("pk")
    assert (undo.scope, undo.items.get().customer) == ({"undo": plan.pk, "customers": [customers[0].pk]}, customers[0])
    looking = Staff(*LOOKING)
    assert "undo_items" not in looking.get(ITEMS).content.decode()


def test_who_may_only_look_sees_no_buttons(plan: ConsentPlan) -> None:
    looking = Staff(*LOOKING)
    page = looking.get(page_of(plan)).content.decode()
    assert "Export JSON" not in page
    assert "undo" not in page
    assert looking.get(page_of(plan, "undo")).status_code == 403
    assert Staff("consent.view_consentlink").get(page_of(plan, "json")).status_code == 403


# --- applying ----------------------------------------------------------------------------------------------------


def choices(**more: object) -> dict[str, object]:
    return {"waves": "1, 5, 25", "stop_percent": 20} | more


def text_of(page: Any) -> str:
    return " ".join(unescape(page.content.decode()).split())


def test_applying_says_in_plain_words_what_will_happen_and_starts_a_run_once(staff: Staff, plan: ConsentPlan) -> None:
    asked = staff.get(page_of(plan, "apply"))
    assert "Sends requests to Microsoft for Example Control Panel: 1 create, 1 narrow." in text_of(asked)
    assert "Those that need DELETE and POST are left alone unless you choose them here." in text_of(asked)
    narrow = next(figure for figure in asked.context["figures"] if figure.label == "Narrow")
    assert shown(staff.get(narrow.link)) == [plan.items.get(action="narrow").customer_id], "it leads to whom it touches"
    assert not Run.objects.exists()

    page = staff.confirm(asked, **choices(waves="2 10"))

    run = Run.objects.get()
    plan.refresh_from_db()
    assert page.request["PATH_INFO"] == f"/admin/runs/run/{run.pk}/change/"
    assert (plan.state, plan.reset, plan.applied_by, plan.run) == ("applying", False, staff.user.get_username(), run)
    assert (run.kind, run.stop_share) == ("apply_plan", 0.2)
    event = AuditEvent.objects.get(action="consent_plan.applied")
    assert (event.actor, event.details["reset"], event.details["waves"]) == (staff.user.get_username(), False, [2, 10])
    assert f'href="/admin/runs/run/{run.pk}/change/"' in staff.get(page_of(plan)).content.decode()
    staff.confirm(asked, **choices())
    assert Run.objects.count() == 1, "the button works once"


@pytest.mark.req("R-21", "S-54")
def test_delete_and_post_is_chosen_and_then_asked_again(staff: Staff, plan: ConsentPlan) -> None:
    again = staff.confirm(staff.get(page_of(plan, "apply")), **choices(reset="on"))
    assert "In 1 customer tenants all our grants are removed and created again." in text_of(again)
    assert not Run.objects.exists(), "nothing is begun before the second answer"
    assert not ConsentPlan.objects.filter(reset=True).exists()

    staff.confirm(again, **choices(reset="True"))

    plan.refresh_from_db()
    assert (plan.state, plan.reset) == ("applying", True)
    assert AuditEvent.objects.get(action="consent_plan.applied").details["reset"] is True


@pytest.mark.req("S-54")
def test_a_removal_is_asked_twice(
    staff: Staff, customers: list[CustomerTenant], registration: ApplicationRegistration
) -> None:
    plan = make_plan(registration, EVERYTHING, actor=builders.ACTOR, purpose=ConsentPlan.Purpose.REMOVE)
    asked = staff.get(page_of(plan, "apply"))
    assert "DELETE and POST" not in text_of(asked), "there is nothing to reset"
    again = staff.confirm(asked, **choices())
    assert "Our consent is removed from 4 customer tenants" in text_of(again)
    assert not Run.objects.exists()
    staff.confirm(again, **choices(reset="False"), why="They left.")
    assert not Run.objects.exists(), "another person decides"
    decisions.approve()
    assert Run.objects.count() == 1


def test_the_second_answer_needs_the_second_question(staff: Staff, plan: ConsentPlan) -> None:
    first = staff.get(page_of(plan, "apply"))
    staff.confirm(first, action="apply_plan_for_sure", **choices(reset="on"))
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("wrong", "words"), [({"waves": "1, many"}, "for example 1, 5, 25"), ({"stop_percent": 101}, "less than or equal")]
)
def test_what_is_typed_wrongly_is_asked_again(
    staff: Staff, plan: ConsentPlan, wrong: dict[str, object], words: str
) -> None:
    page = staff.confirm(staff.get(page_of(plan, "apply")), **choices(**wrong))
    assert words in text_of(page)
    assert not Run.objects.exists()


def test_why_a_plan_cannot_be_applied_is_said(staff: Staff, plan: ConsentPlan) -> None:
    asked = staff.get(page_of(plan, "apply"))
    ApplicationGrant.objects.update(scopes=["User.Read.All"])
    assert "Make a new plan" in told(staff.confirm(asked, **choices()))
    assert "is not what we want any more" in text_of(staff.get(page_of(plan, "apply")))
    assert not Run.objects.exists()


@pytest.mark.req("S-52")
def test_only_who_may_apply_plans_applies_them(plan: ConsentPlan) -> None:
    looking = Staff(*LOOKING, "consent.add_consentplan")
    assert looking.get(page_of(plan, "apply")).status_code == 403
    assert "/apply/" not in looking.get(page_of(plan)).content.decode()
    operator = Staff(*LOOKING, "consent.apply_consentplan")
    page = operator.confirm(operator.get(page_of(plan, "apply")), **choices())
    assert page.request["PATH_INFO"] == page_of(plan), "who may not see runs stays at the plan"
    assert Run.objects.count() == 1


# --- the whole way -----------------------------------------------------------------------------------------------


@pytest.mark.req("R-21")
@pytest.mark.django_db(transaction=True)
def test_a_plan_goes_from_the_list_to_the_customers_and_back_as_it_was_shown(
    portal: Portal, settings: Settings
) -> None:
    """Two customers are planned; somebody changes one of them before the plan is applied."""
    settings.CONSENT_GRANT_ALLOW_LIST = [f"{GRAPH_APPLICATION_ID}/{scope}" for scope in WANTED]
    staff, (kept, moved) = Staff(), first_customers(portal, 2)
    asked = staff.choose(PARTNERS, "plan_consent_of_partners", portal.partner.pk)
    staff.confirm(asked, registration=portal.registration.pk)
    plan = ConsentPlan.objects.get()
    assert requests(portal) == [], "a plan sends nothing"
    custody.consent_directly(portal, moved, {"Directory.Read.All"})

    staff.confirm(staff.get(page_of(plan, "apply")), **choices())
    assert Job.objects.get().task_path == "portal.runs.tasks.advance", "a worker would take it"
    work(Run.objects.get())

    assert requests(portal) == ["POST"]
    assert (holds(portal, kept), holds(portal, moved)) == (WANTED, {"Directory.Read.All"})
    page = staff.get(page_of(plan))
    assert figures(page) == {"Done": "1", "Held back": "1"}
    held = next(figure for figure in page.context["panels"][0].figures if figure.label == "Held back")
    assert shown(staff.get(held.link)) == [moved.pk]
    assert "It was never read before, and holds Directory.Read.All. Nothing was sent; make a new plan." in text_of(
        staff.get(held.link)
    )

    staff.confirm(staff.get(page_of(plan, "undo")))
    undo = ConsentPlan.objects.latest("pk")
    assert [(item.customer, item.action) for item in undo.items.all()] == [(kept, "remove")]
    again = staff.confirm(staff.get(page_of(undo, "apply")), **choices())
    staff.confirm(again, **choices(reset="False"))
    work(Run.objects.latest("pk"))

    assert requests(portal) == ["POST", "DELETE"]
    assert (holds(portal, kept), holds(portal, moved)) == (set(), {"Directory.Read.All"})
    assert figures(staff.get(page_of(undo))) == {"Done": "1"}
