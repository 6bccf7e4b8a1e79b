"""Move old entries of the audit trail into sealed files that still verify, and remove them from the database.

A part is one gzipped file of JSON lines: a header, the entries as they are sealed, and a last line with the seal of all
before it. Header and last line name the head of the chain before and behind the part, so parts join each other and the
rest in the database.

The triggers refuse every removal, and know no exception that somebody could claim. So who archives is somebody who may
switch a trigger off: the owner of the tables. That happens in the one transaction that also writes the sealed entry
which says what was removed; nobody else sees the table without its trigger. Without such an entry a walk of the trail
calls the gap what it is (``walking.beginning``).
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max
from django.utils import timezone

from portal.audit import table, triggers
from portal.audit.anchors import Anchor
from portal.audit.findings import Damage, Finding
from portal.audit.models import AuditEvent
from portal.audit.seals import Seal, canonical, fits, seal
from portal.audit.trail import Actor, is_genuine, record
from portal.audit.walking import ARCHIVED, beginning

STAYS = timedelta(days=90)  # what is younger stays in the database: pages, digests of runs and reports ask for it
_FORMAT = 1
_MOST = 50_000  # entries of one part, which are removed in one transaction
_PIECE = 2000
_COLUMNS = (
    "sequence",
    "at",
    "actor_kind",
    "actor",
    "address",
    "action",
    "outcome",
    "subject",
    "details",
    "correlation_id",
    "previous_mac",
    "mac",
)


class NotAPart(ValueError):
    """A file is no part of an archive, or was changed; the text says what is wrong with it."""


class NotRemoved(RuntimeError):
    """Nothing was removed; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file, checked from its first to its last byte.

    Attributes:
        first: number of its first entry; ``last`` of its last.
        before: seal of the entry before the first; empty before entry 1.
        head: seal of the last entry.
        digest: SHA-256 of all lines but the last.
        anchored: seals of the entries that were asked for, by number.
    """

    file: Path
    first: int
    last: int
    before: str
    head: str
    digest: str
    anchored: Mapping[int, str]


def parts_until(until: datetime) -> list[tuple[int, int]]:
    """Return the numbers, first and last, of the parts that the entries before this time make; the oldest first.

    Raises:
        ValueError: the time is less than 90 days ago.
    """
    if until > timezone.now() - STAYS:
        raise ValueError(f"Entries of the last {STAYS.days} days stay in the database: choose an earlier day.")
    first = AuditEvent.objects.order_by("sequence").values_list("sequence", flat=True).first()
    last = AuditEvent.objects.filter(at__lt=until).aggregate(last=Max("sequence"))["last"]
    if first is None or last is None:
        return []
    return [(one, min(one + _MOST - 1, last)) for one in range(first, last + 1, _MOST)]


def write(folder: Path, first: int, last: int) -> Part:
    """Write one part and read it back; a file that is there already and holds the same is taken as it is.

    Raises:
        OSError: it cannot be written.
        NotAPart: what was read back, or what is there already, is not this part.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / f"audit-{first:012}-{last:012}.jsonl.gz"
    if not file.exists():
        unfinished = file.with_suffix(".part")
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as lines:
                _write_lines(lines, first, last)
            raw.flush()
            os.fsync(raw.fileno())
        unfinished.replace(file)
    part = read(file)
    if (part.first, part.last) != (first, last):
        raise NotAPart(f"{file} holds other entries than its name says.")
    return part


def _write_lines(lines: gzip.GzipFile, first: int, last: int) -> None:
    digest = hashlib.sha256()

    def put(values: Mapping[str, Any]) -> None:
        line = canonical(values).encode() + b"\n"
        digest.update(line)
        lines.write(line)

    before = AuditEvent.objects.get(sequence=first).previous_mac
    header = {"format": _FORMAT, "portal": settings.PUBLIC_BASE_URL, "key": seal("").key_id}
    put({**header, "first": first, "last": last, "before": before})
    head = before
    for start in range(first, last + 1, _PIECE):
        end = min(start + _PIECE - 1, last)
        for event in AuditEvent.objects.filter(sequence__gte=start, sequence__lte=end).order_by("sequence"):
            put({**{name: getattr(event, name) for name in _COLUMNS}, "at": event.at.isoformat()})
            head = event.mac
    closing = {"digest": digest.hexdigest(), "head": head}
    made = seal(canonical(closing))
    lines.write(canonical({**closing, "seal": made.value}).encode() + b"\n")


