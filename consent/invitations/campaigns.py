"""Invite many partners for one reason: choose, send, watch, remind, close.

Everything can be run again: what was sent is not sent twice, who is connected gets no mail, and a campaign is closed
once. Mails leave one by one outside any transaction; before each of them its link is written, after it the outcome.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from consent.invitations import links, mails
from consent.models import ApplicationRegistration, Campaign, CampaignPartner, ConsentLink, PartnerConsent
from consent.models.invitations import CampaignPartnerQuerySet
from consent.states import with_state
from portal.audit.trail import Actor, record
from portal.mail import MailPrinted, MailRefused
from portal.microsoft.secret import Secret
from portal.rights import require
from portal.site.sight import require_sight, within
from tenants.models import PartnerTag, PartnerTenant, PartnerTenantQuerySet

if TYPE_CHECKING:
    from django.contrib.auth.models import User

QUIET_FOR = timedelta(days=3)  # no reminder comes sooner after a mail, however often the button is pressed
Progress = CampaignPartner.Progress
KEPT = {Progress.FAILED, Progress.MFA_MISSING}  # something kept these partners from finishing
SendProblem = CampaignPartner.SendProblem


class CampaignRefused(ValueError):
    """This cannot be done with this campaign; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A new campaign, how many partners it invites, and how many of the chosen ones it leaves out."""

    campaign: Campaign
    invited: int
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailing:
    """What happened to one partner's mail; ``problem`` is None when it left."""

    partner: str
    problem: SendProblem | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """How many partners stand where, and what kept the failed ones."""

    invited: int
    sent: int
    by_progress: dict[Progress, int]
    by_problem: list[tuple[str, str, int]]
    """Outcome and problem of the latest attempt of those who failed, with their number; most frequent first."""


def matching(
    registration: ApplicationRegistration,
    *,
    states: Collection[str] = (),
    tags: Collection[PartnerTag] = (),
    token_older_than: timedelta | None = None,
    lacking_permissions: bool = False,
    permissions_unproven: bool = False,
) -> PartnerTenantQuerySet:
    """Return the partners whom this registration can invite, narrowed by what is given.

    Args:
        states: of the partner.
        tags: with any of these.
        token_older_than: age of the stored token.
        lacking_permissions: only who granted less than the registration asks for now, as the last sign-in proved.
        permissions_unproven: only those of whom no sign-in proved what is granted on a service that is asked for now;
            with ``lacking_permissions``: either.
    """
    partners = PartnerTenant.objects.active().in_cloud(registration.cloud)
    if registration.kind == ApplicationRegistration.Kind.CSP:
        partners = partners.filter(tenant_id=registration.home_tenant_id)
    if states:
        partners = with_state(partners).filter(Q(state__in=states))
    if tags:
        partners = partners.tagged(*(tag.name for tag in tags))
    if token_older_than is not None:
        old = PartnerConsent.objects.filter(
            registration=registration, generation__gt=0, stored_at__lt=timezone.now() - token_older_than
        )
        partners = partners.filter(pk__in=old.values("partner"))
    if lacking_permissions or permissions_unproven:
        asked, consents = registration.asked, PartnerConsent.objects.filter(registration=registration)
        if not permissions_unproven:
            consents = consents.lacking_permissions(asked)
        elif not lacking_permissions:
            consents = consents.permissions_unproven(asked)
        else:
            consents = consents.to_consent_again(asked)
        partners = partners.filter(pk__in=consents.values("partner"))
    return partners


