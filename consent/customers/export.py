"""A plan as JSON, CSV or lines for people: its counts first, then one record a customer. Memory stays flat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from consent.customers.judging import CHUNK
from consent.customers.plans import counts, results
from consent.grants import Grants
from consent.models import ConsentPlan, ConsentPlanItem
from portal.site.export import csv_lines

_COLUMNS = (
    "partner",
    "partner_tenant_id",
    "customer",
    "tenant_id",
    "action",
    "needs_reset",
    "adds",
    "takes_away",
    "reason",
    "owner",
    "read_at",
    "result",
    "message",
    "finished_at",
)


def head(plan: ConsentPlan) -> dict[str, Any]:
    """Return what the plan is about, and its counts; three queries.

    Note: this reads ``plan.registration`` and ``plan.wanted``; where they are not loaded, that is a query.
    """
    return {
        "plan": plan.pk,
        "application_id": plan.registration.application_id,
        "purpose": plan.purpose,
        "wanted_version": plan.wanted.number if plan.wanted else None,
        "scope": plan.scope,
        "state": plan.state,
        "created_at": plan.created_at.isoformat(timespec="seconds"),
        "created_by": plan.created_by,
        "counts": counts(plan),
        "results": results(plan),
    }


def lines(plan: ConsentPlan) -> Iterator[dict[str, Any]]:
    """Yield one record a customer."""
    for item in plan.items.select_related("customer__partner").iterator(chunk_size=CHUNK):
        adds, takes_away = change_of(item)
        yield {
            "partner": item.customer.partner.name,
            "partner_tenant_id": item.customer.partner.tenant_id,
            "customer": str(item.customer),
            "tenant_id": item.customer.tenant_id,
            "action": item.action,
            "needs_reset": item.needs_reset,
            "adds": adds.to_json(),
            "takes_away": takes_away.to_json(),
            "reason": item.reason,
            "owner": item.owner,
            "read_at": item.read_at.isoformat(timespec="seconds") if item.read_at else None,
            "result": item.result,
            "message": item.message,
            "finished_at": item.finished_at.isoformat(timespec="seconds") if item.finished_at else None,
        }


def change_of(item: ConsentPlanItem) -> tuple[Grants, Grants]:
    """Return what is added and what is taken away, by resource; nothing where nothing is to be changed."""
    if item.action in {ConsentPlanItem.Action.NOTHING, ConsentPlanItem.Action.BLOCKED}:
        return Grants(), Grants()
    target, before = Grants(item.target), Grants(item.before)
    return target - before, before - target


def json_document(plan: ConsentPlan) -> Iterator[str]:
    """Yield one JSON object piece by piece: :func:`head` and, under ``items``, a line for each customer."""
    opening = json.dumps(head(plan), ensure_ascii=False)
    yield opening[:-1] + ', "items": ['
    comma = "\n"
    for line in lines(plan):
        yield comma + json.dumps(line, ensure_ascii=False)
        comma = ",\n"
    yield "\n]}\n"


def csv_document(plan: ConsentPlan) -> Iterator[str]:
    """Yield CSV lines that a spreadsheet opens without running them (S-64)."""
    rows = ([_cell(line[name]) for name in _COLUMNS] for line in lines(plan))
    return csv_lines(_COLUMNS, rows)


def _cell(value: Any) -> Any:
    return "; ".join(Grants(value).lines()) if isinstance(value, dict) else value
