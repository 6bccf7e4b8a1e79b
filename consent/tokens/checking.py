"""Check a partner's token: one real redemption and one real Partner Center answer (R-45).

Our own faults never change a partner's state (R-05, R-14, R-15), and one denial does not either: only
``invalid_grant`` seen twice, at least ten minutes apart, turns a healthy partner to "needs consent". What nearly all
partners share is no finding about any of them: each verdict says what it blames, and a run judges that (R-14).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from consent import alarms
from consent.alarms import Cause
from consent.microsoft.id_tokens import sign_in_methods
from consent.models import PartnerConsent
from consent.tokens import health
from consent.tokens.custody import TokenUnavailable
from consent.tokens.health import CONFIRM_AFTER
from consent.tokens.versions import IdentityMismatch
from portal.audit.trail import Actor, Entry, Outcome, record_all
from portal.microsoft.diagnosis import FailureClass, Owner, diagnose
from portal.microsoft.errors import ConsentRequired, InteractionRequired, MfaRequired, RemoteError
from portal.microsoft.identifiers import CorrelationId
from portal.microsoft.secret import Secret
from portal.runs.kinds import Blame
from tenants.partner_center import OrganizationProfile

# These differ within a batch by moments that mean nothing; without them healthy partners are all alike.
_MOMENTS = {"last_success_at", "last_try_at", "mfa_checked_at", "next_try_at"}
State = PartnerConsent.State
_SETTLED = (State.STOPPED, *PartnerConsent.LEFT_STATES)  # no check changes these
Mfa = PartnerConsent.Mfa
MFA_UNPROVEN = "mfa_unproven"  # a class of our own: the token works, and Partner Center gave no verdict

# What Entra answers when an application is off or removed: in one tenant by its administrator, in nearly all by
# its owner or by Microsoft. Which of them stands for which is not documented, so they count as one cause.
APPLICATION_OFF = frozenset({"AADSTS7000112", "AADSTS700016", "AADSTS7000229"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The outcome of one check, in words for staff.

    ``systemic`` means a cause on our side: the partner's state was not touched (R-14).
    """

    consent_id: int
    partner: str
    ok: bool
    failure_class: str
    cause: str
    owner: str
    remedy: str
    code: str
    systemic: bool
    correlation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check found, and what is to be written for it.

    Attributes:
        columns: of the consent's row, None when nothing was seen that belongs there.
        retry_after: seconds after which the check should be repeated, None when it need not be.
        is_dead: Microsoft said that the stored token never works again.
        blame: what the partner is blamed for, as long as nearly all others are not.
    """

    consent: PartnerConsent
    result: CheckResult
    columns: Mapping[str, Any] | None = None
    outcome: Outcome = Outcome.DONE
    retry_after: float | None = None
    is_dead: bool = False
    blame: Blame | None = None


def judge(
    consent: PartnerConsent,
    organization_profile: Callable[[], OrganizationProfile],
    correlation_id: CorrelationId,
    *,
    access_token: Callable[[], Secret | None],
) -> Verdict:
    """Ask for the partner's own profile, which redeems its token on the way, and say what that shows. No query.

    Args:
        access_token: the token that was used for it, to note what it says about the sign-in.
    """
    try:
        profile = organization_profile()
    except TokenUnavailable as unavailable:
        skipped = _result(consent, "skipped", str(unavailable), Owner.US, "", "", correlation_id)
        return Verdict(consent=consent, result=skipped)
    except IdentityMismatch as mismatch:
        return Verdict(
            consent=consent,
            result=_result(
                consent,
                "identity_mismatch",
                f"Stopped: {mismatch}.",
                Owner.US,
                "Look at the audit trail before enabling this partner again.",
                "",
                correlation_id,
            ),
        )
    except RemoteError as error:
        return _failed(consent, error, correlation_id)
    if profile.tenant_id != consent.partner.tenant:
        return _foreign_profile(consent, correlation_id)
    now = timezone.now()
    if profile.mfa_compliant is None and consent.state == State.CONNECTED:
        result, columns, blame = _no_verdict(consent, now, correlation_id)
    elif profile.mfa_compliant:
        result = _result(consent, FailureClass.OK, "", None, "", "", correlation_id)
        columns, blame = {"state": State.CONNECTED, "mfa": Mfa.PROVEN, "mfa_checked_at": now}, None
    else:
        result, columns, blame = _without_mfa(consent, profile, now, correlation_id)
    columns |= {
        "last_success_at": now,
        "last_try_at": now,
        "last_problem": columns.get("last_problem", ""),
        "last_code": "",
        "last_message": f"{result.cause} {result.remedy}".strip(),
        "first_denied_at": None,
        "last_class": result.failure_class,
        "last_owner": result.owner,
        "failures": 0,
        "next_try_at": health.try_after_success(consent, now),
    }
    if (token := access_token()) is not None:
        columns["amr"] = sign_in_methods(token)
    if health.outlived(consent, now):
        columns["sign_in_lifetime"] = None  # the policy that named it holds no longer
    return Verdict(consent=consent, result=result, columns=columns, blame=blame)


_Found = tuple[CheckResult, dict[str, Any], Blame | None]


def _no_verdict(consent: PartnerConsent, now: datetime, correlation_id: CorrelationId) -> _Found:
    """Partner Center answered a connected partner and said nothing of MFA: its state stays, its proof does not (S-18).

    ``mfa_checked_at`` stays the time of the last verdict, so that everybody sees how old it is.
    """
    result = _result(
        consent,
        MFA_UNPROVEN,
        "The token works, but Partner Center gave no verdict on multifactor authentication.",
        Owner.NOBODY,
        "Nothing to do, because the next check asks again; if it lasts, look whether a proxy drops isMfaCompliant.",
        "",
        correlation_id,
    )
    question = (
        "This looks like Partner Center or a proxy, not like the partners: no verdict on MFA. Look first whether "
        "something on the way drops the header isMfaCompliant."
    )
    known = consent.mfa == Mfa.PROVEN and not consent.last_problem
    return result, {"mfa": Mfa.UNPROVEN}, Blame(cause=MFA_UNPROVEN, question=question, was_well=known)


def _without_mfa(
    consent: PartnerConsent, profile: OrganizationProfile, now: datetime, correlation_id: CorrelationId
) -> _Found:
    """Partner Center says that MFA is missing; or says nothing of it for a partner that was not connected."""
    result = _result(
        consent,
        FailureClass.NEEDS_INTERACTION,
        "The token works, but Partner Center does not confirm multifactor authentication.",
        Owner.PARTNER,
        "Send a new consent link; the partner signs in with MFA.",
        "",
        correlation_id,
    )
    columns: dict[str, Any] = {"state": State.MFA_MISSING, "last_problem": "mfa"}
    if profile.mfa_compliant is False:
        columns |= {"mfa": Mfa.MISSING, "mfa_checked_at": now}
    elif consent.mfa == Mfa.PROVEN:
        columns["mfa"] = Mfa.UNPROVEN
    return result, columns, _blame(consent, "mfa", "", "Partner Center denies MFA")


def _blame(consent: PartnerConsent, cause: str, code: str, answer: str) -> Blame:
    """Return what a failure of this partner is, if nearly all that were well have it too.

    Args:
        code: Microsoft's, empty when there is none.
        answer: it in words.
    """
    off = code in APPLICATION_OFF
    where = (
        "Look first in its home tenant whether the registration is disabled (also by Microsoft) or deleted"
        if off
        else "Look first whether its registration was changed"
    )
    # One denial changes no state, and those that were denied first must not speak against the pattern.
    denied_once = consent.first_denied_at is not None and consent.last_code == code
    return Blame(
        cause="application" if off else f"{cause}:{code}",
        question=(
            f"This looks like our application {consent.registration.name[:60]}, not like the partners: {answer}. "
            f"{where}, or a policy restricts it."
        ),
        was_well=consent.state == State.CONNECTED and (not consent.last_problem or denied_once),
    )


def _failed(consent: PartnerConsent, error: RemoteError, correlation_id: CorrelationId) -> Verdict:
    diagnosis = diagnose(error)
    now = timezone.now()
    columns: dict[str, Any] = {
        "last_try_at": now,
        "last_class": diagnosis.failure_class.value,
        "last_owner": diagnosis.owner.value,
        "failures": consent.failures + 1,
    }
    confirmed = False
    if not diagnosis.failure_class.systemic:
        columns |= {
            "last_problem": diagnosis.failure_class.value,
            "last_code": error.code,
            "last_message": f"{diagnosis.cause} {diagnosis.remedy}"[:300],
        }
        # Another sign-in that somebody wants is no proof that the grant is lost.
        if isinstance(error, ConsentRequired) and type(error) is not InteractionRequired:
            denied_since = consent.first_denied_at or now
            columns["first_denied_at"] = denied_since
            confirmed = now - denied_since >= CONFIRM_AFTER
            if confirmed and consent.state != State.EXPIRED:
                columns["state"] = State.MFA_MISSING if isinstance(error, MfaRequired) else State.NEEDS_CONSENT
            if confirmed and isinstance(error, MfaRequired):
                columns |= {"mfa": Mfa.MISSING, "mfa_checked_at": now}
    if error.token_lifetime is not None:
        columns["sign_in_lifetime"] = error.token_lifetime
    columns["next_try_at"] = health.try_after_failure(
        consent, diagnosis, error.retry_after, confirmed=confirmed, now=now
    )
    result = _result(
        consent,
        diagnosis.failure_class,
        diagnosis.cause,
        diagnosis.owner,
        diagnosis.remedy,
        error.code,
        correlation_id,
    )
    return Verdict(
        consent=consent,
        result=result,
        columns=columns,
        outcome=Outcome.FAILED,
        retry_after=(error.retry_after or 0.0) if error.retryable else None,
        is_dead=diagnosis.fatal_for_token,
        blame=None if diagnosis.failure_class.systemic else blame_of(consent, error),
    )


def blame_of(consent: PartnerConsent, error: RemoteError) -> Blame:
    """Return what an error that is not on our side blames this partner for."""
    return _blame(consent, diagnose(error).failure_class, error.code, error.code or diagnose(error).cause.rstrip("."))


def _foreign_profile(consent: PartnerConsent, correlation_id: CorrelationId) -> Verdict:
    """Another tenant's profile: the partner stops at once (S-18, S-51)."""
    result = _result(
        consent,
        "identity_mismatch",
        "Stopped: Partner Center answered for another tenant.",
        Owner.US,
        "Look at the audit trail before enabling this partner again.",
        "",
        correlation_id,
    )
    columns = {
        "state": State.STOPPED,
        "last_try_at": timezone.now(),
        "last_problem": "identity_mismatch",
        "last_code": "profile_tenant",
        "last_class": "identity_mismatch",
        "last_owner": Owner.US.value,
        "next_try_at": None,
    }
    return Verdict(consent=consent, result=result, columns=columns, outcome=Outcome.REFUSED)


