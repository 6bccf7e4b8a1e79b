"""What people paste into a search box is found: whole names, words inside them, contacts, the start of a GUID.

Covers: portal.site.searchable, portal.site.searching.
"""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext

from consent.invitations import links
from consent.models import ConsentFlow, ConsentLink
from portal.site.search import search
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.portal import Portal
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db
PARTNER = "Harbour Managed Services"
CUSTOMER = "Eastern Analytics Ltd"
GUID = "6f0b31c2-1111-4222-8333-444455556666"
CUSTOMER_GUID = "7a0b31c2-1111-4222-8333-444455556666"


@pytest.fixture
def partner() -> PartnerTenant:
    """A partner and a customer with a row in every list, and others beside them."""
    registration = builders.registration(name="Example Panel Europe")
    builders.grant(registration, "User.Read.All")
    wanted = builders.partner(
        name=PARTNER, tenant_id=GUID, domain="harbour.example", contact_email="Ops.Team@mail-harbour.example"
    )
    other = builders.partner(name="Northwind Cloud")
    for one, name, tenant_id in ((wanted, CUSTOMER, CUSTOMER_GUID), (other, "Delta Labs", builders.guid())):
        builders.consent(one, registration)
        links.issue(one, registration, actor=builders.ACTOR)
        customer = builders.customer(one, company_name=name, tenant_id=tenant_id)
        builders.customer_consent(customer, registration, "User.Read.All")
    return wanted


def found(path: str, text: str) -> list[str]:
    page = Staff().get(path, {"q": text})
    assert page.status_code == 200, text
    return [str(row) for row in page.context["cl"].result_list]


OF_A_PARTNER = ["tenants/partnertenant", "consent/partnerconsent", "consent/consentlink"]
OF_A_CUSTOMER = ["tenants/customertenant", "consent/customerconsent"]


@pytest.mark.parametrize("path", OF_A_PARTNER)
@pytest.mark.parametrize(
    "text",
    [
        PARTNER,
        "harbour services",
        "managed",
        '"Managed Services"',
        "HARBOUR MANAGED",
        "harbour.example",
        "ops.team@mail-harbour.example",
        "6f0b31c2",
        "6F0B31C2-11",
        GUID,
        f"{{{GUID.upper()}}}",
    ],
)
def test_a_partner_is_found_in_its_lists(partner: PartnerTenant, path: str, text: str) -> None:
    assert len(found(f"/admin/{path}/", text)) == 1


@pytest.mark.parametrize("path", OF_A_CUSTOMER)
@pytest.mark.parametrize("text", [CUSTOMER, "analytics", "ltd eastern", "7a0b31c2", CUSTOMER_GUID])
def test_a_customer_is_found_in_its_lists(partner: PartnerTenant, path: str, text: str) -> None:
    assert len(found(f"/admin/{path}/", text)) == 1


def test_what_is_nowhere_is_not_found(partner: PartnerTenant) -> None:
    for text in ("harbour northwind", "6f0b31c3", "6f0b31c2-2", "%", "_", "\\", ".*", "(", '"', "x " * 30, "1" * 40):
        assert found("/admin/tenants/partnertenant/", text) == [], text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Grönland Hosting", "GRÖ"),
        ("GRÖNLAND", "grönl"),
        ("Όμιλος Νερού", "ΌΜΙΛΟΣ"),
        ("Север Связь", "СВЯЗЬ север"),
        ("Grönland", "gro\N{COMBINING DIAERESIS}n"),
        ("Grön (Nord) + Co", "GRÖN (nord) +"),
        ("Grönland Hosting", "gronland"),
        ("Gronland Hosting", "grönland"),
        ("Łódź Straße", "lodz strasse"),
        ("Ｆｕｌｌ Ｗｉｄｔｈ", "full width"),
        ("Two  blanks", "two blanks"),
    ],
)
def test_the_case_of_no_script_matters(name: str, text: str) -> None:
    builders.partner(name=name)
    builders.partner(name="Another")
    assert found("/admin/tenants/partnertenant/", text) == [name]


def test_no_list_searches_by_the_first_word_only() -> None:
    for page in admin.site._registry.values():
        for name in page.search_fields:
            assert "startswith" not in str(name), page
            assert not str(name).startswith("^") or name == "^public_id", page


# --- the search of the header ---


def asked(text: str, staff: Staff | None = None) -> dict[str, list[str]]:
    return {group.title: [one.name for one in group.found] for group in search(text, (staff or Staff()).user)}


