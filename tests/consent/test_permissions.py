"""Permission sets as values: what is asked for, in the form of requests, comparisons and manifests."""

from __future__ import annotations

import pytest

from consent.permissions import PERMISSION_SETS, manifest_permissions, required_resource_access
from portal.microsoft.clouds import GRAPH_APPLICATION_ID as GRAPH
from portal.microsoft.clouds import PARTNER_CENTER_APPLICATION_ID as PARTNER_CENTER
from tests.support import builders

pytestmark = pytest.mark.django_db
# The registration that the seed's page describes, as its manifest has it: delegated permissions only.
SEED = {
    GRAPH: {
        "885f682f-a990-4bad-a642-36736a74b0c7",
        "a154be20-db9c-4678-8ab7-66f6cc099a59",
        "e1fe6dd8-ba31-4d61-89e7-88639da4683d",
    },
    PARTNER_CENTER: {"1cebfa2a-fb4d-419e-b5f9-839b4383e05a"},
}


def test_the_manifest_of_the_strict_set_is_the_one_of_the_secure_application_model() -> None:
    found = manifest_permissions(builders.registration())
    assert {resource: set(ids) for resource, ids in found.items()} == SEED


def test_the_extended_set_adds_one_permission() -> None:
    found = manifest_permissions(builders.registration(permission_set="extended"))
    assert set(found[GRAPH]) - SEED[GRAPH] == {"06da0dbc-49e2-44d2-8312-53f166ab848a"}


@pytest.mark.parametrize("chosen", PERMISSION_SETS)
def test_graph_reads_delegated_permissions_only(chosen: str) -> None:
    listed = required_resource_access(builders.registration(permission_set=chosen))
    assert {one["resourceAppId"] for one in listed} == {GRAPH, PARTNER_CENTER}
    assert {access["type"] for one in listed for access in one["resourceAccess"]} == {"Scope"}
