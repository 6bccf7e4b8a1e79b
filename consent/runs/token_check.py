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
from consent.alarms import Cause
from consent.models import PartnerConsent
from consent.naming import line_names, registration_names, unit_label
from consent.selection import partner_consents_in
from consent.tokens import health
from consent.tokens.batches import Pointer
from consent.tokens.checking import Verdict, judge, write_verdicts
from consent.tokens.renewal import Renewal
from consent.tokens.service import Audience
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
    """One partner's check, and what became of its token; see :class:`consent.tokens.renewal.Renewal`."""

    renewal: Renewal
    pointer: Pointer | None = None
    not_saved: str | None = None
    won: bool = False
    switched_off: bool = False

    @property
    def consent(self) -> PartnerConsent:
        return self.renewal.consent


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
    renewals = {consent.pk: Renewal(consent, consent.partner.tenant) for consent in consents}
    rotation = clients.tokens().rotation
    due = [each.consent for each in renewals.values() if rotation.renews(each.consent, each.tenant)]
    owner = clients.renewals().lease_all(due)
    for consent in due:
        if consent.lease_owner == owner:
            renewals[consent.pk].owner = owner
    return {key: Check(renewal) for key, renewal in renewals.items()}


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
    renewal = check.renewal
    answer = clients.tokens().redeem(renewal, Audience.PARTNER_CENTER, correlation_id)
    if renewal.rotated is not None and check.pointer is None:
        try:
            place = clients.renewals().keep(renewal.consent, renewal.rotated)
            check.pointer = Pointer(renewal.consent, renewal.owner, place, correlation_id)
        except RemoteError as error:
            # Nothing is lost at Entra: the stored one stays good.
            log.warning("renewed but not saved: %s", error, extra={"partner": renewal.consent.partner_id})
            check.not_saved = error.code
    return answer.access_token


def write(done: Sequence[Done], context: Context) -> None:
    """Move the pointers, write the verdicts, stop who is not who it was, and give the leases back."""
    custody = clients.renewals()
    checks: list[Check] = [each.subject for each in done]
    verdicts: list[Verdict] = [each.outcome.result for each in done if isinstance(each.outcome.result, Verdict)]
    won = custody.point_all([check.pointer for check in checks if check.pointer is not None], actor=context.actor)
    for check in checks:
        check.won = check.consent.pk in won
        if check.renewal.mismatch:
            custody.stop(check.consent, check.renewal.mismatch, CorrelationId(context.correlation_id(check.consent.pk)))
        if check.renewal.is_lost:
            custody.interrupted(check.consent, CorrelationId(context.correlation_id(check.consent.pk)))
    write_verdicts(verdicts, actor=context.actor)
    if won:
        health.refresh(won)
        alarms.settle([Cause.NOT_SAVED])
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
        check.switched_off = clients.renewals().switch_off(pointer, won=won)

    return switch_off


def settle(checks: Sequence[Check], context: Context) -> None:
    """Note which older versions are off, so that nobody has to look again."""
    off = [check.pointer for check in checks if check.won and check.switched_off and check.pointer is not None]
    clients.renewals().forget_replaced(off)


def release(checks: Sequence[Check], context: Context) -> None:
    """Give the leases back. A version that was kept already is adopted by the next renewal."""
    custody, leased = clients.renewals(), [check.renewal for check in checks if check.renewal.owner]
    for owner in {renewal.owner for renewal in leased}:
        mine = [renewal for renewal in leased if renewal.owner == owner]
        custody.nothing_spent([renewal.consent for renewal in mine if renewal.nothing_spent], owner)
        custody.release_all([renewal.consent for renewal in mine], owner)


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