@pytest.mark.parametrize("text", [PARTNER, "harbour", "services", "ops.team@mail-harbour.example", "6f0b31c2", GUID])
def test_the_partner_comes_first_and_what_belongs_to_others_is_not_found(partner: PartnerTenant, text: str) -> None:
    answers = asked(text)
    assert next(iter(answers.items())) == ("Partners", [PARTNER])
    assert not any("Northwind" in name or "Delta" in name for names in answers.values() for name in names)


def test_a_customer_is_found_once_with_its_partner_beside_it(partner: PartnerTenant) -> None:
    for text in ("eastern analytics", "analytics", CUSTOMER_GUID[:8], CUSTOMER_GUID):
        assert asked(text) == {"Customers": [CUSTOMER]}, text
        assert search(text, Staff().user)[0].found[0].detail == f"of {PARTNER}"


def test_a_number_finds_what_has_it_and_with_its_word_that_alone(partner: PartnerTenant) -> None:
    link = ConsentLink.objects.get(partner=partner)
    for text in (str(link.pk), f"#{link.pk}"):
        assert asked(text)["Links"][0] == str(link), text
    for text in (f"link {link.pk}", f"Link #{link.pk}"):
        assert asked(text) == {"Links": [str(link)]}, text
    assert "Links" not in asked(f"plan {link.pk}")


def test_a_reference_code_and_its_correlation_id_find_the_attempt(portal: Portal) -> None:
    portal.onboard()
    flow = ConsentFlow.objects.get()
    for text in (flow.reference, flow.reference.lower(), flow.public_id, flow.correlation_id):
        assert asked(text)["Reference codes"] == [flow.reference], text


def test_who_may_not_view_a_list_finds_nothing_of_it(partner: PartnerTenant) -> None:
    assert list(asked("harbour")) == ["Partners", "Links"]
    assert list(asked("harbour", Staff("tenants.view_partnertenant"))) == ["Partners"]
    assert asked("harbour", Staff("auth.view_user")) == {}


def test_what_begins_with_the_text_comes_before_what_contains_it(partner: PartnerTenant) -> None:
    for number in range(9):
        builders.customer(partner, company_name=f"The Zebra {number}")
    builders.customer(partner, company_name="Zebra")
    assert asked("zebra")["Customers"][0] == "Zebra"
    assert len(asked("zebra")["Customers"]) == 5


def test_two_characters_find_what_begins_with_them(partner: PartnerTenant) -> None:
    builders.customer(partner, company_name="\u5fae\u8f6f")
    assert asked("\u5fae\u8f6f") == {"Customers": ["\u5fae\u8f6f"]}


@pytest.mark.parametrize("text", ["", " ", "\0", "%", "'", '"', "\\", "\ud800", "x " * 30, "1" * 400, "NEAR(", "a*"])
def test_no_text_breaks_the_search(partner: PartnerTenant, text: str) -> None:
    assert asked(text) == {}


def test_the_search_asks_the_same_queries_however_many_rows_there_are(partner: PartnerTenant) -> None:
    staff, counts = Staff(), []
    asked("eastern", staff)  # permissions are read once
    for number in (0, 3, 30):
        for index in range(number):
            builders.customer(partner, company_name=f"An Eastern {number} {index}")
        with CaptureQueriesContext(connection) as queries:
            asked("eastern", staff)
        counts.append(len(queries))
    assert counts[0] == counts[1] == counts[2] <= 12


def test_the_palette_shows_what_the_search_finds(partner: PartnerTenant) -> None:
    answer = Staff().get("/admin/search/", {"q": "harbour", "part": ""})
    shown = answer.content.decode()
    assert f'<a href="/admin/tenants/partnertenant/{partner.pk}/change/">{PARTNER}</a>' in shown
    assert "harbour.example" in shown
    assert "<html" not in shown


def test_a_reference_code_leads_straight_to_its_page(portal: Portal) -> None:
    portal.onboard(accept=False)
    flow = ConsentFlow.objects.get()
    staff, page = Staff(), f"/admin/consent/consentflow/{flow.pk}/change/"
    code = flow.reference
    for typed in (code, code.lower(), f"{code[:4]} {code[4:]}", f"{code[:4]}-{code[4:]}"):
        assert staff.get("/admin/search/", {"q": typed}).headers["Location"] == page
    assert staff.get("/admin/search/", {"q": code, "part": "1"}).status_code == 200  # the box lists it
    builders.partner(tenant_id=f"{code.lower()}-1111-4222-8333-444455556666")
    assert staff.get("/admin/search/", {"q": code}).status_code == 200  # it may mean the partner as well