def create(
    *,
    name: str,
    registration: ApplicationRegistration,
    reason: Campaign.Reason,
    partners: PartnerTenantQuerySet,
    link_days: int,
    actor: Actor,
    created_by: User | None = None,
) -> Created:
    """Make a campaign for those of the partners whom its registration can invite. Nothing is sent.

    A first invitation leaves out who is connected already.

    Raises:
        CampaignRefused: the registration is not active, or no partner is left.
    """
    require(actor, "consent.add_campaign")
    partners = within(partners, actor)
    if registration.state != ApplicationRegistration.State.ACTIVE:
        raise CampaignRefused("The application registration is not active, so it cannot invite partners.")
    fitting = matching(registration).filter(pk__in=partners.order_by().values("pk"))
    if reason == Campaign.Reason.FIRST_INVITATION:
        connected = PartnerConsent.objects.filter(registration=registration, state=PartnerConsent.State.CONNECTED)
        fitting = fitting.exclude(pk__in=connected.values("partner"))
    chosen = list(fitting.order_by("pk").values_list("pk", flat=True))
    if not chosen:
        raise CampaignRefused(
            "None of these partners can be invited: they are disabled, of another cloud, or connected already."
        )
    with transaction.atomic():
        campaign = Campaign.objects.create(
            name=name, registration=registration, reason=reason, link_days=link_days, created_by=created_by
        )
        CampaignPartner.objects.bulk_create(CampaignPartner(campaign=campaign, partner_id=pk) for pk in chosen)
        record(
            "campaign.created",
            actor=actor,
            subject={"campaign": campaign.pk, "registration": registration.pk},
            details={"reason": campaign.reason, "partners": len(chosen)},
        )
    return Created(campaign=campaign, invited=len(chosen), left_out=partners.count() - len(chosen))


def to_send(campaign: Campaign) -> CampaignPartnerQuerySet:
    """Return those whose invitation is due."""
    return CampaignPartner.objects.filter(campaign=campaign).to_send()


def to_remind(campaign: Campaign) -> CampaignPartnerQuerySet:
    """Return those whose reminder is due."""
    return CampaignPartner.objects.filter(campaign=campaign).to_remind(timezone.now() - QUIET_FOR)


def send(
    campaign: Campaign,
    *,
    mailer: BaseEmailBackend,
    actor: Actor,
    only: Collection[int] | None = None,
    until: float = float("inf"),
) -> Iterator[Mailing]:
    """Send what was not sent yet, one mail after the other; each step of the iterator is one partner.

    Args:
        only: keys of the invited partners to mail, of those who are due; None mails all who are due.
        until: begin no mail after this ``time.monotonic()``.

    Raises:
        CampaignRefused: it is closed.
        MailUnavailable: the mail server went away; the partner at whom it happened is tried again the next time.
        MailLost: as well, but that mail may have left; only a reminder repeats it.
    """
    require(actor, "consent.send_campaign")
    require_sight(actor, campaign)
    return _mail(campaign, to_send(campaign), mailer, actor, only, until)


def remind(
    campaign: Campaign,
    *,
    mailer: BaseEmailBackend,
    actor: Actor,
    only: Collection[int] | None = None,
    until: float = float("inf"),
) -> Iterator[Mailing]:
    """Mail those who are not done once more, with a new link; the older one is revoked.

    Arguments and errors as ``send``. No partner is reminded within three days after the last mail, and none
    that waits for our approval.
    """
    require(actor, "consent.send_campaign")
    require_sight(actor, campaign)
    return _mail(campaign, to_remind(campaign), mailer, actor, only, until)


def _mail(
    campaign: Campaign,
    due: CampaignPartnerQuerySet,
    mailer: BaseEmailBackend,
    actor: Actor,
    only: Collection[int] | None,
    until: float,
) -> Iterator[Mailing]:
    if not Campaign.objects.filter(pk=campaign.pk, closed_at__isnull=True).exists():
        raise CampaignRefused("The campaign is closed.")
    if stop := links.stopped(campaign.registration):
        raise CampaignRefused(stop)
    settle(campaign, actor=actor)
    for key in list((due if only is None else due.filter(pk__in=only)).values_list("pk", flat=True)):
        if time.monotonic() > until:
            return
        # Asked again for each: meanwhile another sender may have mailed this partner, or the partner connected.
        item = due.select_related("campaign__registration", "partner", "link").filter(pk=key).first()
        if item is not None and (done := _mail_one(item, mailer, actor)) is not None:
            yield done


