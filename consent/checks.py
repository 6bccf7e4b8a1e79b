"""Check a partner's token: one real redemption and one real Partner Center answer (R-45).

Our own faults never change a partner's state (R-05, R-14, R-15), and one denial does not either: only
``invalid_grant`` seen twice, at least ten minutes apart, turns a healthy partner to "needs consent".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from consent.custody import IdentityMismatch, TokenUnavailable
from consent.models import PartnerConsent
from portal.audit.trail import Actor, Outcome, record
from portal.microsoft.diagnosis import FailureClass, Owner, diagnose
from portal.microsoft.errors import AccessDenied, ConsentRequired, InteractionRequired, MfaRequired, RemoteError
from portal.microsoft.identifiers import CorrelationId
from tenants.models import PartnerTenant
from tenants.partner_center import PartnerCenterClient

CONFIRM_AFTER = timedelta(minutes=10)
State = PartnerConsent.State
Mfa = PartnerConsent.Mfa


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


def check_token(consent: PartnerConsent, client: PartnerCenterClient, *, actor: Actor) -> CheckResult:
    """Check one partner and write what was seen on its row.

    Args:
        client: built with a token source that redeems afresh.
    """
    correlation_id = client.correlation_id
    try:
        profile = client.organization_profile()
    except TokenUnavailable as unavailable:
        return _result(consent, "skipped", str(unavailable), Owner.US, "", "", correlation_id)
    except IdentityMismatch as mismatch:
        return _result(
            consent,
            "identity_mismatch",
            f"Stopped: {mismatch}.",
            Owner.US,
            "Look at the audit trail before enabling this partner again.",
            "",
            correlation_id,
        )
    except RemoteError as error:
        return _failed(consent, error, actor, correlation_id)
    if profile.tenant_id != consent.partner.tenant:
        return _foreign_profile(consent, actor, correlation_id)
    mfa = {True: Mfa.PROVEN, False: Mfa.MISSING, None: Mfa.UNPROVEN}[profile.mfa_compliant]
    now = timezone.now()
    healthy = mfa is Mfa.PROVEN
    _write(
        consent,
        actor,
        correlation_id,
        outcome=Outcome.DONE,
        partner_state=PartnerTenant.State.CONNECTED if healthy else PartnerTenant.State.ATTENTION,
        state=State.CONNECTED if healthy else State.MFA_MISSING,
        mfa=mfa,
        mfa_checked_at=now,
        last_success_at=now,
        last_try_at=now,
        last_problem="" if healthy else "mfa",
        last_code="",
        last_message="" if healthy else "Partner Center does not confirm multifactor authentication.",
        first_denied_at=None,
    )
    if healthy:
        return _result(consent, FailureClass.OK, "", None, "", "", correlation_id)
    return _result(
        consent,
        FailureClass.NEEDS_INTERACTION,
        "The token works, but Partner Center does not confirm multifactor authentication.",
        Owner.PARTNER,
        "Send a new consent link; the partner signs in with MFA.",
        "",
        correlation_id,
    )


def _failed(consent: PartnerConsent, error: RemoteError, actor: Actor, correlation_id: CorrelationId) -> CheckResult:
    diagnosis = diagnose(error)
    now = timezone.now()
    columns: dict[str, Any] = {"last_try_at": now}
    partner_state: PartnerTenant.State | None = None
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
            if now - denied_since >= CONFIRM_AFTER:
                columns["state"] = State.MFA_MISSING if isinstance(error, MfaRequired) else State.NEEDS_CONSENT
                if isinstance(error, MfaRequired):
                    columns["mfa"] = Mfa.MISSING
        if isinstance(error, ConsentRequired | AccessDenied):
            partner_state = PartnerTenant.State.ATTENTION
    _write(consent, actor, correlation_id, outcome=Outcome.FAILED, partner_state=partner_state, **columns)
    return _result(
        consent,
        diagnosis.failure_class,
        diagnosis.cause,
        diagnosis.owner,
        diagnosis.remedy,
        error.code,
        correlation_id,
    )


def _foreign_profile(consent: PartnerConsent, actor: Actor, correlation_id: CorrelationId) -> CheckResult:
    """Another tenant's profile: the partner stops at once (S-18, S-51)."""
    _write(
        consent,
        actor,
        correlation_id,
        outcome=Outcome.REFUSED,
        partner_state=PartnerTenant.State.ATTENTION,
        state=State.STOPPED,
        last_try_at=timezone.now(),
        last_problem="identity_mismatch",
        last_code="profile_tenant",
    )
    return _result(
        consent,
        "identity_mismatch",
        "Stopped: Partner Center answered for another tenant.",
        Owner.US,
        "Look at the audit trail before enabling this partner again.",
        "",
        correlation_id,
    )


def _write(
    consent: PartnerConsent,
    actor: Actor,
    correlation_id: CorrelationId,
    *,
    outcome: Outcome,
    partner_state: PartnerTenant.State | None,
    **columns: Any,
) -> None:
    with transaction.atomic():
        # A partner that consented anew or was stopped while we asked keeps its newer truth.
        written = (
            PartnerConsent.objects.filter(pk=consent.pk, consented_at=consent.consented_at)
            .exclude(state__in=[State.STOPPED, State.DISCONNECTED])
            .update(**columns)
        )
        if written and partner_state is not None:
            PartnerTenant.objects.active().filter(pk=consent.partner_id).update(state=partner_state)
        record(
            "token.checked",
            actor=actor,
            outcome=outcome,
            subject={"partner": consent.partner_id, "consent": consent.pk},
            details={name: columns[name] for name in ("last_problem", "last_code") if name in columns},
            correlation_id=correlation_id,
        )


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