def write_verdicts(verdicts: Sequence[Verdict], *, actor: Actor) -> None:
    """Write what checks found, in one transaction and with one statement for all that found the same."""
    seen = [verdict for verdict in verdicts if verdict.columns is not None]
    if not seen:
        return
    alike: dict[tuple[Any, ...], list[Verdict]] = {}
    for verdict in seen:
        columns = verdict.columns or {}
        # Each failure has its own wait; those of healthy partners differ enough from batch to batch.
        own = _MOMENTS - {"next_try_at"} if verdict.outcome is not Outcome.DONE else _MOMENTS
        key = tuple((name, value) for name, value in columns.items() if name not in own)
        alike.setdefault(key, []).append(verdict)
    with transaction.atomic():
        for group in alike.values():
            consents = [verdict.consent for verdict in group]
            # A partner that consented anew or was stopped while we asked keeps its newer truth: its time of consent
            # is none of those that were read.
            current = PartnerConsent.objects.filter(
                pk__in=[consent.pk for consent in consents],
                consented_at__in={consent.consented_at for consent in consents},
            ).exclude(state__in=_SETTLED)
            current.update(**(group[-1].columns or {}))
        for verdict in seen:
            _tell(verdict)
        redeemed = [verdict.consent for verdict in seen if "last_success_at" in (verdict.columns or {})]
        alarms.settle([Cause.CREDENTIAL_REFUSED], {consent.registration_id for consent in redeemed})
        health.refresh_changed([(verdict.consent, verdict.columns or {}) for verdict in seen])
        record_all(
            [
                Entry(
                    "token.checked",
                    actor,
                    verdict.outcome,
                    subject={"partner": verdict.consent.partner_id, "consent": verdict.consent.pk},
                    details=news,
                    correlation_id=verdict.result.correlation_id,
                )
                for verdict in seen
                if (news := _news(verdict)) or verdict.outcome is Outcome.REFUSED
            ]
        )


