"""Campaigns, their mails and links, and attempts to sign in with these."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from consent.invitations import campaigns
from consent.models import ApplicationRegistration, Campaign, CampaignPartner, ConsentFlow, ConsentLink
from portal.mail import open_mailer
from tenants.models import PartnerTenant, PartnerTenantQuerySet
from tests.support import builders

QUIET_OVER = campaigns.QUIET_FOR + timedelta(hours=1)


def partners(number: int, **columns: Any) -> PartnerTenantQuerySet:
    made = [builders.partner(**columns) for _ in range(number)]
    for partner in made:
        builders.contact(partner, f"admin@{partner.domain}")
    return PartnerTenant.objects.filter(pk__in=[partner.pk for partner in made])


def make(
    registration: ApplicationRegistration,
    chosen: PartnerTenantQuerySet,
    reason: Campaign.Reason = Campaign.Reason.FIRST_INVITATION,
) -> Campaign:
    made = campaigns.create(
        name="Autumn", registration=registration, reason=reason, partners=chosen, link_days=7, actor=builders.ACTOR
    )
    return made.campaign


def send(campaign: Campaign, **limits: Any) -> list[campaigns.Mailing]:
    with open_mailer() as mailer:
        return list(campaigns.send(campaign, mailer=mailer, actor=builders.ACTOR, **limits))


def let_time_pass(by: timedelta = QUIET_OVER) -> None:
    """Let all links, and with them their mails, grow older."""
    ConsentLink.objects.update(created_at=F("created_at") - by)


def attempt(link: ConsentLink, outcome: str, problem: str = "") -> ConsentFlow:
    number = ConsentFlow.objects.count()
    return ConsentFlow.objects.create(
        link=link,
        public_id=f"{number:032x}",
        state_hash=f"{number:064x}",
        binder_hash="0" * 64,
        expires_at=timezone.now() + timedelta(minutes=15),
        claimed_at=None if outcome == "open" else timezone.now(),
        outcome=outcome,
        problem=problem,
        correlation_id=builders.guid(),
    )


def items(campaign: Campaign) -> list[CampaignPartner]:
    return list(campaign.partners.select_related("link", "partner").order_by("partner"))


def link_of(item: CampaignPartner) -> ConsentLink:
    item.refresh_from_db()
    assert item.link is not None
    return item.link
