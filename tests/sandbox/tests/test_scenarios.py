from __future__ import annotations

import asyncio
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.sandbox import benchmark, scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import Vendor
from tests.sandbox.world import DIRECTORY_READERS, GLOBAL_ADMINISTRATOR, World


def load(sandbox: Sandbox, name: str) -> World:
    scenarios.load(sandbox.world, name, sandbox.clouds)
    return sandbox.world


def test_the_same_scenario_has_the_same_ids_and_names_each_time(sandbox: Sandbox) -> None:
    def facts() -> object:
        world = load(sandbox, "demo")
        return [(one.tenant_id, one.name, one.domain, sorted(one.users)) for one in world.tenants.values()]

    assert facts() == facts()


def test_the_demo_has_eight_partners_and_210_customers_of_which_one_partner_has_several_pages(
    sandbox: Sandbox,
) -> None:
    world = load(sandbox, "demo")
    counts = [len(customers) for customers in world.customers.values()]

    assert len(counts) == 8
    assert sum(counts) == 210
    assert {world.tenants[partner].cloud for partner in world.customers} == {"global", "china", "usgov"}
    assert max(counts) > 3 * 40
    for partner in world.customers:
        names = [world.tenants[customer].name for customer in world.customers[partner]]
        assert len(set(names)) == len(names)


def test_every_partner_of_the_demo_has_a_service_account_a_member_and_a_second_administrator(sandbox: Sandbox) -> None:
    world = load(sandbox, "demo")

    for partner in (world.tenants[one] for one in world.customers):
        service, member, second = (
            next(user for user in partner.users.values() if user.upn.startswith(f"{short}@"))
            for short in ("service", "member", "second")
        )
        assert GLOBAL_ADMINISTRATOR in service.roles & second.roles
        assert world.in_admin_agents(partner, service)
        assert not member.roles
        assert not world.in_admin_agents(partner, member)


def test_the_demos_gdap_relationships_are_in_mixed_states(sandbox: Sandbox, vendor: Vendor) -> None:
    world = load(sandbox, "demo")

    states = Counter(one.status for one in world.relationships)
    assert states.keys() == {"active", "expired", "approvalPending"}
    pending = [a for one in world.relationships for a in one.assignments if a.status == "pending"]
    partner, service = vendor.tenant_of("service@northwind.example.com")
    roles = [world.gdap_roles(partner.tenant_id, service, one) for one in world.customers[partner.tenant_id]]
    assert pending
    assert sum(not one for one in roles) == 24
    assert sum(one == {DIRECTORY_READERS} for one in roles) == 6


def test_every_cloud_has_a_vendor_with_an_application_of_its_own(sandbox: Sandbox) -> None:
    world = load(sandbox, "empty")

    ids = {scenarios.application_id(cloud) for cloud in sandbox.clouds}
    assert len(ids) == 3
    assert ids | {scenarios.vault_application_id()} == world.applications.keys()
    assert world.tenants[scenarios.vendor_tenant("china")].cloud == "china"


def test_no_scenario_has_a_secret_and_no_description_shows_one(sandbox: Sandbox) -> None:
    world = load(sandbox, "demo")
    assert not any(one.secrets or one.certificates for one in world.applications.values())
    world.applications[scenarios.application_id()].secrets["unmistakable"] = 1.0

    assert "unmistakable" not in json.dumps(scenarios.describe(world))


def test_the_benchmark_measures_checked_calls(sandbox: Sandbox, vendor: Vendor) -> None:
    target = benchmark.Target(port=sandbox.port, ca_file=str(sandbox.ca_file), token=vendor.access_token())
    url = f"{vendor.cloud.partner_center}/v1/profiles/organization"

    def measured() -> tuple[float, float]:
        return asyncio.run(benchmark.measure(target, url, seconds=0.2, connections=2))

    with ThreadPoolExecutor(1) as pool:  # a browser test before this one may have left a loop running in this thread
        rate, slow = pool.submit(measured).result()

    assert rate > 0
    assert slow > 0
    assert sandbox.world.counters["partner_center get organization profile 200"] > 1