def _news(verdict: Verdict) -> dict[str, dict[str, str]]:
    """Return what a check turned, before and after; one that turned nothing stands in its run's results only."""
    columns, consent = verdict.columns or {}, verdict.consent
    return {
        name: {"before": str(before), "after": str(after)}
        for name in ("state", "mfa", "last_problem", "last_code")
        if (after := columns.get(name, getattr(consent, name))) != (before := getattr(consent, name))
    }


def _tell(verdict: Verdict) -> None:
    """Report a partner that changed for the worse or the better; no query for all others."""
    before, after = verdict.consent.state, (verdict.columns or {}).get("state", verdict.consent.state)
    if verdict.is_dead:
        PartnerConsent.objects.filter(pk=verdict.consent.pk, state=State.DISCONNECTED).update(state=State.REVOKED)
    if before == after or not PartnerConsent.objects.filter(pk=verdict.consent.pk, state=after).exists():
        return
    if after in {State.CONNECTED, State.MFA_MISSING}:
        alarms.settle(alarms.OF_CHECKS, [verdict.consent.pk])
    if after == State.MFA_MISSING:
        alarms.report(Cause.MFA_MISSING, verdict.consent)
    elif after == State.NEEDS_CONSENT:
        alarms.report(Cause.NEEDS_CONSENT, verdict.consent, why=verdict.result.cause)
    elif after == State.STOPPED:
        alarms.report(Cause.IDENTITY_MISMATCH, verdict.consent)


def _result(
    consent: PartnerConsent,
    failure_class: str,
    cause: str,
    owner: Owner | None,
    remedy: str,
    code: str,
    correlation_id: CorrelationId,
) -> CheckResult:
    known = failure_class if isinstance(failure_class, FailureClass) else None
    return CheckResult(
        consent_id=consent.pk,
        partner=consent.partner.name,
        ok=known is FailureClass.OK,
        failure_class=str(failure_class),
        cause=cause,
        owner="" if owner is None else owner.value,
        remedy=remedy,
        code=code,
        systemic=known is not None and known.systemic,
        correlation_id=correlation_id,
    )
