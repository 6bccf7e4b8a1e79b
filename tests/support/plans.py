"""What the tests of applying plans share: a partner with customers, a plan, and a run that waits for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from consent.customers.plans import make_plan
from consent.models import ApplicationGrant, ConsentPlan, ConsentPlanItem, CustomerConsent
from consent.runs.apply_plan import start_apply
from consent.selection import Selection
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.runs.executor import Executor
from portal.runs.listening import Listener, Progress
from portal.runs.models import Run, RunItem
from tenants.models import CustomerTenant
from tests.sandbox import scenarios
from tests.sandbox.world import Fault, known_id
from tests.support import builders, custody
from tests.support.portal import Portal


class Impatient(Listener):
    """Lets what has to wait come again at once."""

    def progressed(self, progress: Progress) -> None:
        RunItem.objects.filter(state="waiting").update(not_before=None)


def more_customers(portal: Portal, number: int) -> list[CustomerTenant]:
    """Give the sandbox's partner so many more customers, and store them."""
    world = portal.sandbox.world
    tenant = world.tenants[portal.partner.tenant_id]
    group = known_id("group", "northwind", "GDAP")
    made = [scenarios.add_customer(world, tenant, f"more-{each}", f"More {each}", group) for each in range(number)]
    return [builders.customer(portal.partner, tenant_id=one.tenant_id, company_name=one.name) for one in made]


def first_customers(portal: Portal, number: int = 1) -> list[CustomerTenant]:
    """Onboard the partner and store some of the customers that the sandbox has for it."""
    portal.connect()
    known = list(portal.sandbox.world.customers[portal.partner.tenant_id])[:number]
    return [builders.customer(portal.partner, tenant_id=tenant_id) for tenant_id in known]


def holds_already(portal: Portal, customer: CustomerTenant, scopes: set[str]) -> None:
    """Let the tenant hold these scopes, and our rows know it."""
    custody.consent_directly(portal, customer, set(scopes))
    principal = portal.sandbox.world.tenants[customer.tenant_id].principal_of(scenarios.application_id())
    assert principal is not None
    builders.customer_consent(customer, portal.registration, *scopes, service_principal_id=principal.object_id)


def want(*scopes: str) -> None:
    ApplicationGrant.objects.filter(resource_application_id=GRAPH_APPLICATION_ID).update(scopes=list(scopes))


def fault(portal: Portal, **columns: Any) -> None:
    """Let the sandbox answer some calls with a fault."""
    portal.sandbox.world.faults.append(Fault(**columns))


def refuse_posts(portal: Portal, *, skip: int = 0, times: int = 1, status: int = 403) -> None:
    """Let Partner Center refuse to create consents."""
    fault(
        portal,
        service="partnercenter",
        method="POST",
        path="applicationconsents",
        status=status,
        body="{}",
        skip=skip,
        times=times,
    )


def plan_for(portal: Portal, **scope: Any) -> ConsentPlan:
    return make_plan(portal.registration, Selection.from_json(scope), actor=builders.ACTOR)


def work(run: Run, *, concurrency: int = 1, seconds: float | None = None) -> Run:
    """Work a run; ``seconds`` ends it early, with what waits left waiting."""
    Executor(run, concurrency=concurrency, listener=Impatient() if seconds is None else None, seconds=seconds).work()
    run.refresh_from_db()
    return run


def apply(portal: Portal, plan: ConsentPlan | None = None, *, seconds: float | None = None, **choices: Any) -> Run:
    """Make a plan unless there is one, and apply it."""
    run, _ = start_apply(plan or plan_for(portal), actor=builders.ACTOR, **choices)
    return work(run, seconds=seconds)


def the_item() -> ConsentPlanItem:
    """Return the only customer of the latest plan."""
    return ConsentPlanItem.objects.get(plan=ConsentPlan.objects.latest("pk"))


def the_consent() -> CustomerConsent:
    return CustomerConsent.objects.get()


def state_of(run: Run) -> tuple[str, str]:
    """Return what plan and run say."""
    return ConsentPlan.objects.get(run=run).state, run.state


def requests(portal: Portal) -> list[str]:
    """Return what was sent that changes a tenant, in order."""
    kinds = {"create consent": "POST", "delete consent": "DELETE"}
    return [kinds[line["operation"]] for line in portal.sandbox.world.ledger if line["operation"] in kinds]


def waves_of(run: Run) -> Sequence[int]:
    """Return how many items each wave has."""
    numbers = list(run.items.order_by("wave").values_list("wave", flat=True))
    return [numbers.count(wave) for wave in sorted(set(numbers))]
