"""Mail that leaves one by one. The sender learns what became of each mail, in our words: servers answer with
whatever they like, and name addresses.

Call nothing of this inside a transaction.
"""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage, MailerDoesNotExist, mailers
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.console import EmailBackend as PrintingBackend
from django.core.validators import validate_email

log = logging.getLogger(__name__)


class MailFailed(Exception):
    """A mail did not leave. The text is ours and names no address."""


class MailRefused(MailFailed):
    """This mail cannot be sent; others can."""


class MailPrinted(MailRefused):
    """This mail was printed where it should have been sent: beside a sandbox, without a mail server."""


class MailUnavailable(MailFailed):
    """No mail can be sent now; this one did not leave, and the next would not."""


class MailLost(MailUnavailable):
    """No mail can be sent now, and it is unknown whether this one left: the server went away without an answer."""


def can_send() -> bool:
    """Whether this deployment has a mail server (EMAIL_HOST), or prints its mails beside a sandbox."""
    return "default" in mailers


def one_address(text: str) -> str:
    """Return the text if it is one mail address and nothing else.

    Rows that were not typed into a form were never validated; a comma or a line break would add recipients.

    Raises:
        MailRefused: it is not.
    """
    try:
        validate_email(text)
    except ValidationError:
        raise MailRefused("This is no mail address, or more than one.") from None
    return text


@contextmanager
def open_mailer() -> Iterator[BaseEmailBackend]:
    """Open the connection to the mail server, so that a server that is away stops the work before anything changes.

    Raises:
        MailUnavailable: there is none, it does not answer, or it does not let us in.
    """
    try:
        mailer = mailers.default
    except MailerDoesNotExist:
        raise MailUnavailable("This portal has no mail server; set EMAIL_HOST.") from None
    _open(mailer)
    try:
        yield mailer
    finally:
        _close(mailer)


def send(message: EmailMessage, mailer: BaseEmailBackend) -> None:
    """Send one mail over an open mailer. A connection that broke before is opened again.

    Raises:
        MailRefused, MailPrinted, MailUnavailable, MailLost: it did not leave, or may not have.
    """
    _open(mailer)
    try:
        mailer.send_messages([message])
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError, ValueError) as error:
        log.warning("a mail was refused: %s", type(error).__name__)
        _close(mailer)  # the next mail begins on a fresh connection
        raise MailRefused("The mail server refused this message or its address.") from None
    except OSError as error:  # also all of smtplib's own
        log.warning("a mail did not leave: %s", type(error).__name__)
        _close(mailer)
        if isinstance(error, smtplib.SMTPResponseException):  # it answered, and the answer was no
            raise _unavailable(error) from None
        raise MailLost(
            f"The mail server went away before it answered ({type(error).__name__}); the mail may have left all the "
            "same. Check EMAIL_HOST and what belongs to it."
        ) from None
    if isinstance(mailer, PrintingBackend):
        raise MailPrinted("The mail was printed and not sent: this portal has no mail server. Set EMAIL_HOST.")


def _open(mailer: BaseEmailBackend) -> None:
    try:
        mailer.open()
    except OSError as error:
        raise _unavailable(error) from None


def _close(mailer: BaseEmailBackend) -> None:
    try:
        mailer.close()
    except OSError as error:
        log.info("the mail server did not say goodbye: %s", type(error).__name__)


def _unavailable(error: OSError) -> MailUnavailable:
    code = getattr(error, "smtp_code", "")
    known = f"{type(error).__name__} {code}".strip()
    return MailUnavailable(f"The mail server cannot be used ({known}); check EMAIL_HOST and what belongs to it.")
