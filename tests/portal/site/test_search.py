"""What people paste into a search box is found: whole names, words inside them, contacts, the start of a GUID."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from consent.invitations import links
from portal.site.search import search_records
from tenants.models import PartnerTenant
from tests.support import builders
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


# --- the palette ---


def palette(text: str, staff: Staff | None = None) -> list[str]:
    request = RequestFactory().get("/")
    request.user = (staff or Staff()).user
    return [f"{one.description}: {one.title}" for one in search_records(request, text)]


@pytest.mark.parametrize("text", [PARTNER, "harbour", "services", "ops.team@mail-harbour.example", "6f0b31c2", GUID])
def test_the_partner_comes_first_in_the_palette(partner: PartnerTenant, text: str) -> None:
    answers = palette(text)
    assert answers[0] == f"Partner tenants: {PARTNER}"
    assert not any("Northwind" in one or "Delta" in one for one in answers)


def test_the_palette_names_a_customer_once_by_its_words_and_its_parts_by_its_id(partner: PartnerTenant) -> None:
    assert palette("eastern analytics") == [f"Customer tenants: {CUSTOMER}"]
    assert palette(CUSTOMER_GUID[:8])[0] == f"Customer tenants: {CUSTOMER}"
    assert len(palette(CUSTOMER_GUID[:8])) > 1


def test_the_palette_asks_the_same_queries_however_many_rows_there_are(partner: PartnerTenant) -> None:
    staff, counts = Staff(), []
    for number in (0, 30):
        for index in range(number):
            builders.customer(partner, company_name=f"Eastern {index}")
        with CaptureQueriesContext(connection) as queries:
            palette("eastern", staff)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 20
