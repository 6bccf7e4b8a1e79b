"""The one next step of a partner: what is wrong or what comes next, since when, who must act, and what does it.

It follows from the partner's one state (``consent.states``) and, for a token, from ``consent.tokens.next_steps``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from consent.hub.facts import PartnerFacts
from consent.models import ConsentLink, Offboarding, PartnerConsent
from consent.states import State
from consent.tokens.next_steps import NEW_LINK, next_step, wrong_since
from consent.words import PROBLEMS, Problem, Who
from portal.microsoft.diagnosis import FailureClass, Owner
from portal.text import number_are, number_of
from tenants.models import CustomerTenant

Token = PartnerConsent.State
Progress = ConsentLink.Progress


class Action(StrEnum):
    """What a person can do about a step; the values are parts of addresses."""

    CHECK = "check"
    RENEW = "renew"
    SEND_LINK = "send-link"
    INVITE_AGAIN = "invite-again"
    APPROVE = "approve"
    PLAN = "plan"
    SYNCHRONISE = "synchronise"
    RESUME = "resume"
    READ_AGAIN = "read-again"
    ENABLE = "enable"
    SEE_OFFBOARDING = "offboarding"
    SEE_CREDENTIAL = "credential"
    SEE_CUSTOMERS = "customers"
    SEE_GDAP = "gdap"
    SEE_AUDIT = "audit"

    @property
    def label(self) -> str:
        """What the button says."""
        return _LABELS[self]


_LABELS: Mapping[Action, str] = {
    Action.CHECK: "Check now",
    Action.RENEW: "Renew now",
    Action.SEND_LINK: "Send link",
    Action.INVITE_AGAIN: "Invite again",
    Action.APPROVE: "Decide",
    Action.PLAN: "Plan consent",
    Action.SYNCHRONISE: "Synchronise",
    Action.RESUME: "See the run and resume it",
    Action.READ_AGAIN: "Read again",
    Action.ENABLE: "Enable",
    Action.SEE_OFFBOARDING: "See the offboarding",
    Action.SEE_CREDENTIAL: "See the credential",
    Action.SEE_CUSTOMERS: "See the customers",
    Action.SEE_GDAP: "See the GDAP path",
    Action.SEE_AUDIT: "See the audit trail",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """What a person reads first.

    Attributes:
        what: what is wrong, or what comes next; one sentence.
        remedy: what puts it right; one sentence, sometimes with a second that says why.
        owner: who must act; None where nothing is to be done.
        since: since when it is so, None where nothing says so.
        actions: what does it here, the first one first.
        consent: the token that it is about.
        key: of the row that an action is about: an account that waits, an offboarding, a run.
        is_wrong: whether something is wrong; False for what only comes next.
    """

    what: str
    remedy: str
    owner: Owner | None = None
    since: datetime | None = None
    actions: tuple[Action, ...] = ()
    consent: PartnerConsent | None = None
    key: int | None = None
    is_wrong: bool = True


def next_step_of(facts: PartnerFacts, now: datetime) -> NextStep:
    """Return the first of these that applies; what the later ones need is not read."""
    for rule in (
        _decided,
        _account_waits,
        _unwell,
        _not_connected,
        _token_ends,
        _plan_stopped,
        _never_read,
        _findings,
        _unserved,
        _not_ready,
    ):
        if (step := rule(facts, now)) is not None:
            return step
    return NextStep(what=f"All is well: {_tokens_in_words(facts)}.", remedy="Nothing to do.", actions=(Action.CHECK,))


def _tokens_in_words(facts: PartnerFacts) -> str:
    number = len(facts.usable)
    works = "the token works" if number == 1 else f"all {number} tokens work"
    return f"{works}, and {number_of(facts.customers.listed, 'customer')} need nothing" if number else works


# --- what staff decided -------------------------------------------------------------------------------------------


def _decided(facts: PartnerFacts, now: datetime) -> NextStep | None:
    if facts.state is State.OFFBOARDED:
        return NextStep(
            what="The partner is offboarded.",
            remedy="Nothing to do: its tokens and consents were removed, and the report is kept.",
            since=facts.offboarding.started_at if facts.offboarding else None,
            actions=_see_offboarding(facts),
            key=facts.offboarding.pk if facts.offboarding else None,
        )
    if facts.state is State.DISABLED:
        return NextStep(
            what="The partner is disabled: nothing is done for it, and its links do not work.",
            remedy="Enable it to go on; then check its tokens.",
            owner=Owner.US,
            actions=(Action.ENABLE,),
            is_wrong=False,
        )
    if facts.state is State.OFFBOARDING and facts.offboarding is not None:
        offboarding = facts.offboarding
        waits = offboarding.state == Offboarding.State.WAITING
        return NextStep(
            what=f"The partner is being offboarded: {offboarding.get_state_display().lower()}.",
            remedy=(
                f"{number_of(offboarding.remaining, 'customer')} could not be proven to be without our consent: "
                "decide whether it ends without them."
                if waits
                else "Nothing to do: the portal goes on by itself."
            ),
            owner=Owner.US if waits else Owner.NOBODY,
            since=offboarding.started_at,
            actions=_see_offboarding(facts),
            key=offboarding.pk,
        )
    return None


def _see_offboarding(facts: PartnerFacts) -> tuple[Action, ...]:
    return (Action.SEE_OFFBOARDING,) if facts.offboarding else ()


def _account_waits(facts: PartnerFacts, now: datetime) -> NextStep | None:
    if not facts.waiting:
        return None
    waiting = facts.waiting[0]
    return NextStep(
        what=f"Another account signed in for {waiting.consent.registration.name}, and waits for approval.",
        remedy=(
            "Ask the partner, by another way than mail, whether the account is meant to change; then approve or "
            "reject it."
        ),
        owner=Owner.US,
        since=waiting.created_at,
        actions=(Action.APPROVE,),
        consent=waiting.consent,
        key=waiting.pk,
    )


# --- tokens -------------------------------------------------------------------------------------------------------

# What helps least is worst.
_WORST = (Token.STOPPED, Token.NEEDS_CONSENT, Token.EXPIRED, Token.MFA_MISSING, Token.DISCONNECTED, Token.CONNECTED)


def _unwell(facts: PartnerFacts, now: datetime) -> NextStep | None:
    """Return the step of the worst token that wants somebody, as ``states.with_state`` counts them."""
    if facts.state is not State.ATTENTION:
        return None
    unwell = [one for one in facts.living if one.state != Token.CONNECTED or one.last_problem]
    unwell = [one for one in unwell if one.state != Token.REVOKED]
    worst = min(unwell, key=lambda one: _WORST.index(Token(one.state)))
    return _of_token(facts, worst, now)


def _of_token(facts: PartnerFacts, consent: PartnerConsent, now: datetime) -> NextStep:
    step = next_step(consent, now)
    return NextStep(
        what=f"{consent.registration.name}: {step.what}" if len(facts.living) > 1 else step.what,
        remedy=step.text,
        owner=step.owner,
        since=wrong_since(consent),
        actions=_actions_of(facts, consent, step.owner),
        consent=consent,
    )


def _actions_of(facts: PartnerFacts, consent: PartnerConsent, owner: Owner | None) -> tuple[Action, ...]:
    can_link = consent.registration in facts.invitable
    invite = (Action.INVITE_AGAIN,) if can_link else ()
    match consent.state:
        case Token.STOPPED:
            return (Action.SEE_AUDIT, *invite)
        case Token.DISCONNECTED | Token.REVOKED:
            return invite
    if consent.last_class == FailureClass.OUR_CREDENTIAL and not consent.last_problem:
        return (Action.SEE_CREDENTIAL, Action.CHECK)
    if (
        owner is Owner.US
        and consent.forecast_cause == PartnerConsent.ForecastCause.CREDENTIAL
        and not consent.last_problem
    ):
        return (Action.SEE_CREDENTIAL,)  # a check puts nothing right here
    return (*invite, Action.CHECK) if owner is Owner.PARTNER else (Action.CHECK,)


def _token_ends(facts: PartnerFacts, now: datetime) -> NextStep | None:
    """Return what a token that works wants all the same: it ends, was not checked, or lacks permissions."""
    for consent in facts.usable:
        if next_step(consent, now).owner is not None:
            return _of_token(facts, consent, now)
    return None


# --- links --------------------------------------------------------------------------------------------------------


def _not_connected(facts: PartnerFacts, now: datetime) -> NextStep | None:
    if facts.state not in {State.NEW, State.INVITED, State.LEFT}:
        return None
    if not facts.invitable:
        return NextStep(
            what=f"No application registration of the cloud {facts.partner.get_cloud_display()} is active.",
            remedy="Store a credential for one and activate it; then the partner can be invited.",
            owner=Owner.US,
        )
    if facts.state is State.NEW:
        return NextStep(
            what="The partner was not invited yet.",
            remedy="Make a consent link and send it to an administrator of the partner.",
            owner=Owner.US,
            since=facts.partner.created_at,
            actions=(Action.SEND_LINK,),
            is_wrong=False,
        )
    if facts.state is State.LEFT:
        return NextStep(
            what="The partner is disconnected, and no link is open.",
            remedy="Nothing to do. A new link brings it back.",
            since=max((one.consented_at for one in facts.living), default=None),
            actions=(Action.SEND_LINK,),
        )
    return _invited(facts)


def _invited(facts: PartnerFacts) -> NextStep:
    open_links = [one for one in facts.links if one.progress in _OPEN]
    link = (open_links or list(facts.links))[0]
    match link.progress:
        case Progress.OPEN:
            what, owner = "The partner has a link and has not used it.", Owner.PARTNER
            remedy = "Remind the partner, or send another link: each mail has a link of its own."
        case Progress.STARTED:
            what, owner = "The partner pressed Continue and did not come back from Microsoft.", Owner.PARTNER
            remedy = "Ask what Microsoft said. The same link works again."
        case Progress.FAILED if link.last_problem:
            words = PROBLEMS[Problem(link.last_problem)]
            what, owner = f"The partner's last attempt was refused: {words.heading}.", _OWNERS[words.who]
            remedy = " ".join(str(text) for text in words.steps[:2])
        case Progress.MFA_MISSING | Progress.WAITING | Progress.FAILED:
            what = f"The partner's last attempt came to: {Progress(link.progress).label.lower()}."
            owner, remedy = Owner.PARTNER, "The same link works again."
        case _:
            what = f"The partner's last link does not work any more: {Progress(link.progress).label.lower()}."
            owner, remedy = Owner.US, NEW_LINK
    return NextStep(
        what=what,
        remedy=remedy,
        owner=owner,
        since=link.last_attempt_at or link.created_at,
        actions=(Action.INVITE_AGAIN,) if link.progress in _OPEN else (Action.SEND_LINK,),
    )


_OPEN = frozenset({Progress.OPEN, Progress.STARTED, Progress.FAILED, Progress.MFA_MISSING, Progress.WAITING})
_OWNERS: Mapping[Who, Owner] = {
    Who.US: Owner.US,
    Who.YOU: Owner.PARTNER,
    Who.YOUR_ADMINISTRATOR: Owner.PARTNER,
    Who.MICROSOFT: Owner.MICROSOFT,
    Who.NOBODY: Owner.NOBODY,
}


# --- customers ----------------------------------------------------------------------------------------------------


def _plan_stopped(facts: PartnerFacts, now: datetime) -> NextStep | None:
    if not facts.stopped:
        return None
    plan = facts.stopped[0]
    return NextStep(
        what=f"Plan {plan.plan} waits, with {number_of(plan.customers, 'customer')} of this partner left to do.",
        remedy=f"{plan.reason or 'Somebody paused it.'} Look at what failed, then resume its run.",
        owner=Owner.US,
        since=plan.since,
        actions=(Action.RESUME,),
        key=plan.run,
    )


def _never_read(facts: PartnerFacts, now: datetime) -> NextStep | None:
    if facts.partner.customers_synced_at is not None or not facts.usable:
        return None
    return NextStep(
        what="The partner is connected, and its customers were never read.",
        remedy="Synchronise them now, or wait: the schedule reads each partner's customers once a day.",
        owner=Owner.US,
        since=max(one.consented_at for one in facts.usable),
        actions=(Action.SYNCHRONISE,),
        is_wrong=False,
    )


def _findings(facts: PartnerFacts, now: datetime) -> NextStep | None:
    if not facts.customers.findings:
        return None
    owner, number = _most(facts.customers.findings)
    total = sum(facts.customers.findings.values())
    return NextStep(
        what=f"{number_of(total, 'consent')} in customer tenants {'is' if total == 1 else 'are'} not as wanted.",
        remedy=(
            "See which and why, then plan."
            if total == number
            else f"See which and why: {number:,} of them wait for {_IN_SENTENCE[owner]}."
        ),
        owner=owner,
        actions=(Action.SEE_CUSTOMERS, Action.PLAN),
    )


def _unserved(facts: PartnerFacts, now: datetime) -> NextStep | None:
    for consent in facts.usable:
        if number := facts.customers.ready_unserved.get(consent.registration_id, 0):
            return NextStep(
                what=f"{number_are(number, 'customer')} ready, and hold{'s' if number == 1 else ''} no consent to "
                f"{consent.registration.name} yet.",
                remedy="Plan the consent: nothing is sent until the plan is applied.",
                owner=Owner.US,
                since=facts.partner.customers_synced_at,
                actions=(Action.PLAN,),
                consent=consent,
                is_wrong=False,
            )
    return None


def _not_ready(facts: PartnerFacts, now: datetime) -> NextStep | None:
    owners = facts.customers.not_ready_owners
    if not owners:
        return None
    owner, _ = _most(owners)
    number = facts.customers.by_readiness.get(CustomerTenant.Readiness.NOT_READY, 0)
    return NextStep(
        what=f"{number_are(number, 'customer')} not ready for consent.",
        remedy="The GDAP page names what is missing between the role and the service account, and who mends it.",
        owner=owner,
        since=facts.partner.customers_synced_at,
        actions=(Action.SEE_GDAP, Action.SYNCHRONISE),
    )


_IN_SENTENCE: Mapping[Owner, str] = {
    Owner.US: "us",
    Owner.PARTNER: "the partner",
    Owner.CUSTOMER: "the customer",
    Owner.MICROSOFT: "Microsoft",
    Owner.NOBODY: "the next try",
}


def _most(numbers: Mapping[str, int]) -> tuple[Owner, int]:
    """Return the owner of most, those that can act before those who wait."""
    order: Iterable[Owner] = (Owner.US, Owner.PARTNER, Owner.CUSTOMER, Owner.MICROSOFT, Owner.NOBODY)
    owner = max(order, key=lambda one: numbers.get(one, 0))
    return owner, numbers.get(owner, 0)
