"""The token check as a kind of bulk work: load, redeem and ask in threads, write in batches (R-45).

A healthy partner costs three calls: the vault, the sign-in service, Partner Center. When its stored token is due to be
renewed (R-11), the rotated one is kept on the way, in the order of R-02.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from consent import alarms, clients
from consent.models import PartnerConsent
from consent.naming import line_names, registration_names, unit_label
from consent.selection import partner_consents_in
from consent.tokens import health
from consent.tokens.batches import Pointer, Renewals
from consent.tokens.checking import Verdict, judge, write_verdicts
from consent.tokens.custody import BUSY, LOST, TokenUnavailable, is_cut_off, spends_nothing
from consent.tokens.service import Audience
from consent.tokens.versions import IdentityMismatch
from portal.audit.trail import Entry, record_all
from portal.audit.trail import Outcome as AuditOutcome
from portal.microsoft.api import RetryPolicy
from portal.microsoft.diagnosis import FailureClass
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import CorrelationId
from portal.microsoft.secret import Secret
from portal.runs.kinds import Context, Done, Kind, Outcome, Unit
from tenants.partner_center import OrganizationProfile

log = logging.getLogger(__name__)

# A longer wait is not slept through: the partner is put back, and the thread works for others meanwhile.
_RETRY = RetryPolicy(longest_wait_seconds=2.0)
# And a run is not held up by one partner that must wait for longer (seconds): its row says when it is tried again.
_LONGEST_WAIT = 60.0


@dataclass(slots=True)
class Check:
    """One partner's check: the row as loaded, and the owner of its lease when its token is to be renewed."""

    consent: PartnerConsent
    owner: str = ""
    pointer: Pointer | None = None
    mismatch: str = ""
    not_saved: str | None = None
    won: bool = False
    switched_off: bool = False
    lost: bool = False
    nothing_spent: bool = False


def units(scope: Mapping[str, Any], after: int, limit: int) -> list[Unit]:
    """List the consents of the chosen partners, those checked longest ago first.

    With ``due`` in the scope only those whose next try has come, and those renewed longest ago first (R-11).
    """
    due, chosen = bool(scope.get("due")), partner_consents_in(scope)
    rows = (
        (chosen.due(timezone.now()) if due else chosen.usable())
        .filter(pk__gt=after)
        .order_by("pk")
        .values_list("pk", "partner_id", "partner__name", "registration", "stored_at" if due else "last_try_at")[:limit]
    )
    names = registration_names()
    return [
        Unit(
            key=key,
            group=partner,
            label=unit_label(name, names[registration]),
            rank=int(moment.timestamp()) if moment else 0,
        )
        for key, partner, name, registration, moment in rows
    ]


def load(keys: Sequence[int], context: Context) -> dict[int, Check]:
    """Read the rows again, immediately before use (S-51, S-53), and take the leases of those to renew."""
    consents = PartnerConsent.objects.filter(pk__in=keys).with_all_for_calls()
    checks = {consent.pk: Check(consent) for consent in consents}
    service = clients.tokens()
    due = [check.consent for check in checks.values() if service.is_due(check.consent)]
    owner = Renewals(clients.vault()).lease_all(due)
    for consent in due:
        if consent.lease_owner == owner:
            checks[consent.pk].owner = owner
    return checks


def work(key: int, check: Check, context: Context) -> Outcome:
    """Redeem the partner's token and ask for its profile. No query, unless the token was renewed since the load."""
    correlation_id = CorrelationId(context.correlation_id(key))
    token: Secret | None = None

    def organization_profile() -> OrganizationProfile:
        nonlocal token
        redeemed = token = _redeem(check, correlation_id)
        own_cloud = clients.cloud(check.consent.partner.cloud)
        client = clients.partner_center(own_cloud, lambda: redeemed, correlation_id, retry=_RETRY)
        return client.organization_profile()

    verdict = judge(check.consent, organization_profile, correlation_id, access_token=lambda: token)
    result = verdict.result
    return Outcome(
        failure_class=result.failure_class,
        message=f"{result.cause} {result.remedy}".strip(),
        owner=result.owner,
        code=result.code,
        systemic=result.systemic,
        retry_after=None if (verdict.retry_after or 0.0) > _LONGEST_WAIT else verdict.retry_after,
        throttled=result.failure_class == FailureClass.THROTTLED,
        blame=None if context.options.get("force") else verdict.blame,
        fields={
            **line_names(check.consent.partner, check.consent.registration),
            "ok": result.ok,
            "class": result.failure_class,
            "cause": result.cause,
            "owner": result.owner,
            "remedy": result.remedy,
            "code": result.code,
            "correlation_id": result.correlation_id,
        },
        result=verdict,
    )


