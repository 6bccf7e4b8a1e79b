"""Walk the chain of the audit trail, and say what is wrong where it breaks (S-57)."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from django.db.models import Max

from portal.audit.findings import Damage, Finding, numbers
from portal.audit.models import AuditEvent
from portal.audit.trail import Actor, is_genuine, mac_of, record

CHECKED = "audit_trail.checked"  # the action of the entry that says how far the chain was checked
ACCEPTED = "audit_trail.accepted"  # of the entry by which a person took note of breaks; see ``accepted``
ARCHIVED = "audit_trail.archived"  # of the entry that says which entries lie in a file
_PIECE = 2000
_LOOKED_AROUND = 2000  # numbers that are tried for an entry that may carry another one's
_LOOKED_BEHIND = 20  # entries that tell another key from a change


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """How far a walk of the chain came.

    Attributes:
        sequence: the last entry that fits; 0 before the first.
        mac: of that entry.
        finding: what is wrong with the entry after it, None while all fit.
        seen: number of the entry that breaks the chain, and the seal that its content would have; by these a person
            takes note of the break (``accepted``).
    """

    sequence: int = 0
    mac: str = ""
    finding: Finding | None = None
    seen: tuple[int, str] = (0, "")

    @property
    def broken(self) -> int | None:
        """Sequence of the first entry that does not fit, None while all do."""
        return None if self.finding is None else self.finding.sequence


Breaks = Mapping[int, str]


def walk(start: Walked | None = None, *, known: Breaks | None = None) -> Iterator[Walked]:
    """Check the chain after ``start`` in pieces of 2,000 entries, and yield how far it is after each.

    Each piece is one query by key, so the database holds no cursor and no copy between them. Entries that are written
    meanwhile are left to the next walk.

    Args:
        start: where to begin; without it at the first entry that is not archived.
        known: breaks that a person took note of, by the number of the entry that does not fit, with what it held then;
            without it those of ``accepted``.
    """
    at = start or beginning()
    passed = accepted() if known is None else known
    end = AuditEvent.objects.aggregate(end=Max("sequence"))["end"] or 0
    while at.sequence < end and at.finding is None:
        piece = AuditEvent.objects.filter(sequence__gt=at.sequence, sequence__lte=end).order_by("sequence")[:_PIECE]
        for event in piece:
            seal = mac_of(event)
            follows = event.sequence == at.sequence + 1 and event.previous_mac == at.mac
            fits = follows and hmac.compare_digest(event.mac, seal)
            if not fits and passed.get(event.sequence) != seal:
                at = replace(at, finding=_what_is_wrong(event, at), seen=(event.sequence, seal))
                break
            at = Walked(sequence=event.sequence, mac=event.mac)
        yield at


def _what_is_wrong(event: AuditEvent, at: Walked) -> Finding:
    """Name the damage at the first entry that does not fit behind ``at``."""
    first = at.sequence + 1
    if event.sequence > first:
        where = "at the beginning, and no archive of them is known" if at.sequence == 0 else "in the middle"
        words = f"{numbers(first, event.sequence - 1)} missing {where}: removed past the portal."
        return Finding(damage=Damage.REMOVED, sequence=first, words=words)
    if is_genuine(event):
        words = (
            f"Entry {first} is genuine, but it was written behind another entry than the one before it: parts of two "
            "trails were put together."
        )
        return Finding(damage=Damage.SPLICED, sequence=first, words=words)
    if (number := _own_number(event)) is not None:
        words = f"Entry {first} carries a wrong number: it was written as entry {number}."
        return Finding(damage=Damage.RENUMBERED, sequence=first, words=words)
    if _is_of_another_key(event):
        words = (
            f"From entry {first} on nothing fits: INTEGRITY_KEY is another one than these entries were written with. "
            "Set the former key again; it never changes."
        )
        return Finding(damage=Damage.KEY, sequence=first, words=words)
    words = f"Entry {first} was changed, or written past the portal: its seal does not fit what it says."
    return Finding(damage=Damage.CHANGED, sequence=first, words=words)


def _own_number(event: AuditEvent) -> int | None:
    """Return the number under which the portal wrote this content, if it is one nearby."""
    lowest = max(event.sequence - _LOOKED_AROUND, 1)
    tried = range(lowest, event.sequence + _LOOKED_AROUND)
    return next((one for one in tried if hmac.compare_digest(event.mac, mac_of(event, sequence=one))), None)


def _is_of_another_key(event: AuditEvent) -> bool:
    """Tell whether this entry and those behind it follow each other as they should, and none fits the key."""
    behind = AuditEvent.objects.filter(sequence__gte=event.sequence).order_by("sequence")[:_LOOKED_BEHIND]
    before = event.previous_mac
    for number, one in enumerate(behind, start=event.sequence):
        if one.sequence != number or one.previous_mac != before or is_genuine(one):
            return False
        before = one.mac
    return len(behind) > 1 or not AuditEvent.objects.filter(sequence__lt=event.sequence).exists()


def first_broken_sequence() -> int | None:
    """Walk the whole chain and return the sequence of the first entry that does not fit, or None."""
    at = Walked()
    for at in walk():  # noqa: B007  # the last one says it
        pass
    return at.broken


# --- where a walk begins ------------------------------------------------------------------------------------------


def beginning() -> Walked:
    """Return where the trail begins: behind what was archived, as a genuine entry of the trail itself says, else at 0.

    Who removes entries past the portal has no such entry for them, and cannot make one without INTEGRITY_KEY.
    """
    first = AuditEvent.objects.order_by("sequence").values_list("sequence", flat=True).first()
    if first is None or first == 1:
        return Walked()
    for mark in AuditEvent.objects.filter(action=ARCHIVED, details__last=first - 1):
        if is_genuine(mark):
            return Walked(sequence=mark.details["last"], mac=mark.details["mac"])
    return Walked()


def note_walk(at: Walked, *, actor: Actor, anchor: Mapping[str, str | int] | None = None) -> None:
    """Keep how far the chain was checked, as an entry of the chain itself, so that no other program can claim it.

    Args:
        anchor: the newest anchor that was compared, by ``file`` and ``number``.
    """
    details = {"verified_to": at.sequence, "mac": at.mac, **({"anchor": dict(anchor)} if anchor else {})}
    record(CHECKED, actor=actor, subject={}, details=details)


def last_walk() -> Walked:
    """Return how far the chain was checked before; the very beginning when nothing trustworthy says so."""
    note = AuditEvent.objects.filter(action=CHECKED).order_by("-sequence").first()
    if note is None or not is_genuine(note):
        return beginning()
    at = Walked(sequence=note.details["verified_to"], mac=note.details["mac"])
    if at.sequence and not AuditEvent.objects.filter(sequence=at.sequence, mac=at.mac).exists():
        return beginning()
    return at


def accepted() -> Breaks:
    """Return the breaks that a person took note of, as after a restore: number of the entry, and what it held then.

    They stand in sealed entries of the trail. An entry that is changed after that does not fit any more.
    """
    notes = AuditEvent.objects.filter(action=ACCEPTED).order_by("sequence")
    return {
        int(number): seal
        for note in notes
        if is_genuine(note)
        for number, seal in note.details.get("breaks", {}).items()
    }
