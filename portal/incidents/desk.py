"""Report, settle and mail incidents (S-60)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest
from django.urls import reverse
from django.utils import timezone

from portal.audit.trail import Actor, record
from portal.incidents.models import Incident, IncidentQuerySet
from portal.mail import MailFailed, can_send, open_mailer, send
from portal.microsoft.diagnosis import Owner
from portal.site.logs import one_line

log = logging.getLogger(__name__)

MAIL_AGAIN_AFTER = timedelta(days=1)  # what goes on happening is told once a day, with its count
LONGEST_WORDS = 400
_LONGEST_NAME = 300
KEPT_FOR = timedelta(days=365)  # after it was settled


def report(
    cause: str,
    *,
    about: str = "",
    name: str = "",
    owner: Owner,
    words: str,
    subject: Mapping[str, str | int] | None = None,
) -> Incident:
    """Tell staff about something, and return its open row. Repeats count up and send no second mail that day.

    It may be called inside a transaction, and then belongs to it; the mail leaves after its commit.

    Args:
        cause: a word, lower case with underscores, at most 40 characters.
        about: what it concerns, such as ``partner:7``; each has a row of its own.
        name: the same in words: partner, customer, registration; needed wherever ``about`` is. Control characters of
            names from outside are replaced.
        words: what happened and what to do next, in our own words: never a text from outside, never a secret.
        subject: ids, for links from the page, such as ``{"partner": 7}``.
    """
    now = timezone.now()
    values = {
        "owner": Owner(owner).value,
        "name": one_line(name)[:_LONGEST_NAME],
        "words": words[:LONGEST_WORDS],
        "subject": dict(subject or {}),
    }
    new = Incident(cause=cause, about=about, first_seen_at=now, last_seen_at=now, **values)
    incident = _count_up(new) or _open(new) or _count_up(new)
    if incident is None:
        raise RuntimeError("an incident was opened and settled by others in the same moment")
    key, told = incident.pk, {"cause": cause, "about": about, "times": incident.times, "words": incident.words}
    transaction.on_commit(lambda: log.warning("incident", extra=told))
    transaction.on_commit(lambda: _mail(Incident.objects.filter(pk=key)))
    return incident


def _count_up(new: Incident) -> Incident | None:
    open_row = Incident.objects.open().filter(cause=new.cause, about=new.about)
    changed = open_row.update(
        times=F("times") + 1,
        last_seen_at=Greatest("last_seen_at", new.last_seen_at),  # whoever began earlier may come here later
        owner=new.owner,
        name=new.name,
        words=new.words,
        subject=new.subject,
    )
    return open_row.first() if changed else None


def _open(new: Incident) -> Incident | None:
    try:
        with transaction.atomic():
            new.save(force_insert=True)
    except IntegrityError:
        return None  # somebody reported the same at this moment: theirs is counted up
    return new


def settle(cause: str, *, about: str = "") -> int:
    """Close the open incident of a cause that is over. Returns how many were open: 0 or 1."""
    return settle_all(cause, about=[about])


def settle_all(cause: str, *, about: Collection[str]) -> int:
    """Close the open incidents of a cause that is over for these. Returns how many were open."""
    found = dict(Incident.objects.open().filter(cause=cause, about__in=about).values_list("pk", "about"))
    if not found:
        return 0
    settled = Incident.objects.open().filter(pk__in=found).update(settled_at=timezone.now())
    names = ", ".join(sorted(found.values()))
    transaction.on_commit(lambda: log.info("incident settled", extra={"cause": cause, "about": names}))
    return settled


def remove_settled(now: datetime) -> int:
    """Remove what was settled a year ago; returns how many. The log and the audit trail keep what was done."""
    return Incident.objects.filter(settled_at__lt=now - KEPT_FOR).delete()[0]


def take_up(incident: Incident, *, actor: Actor) -> bool:
    """Note that somebody looks into it. Returns False if somebody did before, or it is settled."""
    with transaction.atomic():
        won = (
            Incident.objects.open()
            .filter(pk=incident.pk, seen_at__isnull=True)
            .update(seen_at=timezone.now(), seen_by=actor.name)
        )
        if won:
            record("incident.taken_up", actor=actor, subject={"incident": incident.pk})
    return bool(won)


def close(incident: Incident, *, actor: Actor) -> bool:
    """Settle one by a person's decision. Returns False if it was settled before."""
    with transaction.atomic():
        won = Incident.objects.open().filter(pk=incident.pk).update(settled_at=timezone.now())
        if won:
            told = {"cause": incident.cause, "about": incident.about}
            transaction.on_commit(lambda: log.info("incident settled by %s", actor.name, extra=told))
            record("incident.settled", actor=actor, subject={"incident": incident.pk})
    return bool(won)


def mail_due() -> int:
    """Send what could not be mailed when it happened, and the daily count of what goes on. Returns how many left."""
    return _mail(Incident.objects.open())


def _mail(incidents: IncidentQuerySet) -> int:
    if not settings.ALERT_EMAIL or not can_send():
        return 0
    now = timezone.now()
    due = incidents.open().filter(
        Q(mailed_at__isnull=True) | Q(mailed_at__lt=now - MAIL_AGAIN_AFTER, times__gt=F("times_mailed"))
    )
    sent = 0
    for incident in due:
        # One sender wins; a mail that then fails gives the claim back.
        before = Q(mailed_at=incident.mailed_at) if incident.mailed_at else Q(mailed_at__isnull=True)
        if not Incident.objects.filter(before, pk=incident.pk).update(mailed_at=now, times_mailed=incident.times):
            continue
        try:
            with open_mailer() as mailer:
                send(_message(incident), mailer)
        except MailFailed as error:
            log.warning("an alert could not be mailed: %s", type(error).__name__, extra={"cause": incident.cause})
            Incident.objects.filter(pk=incident.pk, mailed_at=now).update(
                mailed_at=incident.mailed_at, times_mailed=incident.times_mailed
            )
            break  # the mail server is away; the next round tries again
        sent += 1
    return sent


def _message(incident: Incident) -> EmailMessage:
    page = settings.PUBLIC_BASE_URL + reverse("admin:incidents_incident_change", args=[incident.pk])
    concerns = f"Concerns: {incident.name}\n" if incident.name else ""
    body = (
        f"{incident.words}\n\n"
        f"{concerns}"
        f"Who must act: {incident.get_owner_display()}\n"
        f"Seen: {incident.seen_words}, first at {incident.first_seen_at:%Y-%m-%d %H:%M} UTC\n"
        f"{page}\n"
    )
    return EmailMessage(
        subject=f"[{settings.VENDOR_NAME}] {incident}",
        body=body,
        to=list(settings.ALERT_EMAIL),
    )
