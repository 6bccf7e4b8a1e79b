"""A domain becomes a tenant id only by Microsoft's own word, and only staff fix it (S-04)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User

from consent import clients
from consent.microsoft.entra import find_tenant
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import new_correlation_id
from tenants.models import PartnerTenant
from tests.sandbox import scenarios
from tests.sandbox.world import Fault
from tests.support import builders
from tests.support.portal import Browser, Portal

pytestmark = pytest.mark.req("S-04")
FIND = "/admin/tenants/partnertenant/find/"
ADD = "/admin/tenants/partnertenant/add/"


@pytest.fixture
def staff(portal: Portal) -> Browser:
    who = Browser()
    who.force_login(User.objects.create_superuser("admin"))
    who.handler.enforce_csrf_checks = False
    return who


def look(staff: Browser, domain: str) -> Any:
    return staff.post(FIND, {"domain": domain})


def add(staff: Browser, tenant_id: str) -> Any:
    contacts = {"contacts-TOTAL_FORMS": 0, "contacts-INITIAL_FORMS": 0}
    form = {"name": "Somebody", "tenant_id": tenant_id, "cloud": "global", "kind": "direct"}
    return staff.post(ADD, form | contacts)


def test_a_domain_is_resolved_and_offered_for_confirmation(portal: Portal, staff: Browser) -> None:
    tenant = next(one for one in portal.sandbox.world.tenants.values() if one.domain == "southridge.example.com")
    before = PartnerTenant.objects.count()

    page = look(staff, "  SouthRidge.example.com ")

    assert page.context["found"].tenant_id == tenant.tenant_id
    assert parse_qs(urlsplit(page.context["add_url"]).query) == {
        "tenant_id": [tenant.tenant_id],
        "cloud": ["global"],
        "domain": ["southridge.example.com"],
    }
    assert PartnerTenant.objects.count() == before
    form = staff.get(page.context["add_url"])
    assert tenant.tenant_id in form.content.decode()


@pytest.mark.parametrize("foreign", [False, True], ids=["asked at its own cloud", "told by the global cloud"])
def test_a_tenant_of_another_cloud_is_recognised(portal: Portal, staff: Browser, foreign: bool) -> None:
    portal.sandbox.world.switches["foreign_tenant_discovery"] = foreign
    tenant = scenarios.add_partner(portal.sandbox.world, "fairfax", "Fairfax Federal", cloud="usgov")

    page = look(staff, "fairfax.example.com")

    assert (page.context["found"].cloud.key, page.context["found"].tenant_id) == ("usgov", tenant.tenant_id)
    assert "US Government" in page.content.decode()


def test_a_known_partner_is_shown_instead_of_added_twice(portal: Portal, staff: Browser) -> None:
    page = look(staff, "northwind.example.com")
    assert page.context["known"] == portal.partner
    assert "Add this partner" not in page.content.decode()


@pytest.mark.req("S-26")
@pytest.mark.parametrize(
    "domain", ["../x", "a@evil.example", "evil.example/x", "evil", "x.example#", "ex%2eample.com", ""]
)
def test_what_is_no_domain_never_leaves(portal: Portal, staff: Browser, domain: str) -> None:
    portal.sandbox.world.counters.clear()
    page = look(staff, domain)
    assert page.status_code == 200
    assert page.context["found"] is None
    assert not portal.sandbox.world.counters


def test_an_unknown_domain_and_a_silent_service_are_told_apart(portal: Portal, staff: Browser) -> None:
    assert "No tenant of any cloud" in look(staff, "nobody.example.com").context["problem"]
    portal.sandbox.world.faults.append(Fault(service="login", path="openid-configuration", times=9, status=503))
    assert "No tenant of any cloud" not in look(staff, "nobody.example.com").context["problem"]
    with pytest.raises(RemoteError):
        find_tenant(clients.session(), clients.clouds(), "nobody.example.com", new_correlation_id())


def test_who_may_not_add_partners_may_not_ask(portal: Portal) -> None:
    who = Browser()
    who.force_login(User.objects.create_user("viewer", is_staff=True))
    assert who.get(FIND).status_code == 403
    assert Browser().get(FIND).status_code == 302


@pytest.mark.parametrize("text", ["common", "organizations", "consumers", "northwind.example.com", "", "not-a-guid"])
def test_what_is_no_tenant_id_is_refused_by_the_form(portal: Portal, staff: Browser, text: str) -> None:
    assert add(staff, text).status_code == 200
    assert not PartnerTenant.objects.filter(name="Somebody").exists()


def test_a_guid_in_braces_and_capitals_is_stored_in_its_canonical_form(portal: Portal, staff: Browser) -> None:
    guid = builders.guid()
    add(staff, "{" + guid.upper() + "}")
    assert PartnerTenant.objects.get(name="Somebody").tenant_id == guid
