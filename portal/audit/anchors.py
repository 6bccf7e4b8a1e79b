"""Anchors: what the end of the audit trail was at a time, sealed and kept outside the database (S-57).

The chain alone does not show that its newest entries were cut off, or that all of it is another one. An anchor names
the newest entry by number and seal. Anchors stand in a file, one JSON line each, chained under a key from INTEGRITY_KEY
that the database does not have; the portal only ever appends to it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import Max, Q
from django.utils import timezone

from portal.audit import table
from portal.audit.findings import Damage, Finding, numbers
from portal.audit.models import AuditEvent
from portal.audit.seals import canonical
from portal.audit.trail import is_genuine, key_id
from portal.audit.walking import ACCEPTED, CHECKED

ANCHORED = "audit_trail.anchored"  # the action of the entry that says that a file of anchors was begun
_COMPARED_AT_ONCE = 500
_LONGEST_LINE = 2000  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One line of the file.

    Attributes:
        number: from 1 in each file.
        file: id of the file: the seal of its first line begins with it; empty in the first line itself.
        at: ISO 8601, UTC.
        sequence: the newest entry, 0 when the trail was empty.
        mac: of that entry.
        count: how many entries there were.
        table: by what the database tells the trail's table from a copy; empty where it cannot.
        key: id of the key of the chain.
        host: of the process that wrote it.
        previous: seal of the line before.
        seal: of this line.
    """

    number: int
    file: str
    at: str
    sequence: int
    mac: str
    count: int
    table: str
    key: str
    host: str
    previous: str
    seal: str

    @property
    def line(self) -> str:
        """The anchor as it is kept and sent."""
        return json.dumps(asdict(self), ensure_ascii=True)

    @property
    def own_file(self) -> str:
        """Id of the file that it stands in."""
        return self.file or self.seal[:16]

    @property
    def when(self) -> str:
        """Its time for people."""
        return f"{self.at[:16].replace('T', ' ')} UTC"


def _seal(values: Mapping[str, Any]) -> str:
    text = canonical({name: value for name, value in values.items() if name != "seal"})
    return hmac.digest(_key(settings.INTEGRITY_KEY), text.encode(), "sha256").hex()


@cache
def _key(integrity_key: str) -> bytes:
    return hmac.digest(integrity_key.encode(), b"audit anchor", "sha256")


# --- the file -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a file of anchors holds.

    Attributes:
        anchors: those whose seals fit and that follow each other, the earliest first.
        fault: what is wrong with the file itself, None while all of it fits.
        other_key: id of the key that the newest line names, where no line at all was sealed under ours.
    """

    anchors: Sequence[Anchor] = ()
    fault: Finding | None = None
    other_key: str = ""


def read(file: Path) -> Kept:
    """Read a file of anchors and check each line. One that does not exist holds none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with file.open("rb") as lines:
            return _checked(lines)
    except FileNotFoundError:
        return Kept()


def _checked(lines: Iterator[bytes]) -> Kept:
    anchors: list[Anchor] = []
    fault: Finding | None = None
    other = ""
    for number, line in enumerate(lines, start=1):
        anchor = _parsed(line)
        if anchor is None:  # half a line is left when a process or a machine dies while it writes
            continue
        before = anchors[-1] if anchors else None
        sealed = _is_sealed(anchor)
        follows = (anchor.number, anchor.previous) == (
            (before.number + 1, before.seal) if before else (1, "")
        ) and anchor.file == (before.own_file if before else "")
        if anchor.key != key_id():
            other, what = anchor.key, "sealed under another INTEGRITY_KEY"
        else:
            what = "changed" if not sealed else "taken out of its place, or lines before it were removed"
        if not (sealed and follows) and fault is None:
            fault = Finding(damage=Damage.ANCHORS, words=f"The file of anchors is damaged: line {number} was {what}.")
        if sealed:
            anchors.append(anchor)
    return Kept(other_key=other) if other and not anchors else Kept(anchors=anchors, fault=fault)


def _parsed(line: bytes) -> Anchor | None:
    try:
        anchor = Anchor(**json.loads(line)) if len(line) <= _LONGEST_LINE else None
    except (ValueError, TypeError):
        return None
    if anchor is None or not all(type(getattr(anchor, one.name)).__name__ == one.type for one in fields(anchor)):
        return None
    return anchor


def _is_sealed(anchor: Anchor) -> bool:
    return hmac.compare_digest(anchor.seal.encode(), _seal(asdict(anchor)).encode())


