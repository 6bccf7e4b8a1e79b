"""Report incidents, settle them, and what people decide about them (S-60).

Settled is not yet over: what happens again within ``HOLD`` is the same row, without another alert. When it stayed away
so long, ``portal.incidents.telling`` tells the recovery, and what happens then is a new incident.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest
from django.utils import timezone

from portal.audit.trail import Actor, Entry, Outcome, record_all
from portal.incidents.models import Incident, IncidentNote, IncidentQuerySet
from portal.incidents.telling import HOLD, mail
from portal.microsoft.diagnosis import Owner
from portal.rights import require
from portal.site.logs import one_line
from portal.site.sight import within

log = logging.getLogger(__name__)

LONGEST_WORDS = 400
FORGOTTEN = "What happened is not kept: whom it concerned was erased."
LONGEST_NOTE = 1000
LONGEST_SNOOZE = timedelta(days=30)
_LONGEST_NAME = 300
KEPT_FOR = timedelta(days=365)  # after it was settled
_OPEN = Q(settled_at__isnull=True)


def report(
    cause: str,
    *,
    about: str = "",
    name: str = "",
    owner: Owner,
    words: str,
    subject: Mapping[str, str | int] | None = None,
) -> Incident:
    """Tell staff about something, and return its open row. Repeats count up; the daily digest tells their number.

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
    incident = _count_up(new) or _come_back(new) or _open(new) or _count_up(new)
    if incident is None:
        raise RuntimeError("an incident was opened and settled by others in the same moment")
    key, fields = incident.pk, {"cause": cause, "about": about, "times": incident.times, "words": incident.words}
    transaction.on_commit(lambda: log.warning("incident", extra=fields))
    transaction.on_commit(lambda: mail(Incident.objects.filter(pk=key)))
    return incident


def _count_up(new: Incident) -> Incident | None:
    open_row = Incident.objects.open().filter(cause=new.cause, about=new.about)
    return open_row.first() if _happen_again(open_row, new) else None


def _happen_again(rows: IncidentQuerySet, new: Incident, **columns: Any) -> int:
    return rows.update(
        times=F("times") + 1,
        last_seen_at=Greatest("last_seen_at", new.last_seen_at),  # a caller that began earlier may come here later
        owner=new.owner,
        name=new.name,
        words=new.words,
        subject=new.subject,
        **columns,
    )


def _come_back(new: Incident) -> Incident | None:
    """Open the row again that was settled a moment ago: something that comes and goes is one incident."""
    waits = Incident.objects.filter(settled_at__gt=new.last_seen_at - HOLD, recovered_at__isnull=True)
    latest = waits.filter(cause=new.cause, about=new.about).order_by("-pk").values_list("pk", flat=True).first()
    if latest is None:
        return None
    try:
        with transaction.atomic():
            changed = _happen_again(waits.filter(pk=latest), new, settled_at=None, came_back=F("came_back") + 1)
    except IntegrityError:
        return None  # somebody opened a new one at this moment
    return Incident.objects.get(pk=latest) if changed else None


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
    return Incident.objects.filter(settled_at__lt=now - KEPT_FOR).delete()[1].get(Incident._meta.label, 0)


def forget(incidents: IncidentQuerySet, *, name: str) -> int:
    """Take away what these say of somebody who was erased: they get this name, lose words and notes, and are settled.

    Call it inside the transaction of the erasure. Returns how many were changed; those that were before do not count.
    """
    keys = list(incidents.exclude(name=name, words=FORGOTTEN).values_list("pk", flat=True))
    now = timezone.now()
    IncidentNote.objects.filter(incident__in=keys).delete()
    Incident.objects.open().filter(pk__in=keys).update(settled_at=now, recovered_at=now)
    return Incident.objects.filter(pk__in=keys).update(name=name, words=FORGOTTEN)


# --- what people decide ---------------------------------------------------------------------------------------------


def take_up(incidents: IncidentQuerySet, *, actor: Actor) -> int:
    """Note who looks into them. Returns how many were open and not taken up before."""
    require(actor, "incidents.settle_incident")
    fresh = _OPEN & Q(seen_at__isnull=True)
    return len(_decide(incidents, fresh, "incident.taken_up", actor, seen_at=timezone.now(), seen_by=actor.name))


def close(incidents: IncidentQuerySet, *, actor: Actor) -> int:
    """Settle them by a person's decision; what happens again is a new incident. Returns how many were open."""
    require(actor, "incidents.settle_incident")
    now = timezone.now()
    keys = _decide(incidents, _OPEN, "incident.settled", actor, settled_at=now, recovered_at=now)
    transaction.on_commit(lambda: log.info("incidents settled by %s", actor.name, extra={"incidents": keys}))
    return len(keys)


def snooze(incidents: IncidentQuerySet, *, until: datetime, actor: Actor) -> int:
    """Put them off: until then no mail names them. Returns how many were open.

    Raises:
        ValueError: that is not ahead, or more than 30 days.
    """
    require(actor, "incidents.snooze_incident")
    if not timedelta(0) < until - timezone.now() <= LONGEST_SNOOZE:
        raise ValueError(f"An incident is put off until a later time, at most {LONGEST_SNOOZE.days} days ahead.")
    details = {"until": until.isoformat()}
    columns = {"snoozed_until": until, "snoozed_by": actor.name}
    return len(_decide(incidents, _OPEN, "incident.snoozed", actor, details, **columns))


def wake(incidents: IncidentQuerySet, *, actor: Actor) -> int:
    """Take back that they were put off. Returns how many were."""
    require(actor, "incidents.snooze_incident")
    asleep = _OPEN & Q(snoozed_until__gt=timezone.now())
    return len(_decide(incidents, asleep, "incident.woken", actor, snoozed_until=None, snoozed_by=""))


def note(incidents: IncidentQuerySet, words: str, *, actor: Actor) -> int:
    """Write a note to each of them, open or settled. Its text stands in the note only, never in the trail (S-68).

    Raises:
        ValueError: it is empty, or longer than 1,000 characters.
    """
    require(actor, "incidents.note_incident")
    words = words.strip()
    if not 0 < len(words) <= LONGEST_NOTE:
        raise ValueError(f"A note has between 1 and {LONGEST_NOTE:,} characters.")
    with transaction.atomic():
        keys = _decide(incidents, Q(), "incident.noted", actor)
        IncidentNote.objects.bulk_create(IncidentNote(incident_id=key, by=actor.name, words=words) for key in keys)
    return len(keys)


def _decide(
    incidents: IncidentQuerySet,
    still: Q,
    action: str,
    actor: Actor,
    details: Mapping[str, str] | None = None,
    **columns: Any,
) -> list[int]:
    """Write a decision on those of these rows that are still so, with a line in the trail for each; return their keys.

    Each row is claimed by the UPDATE; the number of queries is the same for any number of rows.
    """
    incidents = within(incidents, actor)
    with transaction.atomic():
        keys = list(incidents.filter(still).values_list("pk", flat=True))
        if columns:
            Incident.objects.filter(still, pk__in=keys).update(**columns)
            keys = list(Incident.objects.filter(pk__in=keys, **columns).values_list("pk", flat=True))
        written = dict(details or {})
        record_all([Entry(action, actor, Outcome.DONE, subject={"incident": key}, details=written) for key in keys])
    return keys
