"""Consent links: issue, find, revoke, extend, replace. A link is a locator, never an authority (S-01)."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from consent import alarms
from consent.containment import gate
from consent.models import ApplicationRegistration, CampaignPartner, ConsentLink
from consent.models.invitations import ConsentLinkQuerySet
from portal.audit.trail import Actor, record
from portal.microsoft.identifiers import InvalidIdentifier, parse_tenant_id
from portal.microsoft.secret import Secret
from portal.rights import require
from portal.site.sight import require_sight
from tenants.models import PartnerTenant

if TYPE_CHECKING:
    from django.contrib.auth.models import User

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
MAX_LIFETIME = timedelta(days=90)
# The right to revoke, and those to what revokes links on its way.
_ENDS_LINKS = (
    "consent.revoke_consentlink",
    "consent.send_consentlink",
    "consent.send_campaign",
    "consent.close_campaign",
    "consent.disconnect_partnerconsent",
    "consent.offboard_partner",
    "consent.erase_partner",
)
_IN_DRAFTS = "the-link-of-the-partner-stands-here"  # no token: it has another length


class LinkRefused(ValueError):
    """This link must not be made; the text says why and what to do."""


def token_hash(token: str) -> str:
    """Return the SHA-256 under which the database knows a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def stopped(registration: ApplicationRegistration, partner: PartnerTenant | None = None) -> str:
    """Say that an emergency stop lets no link be made; empty when none does. One query, past all caches.

    Args:
        partner: without one only stops count that leave no partner of the registration out.
    """
    for one in gate.read():
        if one.concerns(partner.pk if partner is not None else 0, registration.pk):  # no row has the key 0
            return (
                f"Emergency stop of {one.about} since {one.since:%Y-%m-%d %H:%M} UTC: no link is made. Make it when "
                "two members of staff have resumed the stop (Applications, Emergency stops)."
            )
    return ""


