"""Do what was approved, once, and write down what came of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.audit.trail import Actor, Outcome
from portal.decisions.kinds import Approval, Kind, Parameters, Result, kinds
from portal.decisions.models import Decision
from portal.decisions.records import DecisionRefused, is_approval_genuine, tell_of_change, write_event

log = logging.getLogger(__name__)

State, Way = Decision.State, Decision.Way


class Deed:
    """What is being done; whoever does it says what came of it."""

    result = Result(words="Done.")


@contextmanager
def carried_out(approval: Approval) -> Iterator[Deed]:
    """Do what was approved inside of this, and have written down what came of it, failures too.

    Set ``result`` of what it gives before the end. What is raised inside is raised again.
    """
    kind, deed = kinds()[approval.kind], Deed()
    try:
        yield deed
    except Exception as error:
        said = isinstance(error, kind.refusals)
        if not said:
            log.exception("what was approved failed", extra={"decision": approval.decision})
        words = str(error) if said else f"{type(error).__name__}; the log says where."
        _finish(approval, State.FAILED, Result(words=words), again=kind.may_repeat)
        raise
    _finish(approval, State.DONE, deed.result)


def approved(kind: Kind, parameters: Parameters, *, account: User | None = None) -> Decision | None:
    """Return the request for exactly this that was approved and nobody has begun; None when there is none.

    Args:
        account: then only a request of this account counts.

    Raises:
        CannotBeDone: it makes no sense now.
    """
    digest = kind.digest(parameters, kind.preview(parameters))
    rows = Decision.objects.undone().filter(kind=kind.key, digest=digest, state=State.APPROVED)
    if account is not None:
        rows = rows.filter(requester=account.pk)
    return rows.filter(expires_at__gt=timezone.now()).first()


def take(kind: Kind, parameters: Parameters, *, account: User | None = None) -> Approval | None:
    """Take what was approved of this; None when nothing is. It can be taken once. The arguments are as above.

    Raises:
        CannotBeDone: it makes no sense now.
        DecisionRefused: somebody took it at this moment, or the row was changed past the portal.
    """
    decision = approved(kind, parameters, account=account)
    return None if decision is None else begin(decision)


def begin(decision: Decision) -> Approval:
    """Claim an approved request, which works once.

    Raises:
        DecisionRefused: somebody was faster, its time is over, or the row was changed past the portal.
    """
    if not is_approval_genuine(decision):
        tell_of_change(decision)
        raise DecisionRefused("This request was changed in the database, past the portal. Nothing was done.")
    now = timezone.now()
    mine = Decision.objects.undone().filter(pk=decision.pk, state=State.APPROVED, expires_at__gt=now)
    if not mine.update(started_at=now):
        raise DecisionRefused("This was begun before, or its time is over. Nothing was done twice.")
    return Approval(
        decision=decision.pk,
        kind=decision.kind,
        actor=Actor(
            kind=AuditEvent.ActorKind(decision.requester_kind),
            name=decision.requested_by,
            may=kinds()[decision.kind].permission.__eq__,  # both persons have this right, and nothing else is done
        ),
        approved_by=decision.decided_by if decision.way == Way.SECOND else "",
        way=Way(decision.way).value,
    )


def _finish(approval: Approval, state: Decision.State, result: Result, *, again: bool = False) -> None:
    columns: dict[str, object] = {"state": state, "finished_at": timezone.now()}
    if again:  # it goes on where it stopped
        columns = {"started_at": None}
    with transaction.atomic():
        Decision.objects.filter(pk=approval.decision, state=State.APPROVED).update(
            outcome=result.words[:400], outcome_subject=dict(result.subject), **columns
        )
        decision = Decision.objects.get(pk=approval.decision)
        outcome = Outcome.DONE if state == State.DONE else Outcome.FAILED
        write_event(
            "decision.done", decision, approval.actor, outcome, approved_by=approval.approved_by, way=approval.way
        )
