"""What staff need when a partner quotes a reference code: what was read there, when, and what to answer.

Codes come from two places. An attempt has one: the first eight characters of its public id. The page "Our storage is
not ready" has one too, which only the log knows, because no row could be written then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.conf import settings
from django.utils import timezone

from consent.models import ConsentFlow
from consent.words import PROBLEMS, RESULTS, CheckState, Problem, Who, result_of
from portal.microsoft.diagnosis.entra import NUMBERS

_CODE = re.compile(r"[0-9A-F]{8}")
_IGNORED = re.compile(r"[\s\-.:#]+")
_AADSTS = re.compile(r"AADSTS([0-9]{4,8})")
_STAFF: Mapping[Problem, str] = {
    Problem.START_AGAIN: "Nothing is to be repaired. If it comes again, ask for another browser without extensions.",
    Problem.DECLINED: "Nothing failed. Ask whether something on the page was unclear.",
    Problem.ADMIN_APPROVAL_NEEDED: "Wait for the partner's administrator; the link stays good until its end.",
    Problem.WRONG_TENANT: (
        "Compare both tenant ids in the audit trail. If the person belongs to the partner, send the answer; if the "
        "link went to a stranger, revoke it and make another."
    ),
    Problem.PERSONAL_OR_GUEST_ACCOUNT: "Wait for the partner to sign in with a member of its own tenant.",
    Problem.OTHER_ACCOUNT_WAITING: "Ask the partner by another way than mail; then approve or reject the account.",
    Problem.MFA_MISSING: "Wait for the partner. An older connection, if there is one, was kept.",
    Problem.ROLE_MISSING: "Wait for the partner's administrator. Microsoft needs a few minutes to spread a new role.",
    Problem.PARTNER_CENTER_REFUSED: (
        "Check that the application is registered as a control panel vendor in Partner Center, and that the partner "
        "has an active agreement; Microsoft's support needs the correlation id."
    ),
    Problem.BLOCKED_BY_POLICY: (
        "Give the partner the time and the correlation id: its sign-in log finds the attempt by them, and names the "
        "rule."
    ),
    Problem.TRY_AGAIN: "Look at Microsoft's service health. If it comes again, ask Microsoft with the correlation id.",
    Problem.STORAGE_UNAVAILABLE: "See that the vault can be written; the open incidents say more.",
    Problem.INTERRUPTED: "See on the partner's page whether it is connected, and in the log what ended the process.",
    Problem.OUR_FAULT: "Look at the code below and at the log's lines with this reference; then correct our side.",
    Problem.ANSWER_REFUSED: "Look at the code below: it names the field of the answer that did not fit. Report it.",
    Problem.CLOCK: "Correct the clock of this server; then ask the partner to try again.",
    Problem.CONTAINED: "Nothing but to wait: when the emergency stop is over, the partner's link works as before.",
}


class Step(StrEnum):
    """How far an attempt came."""

    AT_MICROSOFT = "At Microsoft's sign-in page"
    LEFT = "At Microsoft's sign-in page; no answer came back within 15 minutes"
    WHO_SIGNED_IN = "Back with us, while we checked who had signed in"
    RIGHTS = "Back with us, while Partner Center was asked"
    KEEPING = "Back with us, while the connection was being stored"
    CHECKING = "Back with us, being checked"
    DONE = "At its end"


_STEPS: Mapping[Problem, Step] = {
    Problem.WRONG_TENANT: Step.WHO_SIGNED_IN,
    Problem.PERSONAL_OR_GUEST_ACCOUNT: Step.WHO_SIGNED_IN,
    Problem.ANSWER_REFUSED: Step.WHO_SIGNED_IN,
    Problem.CLOCK: Step.WHO_SIGNED_IN,
    Problem.CONTAINED: Step.WHO_SIGNED_IN,
    Problem.START_AGAIN: Step.WHO_SIGNED_IN,
    Problem.MFA_MISSING: Step.RIGHTS,
    Problem.ROLE_MISSING: Step.RIGHTS,
    Problem.PARTNER_CENTER_REFUSED: Step.RIGHTS,
    Problem.STORAGE_UNAVAILABLE: Step.KEEPING,
    Problem.INTERRUPTED: Step.KEEPING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One attempt in words.

    Attributes:
        heading, read: what the partner's page says.
        who: who must act, as the partner's page says it; empty where nothing is to be done.
        step: how far the attempt came; ``at`` when it came there.
        answer: a text to send to the partner.
        to_do: what staff do.
        failure: what Microsoft or we called it, and ``cause`` the same in words; both may be empty.
        correlation_id: what Microsoft's support finds the attempt by, together with the time.
    """

    flow: ConsentFlow
    heading: str
    read: str
    who: str
    step: Step
    at: datetime
    answer: str
    to_do: str
    failure: str
    cause: str
    correlation_id: str


