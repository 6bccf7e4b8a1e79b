"""Invitations by e-mail. The mail says no more than the page behind the link, and nothing in it is loaded or counted.

The address of a link is known for a moment only, so an invitation is composed when its link is made. A mail leaves
after the transaction that made the link: an entry "about to do" precedes it, an entry with the outcome follows (S-58).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.formats import date_format

from consent.invitations import links
from consent.models import Campaign, CampaignPartner, ConsentLink
from portal.audit.trail import Actor, Outcome, record
from portal.mail import MailFailed, MailLost, MailPrinted, MailRefused, can_send, one_address, open_mailer, send
from portal.microsoft.clouds import get_cloud
from portal.microsoft.secret import Secret
from portal.rights import require
from portal.site.logs import one_line
from portal.site.sight import require_sight
from tenants.models import PartnerContact, PartnerTenant

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """What both parts of the mail say."""

    opening: Sequence[str]
    facts: Sequence[tuple[str, str]]
    address: Secret
    closing: Sequence[str]


def addresses_of(partner: PartnerTenant) -> list[str]:
    """Return the addresses of the contacts who get invitations; one mail goes to all of them, with one link.

    Raises:
        MailRefused: there is none, or one of them is not one address and nothing else.
    """
    contacts = PartnerContact.objects.filter(partner=partner, gets_invitations=True).order_by("pk")
    try:
        found = [one_address(address) for address in contacts.values_list("email", flat=True)]
    except MailRefused:
        found = []
    if not found:
        raise MailRefused("No contact of the partner gets invitations, or an address is invalid.")
    return found


def announce(link: ConsentLink, *, actor: Actor) -> None:
    """Write that a mail with this link is about to leave; call it in the transaction that makes the link (S-58)."""
    require(actor, "consent.send_consentlink", "consent.send_campaign")
    record("link.sent", actor=actor, outcome=Outcome.INTENT, subject=_subject(link))


def deliver(
    link: ConsentLink,
    address: Secret,
    *,
    mailer: BaseEmailBackend,
    actor: Actor,
    again: bool = False,
    reason: Campaign.Reason = Campaign.Reason.FIRST_INVITATION,
) -> None:
    """Send the link to the partner's contacts and record the outcome. Call it after the link's transaction.

    Args:
        again: an older link for the same thing stopped working; the mail says so.
        reason: why we ask; a partner who agreed before reads why we ask once more.

    Raises:
        MailRefused, MailUnavailable, MailLost: it did not leave, or may not have; the link stays.
    """
    require(actor, "consent.send_consentlink", "consent.send_campaign")
    with _outcome(link, actor):
        send(compose(link, address, again=again, reason=reason), mailer)


def deliver_alone(link: ConsentLink, address: Secret, *, actor: Actor) -> None:
    """Do as ``deliver`` does, over a connection for this mail only."""
    require(actor, "consent.send_consentlink")
    with _outcome(link, actor), open_mailer() as mailer:
        send(compose(link, address), mailer)


@contextmanager
def _outcome(link: ConsentLink, actor: Actor) -> Iterator[None]:
    """Write what became of the mail: in the trail, and in the campaign whose invitation the link is."""
    invitation = CampaignPartner.objects.filter(link=link)
    try:
        yield
    except MailFailed as failed:
        with transaction.atomic():
            if isinstance(failed, MailPrinted):
                invitation.update(last_send_problem=CampaignPartner.SendProblem.PRINTED)
            elif isinstance(failed, MailRefused):
                invitation.update(last_send_problem=CampaignPartner.SendProblem.REFUSED)
            elif not isinstance(failed, MailLost):  # which may have left: it stays without an outcome
                invitation.update(last_send_problem=CampaignPartner.SendProblem.UNAVAILABLE)
            record(
                "link.sent",
                actor=actor,
                outcome=Outcome.FAILED,
                subject=_subject(link),
                details={"failure": type(failed).__name__},
            )
        raise
    now = timezone.now()
    with transaction.atomic():
        if not invitation.filter(sent_at__isnull=True).update(sent_at=now):
            invitation.update(reminded_at=now)
        record("link.sent", actor=actor, subject=_subject(link))


def send_again(
    link: ConsentLink, *, mailer: BaseEmailBackend, actor: Actor, created_by: User | None = None
) -> ConsentLink:
    """Mail a new link in place of this one, which is revoked: its own address is not known any more.

    Raises:
        LinkRefused, or MailRefused before anything changed: the older link stays as it was.
        MailRefused, MailUnavailable, MailLost: the new link works, but its address may be lost.
    """
    require(actor, "consent.send_consentlink")
    require_sight(actor, link)
    addresses_of(link.partner)
    with transaction.atomic():
        new, address = links.replace(link, actor=actor, created_by=created_by)
        announce(new, actor=actor)
    deliver(new, address, mailer=mailer, actor=actor, again=True)
    return new


def _subject(link: ConsentLink) -> dict[str, int]:
    return {"link": link.pk, "partner": link.partner_id}


def compose(
    link: ConsentLink,
    address: Secret,
    *,
    to: Sequence[str] | None = None,
    again: bool = False,
    reason: Campaign.Reason = Campaign.Reason.FIRST_INVITATION,
) -> EmailMultiAlternatives:
    """Return the mail. Its headers hold nothing that a partner or Microsoft wrote, but checked addresses.

    Note: this reads ``link.partner`` and ``link.registration``.

    Args:
        to: instead of the partner's contacts; empty for a mail whose text is copied.

    Raises:
        MailRefused: no contact of the partner gets invitations.
    """
    to = addresses_of(link.partner) if to is None else to
    words = _words(link, address, again=again, reason=reason)
    html = render_to_string(
        "consent/mail/invitation.html",
        {
            "title": _title(),
            "opening": words.opening,
            "facts": words.facts,
            "address": words.address.reveal(),
            # A mail has no style sheet that would break a long address on a phone.
            "pieces": textwrap.wrap(words.address.reveal(), 20),
            "closing": words.closing,
        },
    )
    message = EmailMultiAlternatives(
        subject=_title(),
        body=_plain(words),
        to=list(to),
        reply_to=[settings.SUPPORT_EMAIL] if settings.SUPPORT_EMAIL else None,
        headers={"Auto-Submitted": "auto-generated"},  # RFC 3834: absence notices stay away
    )
    message.attach_alternative(html, "text/html")
    return message


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What would be sent to whom; ``problem`` says why it would not leave."""

    to: Sequence[str]
    subject: str
    text: str
    problem: str


