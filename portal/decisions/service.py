"""Ask for something that two persons decide about; approve, refuse, withdraw (S-50).

    waiting     asked for: what, why, for whom, what would change, until when
    approved    another person said yes to exactly this; it is done at once, or by a command on the server
    done, failed, refused, withdrawn, expired     over

An approval is bound to a hash of kind, parameters and preview: what would do something else now is not approved.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.audit.trail import SYSTEM, Actor, Outcome
from portal.decisions.doing import begin, carried_out
from portal.decisions.kinds import Approval, CannotBeDone, Change, Kind, Parameters, Preview, kinds
from portal.decisions.models import Decision
from portal.decisions.records import (
    DecisionRefused,
    is_genuine,
    seal_of_approval,
    seal_of_request,
    settle_waiting,
    tell_of_change,
    tell_of_emergency,
    tell_that_it_waits,
    write_event,
)
from portal.models import Limits
from portal.rights import SERVER, Forbidden, limits_of, require
from portal.site.proof import WITHIN
from portal.site.sight import visible

log = logging.getLogger(__name__)

LIFETIME = timedelta(hours=24)
KEPT_FOR = timedelta(days=2 * 365)
EMERGENCY_WORD = "emergency"
LONGEST_WHY = 500
_CUT_OFF_AFTER = timedelta(hours=1)
_NOT_SEEN = "it is about partners that your teams do not see."
_FACTORS_OF_AN_EMERGENCY = 2
State, Way = Decision.State, Decision.Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who is signed in and decides.

    Attributes:
        proven: seconds since the last proof of who they are; None without one.
        factors: by what it was proven within the last minutes.
    """

    account: User
    address: str | None
    proven: float | None
    factors: frozenset[str] = frozenset()

    @property
    def actor(self) -> Actor:
        return Actor.staff(self.account.get_username(), self.address)


