"""What a run says of one item of a plan: class, words and columns, each as the command says that asked for it.

A plan that was shown speaks of its items; a push speaks of the state that was read, a removal of its proof.
"""

from __future__ import annotations

from typing import Any

from consent.customers.applying import Applied
from consent.models import ConsentPlan, ConsentPlanItem, CustomerConsent
from consent.naming import line_names
from portal.runs.kinds import OK, Outcome

REFUSED = "refused"  # nothing was sent; a class beside those of ``FailureClass``
_Purpose, _Result = ConsentPlan.Purpose, ConsentPlanItem.Result


def finished(applied: Applied, correlation_id: str, failure_class: str = "", code: str = "") -> Outcome:
    """Return the outcome of an item that has its result.

    Args:
        failure_class: instead of the one that follows from the result.
        code: what Microsoft called the failure.
    """
    item, row = applied.item, applied.consent
    name = failure_class or _class(applied)
    by_row = row is not None and item.plan.purpose == _Purpose.PUSH
    message, owner = (row.reason, row.owner) if row is not None and by_row else (item.message, item.owner)
    if by_row and applied.reading is not None:  # the row will say it, when it is written
        message, owner = applied.reading.reason, applied.reading.owner
    return Outcome(
        failure_class=name,
        message=message,
        owner=owner,
        code=code,
        fields=columns(item, correlation_id, name, message, owner, applied),
        result=applied,
    )


def _class(applied: Applied) -> str:
    item, row = applied.item, applied.consent
    if item.result == _Result.DONE:
        return OK
    if item.plan.purpose == _Purpose.PUSH:
        return REFUSED if row is None else str(row.state)
    if item.plan.purpose == _Purpose.REMOVE:
        return REFUSED if item.result == _Result.HELD else applied.failure or item.result
    return str(item.result)


def columns(
    item: ConsentPlanItem, correlation_id: str, name: str, reason: str, owner: str, applied: Applied | None = None
) -> dict[str, Any]:
    """Return the columns of the JSON line of an item.

    Args:
        name: its class.
        applied: what came of it, where it has a result.
    """
    names: dict[str, Any] = line_names(item.customer.partner, item.plan.registration, item.customer)
    if item.plan.purpose == _Purpose.PUSH:
        return _pushed(names | {"correlation_id": correlation_id}, reason, owner, applied)
    if item.plan.purpose == _Purpose.REMOVE:
        return _removed(names | {"correlation_id": correlation_id}, name, reason, owner, applied)
    result = name if applied is None else item.result
    return {"plan": item.plan_id, **names, "action": item.action, "result": result, "reason": reason, "owner": owner}


def _pushed(names: dict[str, Any], reason: str, owner: str, applied: Applied | None) -> dict[str, Any]:
    row = applied.consent if applied else None
    if row is None:
        return {**names, "state": "", "reason": reason, "owner": owner}
    read = {"service_principal_id": row.service_principal_id, "grants": row.actual_grants}
    return {**names, "state": row.state, "reason": row.reason, "owner": row.owner, **read}


def _removed(names: dict[str, Any], name: str, reason: str, owner: str, applied: Applied | None) -> dict[str, Any]:
    if name != OK or applied is None:
        return {**names, "class": name, "reason": reason, "owner": owner}
    seen = applied.seen
    return {
        **names,
        "class": OK,
        "state": CustomerConsent.State.ABSENT.value,
        "proof": seen.evidence if seen else "",
        "removed": seen.removed if seen else {},
        "reason": reason,
    }
