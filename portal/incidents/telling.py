"""Tell staff by mail and log: an alert when something begins, a line when it is over, a digest every day (S-60)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone

from portal.incidents.models import Incident, IncidentQuerySet, cause_in_words
from portal.mail import MailFailed, MailPrinted, can_send, open_mailer, send
from portal.microsoft.diagnosis import Owner

log = logging.getLogger(__name__)

HOLD = timedelta(minutes=30)  # settled for so long it is over; what comes back sooner never was
_DAY = timedelta(days=1)
_NAMED = 5  # of each cause in the digest


def tell_due() -> str:
    """Send what is due: alerts that could not leave or were put off, and recoveries. Returns it in words."""
    return f"{mail(Incident.objects.open())} alerts sent, {recover()} recoveries"


def mail(incidents: IncidentQuerySet) -> int:
    """Mail the open ones of which no mail left, and those that are put off no longer. Returns how many mails left."""
    if not _reaches_staff():
        return 0
    now = timezone.now()
    due = incidents.open().awake().filter(Q(mailed_at__isnull=True) | Q(mailed_at__lt=F("snoozed_until")))
    sent = 0
    for incident in due:
        # One sender wins; a mail that then fails gives the claim back.
        before = Q(mailed_at=incident.mailed_at) if incident.mailed_at else Q(mailed_at__isnull=True)
        if not Incident.objects.filter(before, pk=incident.pk).update(mailed_at=now):
            continue
        if not _send(f"{incident}", _alert(incident)):
            Incident.objects.filter(pk=incident.pk, mailed_at=now).update(mailed_at=incident.mailed_at)
            break  # the mail server is away; the next round tries again
        sent += 1
    return sent


def recover() -> int:
    """Tell what stayed settled long enough: one line of the log each, and one mail for all that were mailed."""
    now = timezone.now()
    over = Incident.objects.filter(settled_at__lte=now - HOLD, recovered_at__isnull=True)
    # One teller wins each row.
    rows = [one for one in over if over.filter(pk=one.pk).update(recovered_at=now)]
    mailed = [one for one in rows if one.mailed_at]
    if mailed and _reaches_staff():
        first = f"Recovered: {mailed[0]}" if len(mailed) == 1 else f"{len(mailed)} incidents recovered"
        if not _send(first, "\n".join(_recovery(one) for one in mailed)):
            Incident.objects.filter(pk__in=[one.pk for one in mailed], recovered_at=now).update(recovered_at=None)
            rows = [one for one in rows if not one.mailed_at]  # the others are told in the next round
    for one in rows:
        log.info("incident recovered", extra={"cause": one.cause, "about": one.about, "came_back": one.came_back})
    return len(rows)


def digest() -> str:
    """Tell what is open, by who must act and cause: a line of the log, and a mail when there is anything to say.

    Returns:
        The same in a few words.
    """
    since = timezone.now() - _DAY
    rows = list(Incident.objects.open().awake().order_by("owner", "cause", "first_seen_at", "pk"))
    asleep = Incident.objects.open().asleep().count()
    recovered = Incident.objects.filter(recovered_at__gte=since).count()
    owners = {Owner(owner): list(some) for owner, some in groupby(rows, key=lambda one: one.owner)}
    by_owner = ", ".join(f"{owner.label}: {len(some)}" for owner, some in owners.items())
    words = (
        f"{_incidents(len(rows))} open{f' ({by_owner})' if by_owner else ''}, {asleep} put off, {recovered} recovered"
    )
    counts = {owner.value: len(some) for owner, some in owners.items()}
    log.info("incident digest", extra={"open": len(rows), "asleep": asleep, "recovered": recovered, "owners": counts})
    if (rows or recovered) and _reaches_staff():
        body = [f"{words} since yesterday.\n"]
        for owner, some in owners.items():
            body.append(f"{owner.label}")
            body += [_of_cause(cause, list(same), since) for cause, same in groupby(some, key=lambda one: one.cause)]
            body.append("")
        body.append(_page("admin:incidents_incident_changelist"))
        _send(words, "\n".join(body))
    return words


def _incidents(number: int) -> str:
    return "1 incident" if number == 1 else f"{number:,} incidents"


def _of_cause(cause: str, rows: Sequence[Incident], since: datetime) -> str:
    """Say one cause with its number, since when, and the first names."""
    new = sum(one.first_seen_at >= since for one in rows)
    fresh = f", {new} of them new" if new else ""
    names = [one.name for one in rows if one.name]
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    first = min(one.first_seen_at for one in rows)
    some = f": {'; '.join(names[:_NAMED])}{more}" if names else ""
    return f"- {cause_in_words(cause)}, {len(rows):,} since {first:%Y-%m-%d}{fresh}{some}"


def _alert(incident: Incident) -> str:
    concerns = f"Concerns: {incident.name}\n" if incident.name else ""
    return (
        f"{incident.words}\n\n"
        f"{concerns}"
        f"Who must act: {incident.get_owner_display()}\n"
        f"Seen: {incident.seen_words}, first at {incident.first_seen_at:%Y-%m-%d %H:%M} UTC\n"
        f"{_page('admin:incidents_incident_change', incident.pk)}"
    )


def recovery_in_words(incident: Incident) -> str:
    """Say of a settled incident since when it is over, and how often it was seen."""
    again = f", came back {_times(incident.came_back)} in between" if incident.came_back else ""
    return (
        f"{incident}: over since {incident.settled_at:%Y-%m-%d %H:%M} UTC, "
        f"first seen {incident.first_seen_at:%Y-%m-%d %H:%M} UTC, seen {incident.seen_words}{again}."
    )


def _recovery(incident: Incident) -> str:
    return f"{recovery_in_words(incident)}\n{_page('admin:incidents_incident_change', incident.pk)}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _page(name: str, *arguments: Any) -> str:
    return f"{settings.PUBLIC_BASE_URL}{reverse(name, args=arguments)}\n"


def _reaches_staff() -> bool:
    return bool(settings.ALERT_EMAIL) and can_send()


def _send(subject: str, body: str) -> bool:
    """Mail staff; returns False when it could not leave, which the log says."""
    message = EmailMessage(f"[{settings.VENDOR_NAME}] {subject}", body, to=list(settings.ALERT_EMAIL))
    try:
        with open_mailer() as mailer:
            send(message, mailer)
    except MailPrinted:
        return True  # beside a sandbox that is where mails go
    except MailFailed as error:
        log.warning("a mail to staff could not leave: %s", type(error).__name__)
        return False
    return True