def check(partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    """Raise LinkRefused unless this partner may be invited with this registration; one query."""
    try:
        tenant_id = parse_tenant_id(partner.tenant_id or "")
    except InvalidIdentifier:
        raise LinkRefused("Fix the partner's tenant id before inviting it: a link is bound to one tenant.") from None
    if partner.pk is None or not partner.is_active:
        raise LinkRefused(partner.why_inactive or "Save the partner before inviting it.")
    if partner.offboarding_since is not None:
        raise LinkRefused("The partner is being offboarded; no link is made for it any more.")
    if registration.state != ApplicationRegistration.State.ACTIVE:
        raise LinkRefused("The application registration is not active; store its credential and activate it first.")
    if registration.cloud != partner.cloud:
        raise LinkRefused("Partner and application registration belong to different clouds.")
    if registration.kind == ApplicationRegistration.Kind.CSP and registration.home_tenant_id != tenant_id:
        raise LinkRefused("A CSP registration serves exactly the tenant in which it is registered.")
    if stop := stopped(registration, partner):
        raise LinkRefused(stop)


def issue(
    partner: PartnerTenant,
    registration: ApplicationRegistration,
    *,
    actor: Actor,
    created_by: User | None = None,
    lifetime: timedelta | None = None,
    kind: ConsentLink.Kind = ConsentLink.Kind.SIGN_IN,
) -> tuple[ConsentLink, Secret]:
    """Make a link and return it with its full address, which exists only in this answer.

    Args:
        lifetime: at most 90 days; the default is LINK_LIFETIME_DAYS.
        kind: sign-in of the service account, or consent of the whole tenant as a first step without a token.

    Raises:
        LinkRefused: the partner has no fixed tenant or is not active, the registration does not fit, or an emergency
            stop is on.
    """
    require(actor, "consent.add_consentlink", "consent.send_consentlink", "consent.send_campaign")
    require_sight(actor, partner, registration)
    lifetime = timedelta(days=settings.LINK_LIFETIME_DAYS) if lifetime is None else lifetime
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise LinkRefused("A link is valid for 90 days at most, and not for less than a moment.")
    check(partner, registration)
    token = secrets.token_urlsafe(32)
    with transaction.atomic():
        link = ConsentLink.objects.create(
            partner=partner,
            registration=registration,
            kind=kind,
            token_hash=token_hash(token),
            expires_at=timezone.now() + lifetime,
            created_by=created_by,
        )
        record(
            "link.issued",
            actor=actor,
            subject={"link": link.pk, "partner": partner.pk, "registration": registration.pk},
            details={"expires_at": link.expires_at.isoformat()},
        )
    return link, Secret(settings.PUBLIC_BASE_URL + reverse("consent:landing", args=[token]))


def draft(
    partner: PartnerTenant,
    registration: ApplicationRegistration,
    *,
    kind: ConsentLink.Kind = ConsentLink.Kind.SIGN_IN,
    lifetime: timedelta | None = None,
) -> tuple[ConsentLink, Secret]:
    """Return what ``issue`` would make, for a preview: nothing is stored, and its address opens no page of a partner.

    Raises:
        LinkRefused: as ``issue``.
    """
    check(partner, registration)
    lifetime = timedelta(days=settings.LINK_LIFETIME_DAYS) if lifetime is None else lifetime
    link = ConsentLink(partner=partner, registration=registration, kind=kind, expires_at=timezone.now() + lifetime)
    return link, Secret(settings.PUBLIC_BASE_URL + reverse("consent:landing", args=[_IN_DRAFTS]))


def usable(token: str) -> ConsentLink | None:
    """Return the link if it may be used now; every reason against it looks the same (S-03)."""
    if not _TOKEN.fullmatch(token):
        token = ""  # the same single query for rubbish, so that all refusals cost the same
    return (
        ConsentLink.objects.usable()
        .by_token_hash(token_hash(token))
        .select_related("partner", "registration__own_set")
        .first()
    )


def revoke(link: ConsentLink, *, actor: Actor) -> bool:
    """Revoke a link at once, also for flows already at Microsoft (S-10). Returns False if it was closed before."""
    require(actor, *_ENDS_LINKS)
    require_sight(actor, link)
    with transaction.atomic():
        changed = ConsentLink.objects.filter(pk=link.pk, revoked_at__isnull=True, closed_at__isnull=True).update(
            revoked_at=timezone.now()
        )
        if changed:
            alarms.settle(alarms.OF_LINKS, [link.pk])
            record("link.revoked", actor=actor, subject={"link": link.pk, "partner": link.partner_id})
    return bool(changed)


def open_of(partner: int) -> ConsentLinkQuerySet:
    """Return the partner's links that are neither revoked nor closed, expired ones too: those can be extended."""
    return ConsentLink.objects.filter(partner=partner, revoked_at__isnull=True, closed_at__isnull=True)


def revoke_all(partner: int, *, actor: Actor) -> None:
    """Revoke every link of this partner that is not over."""
    for link in open_of(partner):
        revoke(link, actor=actor)


def close(link: ConsentLink, *, actor: Actor) -> bool:
    """Close a link whose partner was connected through another one. Returns False if it was over before."""
    require(actor, "consent.send_campaign", "consent.close_campaign")
    with transaction.atomic():
        changed = ConsentLink.objects.filter(pk=link.pk, revoked_at__isnull=True, closed_at__isnull=True).update(
            closed_at=timezone.now()
        )
        if changed:
            alarms.settle(alarms.OF_LINKS, [link.pk])
            record("link.closed", actor=actor, subject={"link": link.pk, "partner": link.partner_id})
    return bool(changed)


def extend(link: ConsentLink, *, lifetime: timedelta, actor: Actor) -> datetime:
    """Let a link work for ``lifetime`` from now, at most 90 days, and return until when. An expired link works again.

    Raises:
        LinkRefused: it was revoked, has served, or works longer already.
    """
    require(actor, "consent.extend_consentlink")
    require_sight(actor, link)
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise LinkRefused("A link is valid for 90 days at most, and not for less than a moment.")
    expires_at = timezone.now() + lifetime
    with transaction.atomic():
        changed = ConsentLink.objects.filter(
            pk=link.pk, revoked_at__isnull=True, closed_at__isnull=True, expires_at__lt=expires_at
        ).update(expires_at=expires_at)
        if not changed:
            raise LinkRefused("The link was revoked or used, or it is already valid for longer than that.")
        record(
            "link.extended",
            actor=actor,
            subject={"link": link.pk, "partner": link.partner_id},
            details={"before": link.expires_at.isoformat(), "after": expires_at.isoformat()},
        )
    return expires_at


def replace(
    link: ConsentLink, *, actor: Actor, created_by: User | None = None, lifetime: timedelta | None = None
) -> tuple[ConsentLink, Secret]:
    """Revoke a link and make another in its place, in one transaction: the address of the older is not known any more.

    An invitation of a campaign goes on with the new one.

    Raises:
        LinkRefused: it has served already, or a new one must not be made; the older one stays as it was.
    """
    require(actor, "consent.send_consentlink", "consent.send_campaign")
    require_sight(actor, link)
    with transaction.atomic():
        # Held first, as ``consent.invitations.campaigns`` does: another sender of the campaign waits here, not later.
        CampaignPartner.objects.filter(link=link.pk).update(link=link.pk)
        if not revoke(link, actor=actor) and not ConsentLink.objects.filter(pk=link.pk, closed_at=None).exists():
            raise LinkRefused("The partner is connected through this link already.")
        new, address = issue(
            link.partner,
            link.registration,
            actor=actor,
            created_by=created_by,
            lifetime=lifetime,
            kind=ConsentLink.Kind(link.kind),
        )
        CampaignPartner.objects.filter(link=link.pk).update(link=new, last_send_problem="")
    return new, address
