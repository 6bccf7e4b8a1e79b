"""Invitations by e-mail. The mail says no more than the page behind the link, and nothing in it is loaded or counted.

The address of a link is known for a moment only, so an invitation is composed when its link is made. A mail leaves
after the transaction that made the link: an entry "about to do" precedes it, an entry with the outcome follows (S-58).
"""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMultiAlternatives, MailerDoesNotExist, mailers
from django.core.mail.backends.base import BaseEmailBackend
from django.core.validators import validate_email
from django.db import transaction
from django.template.loader import render_to_string
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from consent import links
from consent.models import ConsentLink
from portal.audit.trail import Actor, Outcome, record
from portal.microsoft.clouds import get_cloud
from portal.microsoft.secret import Secret
from portal.site.logs import one_line
from tenants.models import PartnerTenant

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = logging.getLogger(__name__)


class MailFailed(Exception):
    """A mail did not leave. The text is ours and names no address: mail servers answer with whatever they like."""


class MailUnavailable(MailFailed):
    """No mail can be sent now; the next one would fail as well."""


class MailRefused(MailFailed):
    """This mail cannot be sent; others can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """What both parts of the mail say."""

    opening: Sequence[str]
    facts: Sequence[tuple[str, str]]
    address: Secret
    closing: Sequence[str]


def can_send() -> bool:
    """Whether this deployment has a mail server (EMAIL_HOST)."""
    return "default" in mailers


@contextmanager
def open_mailer() -> Iterator[BaseEmailBackend]:
    """Open the connection to the mail server, so that a server that is away stops the work before anything changes.

    Raises:
        MailUnavailable: there is none, it does not answer, or it does not let us in.
    """
    try:
        mailer = mailers.default
        mailer.open()
    except MailerDoesNotExist:
        raise MailUnavailable("This portal has no mail server; set EMAIL_HOST.") from None
    except OSError as error:  # also all of smtplib's own
        raise _unavailable(error) from None
    try:
        yield mailer
    finally:
        _close(mailer)


def _close(mailer: BaseEmailBackend) -> None:
    try:
        mailer.close()
    except OSError as error:
        log.info("the mail server did not say goodbye: %s", type(error).__name__)


def _unavailable(error: OSError) -> MailUnavailable:
    code = getattr(error, "smtp_code", "")
    known = f"{type(error).__name__} {code}".strip()
    return MailUnavailable(f"The mail server cannot be used ({known}); check EMAIL_HOST and what belongs to it.")


def address_of(partner: PartnerTenant) -> str:
    """Return the one address of the partner's contact.

    Raises:
        MailRefused: there is none, or what is there is not one address and nothing else.
    """
    try:
        # Rows that were not typed into a form were never validated; a comma or a line break would add recipients.
        validate_email(partner.contact_email)
    except ValidationError:
        raise MailRefused("The partner has no contact address, or one that is none.") from None
    return partner.contact_email


def announce(link: ConsentLink, *, actor: Actor) -> None:
    """Write that a mail with this link is about to leave; call it in the transaction that makes the link (S-58)."""
    record("link.sent", actor=actor, outcome=Outcome.INTENT, subject=_subject(link))


def deliver(link: ConsentLink, address: Secret, *, mailer: BaseEmailBackend, actor: Actor, again: bool = False) -> None:
    """Send the link to the partner's contact and record the outcome. Call it after the link's transaction.

    Args:
        again: an older link for the same thing stopped working; the mail says so.

    Raises:
        MailRefused, MailUnavailable: it did not leave; the link stays.
    """
    try:
        _send(compose(link, address, to=address_of(link.partner), again=again), mailer)
    except MailFailed as failed:
        record(
            "link.sent",
            actor=actor,
            outcome=Outcome.FAILED,
            subject=_subject(link),
            details={"failure": type(failed).__name__},
        )
        raise
    record("link.sent", actor=actor, subject=_subject(link))


def send_again(
    link: ConsentLink, *, mailer: BaseEmailBackend, actor: Actor, created_by: User | None = None
) -> ConsentLink:
    """Mail a new link in place of this one, which is revoked: its own address is not known any more.

    Raises:
        LinkRefused, or MailRefused before anything changed: the older link stays as it was.
        MailRefused, MailUnavailable: the mail did not leave; the new link works, but nobody knows its address.
    """
    address_of(link.partner)
    with transaction.atomic():
        new, address = links.replace(link, actor=actor, created_by=created_by)
        announce(new, actor=actor)
    deliver(new, address, mailer=mailer, actor=actor, again=True)
    return new


def _subject(link: ConsentLink) -> dict[str, int]:
    return {"link": link.pk, "partner": link.partner_id}


def _send(message: EmailMultiAlternatives, mailer: BaseEmailBackend) -> None:
    try:
        mailer.send_messages([message])
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError, ValueError) as error:
        log.warning("a mail was refused: %s", type(error).__name__)
        _close(mailer)  # the next mail begins on a fresh connection
        raise MailRefused("The mail server refused this message or its address.") from None
    except OSError as error:
        log.warning("a mail did not leave: %s", type(error).__name__)
        _close(mailer)
        raise _unavailable(error) from None


def compose(link: ConsentLink, address: Secret, *, to: str, again: bool) -> EmailMultiAlternatives:
    """Return the mail. Its headers hold nothing that a partner or Microsoft wrote; its recipient was checked.

    Note: this reads ``link.partner`` and ``link.registration``.
    """
    words = _words(link, address, again=again)
    html = render_to_string(
        "consent/mail/invitation.html",
        {
            "title": _title(),
            "opening": words.opening,
            "facts": words.facts,
            "address": words.address.reveal(),
            "closing": words.closing,
        },
    )
    message = EmailMultiAlternatives(
        subject=_title(),
        body=_plain(words),
        to=[to],
        reply_to=[settings.SUPPORT_EMAIL] if settings.SUPPORT_EMAIL else None,
        headers={"Auto-Submitted": "auto-generated"},  # RFC 3834: absence notices stay away
    )
    message.attach_alternative(html, "text/html")
    return message


def _title() -> str:
    return _("%(vendor)s asks you to connect your partner tenant") % {"vendor": one_line(settings.VENDOR_NAME)}


def _words(link: ConsentLink, address: Secret, *, again: bool) -> _Words:
    vendor, partner = one_line(settings.VENDOR_NAME), link.partner
    whole_tenant = link.kind == ConsentLink.Kind.ADMIN_CONSENT
    account = (
        _("Your own administrator account, with the role Global Administrator. Not the service account.")
        if whole_tenant
        else _(
            "A dedicated service account of this tenant, not your own: Global Administrator, Admin Agent in Partner "
            "Center, with multifactor authentication (MFA)."
        )
    )
    opening = [
        _("%(vendor)s asks for your permission to work with your customers through Microsoft Partner Center.")
        % {"vendor": vendor}
    ]
    if again:
        opening.append(_("This link takes the place of the one that we sent you before, which works no longer."))
    until = date_format(link.expires_at, "j F Y, H:i T")
    closing = [
        _("Nothing happens by opening the link: the page shows which permissions we ask for, and you decide there."),
        _("The link is for you only. If you did not expect this mail, do not open it, and forward it to nobody."),
    ]
    if settings.SUPPORT_EMAIL:
        closing.append(_("Questions? Write to %(address)s.") % {"address": one_line(settings.SUPPORT_EMAIL)})
    return _Words(
        opening=opening,
        facts=[
            (_("Your company"), one_line(partner.name)),
            (_("Your tenant"), f"{partner.tenant_id} ({get_cloud(partner.cloud, settings.CLOUDS).name})"),
            (_("Asked by"), vendor),
            (_("With the application"), f"{one_line(link.registration.name)} ({link.registration.application_id})"),
            (_("Account to use"), account),
            (_("Works until"), until),
        ],
        address=address,
        closing=closing,
    )


def _plain(words: _Words) -> str:
    facts = "\n".join(f"{label}: {value}" for label, value in words.facts)
    return "\n\n".join([*words.opening, facts, words.address.reveal(), *words.closing]) + "\n"
