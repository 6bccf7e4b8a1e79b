"""One odd item in a list of Microsoft's does not stop a partner's sync for ever, and takes nobody away."""

from __future__ import annotations

import json

import pytest

from consent.models import PartnerConsent
from portal.incidents.models import Incident
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship
from tests.support import builders
from tests.support.commands import run
from tests.support.portal import Portal

# Each page is stored in the thread that read it.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def synced(portal: Portal) -> Portal:
    """A portal that knows three customers with a relationship each, and one of each that Microsoft lists no more."""
    portal.connect()
    assert run("sync_customers").code == 0
    gone = builders.customer(portal.partner, company_name="Gone")
    relationship = GdapRelationship.objects.create(
        partner=portal.partner,
        customer=gone,
        customer_tenant_id=gone.tenant_id,
        relationship_id="gone",
        status="active",
        first_seen_at=gone.first_seen_at,
    )
    GdapAccessAssignment.objects.create(
        relationship=GdapRelationship.objects.exclude(pk=relationship.pk).order_by("pk")[0],
        assignment_id="gone",
        status="active",
        first_seen_at=gone.first_seen_at,
    )
    return portal


def missing() -> list[int]:
    return [
        model.objects.filter(missing_since__isnull=False).count()
        for model in (CustomerTenant, GdapRelationship, GdapAccessAssignment)
    ]


def ids(portal: Portal, of: str) -> list[str]:
    world = portal.sandbox.world
    ours = [one for one in world.relationships if one.partner == portal.partner.tenant_id]
    return {
        "customer": list(world.customers[portal.partner.tenant_id]),
        "relationship": [one.relationship_id for one in ours],
        "assignment": [each.assignment_id for one in ours for each in one.assignments],
    }[of]


def test_a_name_that_no_database_takes_is_shown_with_its_character_replaced(synced: Portal) -> None:
    customer, relationship = ids(synced, "customer")[0], ids(synced, "relationship")[0]
    synced.sandbox.world.switches["items_with_odd_name"] = [customer, relationship]

    assert run("sync_customers").code == 0

    assert CustomerTenant.objects.get(tenant_id=customer).company_name.endswith("\N{REPLACEMENT CHARACTER}" * 2)
    shown = GdapRelationship.objects.get(relationship_id=relationship).display_name
    assert shown.endswith("\N{REPLACEMENT CHARACTER}" * 2)
    assert missing() == [1, 1, 1], "the lists are complete and readable, so what they lack is missing"


@pytest.mark.parametrize(
    ("of", "expected"), [("customer", [0, 1, 1]), ("relationship", [1, 0, 0]), ("assignment", [1, 0, 0])]
)
def test_an_item_without_id_is_left_out_and_named_and_nothing_is_marked_missing(
    synced: Portal, of: str, expected: list[int]
) -> None:
    world, odd = synced.sandbox.world, ids(synced, of)[1]
    world.switches["items_without_id"] = [odd]
    new = ids(synced, "customer")[2]
    CustomerTenant.objects.filter(tenant_id=new).update(company_name="Older name")
    name = {
        "customer": CustomerTenant.objects.get(tenant_id=ids(synced, "customer")[1]).company_name,
        "relationship": GdapRelationship.objects.get(relationship_id=ids(synced, "relationship")[1]).display_name,
        "assignment": "item 1",
    }[of]

    ran = run("sync_customers", "--json")

    line, summary = map(json.loads, ran.out.splitlines())
    assert ran.code == 1
    assert (line["ok"], line["class"], line["owner"]) == (False, "list_items_odd", "us")
    assert line["odd"] == [f"{name} (the field id is missing or has the wrong type)"]
    assert "One item of Microsoft's lists could not be read and was left out, and nothing" in line["error"]
    assert name in line["error"]
    assert summary["summary"]["state"] == "done"
    assert missing() == expected
    assert CustomerTenant.objects.get(tenant_id=new).company_name != "Older name", "the others were stored"
    incident = Incident.objects.open().get()
    assert (incident.cause, incident.about) == ("list_items_odd", f"partner:{synced.partner.pk}")
    assert incident.name == synced.partner.name

    world.switches["items_without_id"] = []
    assert run("sync_customers").code == 0
    assert missing() == [1, 1, 1]
    assert not Incident.objects.open().exists()


def test_the_partners_own_name_does_not_stop_its_check(synced: Portal) -> None:
    tenant = synced.sandbox.world.tenants[synced.partner.tenant_id]
    tenant.name = "Northwind\0\ud800"

    assert run("check_tokens").code == 0
    assert PartnerConsent.objects.get().state == "connected"
