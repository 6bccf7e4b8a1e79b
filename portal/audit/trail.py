"""Write and verify the audit trail.

The entry of a change is written in the transaction of the change: if it cannot be written the change does not happen
(S-58). Each entry carries an HMAC over its content and the entry before, under a key outside the database, so that an
edited, removed or inserted row shows (S-57).
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import json
import logging
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.microsoft.secret import Secret
from portal.models import Limits

log = logging.getLogger(__name__)

Outcome = AuditEvent.Outcome
_LOCK = 0x43505641  # any constant: the advisory lock of the chain on PostgreSQL
_LONGEST_TEXT = 300


def _nothing(right: str) -> bool:
    return False


def _everything(right: str) -> bool:
    return True


def _unlimited() -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts: a member of staff, a command with the OS user, a consent link, or the system itself.

    Attributes:
        may: tells whether the actor has a right; ``portal.rights`` says who has which. Without it the actor has none,
            so what is read back from a row, such as who began a run, gains nothing.
        is_superuser: a member of staff who has every right because the account is one for emergencies.
        limits: what a member of teams sees; None when nothing is hidden from the actor.
    """

    kind: AuditEvent.ActorKind
    name: str
    address: str | None = None
    may: Callable[[str], bool] = field(default=_nothing, repr=False, compare=False)
    is_superuser: bool = field(default=False, repr=False, compare=False)
    limits: Callable[[], Limits | None] = field(default=_unlimited, repr=False, compare=False)

    @classmethod
    def command(cls, name: str) -> Actor:
        """Return the actor of a management command. Whoever can run one holds the keys of the server anyway."""
        return cls(kind=AuditEvent.ActorKind.COMMAND, name=f"{name} ({getpass.getuser()})", may=_everything)

    @classmethod
    def link(cls, link_id: int, address: str | None) -> Actor:
        """Return the actor behind a consent link: its holder, who is not known."""
        return cls(kind=AuditEvent.ActorKind.LINK, name=f"link {link_id}", address=address)

    @classmethod
    def visitor(cls, address: str | None) -> Actor:
        """Return somebody who asked a public page and proved nothing."""
        return cls(kind=AuditEvent.ActorKind.SYSTEM, name="visitor", address=address)

    @classmethod
    def staff(
        cls,
        username: str,
        address: str | None,
        *,
        may: Callable[[str], bool] = _nothing,
        is_superuser: bool = False,
        limits: Callable[[], Limits | None] = _unlimited,
    ) -> Actor:
        """Return a signed-in member of staff; without ``may`` somebody who only signs an event."""
        return cls(
            kind=AuditEvent.ActorKind.STAFF,
            name=username,
            address=address,
            may=may,
            is_superuser=is_superuser,
            limits=limits,
        )

    @classmethod
    def system(cls, *rights: str) -> Actor:
        """Return the portal itself, with the rights that its work needs."""
        return cls(kind=AuditEvent.ActorKind.SYSTEM, name="portal", may=frozenset(rights).__contains__)


SYSTEM = Actor.system()


def _plain(value: Any) -> Any:
    """Reduce to JSON values; a Secret or an object of any other kind is a programming error."""
    if isinstance(value, Secret):
        raise TypeError("a Secret was about to enter the audit trail")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        # S-59: control and bidi characters would forge lines wherever the trail is read.
        if value.isascii() and value.isprintable():  # nearly all, and looking at each character takes longer
            return value[:_LONGEST_TEXT]
        return "".join(c if unicodedata.category(c)[0] != "C" else "�" for c in value)[:_LONGEST_TEXT]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    raise TypeError(f"{type(value).__name__} cannot enter the audit trail")


def mac_of(event: AuditEvent, *, sequence: int | None = None) -> str:
    """Return the seal that this content must have; with ``sequence``, under that number instead of its own."""
    content = json.dumps(
        [
            event.sequence if sequence is None else sequence,
            event.at.isoformat(),
            event.actor_kind,
            event.actor,
            event.address,
            event.action,
            event.outcome,
            event.subject,
            event.details,
            event.correlation_id,
            event.previous_mac,
        ],
        sort_keys=True,
        ensure_ascii=True,
        separators=(",", ":"),
    )
    return hmac.digest(_key(settings.INTEGRITY_KEY), content.encode(), "sha256").hex()


@cache
def _key(integrity_key: str) -> bytes:
    return hmac.digest(integrity_key.encode(), b"audit chain", "sha256")


def key_id() -> str:
    """Return the id of the key of the chain; it tells another INTEGRITY_KEY from a changed entry."""
    return hashlib.sha256(_key(settings.INTEGRITY_KEY)).hexdigest()[:16]


def is_genuine(event: AuditEvent) -> bool:
    """Tell whether the portal wrote this content under this number; where it stands is another question."""
    return hmac.compare_digest(event.mac, mac_of(event))


def record(
    action: str,
    *,
    actor: Actor,
    outcome: AuditEvent.Outcome = Outcome.DONE,
    subject: Mapping[str, str | int],
    details: Mapping[str, Any] | None = None,
    correlation_id: str = "",
) -> AuditEvent:
    """Append one event and return it.

    Call it inside the transaction of the change that it tells about; alone it opens its own.

    Args:
        action: ``object.verb``, for example ``link.issued``.
        subject: ids only, for example ``{"partner": 7, "tenant_id": "..."}``.
        details: before and after values, codes, counts. Never a secret, never a text from outside.
    """
    return record_all(
        [Entry(action, actor, outcome, subject=subject, details=details or {}, correlation_id=correlation_id)]
    )[0]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event before it has its place in the chain; the fields are the arguments of ``record``."""

    action: str
    actor: Actor
    outcome: AuditEvent.Outcome
    subject: Mapping[str, str | int]
    details: Mapping[str, Any]
    correlation_id: str = ""


def record_all(entries: Sequence[Entry]) -> list[AuditEvent]:
    """Append many events in their order and return them; as ``record``, in two statements for all of them."""
    events: list[AuditEvent] = []
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        # SQLite writers are already one at a time: transactions begin IMMEDIATE.
        last = AuditEvent.objects.order_by("-sequence").values("sequence", "mac").first()
        sequence, mac = (last["sequence"], last["mac"]) if last else (0, "")
        now = timezone.now()
        for entry in entries:
            sequence += 1
            event = AuditEvent(
                sequence=sequence,
                at=now,
                actor_kind=entry.actor.kind,
                actor=_plain(entry.actor.name)[:150],
                address=entry.actor.address,
                action=entry.action,
                outcome=entry.outcome,
                subject=_plain(entry.subject),
                details=_plain(entry.details),
                correlation_id=entry.correlation_id,
                previous_mac=mac,
            )
            mac = event.mac = mac_of(event)
            events.append(event)
        # The manager of the model refuses this on purpose (S-56).
        QuerySet[AuditEvent](AuditEvent).bulk_create(events)
        transaction.on_commit(lambda: _log(events))
    return events


def _log(events: Sequence[AuditEvent]) -> None:
    """Write number and seal of each entry to the log, which lies outside the database (S-57)."""
    for event in events:
        log.info("audit entry", extra={"sequence": event.sequence, "seal": event.mac, "action": event.action})