def read(file: Path, *, wanted: Sequence[int] = ()) -> Part:
    """Check a part: its seal, each entry, and that they follow each other.

    Args:
        wanted: numbers of entries whose seals are returned, such as those that anchors know.

    Raises:
        OSError: it cannot be read.
        NotAPart: it is none, or was changed.
    """
    numbers, anchored, digest = set(wanted), dict[int, str](), hashlib.sha256()
    header: dict[str, Any] | None = None
    closing: dict[str, Any] | None = None
    head, sequence = "", 0
    try:
        for line, values in _lines(file):
            if closing is not None:
                raise NotAPart(f"{file.name} goes on behind its last line.")
            if "seal" in values:
                closing = values
                continue
            digest.update(line)
            if header is None:
                header = values
                if values["key"] != seal("").key_id:
                    raise NotAPart(f"{file.name} was sealed under another INTEGRITY_KEY.")
                head, sequence = values["before"], values["first"] - 1
                continue
            event = AuditEvent(**{**values, "at": datetime.fromisoformat(values["at"])})
            if event.sequence != sequence + 1 or event.previous_mac != head or not is_genuine(event):
                raise NotAPart(f"{file.name}: entry {sequence + 1} was changed, removed or added.")
            head, sequence = event.mac, event.sequence
            if sequence in numbers:
                anchored[sequence] = head
    except (EOFError, gzip.BadGzipFile, ValueError, KeyError, TypeError) as error:
        if isinstance(error, NotAPart):
            raise
        raise NotAPart(f"{file.name} cannot be read as a part of the audit trail.") from None
    if header is None or closing is None:
        raise NotAPart(f"{file.name} was cut: its last line is missing.")
    claimed = Seal(key_id=str(header["key"]), value=str(closing["seal"]))
    ours = {"digest": digest.hexdigest(), "head": head}
    if not fits(canonical(ours), claimed) or sequence != header["last"]:
        raise NotAPart(f"{file.name} was changed: its seal does not fit.")
    return Part(
        file=file,
        first=header["first"],
        last=sequence,
        before=header["before"],
        head=head,
        digest=digest.hexdigest(),
        anchored=anchored,
    )


def _lines(file: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    with gzip.open(file, "rb") as lines:
        for line in lines:
            yield line, json.loads(line)


def remove(part: Part, *, actor: Actor) -> AuditEvent:
    """Remove the entries of a checked part from the database, and return the entry that says so. All or nothing.

    Raises:
        NotRemoved: the part does not begin where the trail begins, or does not fit to it.
        DatabaseError: this role may not switch the trigger off, as that of web processes and workers should not.
    """
    with transaction.atomic():
        begins = beginning()
        ends = AuditEvent.objects.filter(sequence=part.last).values_list("mac", flat=True).first()
        if (begins.sequence + 1, begins.mac, ends) != (part.first, part.before, part.head):
            raise NotRemoved(f"{part.file.name} does not fit to the beginning of the trail in the database.")
        details = {
            "first": part.first,
            "last": part.last,
            "mac": part.head,
            "file": part.file.name,
            "sha256": part.digest,
        }
        mark = record(ARCHIVED, actor=actor, subject={}, details=details)
        with connection.cursor() as cursor, triggers.removal_allowed(cursor):
            cursor.execute(
                f"DELETE FROM {triggers.TABLE} WHERE sequence >= %s AND sequence <= %s",  # noqa: S608  # ours
                [part.first, part.last],
            )
            if cursor.rowcount != part.last - part.first + 1:
                raise NotRemoved("The trail in the database lacks entries of this part.")
        if table.faults():
            raise NotRemoved("The triggers could not be put back.")
    return mark


# --- verifying ----------------------------------------------------------------------------------------------------


def verify(folder: Path, anchored: Sequence[Anchor] = ()) -> tuple[list[Part], list[Finding]]:
    """Check all parts in a folder, how they join, and that they join the trail in the database.

    Args:
        anchored: anchors outside the database; the entries that they know and that lie in parts are compared.

    Raises:
        OSError: the folder or a file cannot be read.
    """
    by_number = {one.sequence: one for one in anchored}
    parts: list[Part] = []
    found: list[Finding] = []
    for file in sorted(folder.glob("audit-*.jsonl.gz")):
        try:
            parts.append(read(file, wanted=list(by_number)))
        except NotAPart as error:
            found.append(_finding(str(error)))
    begins = beginning()
    if not parts:
        return parts, [*found, _finding(f"{folder} holds no part of the trail.")] if begins.sequence else found
    parts.sort(key=lambda one: one.first)
    behind, head = 0, ""
    for part in parts:
        if (part.first, part.before) != (behind + 1, head):
            found.append(_finding(f"{part.file.name} does not join entry {behind}: a part is missing or foreign."))
        behind, head = part.last, part.head
        for number, mac in part.anchored.items():
            if not hmac.compare_digest(mac, by_number[number].mac):
                found.append(_finding(f"Entry {number} in {part.file.name} is another one than its anchor knows."))
    if (behind, head) < (begins.sequence, "") or (behind == begins.sequence and head != begins.mac):
        words = f"The parts end with entry {behind}, and the trail in the database begins behind {begins.sequence}."
        found.append(_finding(words))
    return parts, found


def _finding(words: str) -> Finding:
    return Finding(damage=Damage.ARCHIVE, words=words)