class Reason(NamedTuple):
    """Why somebody may not decide: a word for the trail, a sentence for the person."""

    word: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How a request stands against what would happen now.

    Attributes:
        differences: what is not as it was when it was asked for; before, and now.
        problem: why it cannot be done at all; empty if it can.
    """

    differences: list[Change]
    problem: str


# --- asking ---------------------------------------------------------------------------------------------------------


def ask(
    kind: Kind, parameters: Parameters, *, why: str, actor: Actor, account: User | None = None
) -> tuple[Decision, bool]:
    """Ask for something; returns the request, and whether it is new. What is asked for already is not asked twice.

    Args:
        account: of the person who asks; None for a command, whose OS user is no account.

    Raises:
        DecisionRefused: no reason is given, or the account may not ask.
        Forbidden: the actor does not see all that it is about; the trail says so.
        CannotBeDone: it makes no sense now.
    """
    if account is None:
        require(actor, kind.permission)
    limits = limits_of(account) if account is not None else actor.limits()
    if not _sees(limits, kind, parameters):
        raise Forbidden(f"{_NOT_SEEN} Ask somebody who sees all of it.", actor=actor, needed=[f"sight of {kind.key}"])
    why = why.strip()
    if not 0 < len(why) <= LONGEST_WHY:
        raise DecisionRefused(f"Say why, in at most {LONGEST_WHY} characters: the other person decides by it.")
    if account is not None and not _may(account, kind):
        raise DecisionRefused(f"You have not the right to ask for this: {kind.title}.")
    decision = _new(kind, parameters, why, actor, account)
    try:
        with transaction.atomic():
            decision.save(force_insert=True)
            write_event("decision.asked", decision, actor)
            tell_that_it_waits(decision)
    except IntegrityError:
        known = Decision.objects.open().filter(digest=decision.digest).first()
        if known is None:
            raise
        return known, False
    return decision, True


def _new(kind: Kind, parameters: Parameters, why: str, actor: Actor, account: User | None) -> Decision:
    seen, now = kind.preview(parameters), timezone.now()
    decision = Decision(
        kind=kind.key,
        parameters=dict(parameters),
        what=seen.what[:300],
        whom=seen.whom[:300],
        why=why,
        preview=seen.to_json(),
        digest=kind.digest(parameters, seen),
        requester=account,
        requested_by=actor.name[:150],
        requester_kind=actor.kind.value,
        requested_at=now,
        expires_at=now + LIFETIME,
    )
    decision.seal = seal_of_request(decision)
    return decision


# --- deciding -------------------------------------------------------------------------------------------------------


def look(decision: Decision) -> Seen:
    """Compare a request with what would happen now."""
    kind = kinds().get(decision.kind)
    if kind is None:
        return Seen(differences=[], problem="This release does not know this kind of request any more. Refuse it.")
    try:
        now = kind.preview(decision.parameters)
    except CannotBeDone as reason:
        return Seen(differences=[], problem=str(reason))
    same = kind.digest(decision.parameters, now) == decision.digest
    return Seen(differences=[] if same else _differences(decision, now), problem="")


def why_not(decision: Decision, account: User) -> Reason | None:
    """Say why this account may not approve the request; None if it may."""
    if reason := _why_nobody(decision, account):
        return reason
    return _why_not_other(decision, account.get_username(), own=asked_by(decision, account))


def _why_not_other(decision: Decision, name: str, *, own: bool) -> Reason | None:
    if (own or _is_of(decision, name)) and not settings.STAFF_SINGLE_PERSON:
        return Reason("own", "You asked for it: another person decides.")
    return None


def _is_of(decision: Decision, name: str) -> bool:
    """Whether who asked has this name, on the server or in the admin: a command names its OS user in brackets."""
    return _bare(decision.requested_by) == _bare(name)


def _bare(name: str) -> str:
    return (name.rpartition("(")[2].rstrip(")") if name.endswith(")") else name).strip().casefold()


def _why_nobody(decision: Decision, account: User) -> Reason | None:
    kind = kinds().get(decision.kind)
    if kind is None or not _may(account, kind):
        return Reason("right", "You have not the right to decide about this.")
    if not _sees(limits_of(account), kind, decision.parameters):
        return Reason("sight", f"{_NOT_SEEN.capitalize()} Somebody who sees all of it decides.")
    return _why_not_any_more(decision, kind)


def _why_not_any_more(decision: Decision, kind: Kind) -> Reason | None:
    if decision.state != State.WAITING:
        said = decision.get_state_display()
        return Reason("over", f"Nothing waits for a decision here. The request says: {said}.")
    if decision.expires_at <= timezone.now():
        return Reason("expired", "Its time is over. Ask for it anew, if it is still wanted.")
    if not is_genuine(decision):
        text = "This request was changed in the database, past the portal. Refuse it, and find out who had access."
        return Reason("changed", text)
    if decision.requester_kind == AuditEvent.ActorKind.STAFF and not _may(decision.requester, kind):
        text = f"{decision.requested_by}, who asked for it, has not the right to any more. Refuse it."
        return Reason("requester", text)
    return None


def why_not_now(decision: Decision) -> Reason | None:
    """Say what is not as it was when it was asked for; None if all is."""
    seen = look(decision)
    if seen.problem:
        return Reason("impossible", seen.problem)
    if seen.differences:
        changed = "; ".join(f"{one.label}: before {one.now}, now {one.then}" for one in seen.differences)
        text = f"It would do something else now than what was asked for ({changed}). Nothing was done. Ask for it anew."
        return Reason("differs", text)
    return None


def approve(decision: Decision, *, person: Person, answer: str = "") -> Decision:
    """Say yes as the other person, and let it be done once.

    Returns:
        The request, done or failed; approved where a command on the server does it.

    Raises:
        DecisionRefused: this person may not, somebody decided before, the proof is old, or it would do something else
            now than what was asked for.
    """
    decision = _read(decision)
    if reason := why_not(decision, person.account) or _why_not_proven(person) or why_not_now(decision):
        raise _refusal("decision.approved", decision, person.actor, reason)
    own = asked_by(decision, person.account) or _is_of(decision, person.account.get_username())
    way = Way.SINGLE if own else Way.SECOND
    return _let_it_be_done(decision, person.actor, person.account, way, answer)


def waiting(kind: Kind, parameters: Parameters) -> Decision | None:
    """Return the request for exactly this that waits for a second person; None when there is none.

    Raises:
        CannotBeDone: it makes no sense now.
    """
    digest = kind.digest(parameters, kind.preview(parameters))
    rows = Decision.objects.filter(kind=kind.key, digest=digest, state=State.WAITING)
    return rows.filter(expires_at__gt=timezone.now()).first()


def approve_on_server(decision: Decision, *, actor: Actor) -> Decision:
    """Say yes as another user of the operating system, to a kind that allows it, and let it be done once.

    Raises:
        DecisionRefused: the same user asked, a person of this name did, or as for ``approve``.
    """
    require(actor, SERVER)
    decision = _read(decision)
    kind = kinds().get(decision.kind)
    if kind is None or not kind.on_server:
        raise DecisionRefused("This is decided in the admin only. Nothing was done.")
    reason = (
        _why_not_any_more(decision, kind) or _why_not_other(decision, actor.name, own=False) or why_not_now(decision)
    )
    if reason:
        raise _refusal("decision.approved", decision, actor, reason)
    way = Way.SINGLE if _is_of(decision, actor.name) else Way.SECOND
    return _let_it_be_done(decision, actor, None, way, "")


def override(decision: Decision, *, person: Person, word: str) -> Decision:
    """Do it alone in an emergency, by two factors; staff are told by an incident that a person must settle.

    Raises:
        DecisionRefused: as for ``approve``; or the word was not typed, or only one factor was proven.
    """
    decision = _read(decision)
    reason = _why_nobody(decision, person.account) or _why_not_alone(person, word) or why_not_now(decision)
    if reason:
        raise _refusal("decision.approved", decision, person.actor, reason)
    return _let_it_be_done(decision, person.actor, person.account, Way.EMERGENCY, "")


def _why_not_alone(person: Person, word: str) -> Reason | None:
    if word.strip().lower() != EMERGENCY_WORD:
        return Reason("word", f"Type {EMERGENCY_WORD} to go on. Nothing was done.")
    if reason := _why_not_proven(person):
        return reason
    if len(person.factors) < _FACTORS_OF_AN_EMERGENCY:
        text = (
            "Alone you go on only after proofs by two different factors within five minutes, such as your password and "
            "a passkey. Sign in anew with both, then come back. Nothing was done."
        )
        return Reason("factors", text)
    return None


def refuse(decision: Decision, *, person: Person, answer: str) -> Decision:
    """Say no, also to what was approved and nobody has begun.

    Raises:
        DecisionRefused: this person may not, it is over or under way, the proof is old, or no reason is given.
    """
    decision, answer = _read(decision), answer.strip()
    reason = _why_not_proven(person)
    if not may_decide(decision, person.account):
        reason = Reason("right", "You have not the right to decide about this.")
    elif not 0 < len(answer) <= LONGEST_WHY:
        text = f"Say why, in at most {LONGEST_WHY} characters: the person who asked reads it."
        reason = Reason("answer", text)
    if reason:
        raise _refusal("decision.refused", decision, person.actor, reason)
    return _end_undone(
        decision,
        State.REFUSED,
        "decision.refused",
        person.actor,
        decider=person.account,
        decided_by=person.account.get_username(),
        decided_at=timezone.now(),
        answer=answer,
    )


def withdraw(decision: Decision, *, person: Person) -> Decision:
    """Take back what one asked for, also when it was approved and nobody has begun.

    Raises:
        DecisionRefused: somebody else asked for it, or it is over or under way.
    """
    decision = _read(decision)
    if not asked_by(decision, person.account):
        reason = Reason("other", "Only the person who asked can withdraw it.")
        raise _refusal("decision.withdrawn", decision, person.actor, reason)
    return _end_undone(decision, State.WITHDRAWN, "decision.withdrawn", person.actor)


def in_emergency(kind: Kind, parameters: Parameters, *, why: str, actor: Actor) -> Approval:
    """Let a command on the server go on without a second person; staff are told by an incident.

    Raises:
        DecisionRefused: no reason is given, or somebody decides about the same at this moment.
        CannotBeDone: it makes no sense now.
    """
    decision, _ = ask(kind, parameters, why=why, actor=actor)
    _approve_row(decision, actor, None, Way.EMERGENCY, "")
    return begin(_read(decision))


def _let_it_be_done(decision: Decision, actor: Actor, account: User | None, way: Decision.Way, answer: str) -> Decision:
    _approve_row(decision, actor, account, way, answer.strip()[:LONGEST_WHY])
    execute, parameters = kinds()[decision.kind].execute, decision.parameters
    if execute is not None:
        try:
            approval = begin(_read(decision))
            with carried_out(approval) as deed:
                deed.result = execute(parameters, approval)
        except Exception as error:  # noqa: BLE001  # row and log say it; who approved goes to the page of the request
            log.warning("an approved request failed: %s", type(error).__name__, extra={"decision": decision.pk})
    return _read(decision)


def _approve_row(decision: Decision, actor: Actor, account: User | None, way: Decision.Way, answer: str) -> None:
    now, name = timezone.now(), actor.name[:150]
    with transaction.atomic():
        changed = Decision.objects.filter(pk=decision.pk, state=State.WAITING, expires_at__gt=now).update(
            state=State.APPROVED,
            way=way,
            decider=account,
            decided_by=name,
            decided_at=now,
            answer=answer,
            decision_seal=seal_of_approval(decision, way, name),
        )
        if not changed:
            raise DecisionRefused("Somebody decided at this moment, or its time is over. Nothing was done by you.")
        settle_waiting(decision)
        write_event("decision.approved", decision, actor, way=way.value)
        if way == Way.EMERGENCY:
            tell_of_emergency(decision)


# --- by the clock ---------------------------------------------------------------------------------------------------


def tidy() -> str:
    """End what nobody decided in time and what was cut off, and remove what was over two years ago."""
    now = timezone.now()
    expired = cut_off = 0
    for decision in Decision.objects.overdue(now):
        try:
            _end_undone(decision, State.EXPIRED, "decision.expired", SYSTEM)
        except DecisionRefused:
            continue  # somebody decided at this moment
        expired += 1
    for decision in Decision.objects.filter(state=State.APPROVED, started_at__lt=now - _CUT_OFF_AFTER):
        words = "It was begun and cut off, so nobody knows how far it came. Look, and ask for it anew."
        with transaction.atomic():
            mine = Decision.objects.filter(pk=decision.pk, state=State.APPROVED, started_at=decision.started_at)
            if mine.update(state=State.FAILED, finished_at=now, outcome=words):
                write_event("decision.done", decision, SYSTEM, Outcome.FAILED)
                cut_off += 1
    removed = Decision.objects.filter(finished_at__lt=now - KEPT_FOR).delete()[1].get(Decision._meta.label, 0)
    return f"{expired} expired, {cut_off} cut off, {removed} removed"


# --- what they share ------------------------------------------------------------------------------------------------


def may_decide(decision: Decision, account: User) -> bool:
    """Whether the account has the right that this kind of request needs."""
    return _may(account, kinds().get(decision.kind))


def others_who_may(kind: Kind, decision: Decision) -> list[User]:
    """Return the active accounts, other than the one that asked, that can decide about it; two queries."""
    able = User.objects.with_perm(kind.permission, backend="django.contrib.auth.backends.ModelBackend")
    return [one for one in able.filter(is_staff=True).order_by("username") if not asked_by(decision, one)]


def _read(decision: Decision) -> Decision:
    return Decision.objects.select_related("requester", "decider").get(pk=decision.pk)


def _may(account: User | None, kind: Kind | None) -> bool:
    """Whether an account, as the database has it now, is on and has the right."""
    if account is None or kind is None:
        return False
    now = User.objects.filter(pk=account.pk, is_active=True).first()
    return now is not None and now.has_perm(kind.permission)


def _sees(limits: Limits | None, kind: Kind, parameters: Parameters) -> bool:
    """Whether somebody with these limits sees all that a request is about; no query for somebody without a team."""
    if limits is None:
        return True
    if kind.rows is None:
        return False
    rows = kind.rows(parameters).order_by()
    return not rows.exclude(pk__in=visible(rows, limits).values("pk")).exists()


def asked_by(decision: Decision, account: User) -> bool:
    """Whether it is this account's own request, whatever its name is now."""
    return decision.requester_id == account.pk