def _mail_one(item: CampaignPartner, mailer: BaseEmailBackend, actor: Actor) -> Mailing | None:
    """Return None when somebody else mails this partner at the same moment, or the campaign was closed."""
    try:
        mails.addresses_of(item.partner)  # before a link is made and another revoked
        made = _claim(item, actor)
    except MailRefused:
        return _not_sent(item, SendProblem.NO_ADDRESS)
    except links.LinkRefused:
        return _not_sent(item, SendProblem.NO_LINK)
    if made is None:
        return None
    link, address = made
    try:
        mails.deliver(
            link,
            address,
            mailer=mailer,
            actor=actor,
            again=item.sent_at is not None,
            reason=Campaign.Reason(item.campaign.reason),
        )
    except MailPrinted:
        return Mailing(partner=item.partner.name, problem=SendProblem.PRINTED)
    except MailRefused:
        return Mailing(partner=item.partner.name, problem=SendProblem.REFUSED)
    return Mailing(partner=item.partner.name, problem=None)


def _claim(item: CampaignPartner, actor: Actor) -> tuple[ConsentLink, Secret] | None:
    """Make the link, which is the attempt, in one transaction. None: somebody was faster.

    Rows are written in the order campaign, partner, link, audit trail everywhere, so that no two wait for each other.
    """
    campaign = item.campaign
    with transaction.atomic():
        # Writes nothing new; the row is held until the end, and who closes the campaign comes before or after us.
        if not Campaign.objects.filter(pk=campaign.pk, closed_at__isnull=True).update(closed_at=None):
            return None
        # Every claim changes the link, and so does who replaces it by hand.
        if not CampaignPartner.objects.filter(pk=item.pk, link=item.link_id).update(last_send_problem=""):
            return None
        lifetime = timedelta(days=campaign.link_days)
        if item.link is None:
            link, address = links.issue(item.partner, campaign.registration, actor=actor, lifetime=lifetime)
            CampaignPartner.objects.filter(pk=item.pk).update(link=link)
        else:
            link, address = links.replace(item.link, actor=actor, lifetime=lifetime)
        mails.announce(link, actor=actor)
    return link, address


def _not_sent(item: CampaignPartner, problem: SendProblem) -> Mailing:
    CampaignPartner.objects.filter(pk=item.pk).update(last_send_problem=problem)
    return Mailing(partner=item.partner.name, problem=problem)


def settle(campaign: Campaign, *, actor: Actor) -> int:
    """Close the links of partners who connected through another one meanwhile. Returns how many."""
    require(actor, "consent.send_campaign", "consent.close_campaign")
    done = CampaignPartner.objects.filter(campaign=campaign).with_open_link().with_progress()
    return sum(
        links.close(item.link, actor=actor)
        for item in done.filter(Q(progress=Progress.CONNECTED)).select_related("link")
        if item.link is not None
    )


def close(campaign: Campaign, *, actor: Actor) -> int | None:
    """End a campaign and revoke its open links. Returns how many, or None if it was closed before."""
    require(actor, "consent.close_campaign")
    require_sight(actor, campaign)
    with transaction.atomic():
        if not Campaign.objects.filter(pk=campaign.pk, closed_at__isnull=True).update(closed_at=timezone.now()):
            return None
        settle(campaign, actor=actor)
        open_ = CampaignPartner.objects.filter(campaign=campaign).with_open_link().select_related("link")
        revoked = sum(links.revoke(item.link, actor=actor) for item in open_ if item.link is not None)
        record("campaign.closed", actor=actor, subject={"campaign": campaign.pk}, details={"revoked_links": revoked})
    return revoked


def funnel(campaign: Campaign) -> Funnel:
    """Count where the partners stand, in one query."""
    partners: Any = CampaignPartner.objects.filter(campaign=campaign).with_progress()  # the stubs know no annotation
    # Counted here: grouped by what is annotated, PostgreSQL asks for the latest attempt of each partner many times.
    rows = list(partners.order_by().values_list("progress", "last_outcome", "last_problem", "sent_at"))
    by_progress = Counter(Progress(progress) for progress, *_ in rows)
    by_problem = Counter((outcome, problem) for progress, outcome, problem, _ in rows if progress in KEPT)
    return Funnel(
        invited=len(rows),
        sent=sum(sent_at is not None for *_, sent_at in rows),
        by_progress={progress: by_progress[progress] for progress in Progress},
        by_problem=[(*kind, number) for kind, number in by_problem.most_common()],
    )
