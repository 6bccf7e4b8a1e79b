"""Disconnect a partner, and say truly what that means (S-67).

All use stops with the commit, in every process: each use reads the row again first. The vault follows; what it does
not do now is done when the action is repeated, and staff are told until then.
"""

from __future__ import annotations

import logging

from django.db import transaction

from consent import alarms
from consent.alarms import Cause
from consent.invitations import links
from consent.models import ConsentLink, PartnerConsent, WaitingToken
from consent.sign_in import approvals
from consent.tokens import health
from consent.vault.base import SecretDisabled, SecretName, SecretVersion, Vault
from portal.audit.trail import Actor, record
from portal.microsoft.diagnosis import Owner, never_heals
from portal.microsoft.errors import NotFound, RemoteError
from portal.rights import require
from portal.site.sight import require_sight

log = logging.getLogger(__name__)

State = PartnerConsent.State


def disconnect(consent: PartnerConsent, *, vault: Vault, actor: Actor) -> bool:
    """Stop all use of the partner's token, revoke its open links, and switch its versions in the vault off.

    The state is "token may still be valid at Microsoft", unless Microsoft said before that it is dead. Doing it again
    switches off what the vault refused the last time.

    Returns:
        Whether every version is switched off. When not, staff are told.
    """
    require(actor, "consent.disconnect_partnerconsent", "consent.offboard_partner")
    require_sight(actor, consent)
    with transaction.atomic():
        consent = PartnerConsent.objects.select_related("partner", "registration").get(pk=consent.pk)
        changed = (
            PartnerConsent.objects.filter(pk=consent.pk)
            .exclude(state__in=PartnerConsent.LEFT_STATES)
            .update(
                state=State.REVOKED if _is_dead(consent) else State.DISCONNECTED,
                next_try_at=None,
                last_owner="" if _is_dead(consent) else Owner.PARTNER.value,
                lease_owner="",  # a renewal on its way cannot move the pointer any more
                lease_until=None,
            )
        )
        if changed:
            for link in ConsentLink.objects.filter(
                partner=consent.partner, registration=consent.registration, revoked_at=None, closed_at=None
            ):
                links.revoke(link, actor=actor)
            alarms.settle(alarms.OF_CHECKS, [consent.pk])
            health.refresh([consent.pk])
            record(
                "consent.disconnected",
                actor=actor,
                subject={"partner": consent.partner_id, "consent": consent.pk},
                details={"before": consent.state},
            )
    for waiting in WaitingToken.objects.filter(consent=consent, decision=WaitingToken.Decision.WAITING):
        approvals.reject(waiting, vault=vault, actor=actor)
    if _switch_off(consent, vault):
        alarms.settle([Cause.DISCONNECT_UNFINISHED], [consent.pk])
        return True
    alarms.report(Cause.DISCONNECT_UNFINISHED, consent)
    return False


def confirm_revoked(consent: PartnerConsent, *, actor: Actor) -> bool:
    """Note that the partner's administrator did their part. Returns False unless it was awaited."""
    require(actor, "consent.disconnect_partnerconsent")
    require_sight(actor, consent)
    with transaction.atomic():
        changed = PartnerConsent.objects.filter(pk=consent.pk, state=State.DISCONNECTED).update(
            state=State.REVOKED, last_owner=""
        )
        if changed:
            record(
                "consent.revocation_confirmed",
                actor=actor,
                subject={"partner": consent.partner_id, "consent": consent.pk},
            )
    return bool(changed)


def _is_dead(consent: PartnerConsent) -> bool:
    refused = consent.state == State.NEEDS_CONSENT and never_heals(consent.last_code)
    return refused or consent.state == State.EXPIRED


def _switch_off(consent: PartnerConsent, vault: Vault) -> bool:
    """Switch off the versions that can be on: the one in use, the one before, and a newer one of a cut-off renewal."""
    name = SecretName(consent.secret_name)
    versions = {consent.secret_version, consent.replaced_version} - {""}
    done = True
    try:
        versions.add(vault.read_newest(name).version)
    except (NotFound, SecretDisabled):
        pass
    except RemoteError as error:
        log.warning("the newest version of a secret is not known: %s", error)
        done = False
    for version in versions:
        try:
            vault.disable(name, SecretVersion(version))
        except NotFound:
            continue
        except RemoteError as error:
            log.warning("a version of a disconnected partner is still enabled: %s", error)
            done = False
    return done