def _redeem(check: Check, correlation_id: CorrelationId) -> Secret:
    """Return a fresh access token; keep the rotated refresh token when it is due. Raises as ``TokenService`` does."""
    service, custody = clients.tokens(), Renewals(clients.vault())
    consent = check.consent
    custody.check_usable(consent)
    if service.saves_each and not check.owner:  # this redemption would spend a token that another is renewing
        raise TokenUnavailable(BUSY)
    try:
        if check.owner:
            consent, stored = custody.fetch_to_renew(consent, check.owner)
            check.consent = consent
            custody.check_not_lost(consent)
        else:
            consent, stored = custody.look_up(consent)
        answer = service.exchange(consent, Audience.PARTNER_CENTER, consent.partner.tenant, stored, correlation_id)
    except IdentityMismatch as mismatch:
        check.mismatch = mismatch.why
        raise
    except RemoteError as error:
        if check.owner and service.saves_each and is_cut_off(consent, error):
            check.lost = True
            raise TokenUnavailable(LOST) from error
        check.nothing_spent = spends_nothing(consent, error)
        raise
    if check.owner and answer.refresh_token is not None and check.pointer is None:
        try:
            check.pointer = custody.keep(consent, answer.refresh_token, check.owner, correlation_id)
        except RemoteError as error:
            # Nothing is lost at Entra: the stored one stays good.
            log.warning("renewed but not saved: %s", error, extra={"partner": consent.partner_id})
            check.not_saved = error.code
    return answer.access_token


def write(done: Sequence[Done], context: Context) -> None:
    """Move the pointers, write the verdicts, stop who is not who it was, and give the leases back."""
    custody = Renewals(clients.vault())
    checks: list[Check] = [each.subject for each in done]
    verdicts: list[Verdict] = [each.outcome.result for each in done if isinstance(each.outcome.result, Verdict)]
    won = custody.point_all([check.pointer for check in checks if check.pointer is not None], actor=context.actor)
    for check in checks:
        check.won = check.consent.pk in won
        if check.mismatch:
            custody.stop(check.consent, check.mismatch, CorrelationId(context.correlation_id(check.consent.pk)))
        if check.lost:
            custody.interrupted(check.consent, CorrelationId(context.correlation_id(check.consent.pk)))
    write_verdicts(verdicts, actor=context.actor)
    if won:
        health.refresh(won)
        alarms.saved_again()
    record_all(
        [
            Entry(
                "token.stored",
                context.actor,
                AuditOutcome.FAILED,
                subject={"partner": check.consent.partner_id, "consent": check.consent.pk},
                details={"generation": check.consent.generation + 1, "code": check.not_saved},
                correlation_id=context.correlation_id(check.consent.pk),
            )
            for check in checks
            if check.not_saved is not None
        ]
    )
    release(checks, context)


def after(check: Check, context: Context) -> Callable[[], None] | None:
    """Switch off the version that is not in use any more (R-02)."""
    pointer, won = check.pointer, check.won
    if pointer is None:
        return None

    def switch_off() -> None:
        check.switched_off = Renewals(clients.vault()).switch_off(pointer, won=won)

    return switch_off


def settle(checks: Sequence[Check], context: Context) -> None:
    """Note which older versions are off, so that nobody has to look again."""
    off = [check.pointer for check in checks if check.won and check.switched_off and check.pointer is not None]
    Renewals(clients.vault()).forget_replaced(off)


def release(checks: Sequence[Check], context: Context) -> None:
    """Give the leases back. A version that was kept already is adopted by the next renewal."""
    custody = Renewals(clients.vault())
    for owner in {check.owner for check in checks if check.owner}:
        custody.nothing_spent(
            [check.consent for check in checks if check.owner == owner and check.nothing_spent], owner
        )
        custody.release_all([check.consent for check in checks if check.owner == owner], owner)


def place(check: Check) -> tuple[str, str]:
    return check.consent.registration.application_id, check.consent.partner.cloud


TOKEN_CHECK = Kind(
    name="token_check",
    label="Token check",
    units=units,
    load=load,
    work=work,
    write=write,
    after=after,
    settle=settle,
    release=release,
    repeats=True,
    prepare=clients.shared_by_all,
    place=place,
)
