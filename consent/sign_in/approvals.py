"""A changed account: hold its token apart, and let a person decide (S-15, S-17).

Any user of the right tenant could otherwise replace a good token. A waiting token is under a vault name of its own, is
used for nothing, proves itself once more before it takes over, and is switched off after seven days.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from consent import alarms
from consent.alarms import Cause
from consent.microsoft.id_tokens import IdTokenRefused
from consent.models import PartnerConsent, WaitingToken
from consent.sign_in.proof import AnotherAccount, ConsentTools, GuestAccount, prove
from consent.tokens.custody import AnotherAccountPinned, NewConsent, ProvesLess
from consent.tokens.versions import token_fingerprint
from consent.uses.book import By, Purpose
from consent.vault.base import GENERATION_TAG, RECORD_TAG, SecretName, SecretVersion, Vault, new_secret_name
from portal.audit.trail import SYSTEM, Actor, Outcome, record
from portal.microsoft.errors import NotFound, RemoteError
from portal.microsoft.http import WEB_SECONDS, time_budget
from portal.microsoft.identifiers import CorrelationId, ObjectId
from portal.rights import require
from portal.site.sight import require_sight

KEPT_FOR = timedelta(days=7)
Decision = WaitingToken.Decision


class DecisionRefused(ValueError):
    """This decision cannot be carried out; the text says why and what to do."""


def hold(
    consent: PartnerConsent,
    new: NewConsent,
    *,
    vault: Vault,
    actor: Actor,
    correlation_id: CorrelationId,
    in_same_transaction: Callable[[], None],
) -> WaitingToken:
    """Keep the token of another account apart. The working token is not touched.

    Raises:
        RemoteError: the vault did not take it; nothing waits.
    """
    name = new_secret_name()
    now = timezone.now()
    with transaction.atomic():
        replaced = list(
            WaitingToken.objects.filter(consent=consent, object_id=new.object_id, decision=Decision.WAITING)
        )
        for older in replaced:
            _decide(older, Decision.REPLACED, SYSTEM)
        waiting = WaitingToken.objects.create(
            consent=consent,
            object_id=new.object_id,
            secret_name=name,
            mfa=new.mfa,
            checks=new.checks,
            expires_at=now + KEPT_FOR,
        )
    version = vault.write(
        name,
        new.refresh_token,
        tags={RECORD_TAG: f"waiting-{waiting.pk}", GENERATION_TAG: "1"},
        expires_at=now + KEPT_FOR,
    )
    with transaction.atomic():
        waiting.secret_version = version
        waiting.fingerprint = token_fingerprint(new.refresh_token)
        waiting.save(update_fields=["secret_version", "fingerprint"])
        in_same_transaction()
        record(
            "account.waiting",
            actor=actor,
            subject={"partner": consent.partner_id, "consent": consent.pk, "waiting": waiting.pk},
            details={"pinned_oid": consent.pinned_oid, "actual_oid": new.object_id},
            correlation_id=correlation_id,
        )
        alarms.report(Cause.ACCOUNT_WAITS, waiting)
    for older in replaced:
        _switch_off(older, vault)
    return waiting


def approve(
    waiting: WaitingToken, *, tools: ConsentTools, actor: Actor, correlation_id: CorrelationId
) -> PartnerConsent:
    """Let the waiting account take over: its token proves itself again, is stored, and the account is pinned.

    Raises:
        DecisionRefused: too late, decided before, or it proves less than the working token.
        RemoteError: Microsoft or the vault refused; the old account stays.
    """
    require(actor, "consent.decide_waitingtoken")
    require_sight(actor, waiting)
    waiting = WaitingToken.objects.select_related("consent__partner", "consent__registration").get(pk=waiting.pk)
    consent = waiting.consent
    if not WaitingToken.objects.waiting().filter(pk=waiting.pk).exists():
        raise DecisionRefused("This sign-in was decided on before, or was not approved in time.")
    if not consent.partner.is_active:
        raise DecisionRefused(consent.partner.why_inactive)
    stored = tools.vault.read(SecretName(waiting.secret_name), SecretVersion(waiting.secret_version))
    if not hmac.compare_digest(token_fingerprint(stored.value), waiting.fingerprint):
        raise DecisionRefused("The vault's token is not the one that was stored for this account. Reject it.")
    try:
        with time_budget(WEB_SECONDS):
            proven = prove(
                consent.partner,
                consent.registration,
                stored.value,
                object_id=ObjectId(waiting.object_id),
                tools=tools,
                by=By(actor=actor, purpose=Purpose.APPROVAL),
                correlation_id=correlation_id,
            )
    except (AnotherAccount, GuestAccount, IdTokenRefused):
        raise DecisionRefused("The token does not prove this account any more. Reject it.") from None
    try:
        done = tools.tokens.store_new_consent(
            consent.partner,
            consent.registration,
            NewConsent(
                refresh_token=proven.refresh_token,
                object_id=ObjectId(waiting.object_id),
                granted=proven.granted,
                mfa=proven.mfa,
                amr=proven.amr,
                checks=proven.checks,
            ),
            actor=actor,
            correlation_id=correlation_id,
            in_same_transaction=lambda _: _approved(waiting, actor),
            replaces=ObjectId(consent.pinned_oid),
        )
    except ProvesLess:
        raise DecisionRefused("Partner Center does not confirm MFA for this account; the working one stays.") from None
    except AnotherAccountPinned:
        raise DecisionRefused("The account was changed meanwhile. Look at the consent, then decide again.") from None
    _switch_off(waiting, tools.vault)
    return done


def _approved(waiting: WaitingToken, actor: Actor) -> None:
    if not _decide(waiting, Decision.APPROVED, actor):
        raise DecisionRefused("Somebody else decided on this sign-in at the same moment.")


def reject(waiting: WaitingToken, *, vault: Vault, actor: Actor) -> None:
    """Refuse the waiting account and switch its token off.

    Raises:
        DecisionRefused: decided before.
    """
    require(actor, "consent.decide_waitingtoken", "consent.disconnect_partnerconsent", "consent.offboard_partner")
    require_sight(actor, waiting)
    with transaction.atomic():
        if not _decide(waiting, Decision.REJECTED, actor):
            raise DecisionRefused("This sign-in was decided on before.")
    _switch_off(waiting, vault)


def expire_overdue(*, vault: Vault) -> int:
    """Switch off what was not approved within seven days. Returns how many."""
    overdue = list(WaitingToken.objects.overdue().select_related("consent"))
    for waiting in overdue:
        with transaction.atomic():
            _decide(waiting, Decision.EXPIRED, SYSTEM)
        _switch_off(waiting, vault)
    return len(overdue)


def _decide(waiting: WaitingToken, decision: WaitingToken.Decision, actor: Actor) -> bool:
    """Write the decision once; returns False when somebody was faster."""
    won = WaitingToken.objects.filter(pk=waiting.pk, decision=Decision.WAITING).update(
        decision=decision, decided_at=timezone.now(), decided_by=actor.name
    )
    if won:
        record(
            f"account.{decision.value}",
            actor=actor,
            outcome=Outcome.DONE if decision is Decision.APPROVED else Outcome.REFUSED,
            subject={"consent": waiting.consent_id, "waiting": waiting.pk},
            details={"object_id": waiting.object_id},
        )
        alarms.settle([Cause.ACCOUNT_WAITS], [waiting.pk])
    return bool(won)


def _switch_off(waiting: WaitingToken, vault: Vault) -> None:
    """Disable the waiting token's version; what the vault does not do now, ``expires_at`` says."""
    if not waiting.secret_version:
        return
    try:
        vault.disable(SecretName(waiting.secret_name), SecretVersion(waiting.secret_version))
    except NotFound:
        return
    except RemoteError as error:
        record(
            "account.switch_off",
            actor=SYSTEM,
            outcome=Outcome.FAILED,
            subject={"waiting": waiting.pk},
            details={"code": error.code},
        )