def reference(code: str) -> Reference | None:
    """Return what is known of a code; blanks, hyphens and case do not matter. None when no attempt has it.

    Then it is mistyped, or from the page "Our storage is not ready": the log finds that one.
    """
    code = _IGNORED.sub("", code).upper()
    if not _CODE.fullmatch(code):
        return None
    flows = ConsentFlow.objects.select_related("link__partner", "link__registration")
    flow = flows.filter(public_id__startswith=code.lower()).first()  # the latest, should two have the same
    return explain(flow) if flow else None


def explain(flow: ConsentFlow) -> Reference:
    """Say an attempt in words. Reads ``flow.link`` with partner and registration."""
    heading, read, who, steps, to_do = _page(flow)
    return Reference(
        flow=flow,
        heading=heading,
        read=read,
        who=who.words if who else "",
        step=_step(flow),
        at=flow.finished_at or flow.claimed_at or flow.created_at,
        answer=_answer(flow, read, who, steps),
        to_do=to_do,
        failure=flow.code,
        cause=_cause(flow.code),
        correlation_id=flow.correlation_id,
    )


def _page(flow: ConsentFlow) -> tuple[str, str, Who | None, Sequence[str], str]:
    """Return heading, text, who acts, and steps of the partner's page, and what staff do."""
    outcome = ConsentFlow.Outcome(flow.outcome)
    steps: Sequence[str]
    if outcome is ConsentFlow.Outcome.OPEN:
        if flow.expires_at > timezone.now():
            return "", "The partner is at Microsoft's sign-in page just now.", None, (), "Wait for the partner."
        steps = ("Open the link in your invitation again, and stay in the same browser until you are back here.",)
        return (
            "",
            "The sign-in at Microsoft was not finished.",
            Who.YOU,
            steps,
            "Send the answer; the link is still good.",
        )
    if outcome in {ConsentFlow.Outcome.REFUSED, ConsentFlow.Outcome.WORKING}:
        # One that was never finished was cut off; the page says so after two minutes.
        problem = Problem(flow.problem) if flow.problem else Problem.INTERRUPTED
        words = PROBLEMS[problem]
        steps = words.steps
        return words.heading, words.what, words.who, steps, _STAFF[problem]
    failed = any(check["state"] == CheckState.FAILED for check in flow.checks)
    result = RESULTS[result_of(outcome, failed=failed)]
    to_do = {
        ConsentFlow.Outcome.WAITING_APPROVAL: _STAFF[Problem.OTHER_ACCOUNT_WAITING],
        ConsentFlow.Outcome.ADMIN_CONSENTED: "Send the partner a link for the service account.",
        ConsentFlow.Outcome.MFA_MISSING: _STAFF[Problem.MFA_MISSING],
    }.get(outcome, "Nothing to do." if not failed else "Wait for the partner to mend what failed.")
    return result.heading, result.lead, result.who, result.steps, to_do


def _step(flow: ConsentFlow) -> Step:
    match ConsentFlow.Outcome(flow.outcome):
        case ConsentFlow.Outcome.OPEN:
            return Step.AT_MICROSOFT if flow.expires_at > timezone.now() else Step.LEFT
        case ConsentFlow.Outcome.WORKING:
            return Step.CHECKING
        case ConsentFlow.Outcome.REFUSED:
            at_microsoft = _AADSTS.fullmatch(flow.code) is not None
            return Step.AT_MICROSOFT if at_microsoft else _STEPS.get(Problem(flow.problem), Step.AT_MICROSOFT)
    return Step.DONE


def _answer(flow: ConsentFlow, read: str, who: Who | None, steps: Sequence[str]) -> str:
    """Return a mail's text. Where we must act, the partner reads that, and not what the page told it to send us."""
    began = f"{flow.created_at:%d %B %Y, %H:%M} UTC"
    lines = [f"Thank you for the reference {flow.reference}. It is your attempt of {began}.", "", read]
    if who is Who.US:
        lines += ["", "You need not do anything now. We look into it, and write to you when it is done."]
    elif steps:
        lines += ["", "What to do next:", *(f"{number}. {step}" for number, step in enumerate(steps, 1))]
    return "\n".join([*lines, "", settings.VENDOR_NAME])


def _cause(code: str) -> str:
    """Say a number of Microsoft in words, if it is one that we know."""
    number = _AADSTS.fullmatch(code)
    row = NUMBERS.get(int(number[1])) if number else None
    return row.read(code).cause if row else ""
