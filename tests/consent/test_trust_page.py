"""What a partner's security review reads about one application: true, without a secret, and for everybody."""

from __future__ import annotations

import re
import uuid
from html import unescape

import pytest
from django.urls import reverse
from pytest_django.fixtures import Settings

from consent.models import ApplicationRegistration
from consent.permissions import PERMISSION_SETS
from consent.upkeep import ATTEMPTS_KEPT_FOR
from tests.support import builders
from tests.support.commands import secrets_of
from tests.support.portal import Browser, Portal
from tests.support.staff import Staff

ADDRESSES = ["203.0.113.0/28", "2001:db8:4::/48"]


def address(registration: ApplicationRegistration) -> str:
    return reverse("consent:trust", args=[registration.cloud, registration.application_id])


def read(registration: ApplicationRegistration, who: Browser | None = None) -> str:
    page = (who or Browser()).get(address(registration))
    assert page.status_code == 200
    return unescape(re.sub(r"\s+", " ", page.content.decode()))


def test_it_says_which_application_and_which_permissions_in_both_kinds_of_tenants(portal: Portal) -> None:
    page = read(portal.registration)
    assert portal.registration.application_id in page
    assert portal.registration.home_tenant_id in page
    own, _, customers = page.partition("Permissions in your customers' tenants")
    for scopes in PERMISSION_SETS[portal.registration.permission_set].resources().values():
        assert all(f"<code>{scope}</code>" in own for scope in scopes)
    in_customers = re.findall(r"<code>([\w.]+)</code>", customers.partition("From which addresses")[0])
    assert in_customers == ["User.Read.All", "Directory.Read.All"]


def test_the_permissions_are_those_of_the_landing_page(portal: Portal) -> None:
    listed = re.compile(r'<ul class="permissions">.*?</ul>', re.DOTALL)
    landing = Browser().get(portal.link()).content.decode()
    trust = Browser().get(address(portal.registration)).content.decode()
    own = listed.findall(trust.partition("Permissions in your customers")[0])
    assert own == listed.findall(landing)
    assert own


def test_the_landing_page_leads_there_without_telling_its_own_address(portal: Portal) -> None:
    landing = Browser().get(portal.link()).content.decode()
    assert f'<a href="{address(portal.registration)}" rel="noreferrer">' in landing


def test_with_addresses_it_tells_them_and_how_to_limit_the_account_to_them(portal: Portal, settings: Settings) -> None:
    settings.OUTGOING_ADDRESSES = ADDRESSES
    page = read(portal.registration)
    assert all(page.count(f"<code>{one}</code>") == 2 for one in ADDRESSES)
    assert "Named locations" in page
    assert "Block access" in page
    assert "entra.microsoft.com" in page


def test_without_addresses_it_promises_no_policy_by_network(portal: Portal) -> None:
    page = read(portal.registration)
    assert "We name no fixed addresses" in page
    assert "Named locations" not in page


def test_the_retention_is_the_one_that_is_kept(portal: Portal) -> None:
    assert f"Kept for {ATTEMPTS_KEPT_FOR.days} days" in read(portal.registration)


def test_it_holds_no_secret_and_names_no_partner(portal: Portal) -> None:
    portal.onboard()
    page = read(portal.registration)
    assert not [one for one in secrets_of(portal) if one in page]
    assert portal.partner.name not in page
    assert portal.partner.tenant_id not in page


def test_it_is_the_same_with_a_staff_session_and_sets_no_cookie(portal: Portal) -> None:
    page = Browser().get(address(portal.registration))
    assert not page.cookies
    assert "no-store" in page["Cache-Control"]
    as_of = re.compile(r"<time .*?</time>")
    staff = Staff().get(address(portal.registration)).content.decode()
    assert as_of.sub("", page.content.decode()) == as_of.sub("", staff)


@pytest.mark.parametrize(("state", "status"), [("active", 200), ("retired", 200), ("draft", 404)])
def test_a_retired_application_keeps_its_page_and_a_draft_has_none(db: None, state: str, status: int) -> None:
    assert Browser().get(address(builders.registration(state=state))).status_code == status


def test_an_application_of_another_cloud_or_none_has_no_page(db: None) -> None:
    known = builders.registration()
    other_cloud = reverse("consent:trust", args=["china", known.application_id])
    unknown = reverse("consent:trust", args=["global", uuid.uuid4()])
    assert [Browser().get(path).status_code for path in (other_cloud, unknown)] == [404, 404]


def test_the_page_costs_a_constant_number_of_queries(portal: Portal, django_assert_num_queries: object) -> None:
    builders.grant(builders.registration(), "User.Read.All")
    with django_assert_num_queries(3):  # type: ignore[operator]
        Browser().get(address(portal.registration))