def preview(
    link: ConsentLink,
    address: Secret,
    *,
    again: bool = False,
    reason: Campaign.Reason = Campaign.Reason.FIRST_INVITATION,
) -> Preview:
    """Return the mail as it would be, also when it cannot leave: then its text can be copied."""
    to: Sequence[str] = ()
    problem = "" if can_send() else "This portal has no mail server: copy the text, and send it yourself."
    try:
        to = addresses_of(link.partner)
    except MailRefused as refused:
        problem = problem or str(refused)
    mail = compose(link, address, to=to, again=again, reason=reason)
    return Preview(to=to, subject=str(mail.subject), text=str(mail.body), problem=problem)


def send_test(
    link: ConsentLink,
    address: Secret,
    *,
    to: str,
    actor: Actor,
    reason: Campaign.Reason = Campaign.Reason.FIRST_INVITATION,
) -> None:
    """Mail a draft (``links.draft``) to a person of the staff, marked as a test in its subject.

    Raises:
        MailRefused, MailUnavailable, MailLost: it did not leave, or may not have.
    """
    require(actor, "consent.send_consentlink", "consent.send_campaign")
    require_sight(actor, link.partner)
    mail = compose(link, address, to=[one_address(to)], reason=reason)
    mail.subject = f"[Test] {mail.subject}"
    with open_mailer() as mailer:
        send(mail, mailer)
    subject = {"partner": link.partner_id, "registration": link.registration_id}
    record("invitation.tested", actor=actor, subject=subject)


def _title() -> str:
    return f"{one_line(settings.VENDOR_NAME)} asks you to connect your partner tenant"


def _words(link: ConsentLink, address: Secret, *, again: bool, reason: Campaign.Reason) -> _Words:
    vendor, partner = one_line(settings.VENDOR_NAME), link.partner
    whole_tenant = link.kind == ConsentLink.Kind.ADMIN_CONSENT
    account = (
        "Your own administrator account, with the role Global Administrator. Not the service account."
        if whole_tenant
        else (
            "A dedicated service account of this tenant, not your own: Global Administrator, Admin Agent in Partner "
            "Center, with multifactor authentication (MFA)."
        )
    )
    opening = [f"{vendor} asks for your permission to work with your customers through Microsoft Partner Center."]
    match reason:
        case Campaign.Reason.NEW_SCOPE:
            opening.append("You agreed before. Our application needs other permissions now, so we ask once more.")
        case Campaign.Reason.NEW_APPLICATION:
            opening.append("We have a new application, which needs your permission even if you agreed before.")
        case Campaign.Reason.EXPIRING_TOKEN:
            opening.append("You agreed before. That has to be renewed with a new sign-in before it expires.")
    if again:
        opening.append("This link takes the place of the one that we sent you before, which works no longer.")
    until = date_format(link.expires_at, "j F Y, H:i T")
    closing = [
        "Nothing happens by opening the link: the page shows which permissions we ask for, and you decide there.",
        (
            "The link is for your company only: you may pass it on to the administrator of your tenant, and to no "
            "other person. If you did not expect this mail, do not open it."
        ),
    ]
    if settings.SUPPORT_EMAIL:
        closing.append(f"Questions? Write to {one_line(settings.SUPPORT_EMAIL)}.")
    return _Words(
        opening=opening,
        facts=[
            ("Your company", one_line(partner.name)),
            ("Your tenant", f"{partner.tenant_id} ({get_cloud(partner.cloud, settings.CLOUDS).name})"),
            ("Asked by", vendor),
            ("With the application", f"{one_line(link.registration.name)} ({link.registration.application_id})"),
            ("Account to use", account),
            ("Works until", until),
        ],
        address=address,
        closing=closing,
    )


def _plain(words: _Words) -> str:
    facts = "\n".join(f"{label}: {value}" for label, value in words.facts)
    return "\n\n".join([*words.opening, facts, words.address.reveal(), *words.closing]) + "\n"
