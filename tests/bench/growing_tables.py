"""The tables of the database that grow, or are large, at full size: their rows, how many come, how long they stay.

To be imported after Django is set up; used by ``tests.bench.growth``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils import timezone

from consent import models
from consent.selection import NEIGHBOURS
from portal.runs.models import Executor, Run, RunItem
from portal.runs.results import KEPT_FOR, WELL_KEPT_FOR
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship, PartnerTenant
from tests.bench.many_rows import ManyRows, guid
from tests.support import builders

CHECKS_A_DAY = 24 / (24 * 0.85 + 0.5)  # of a partner: 80 to 90 % of a day after the last one, at an hourly look
_FAILING = 0.01  # of the units of a day


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of one table, at full size.

    Attributes:
        rows: makes them by their numbers, from 1.
        standing: how many there are from the beginning.
        day: how many come in a day.
        first: key of the row before the first.
        kept: days; those that come are not removed in a year without it.
        rewritten: columns that the schedule writes again, in turn, with SQL for their new value.
    """

    model: Any
    rows: Callable[[int], Mapping[str, Any]]
    standing: float = 0
    day: float = 0
    kept: int = 365
    first: int = 0
    rewritten: Sequence[Mapping[str, str]] = ()

    @property
    def after_a_year(self) -> float:
        return self.standing + self.day * min(self.kept, 365)


def tables(partners: int, customers: int) -> Sequence[Table]:
    """Return the tables that grow, or are large; all others together stay below 50 MB."""
    registration = builders.registration()
    made = ManyRows(100, customers, timezone.now(), registration.pk, registration.pk)
    wanted = models.WantedGrants.objects.create(
        registration=registration, number=1, grants={}, grants_hash="a" * 64, created_by="bench"
    )
    models.ConsentPlan.objects.create(pk=1, registration=registration, wanted=wanted, created_by="bench")
    run = Run.objects.create(kind="consent_verify", scope_hash="x", actor_kind="system", actor="portal")
    grants = json.dumps({"00000003-0000-0000-c000-000000000000": ["Directory.Read.All", "User.Read.All"]})
    listed = json.dumps([{"id": "x" * 43, "resource": guid(1, 1), "scopes": ["Directory.Read.All", "User.Read.All"]}])
    checks, syncs, reads = partners * CHECKS_A_DAY, partners, customers / 7
    units = checks + syncs + reads
    neighbours = NEIGHBOURS * partners / customers + 1  # partners whose customers have the same hour
    changed = [
        {"last_seen_at": "CURRENT_TIMESTAMP"}
    ]  # a sync writes what changed: one row in three in a year; here all
    return [
        Table(model=PartnerTenant, rows=made.partner, standing=partners),
        Table(
            model=models.PartnerConsent,
            rows=lambda number: dict(made.consent(number)) | {"partner_id": number, "registration_id": registration.pk},
            standing=partners,
            rewritten=[{"last_try_at": "CURRENT_TIMESTAMP", "next_try_at": "CURRENT_TIMESTAMP"}] * 3,
        ),
        Table(model=CustomerTenant, rows=made.customer, standing=customers, rewritten=changed),
        Table(
            model=GdapRelationship,
            rows=lambda number: dict(made.relationship(number)) | {"customer_id": number},
            standing=1.2 * customers,
            rewritten=changed,
        ),
        Table(
            model=GdapAccessAssignment,
            rows=lambda number: {
                "id": number,
                "relationship_id": number,
                "assignment_id": guid(12, number),
                "status": "active",
                "group_id": guid(13, number),
                "roles": json.dumps([guid(14, each) for each in range(3)]),
                "first_seen_at": made._days_ago(300),
                "last_seen_at": made._days_ago(300),
            },
            standing=1.3 * customers,
            rewritten=changed,
        ),
        Table(
            model=models.CustomerConsent,
            rows=lambda number: (
                dict(made._customer_consent(number, number, registration.pk))
                | {"actual_grants": grants, "wanted_hash": "a" * 64}
            ),
            standing=customers,
            rewritten=[{"verified_at": "CURRENT_TIMESTAMP", "tried_at": "CURRENT_TIMESTAMP"}] * 3,
        ),
        Table(  # two of each customer when consent is brought in, then only what changed
            model=models.ConsentObservation,
            rows=lambda number: dict(made.observation(number)) | {"grants": listed, "added": grants},
            standing=2 * customers,
            day=2 * customers / 50 / 365,
        ),
        Table(model=models.ConsentPlanItem, rows=made.plan_item, standing=customers),
        Table(
            model=Run,
            rows=lambda number: {
                "kind": "consent_verify",
                "id": 10 + number,
                "scope_hash": f"{number:064x}",
                "scope": json.dumps({"week_hour": number % 168}),
                "actor_kind": "system",
                "actor": "portal",
                "state": "done",
                "created_at": made._days_ago(300),
                "finished_at": made._days_ago(300),
            },
            day=72,
            kept=KEPT_FOR.days,
        ),
        Table(
            model=Executor,
            rows=lambda number: {
                "id": number,
                "run_id": run.pk,
                "host": "portal-1",
                "process": number,
                "started_at": made._days_ago(300),
                "lease_until": made._days_ago(300),
                "ended_at": made._days_ago(300),
            },
            day=72,
            kept=KEPT_FOR.days,
        ),
        Table(  # well: the last days, and of checks and syncs the newest; not well: three months
            model=RunItem,
            rows=lambda number: (
                dict(made.item(run.pk, 1_000_000, number))
                | {"state": "waiting", "failure_class": "", "finished_at": None}
            ),
            standing=2 * partners + units * _FAILING * (KEPT_FOR - WELL_KEPT_FOR).days,
            day=units,
            kept=WELL_KEPT_FOR.days,
            first=1_000_000,
            rewritten=[
                {"attempts": "attempts + 1"},
                {"state": "'done'", "failure_class": "'ok'", "finished_at": "CURRENT_TIMESTAMP"},
            ],
        ),
        Table(
            model=models.TokenUse,
            rows=lambda number: {
                "id": number,
                "at": made._days_ago(300),
                "last_at": made._days_ago(300),
                "partner_id": 1 + number % 100,
                "registration_id": registration.pk,
                "audience": "partner_center" if number % 2 else "graph",
                "purpose": "token_check",
                "actor_kind": "system",
                "actor": "portal",
                "run": 90_000 + number // 400,
                "issued": 1,
            },
            day=checks + 2 * syncs + reads / NEIGHBOURS * neighbours,
            kept=settings.TOKEN_USE_KEPT_DAYS,
        ),
        Table(model=models.ConsentLink, rows=made.link, standing=6 * partners, day=partners / 3650),
        Table(
            model=models.ConsentFlow,
            rows=lambda number: dict(made.flow(number)) | {"link_id": 1 + number % 100},
            day=200,
            kept=90,
        ),
    ]
