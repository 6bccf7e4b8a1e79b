"""What the tests of verifying, removing and offboarding share: customers, runs, and hands in the customers' tenants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consent.models import ConsentPlan, CustomerConsent
from consent.runs.apply_plan import start_direct
from consent.runs.verify import CONSENT_VERIFY
from consent.selection import Selection
from portal.runs import service, summaries
from portal.runs.executor import Executor
from portal.runs.kinds import Kind
from portal.runs.models import Run
from tenants.models import CustomerTenant
from tests.sandbox.scenarios import application_id
from tests.sandbox.world import GRAPH, Relationship
from tests.support import builders, custody, decisions
from tests.support.portal import Portal

WANTED = {"User.Read.All", "Directory.Read.All"}


def connect_customers(portal: Portal, *, consented: int = 3) -> list[CustomerTenant]:
    """Onboard the partner and store its customers; the first of them hold our consent."""
    portal.connect()
    customers = [
        builders.customer(portal.partner, tenant_id=tenant_id)
        for tenant_id in portal.sandbox.world.customers[portal.partner.tenant_id]
    ]
    for customer in customers[:consented]:
        custody.consent_directly(portal, customer, set(WANTED))
        CustomerConsent.objects.create(customer=customer, registration=portal.registration)
    return customers


def work(kind: Kind, scope: Mapping[str, Any], *, concurrency: int = 4, **options: Any) -> Run:
    """Work a run of this kind to its end."""
    run, _ = service.start(kind, scope=scope, options=options, actor=builders.ACTOR, concurrency=concurrency)
    Executor(run).work()
    run.refresh_from_db()
    return run


def push(portal: Portal, *customers: CustomerTenant, wait: float = 0) -> Run:
    """Push the consent to these customers, as the command does."""
    run, _ = start_direct(
        ConsentPlan.Purpose.PUSH,
        Selection(customers=tuple(customer.pk for customer in customers), registration=portal.registration.pk),
        actor=builders.ACTOR,
        wait=wait,
    )
    return worked(run)


def remove(scope: Mapping[str, Any], *, wait: float = 0) -> Run:
    """Remove the consents of a selection, as the command does."""
    chosen = Selection.from_json(scope)
    run, _ = start_direct(
        ConsentPlan.Purpose.REMOVE, chosen, actor=builders.ACTOR, wait=wait, approved=decisions.approval()
    )
    return worked(run)


def worked(run: Run) -> Run:
    """Work a run to its end."""
    Executor(run, concurrency=1).work()
    run.refresh_from_db()
    return run


def read(portal: Portal, *customers: CustomerTenant) -> Run:
    """Read what these customers hold."""
    rows = [CustomerConsent.objects.get_or_create(customer=one, registration=portal.registration) for one in customers]
    return work(CONSENT_VERIFY, {"consents": [row.pk for row, _ in rows]}, concurrency=1)


def classes(run: Run) -> dict[str, int]:
    """Count the outcomes of a run."""
    return dict(summaries.summary(run).classes)


def change_scopes(portal: Portal, customer: CustomerTenant, scopes: set[str]) -> None:
    """Somebody in the customer's tenant edits our grant; nothing left means that it is gone."""
    tenant = portal.sandbox.world.tenants[customer.tenant_id]
    principal = tenant.principal_of(application_id())
    assert principal is not None
    for grant in [one for one in tenant.grants.values() if one.client == principal.object_id]:
        del tenant.grants[grant.grant_id]
    if scopes:
        tenant.grant(application_id(), GRAPH, set(scopes))


def delete_application(portal: Portal, customer: CustomerTenant) -> None:
    """Somebody in the customer's tenant deletes our enterprise application."""
    change_scopes(portal, customer, set())
    tenant = portal.sandbox.world.tenants[customer.tenant_id]
    principal = tenant.principal_of(application_id())
    assert principal is not None
    del tenant.principals[principal.object_id]


def relationship(portal: Portal, customer: CustomerTenant) -> Relationship:
    return next(one for one in portal.sandbox.world.relationships if one.customer == customer.tenant_id)


def end_relationship(portal: Portal, customer: CustomerTenant) -> None:
    one = relationship(portal, customer)
    one.status, one.ends = "expired", portal.sandbox.world.now() - 60


def consent_of(customer: CustomerTenant) -> CustomerConsent:
    return CustomerConsent.objects.get(customer=customer)


def holds(portal: Portal, customer: CustomerTenant) -> set[str]:
    """What the tenant holds of our application, from the sandbox's own books."""
    tenant = portal.sandbox.world.tenants[customer.tenant_id]
    principal = tenant.principal_of(application_id())
    if principal is None:
        return set()
    return {scope for one in tenant.grants.values() if one.client == principal.object_id for scope in one.scopes}


def booked(portal: Portal, operation: str) -> list[dict[str, Any]]:
    return [line for line in portal.sandbox.world.ledger if line["operation"] == operation]