def append(file: Path) -> Anchor:
    """Write down what the end of the trail is now, and return it. Processes that share the file wait for each other.

    Raises:
        OSError: it cannot be written.
    """
    # In its own folder, which nobody else reads: who it names, acted here.
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        text = _last_piece(handle)
        # A line that somebody else appended is passed over; one of another key is ours, from before it was exchanged.
        lines = (_parsed(line) for line in reversed(text.splitlines()))
        before = next((one for one in lines if one is not None and (one.key != key_id() or _is_sealed(one))), None)
        anchor = _now(before)
        torn = b"\n" if text and not text.endswith(b"\n") else b""
        os.write(handle, torn + anchor.line.encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
    return anchor


def _last_piece(handle: int) -> bytes:
    size = os.fstat(handle).st_size
    return os.pread(handle, 4 * _LONGEST_LINE, max(size - 4 * _LONGEST_LINE, 0))


def _now(before: Anchor | None) -> Anchor:
    head = AuditEvent.objects.order_by("-sequence").values_list("sequence", "mac").first()
    sequence, mac = head or (0, "")
    values: dict[str, Any] = {
        "number": before.number + 1 if before else 1,
        "file": before.own_file if before else "",
        "at": timezone.now().isoformat(timespec="seconds"),
        "sequence": sequence,
        "mac": mac,
        "count": AuditEvent.objects.filter(sequence__lte=sequence).count(),
        "table": table.identity(),
        "key": key_id(),
        "host": socket.gethostname()[:100],
        "previous": before.seal if before else "",
    }
    return Anchor(**values, seal=_seal(values))


# --- comparing ----------------------------------------------------------------------------------------------------


def compare(kept: Kept) -> Iterator[Finding]:
    """Yield what the anchors know and the trail does not hold any more.

    Anchors that a person took note of (``walking.ACCEPTED``) are not compared again, and of what was archived only that
    it is gone. Read the file before: entries that are written meanwhile do no harm.
    """
    if kept.other_key:
        words = (
            "INTEGRITY_KEY is another one than the anchors were sealed with: nothing can be compared. Set the former "
            "key again; it never changes."
        )
        yield Finding(damage=Damage.KEY, words=words)
        return
    if kept.fault is not None and not _is_accepted(kept):
        yield kept.fault
    yield from _cut_file(kept)
    if not kept.anchors:
        return
    accepted = _accepted_to(kept.anchors[-1].own_file)
    anchors = [one for one in kept.anchors if one.number > accepted]
    if not anchors:
        return
    yield from _of_table(anchors)
    first, last = _ends()
    yield from _of_end(anchors, first, last)
    yield from _of_entries([one for one in anchors if first <= one.sequence <= last])


def _ends() -> tuple[int, int]:
    """Return the numbers of the first and the newest entry; 0, 0 when there are none."""
    ordered = AuditEvent.objects.order_by("sequence").values_list("sequence", flat=True)
    first = ordered.first() or 0
    return first, AuditEvent.objects.aggregate(end=Max("sequence"))["end"] or 0


def _of_table(anchors: Sequence[Anchor]) -> Iterator[Finding]:
    """Say when the table last was another one; the next anchor knows the new one, so all of them are compared."""
    now = table.identity()
    before = next((one for one in reversed(anchors) if one.table and one.table != now), None)
    if now and before is not None:
        words = (
            f"The table of the trail is another one than on {before.when}: it was replaced, or the database restored. "
            "If you restored it, let an operator take note of that on the server (--take-note)."
        )
        yield Finding(damage=Damage.REPLACED, words=words)


def _of_end(anchors: Sequence[Anchor], first: int, last: int) -> Iterator[Finding]:
    highest = max(anchors, key=lambda one: (one.sequence, one.number))
    if highest.sequence <= last:
        return
    if last == 0:
        words = f"The trail is empty: the anchor of {highest.when} knows {highest.count} entries."
        yield Finding(damage=Damage.EMPTIED, sequence=1, words=words)
        return
    words = (
        f"{numbers(last + 1, highest.sequence)} missing at the end: the anchor of {highest.when} knows "
        f"{'it' if highest.sequence == last + 1 else 'them'}."
    )
    yield Finding(damage=Damage.CUT, sequence=last + 1, words=words)


def _of_entries(anchors: Sequence[Anchor]) -> Iterator[Finding]:
    """Compare the seals of the anchored entries that are there; the walk of the chain finds what is missing between."""
    by_sequence = {anchor.sequence: anchor for anchor in anchors}
    wanted = sorted(by_sequence)
    for start in range(0, len(wanted), _COMPARED_AT_ONCE):
        there = dict(
            AuditEvent.objects.filter(sequence__in=wanted[start : start + _COMPARED_AT_ONCE]).values_list(
                "sequence", "mac"
            )
        )
        for sequence in wanted[start : start + _COMPARED_AT_ONCE]:
            anchor = by_sequence[sequence]
            if sequence in there and not hmac.compare_digest(there[sequence], anchor.mac):
                words = (
                    f"Entry {sequence} is another one than on {anchor.when}: the trail was cut before it and written "
                    "anew, or is that of another database."
                )
                yield Finding(damage=Damage.REPLACED, sequence=sequence, words=words)
                return


def _cut_file(kept: Kept) -> Iterator[Finding]:
    """The file itself may have been cut: the trail's own entries know how many of its lines were compared."""
    if not kept.anchors:
        return
    newest = kept.anchors[-1]
    notes = AuditEvent.objects.filter(action__in=[CHECKED, ACCEPTED], details__anchor__file=newest.own_file)
    known = max((int(one.details["anchor"]["number"]) for one in notes if is_genuine(one)), default=0)
    if known > newest.number:
        words = (
            f"The file of anchors was cut: its newest line is number {newest.number}, and line {known} was compared "
            "before."
        )
        yield Finding(damage=Damage.ANCHORS, words=words)


def _accepted_to(file: str) -> int:
    """Return up to which anchor of a file a person took note of what does not fit."""
    notes = AuditEvent.objects.filter(action=ACCEPTED, details__anchor__file=file).order_by("-sequence")
    return next((int(note.details["anchor"]["number"]) for note in notes if is_genuine(note)), 0)


def _is_accepted(kept: Kept) -> bool:
    digest = fault_digest(kept)
    return bool(digest) and any(
        is_genuine(note) for note in AuditEvent.objects.filter(action=ACCEPTED, details__anchors_fault=digest)
    )


def fault_digest(kept: Kept) -> str:
    """Return by what the same damage of the same file is known again; empty without one."""
    if kept.fault is None:
        return ""
    first = kept.anchors[0].seal if kept.anchors else ""
    return hashlib.sha256(f"{first} {kept.fault.words}".encode()).hexdigest()[:32]


def begun_before() -> AuditEvent | None:
    """Return the newest entry that knows a file of anchors: it was begun, or compared."""
    begun, compared = Q(action=ANCHORED), Q(action=CHECKED, details__anchor__file__isnull=False)
    return AuditEvent.objects.filter(begun | compared).order_by("-sequence").first()
