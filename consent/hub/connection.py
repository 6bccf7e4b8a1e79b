"""One application's connection to a partner: what was proven, granted, forecast and tried, in words for staff."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from consent.grants import Grants
from consent.hub.facts import PartnerFacts
from consent.models import ConsentFlow, ConsentLink, PartnerConsent, WaitingToken
from consent.permissions import held
from consent.runs.token_check import TOKEN_CHECK
from consent.tokens.health import ends_of, gdap_ends
from consent.tokens.next_steps import ENDS, Step, is_stale, next_step
from consent.words import CHECK_WORDS, PROBLEMS, CheckState, Problem
from consent.words.permissions import permission_title, resource_name
from portal.microsoft.diagnosis import Owner
from portal.runs.latest import Latest, latest
from portal.site.display import Tone

_ATTEMPTS = 30
Cause = PartnerConsent.ForecastCause

# What staff read of a check at the sign-in; partners read CHECK_WORDS.
_PROOFS: Mapping[str, str] = {
    "tenant": "The account belongs to the partner's tenant",
    "member": "The account is a member of the tenant, not a guest",
    "mfa": "Partner Center confirmed multifactor authentication",
    "partner_center": "Partner Center answered a real request of the account",
    "global_administrator": "The account held the role Global Administrator",
    "admin_agent": "The account is an Admin Agent: Partner Center answers no other",
}
_PROOF_TONES = {CheckState.PASSED: Tone.GOOD, CheckState.FAILED: Tone.BAD, CheckState.UNVERIFIED: Tone.WARN}
_PROOF_STATES = {CheckState.PASSED: "Proven", CheckState.FAILED: "Not so", CheckState.UNVERIFIED: "Not proven"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One check at the sign-in."""

    text: str
    state: str
    tone: Tone


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One delegated permission: granted, missing, granted beyond what is asked for, or not proven."""

    resource: str
    name: str
    title: str
    state: str
    tone: Tone


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """One input of the forecast. ``at`` is None where nothing says when."""

    cause: str
    at: datetime | None
    remedy: str
    is_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a timeline.

    Attributes:
        page: name of the admin page below ``admin:`` that says more, and its key; None where there is none.
    """

    at: datetime
    text: str
    detail: str = ""
    tone: Tone = Tone.QUIET
    page: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A partner's consent to one registration, worked out.

    Attributes:
        permissions: what is missing first, then what was granted, then what is extra.
        endings: the first one first; empty for a token that is over.
        check: the newest check, of any person or of the schedule; None when there was none since three months.
    """

    consent: Any
    step: Step
    stale: bool
    proofs: Sequence[Proof]
    permissions: Sequence[Permission]
    endings: Sequence[Ending]
    check: Latest | None
    timeline: Sequence[Event]

    @property
    def lacking(self) -> list[Permission]:
        return [one for one in self.permissions if one.state == _MISSING]


_MISSING, _GRANTED, _EXTRA, _UNPROVEN = "Missing", "Granted", "Granted, not asked for", "Not proven"


def connections(facts: PartnerFacts, now: datetime) -> list[Connection]:
    """Return each consent of a partner; seven queries, whatever it has."""
    ends = gdap_ends([facts.partner.pk], now)
    checks = checks_of(facts.consents)
    lines = _timelines(facts)
    return [
        Connection(
            consent=consent,
            step=next_step(consent, now),
            stale=is_stale(consent, now),
            proofs=tuple(_proofs(consent)),
            permissions=tuple(_permissions(consent)),
            endings=tuple(_endings(consent, ends.get(facts.partner.pk))),
            check=checks.get(consent.pk),
            timeline=tuple(sorted(lines[consent.registration_id], key=lambda one: one.at, reverse=True)),
        )
        for consent in facts.consents
    ]


def checks_of(consents: Iterable[PartnerConsent]) -> dict[int, Latest]:
    """Return the newest check of each of these tokens; four queries at most."""
    keys = {consent.pk: consent.pk for consent in consents}
    return latest(TOKEN_CHECK, keys, "tokens")


def _proofs(consent: PartnerConsent) -> Iterable[Proof]:
    for one in consent.checks:
        state, name = CheckState(one["state"]), one["check"]
        text = _PROOFS.get(name) or str(CHECK_WORDS[name][state]["label"])
        yield Proof(text=text, state=_PROOF_STATES[state], tone=_PROOF_TONES[state])


def _permissions(consent: PartnerConsent) -> Iterable[Permission]:
    asked = consent.registration.asked
    compared = held(consent.granted_scopes, asked)
    return listed(
        (_MISSING, Tone.BAD, compared.missing),
        (_UNPROVEN, Tone.WARN, compared.unproven),
        (_GRANTED, Tone.GOOD, Grants(consent.granted_scopes) - compared.extra),
        (_EXTRA, Tone.QUIET, compared.extra),
        words=asked.words(),
        services=asked.services(),
    )


_NONE: Mapping[str, Any] = {}


def listed(
    *groups: tuple[str, Tone, Grants], words: Mapping[str, tuple[str, str]] = _NONE, services: Mapping[str, str] = _NONE
) -> Iterable[Permission]:
    """Yield the permissions of grants, each with the state and the tone of its group.

    Args:
        words: title and why that a permission set gives, by ``resource/name``.
        services: names that it gives to resources of our own.
    """
    for state, tone, some in groups:
        for resource, scopes in sorted(some.items()):
            for scope in sorted(scopes):
                title = permission_title(resource, scope, words)
                name = resource_name(resource, services)
                yield Permission(resource=name, name=scope, title=title, state=state, tone=tone)


_NO_END = {
    Cause.SIGN_IN: "No policy of the partner ended a sign-in so far.",
    Cause.CREDENTIAL: "Nobody said when the application's credential ends.",
    Cause.GDAP: "No relationship of the partner ends, as far as they were read.",
}


def _endings(consent: PartnerConsent, gdap_end: datetime | None) -> list[Ending]:
    known = {cause: at for at, cause in ends_of(consent, gdap_end)}
    if not known:
        return []
    first = min(known.values())
    rows = [
        Ending(
            cause=str(cause.label),
            at=known.get(cause),
            remedy=ENDS[cause].text if cause in known else _NO_END[cause],
            is_first=known.get(cause) == first,
        )
        for cause in Cause
    ]
    return sorted(rows, key=lambda one: (one.at is None, one.at or first))


# --- the timeline -------------------------------------------------------------------------------------------------


def _timelines(facts: PartnerFacts) -> dict[int, list[Event]]:
    """Return links, attempts, accounts and the token's own moments by registration; two queries."""
    lines: dict[int, list[Event]] = {consent.registration_id: [] for consent in facts.consents}
    for link in facts.links:
        lines.setdefault(link.registration_id, []).extend(link_events(link))
    flows = (
        ConsentFlow.objects.filter(link__partner=facts.partner)
        .select_related("link")
        .order_by("-created_at", "-pk")[:_ATTEMPTS]
    )
    for flow in flows:
        lines.setdefault(flow.link.registration_id, []).append(attempt_event(flow))
    by_consent = {consent.pk: consent.registration_id for consent in facts.consents}
    for waiting in WaitingToken.objects.filter(consent__in=by_consent).order_by("-pk")[:_ATTEMPTS]:
        lines[by_consent[waiting.consent_id]].extend(_account_events(waiting))
    for consent in facts.consents:
        lines[consent.registration_id].extend(_token_events(consent))
    return lines