def _why_not_proven(person: Person) -> Reason | None:
    if person.proven is None or not 0 <= person.proven <= WITHIN:
        return Reason("proof", f"Prove first that it is you: this needs a proof of the last {WITHIN // 60} minutes.")
    return None


def _differences(decision: Decision, now: Preview) -> list[Change]:
    """Return the lines of the two previews that are not the same, as before and now."""
    before, after = decision.preview, now.to_json()
    then = {one["label"]: f"{one['now']} → {one['then']}" for one in before["changes"]}
    today = {one["label"]: f"{one['now']} → {one['then']}" for one in after["changes"]}
    for name, label in (("what", "What"), ("whom", "For whom"), ("cannot_be_undone", "Cannot be undone")):
        then[label], today[label] = before[name], after[name]
    found = [
        Change(label=label, now=then.get(label, "nothing"), then=today.get(label, "nothing"))
        for label in then | today
        if then.get(label) != today.get(label)
    ]
    return found or [Change(label="What it is about", now="as asked for", then="something else")]


def _refusal(action: str, decision: Decision, actor: Actor, reason: Reason) -> DecisionRefused:
    """Write down that somebody tried, and return what to raise."""
    if not is_genuine(decision):
        tell_of_change(decision)
    write_event(action, decision, actor, Outcome.REFUSED, reason=reason.word)
    return DecisionRefused(reason.text)


def _end_undone(decision: Decision, state: Decision.State, action: str, actor: Actor, **columns: object) -> Decision:
    with transaction.atomic():
        ended = Decision.objects.undone().filter(pk=decision.pk)
        if not ended.update(state=state, finished_at=timezone.now(), **columns):
            raise DecisionRefused("Somebody decided before, or it is under way. Nothing was changed.")
        settle_waiting(decision)
        write_event(action, decision, actor)
    return _read(decision)
