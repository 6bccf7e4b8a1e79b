"""What is written of a request besides its row: seals, the audit trail, incidents."""

from __future__ import annotations

from portal.audit.models import AuditEvent
from portal.audit.seals import Seal, canonical, fits, seal
from portal.audit.trail import Actor, Outcome, record
from portal.decisions.kinds import Preview
from portal.decisions.models import Decision, DecisionQuerySet
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner

WAITS, OVERRIDDEN, CHANGED = "decision_waits", "decision_overridden", "decision_changed"  # causes of incidents


class DecisionRefused(Exception):
    """It was not asked for, decided or done; the text says why and what to do."""


# --- seals: under a key outside the database, so that a row that was changed there approves nothing ------------------


def seal_of_request(decision: Decision) -> str:
    """Return the seal of what was asked for, by whom, and until when."""
    return seal(_request(decision)).value


def seal_of_approval(decision: Decision, way: Decision.Way, decided_by: str) -> str:
    """Return the seal of who approved it in which way."""
    return seal(_approval(decision, way, decided_by)).value


def is_genuine(decision: Decision) -> bool:
    """Whether what was asked for, and who asked, are as they were."""
    return fits(_request(decision), Seal(key_id="", value=decision.seal))


def is_approval_genuine(decision: Decision) -> bool:
    """Whether it was approved by the portal and not by a change of the row."""
    said = _approval(decision, Decision.Way(decision.way), decision.decided_by)
    return is_genuine(decision) and fits(said, Seal(key_id="", value=decision.decision_seal))


def _request(decision: Decision) -> str:
    return canonical(
        {
            "request": decision.kind,
            "parameters": decision.parameters,
            "preview": decision.preview,
            "digest": decision.digest,
            "requester": decision.requester_id,
            "requested_by": decision.requested_by,
            "requester_kind": decision.requester_kind,
            "expires_at": decision.expires_at.isoformat(),
        }
    )


def _approval(decision: Decision, way: Decision.Way, decided_by: str) -> str:
    return canonical({"decision": decision.pk, "seal": decision.seal, "way": way.value, "decided_by": decided_by})


# --- the trail ------------------------------------------------------------------------------------------------------


def write_event(
    action: str, decision: Decision, actor: Actor, outcome: AuditEvent.Outcome = Outcome.DONE, **details: str
) -> None:
    """Write one event about a request. What people wrote stands in the row only, never in the trail (S-68)."""
    subject = {"decision": decision.pk, **decision.preview["subject"]}
    about = {"kind": decision.kind, "digest": decision.digest, "asked_by": decision.requested_by}
    record(action, actor=actor, outcome=outcome, subject=subject, details=about | details)


def about_partner(partner: int) -> DecisionQuerySet:
    """Return the requests about a partner that nobody has to decide about or to do any more."""
    return Decision.objects.filter(preview__subject__partner=partner).exclude(state__in=Decision.OPEN)


def forget(partner: int, *, name: str) -> int:
    """Take away what finished requests say of a partner who was erased; who decided what and when stays.

    Call it inside the transaction of the erasure. Their seals fit no more; nobody looks at those of finished ones.
    Returns how many were changed; those that were before do not count.
    """
    nothing = Preview(what=name, whom=name, subject={"partner": partner}, changes=[]).to_json()
    rows = about_partner(partner).exclude(what=name)
    return rows.update(what=name, whom=name, why="", answer="", outcome="", preview=nothing)


# --- incidents ------------------------------------------------------------------------------------------------------


def tell_that_it_waits(decision: Decision) -> None:
    """Tell staff that somebody has to decide; it is settled by the decision."""
    _report(
        WAITS,
        decision,
        "Somebody asked for what two persons decide about. Look at what would happen, ask the person who asked, then "
        f"approve or refuse it. It ends by itself at {decision.expires_at:%Y-%m-%d %H:%M} UTC.",
    )


def settle_waiting(decision: Decision) -> None:
    """Note that nobody has to decide any more."""
    settle(WAITS, about=_about(decision))


def tell_of_emergency(decision: Decision) -> None:
    """Tell staff that one person acted alone; a person settles it."""
    _report(
        OVERRIDDEN,
        decision,
        "One person alone did what two persons decide about, and called it an emergency. Ask that person, by another "
        "way than mail, whether it was so. If not, end their sessions, switch the account off, and look in the audit "
        "trail at what else they did.",
    )


def tell_of_change(decision: Decision) -> None:
    """Tell staff that a row is not what the portal wrote."""
    _report(
        CHANGED,
        decision,
        "A request for what two persons decide about was changed in the database, past the portal, or INTEGRITY_KEY is "
        "another one. Nothing was done. Refuse the request, and find out who had access to the database.",
    )


def _report(cause: str, decision: Decision, words: str) -> None:
    report(
        cause,
        about=_about(decision),
        name=decision.what,
        owner=Owner.US,
        words=words,
        subject={"decision": decision.pk},
    )


def _about(decision: Decision) -> str:
    return f"decision:{decision.pk}"