def link_events(link: Any) -> Iterable[Event]:
    """Return what happened to a link; ``registration`` and ``created_by`` are loaded."""
    page = ("consent_consentlink_change", link.pk)
    by = f"By {link.created_by}" if link.created_by else ""
    yield Event(
        at=link.created_at,
        text=f"Link {link.pk} was made",
        detail=f"{by}{'; it' if by else 'It'} works until {link.expires_at:%Y-%m-%d %H:%M} UTC",
        tone=Tone.BUSY,
        page=page,
    )
    if link.closed_at:
        yield Event(at=link.closed_at, text=f"Link {link.pk} has served: the partner connected", tone=Tone.GOOD)
    if link.revoked_at:
        yield Event(at=link.revoked_at, text=f"Link {link.pk} was revoked")
    if link.progress == ConsentLink.Progress.EXPIRED:
        yield Event(at=link.expires_at, text=f"Link {link.pk} expired unused", tone=Tone.WARN)


_CAME_TO = {
    ConsentFlow.Outcome.CONNECTED: Tone.GOOD,
    ConsentFlow.Outcome.ADMIN_CONSENTED: Tone.GOOD,
    ConsentFlow.Outcome.REFUSED: Tone.BAD,
    ConsentFlow.Outcome.MFA_MISSING: Tone.WARN,
    ConsentFlow.Outcome.WAITING_APPROVAL: Tone.WARN,
}


def attempt_event(flow: ConsentFlow) -> Event:
    """Return one attempt: how it ended, and what the partner read."""
    outcome = ConsentFlow.Outcome(flow.outcome)
    read = PROBLEMS[Problem(flow.problem)].heading if flow.problem else ""
    parts = [f"The partner read “{read}”" if read else "", f"Microsoft's code {flow.code}" if flow.code else ""]
    return Event(
        at=flow.finished_at or flow.created_at,
        text=f"Attempt {flow.reference}: {outcome.label}",
        detail="; ".join(part for part in parts if part),
        tone=_CAME_TO.get(outcome, Tone.QUIET),
        page=("consent_consentflow_change", flow.pk),
    )


def _account_events(waiting: WaitingToken) -> Iterable[Event]:
    page = ("consent_waitingtoken_change", waiting.pk)
    yield Event(at=waiting.created_at, text="Another account signed in and waited", tone=Tone.WARN, page=page)
    if waiting.decided_at:
        by = f"By {waiting.decided_by}" if waiting.decided_by else ""
        words = str(waiting.get_decision_display()).lower()
        yield Event(at=waiting.decided_at, text=f"The other account was {words}", detail=by, page=page)


def _token_events(consent: PartnerConsent) -> Iterable[Event]:
    yield Event(at=consent.consented_at, text="The partner consented, and its account was pinned", tone=Tone.GOOD)
    if consent.stored_at and consent.generation:
        yield Event(at=consent.stored_at, text=f"Version {consent.generation} of the token was stored")
    if consent.last_success_at:
        yield Event(at=consent.last_success_at, text="The last check that worked", tone=Tone.GOOD)
    if consent.last_try_at and consent.last_try_at != consent.last_success_at:
        owner = f"Who must act: {Owner(consent.last_owner).label}" if consent.last_owner else ""
        text = f"The last check: {consent.last_message or consent.last_class or 'no answer'}"
        yield Event(at=consent.last_try_at, text=text, detail=owner, tone=Tone.BAD)
    if consent.first_denied_at:
        code = f"Code {consent.last_code}" if consent.last_code else ""
        yield Event(at=consent.first_denied_at, text="Microsoft first refused the token", detail=code, tone=Tone.WARN)
