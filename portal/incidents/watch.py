"""What the portal watches about itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from portal.audit import anchors, table
from portal.audit.findings import Damage, Finding
from portal.audit.models import AuditEvent
from portal.audit.trail import SYSTEM, Actor, record
from portal.audit.walking import ACCEPTED, Walked, accepted, beginning, last_walk, note_walk, walk
from portal.incidents.anchoring import anchor_file
from portal.incidents.models import Incident
from portal.incidents.service import LONGEST_WORDS, report, settle
from portal.microsoft.diagnosis import Owner
from portal.rights import SERVER, require

log = logging.getLogger(__name__)

TRAIL_BROKEN = "audit_trail_broken"
_MOST_BREAKS = 500  # that one entry of the trail can name


class CannotPass(Exception):
    """What is wrong with the trail cannot be passed over; the text says why and what to do."""


def watch_audit_trail(
    *, whole: bool = False, actor: Actor = SYSTEM, between: Callable[[], None] = lambda: None
) -> list[Finding]:
    """Check what the audit trail got since the last time, or all of it; report what is wrong with it (S-57, S-60).

    Three things are looked at: the table and its triggers, the chain, and the anchors outside the database. How far the
    chain was checked is kept, so that a day's check is a day's entries long, and one that is cut off goes on where it
    was. While damage is reported, all of the chain is checked, so that the report is settled only when all fits.

    Args:
        whole: begin at the first entry.
        between: called after each piece of 2,000 entries; what it raises ends the check there.

    Returns:
        What is wrong, the most telling first; empty when all fits.
    """
    if (why := table.unreadable()) is not None:
        found = [why]
    else:
        is_reported = Incident.objects.open().filter(cause=TRAIL_BROKEN).exists()
        found = _look(whole=whole or is_reported, actor=actor, between=between)
    if found:
        _report(found)
    else:
        settle(TRAIL_BROKEN)
    return found


def _look(*, whole: bool, actor: Actor, between: Callable[[], None]) -> list[Finding]:
    kept = _kept()  # before the trail is read: it is never behind its anchors
    at = start = beginning() if whole else last_walk()
    try:
        for at in walk(start):  # noqa: B007  # the last one says how far it came
            between()
    except BaseException:
        if at.finding is None and at != start:
            note_walk(at, actor=actor)
        raise
    chain = [at.finding] if at.finding else []
    found = _without_echoes([*table.faults(), *chain, *anchors.compare(kept)])
    if not found and at != start:  # in a damaged trail nothing is written that could hide where it ended
        note_walk(at, actor=actor, anchor=_newest(kept))
    return found


def _kept() -> anchors.Kept:
    file = anchor_file()
    if file is None:
        return anchors.Kept()
    try:
        return anchors.read(file)
    except OSError as error:
        words = (
            f"The file of anchors cannot be read ({error.strerror or type(error).__name__}): the end is not guarded."
        )
        return anchors.Kept(fault=Finding(damage=Damage.ANCHORS, words=words))


def _newest(kept: anchors.Kept) -> dict[str, str | int] | None:
    if not kept.anchors or kept.fault is not None:
        return None
    return {"file": kept.anchors[-1].own_file, "number": kept.anchors[-1].number}


def _without_echoes(found: Sequence[Finding]) -> list[Finding]:
    """Leave out what only repeats another finding: with another key nothing fits, so only the key is told."""
    keys = [one for one in found if one.damage == Damage.KEY]
    return keys[:1] if keys else list(found)


def _report(found: Sequence[Finding]) -> None:
    sequences = [one.sequence for one in found if one.sequence is not None]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    next_step = " Keep a copy of the database, find out who had access, and compare with a backup and the log."
    report(
        TRAIL_BROKEN,
        owner=Owner.US,
        words=f"{found[0].words[: LONGEST_WORDS - len(next_step) - len(more)]}{more}{next_step}",
        subject={"sequence": min(sequences)} if sequences else {},
    )


def take_note(found: Sequence[Finding], why: str, *, actor: Actor) -> AuditEvent:
    """Let a person take note of what is wrong, as after a restore from a backup; what changes later is found again.

    Breaks of the chain are known by what the entries hold now, and anchors by their number, so the next check begins
    behind them. The entry says what was wrong, and by whose decision it is passed over.

    Raises:
        CannotPass: the key is another one, or too many entries do not fit.
    """
    require(actor, SERVER)
    if any(one.damage == Damage.KEY for one in found):
        raise CannotPass("With another INTEGRITY_KEY nothing can be checked or noted. Set the former key again.")
    kept, breaks, known, at = _kept(), dict[str, str](), accepted(), beginning()
    while True:
        for at in walk(at, known=known):  # noqa: B007, B020  # the last one says it
            pass
        if at.finding is None:
            break
        if len(breaks) == _MOST_BREAKS:
            raise CannotPass(f"More than {_MOST_BREAKS} entries do not fit: restore the database from a backup.")
        number, seal = at.seen
        breaks[str(number)] = seal
        at = Walked(sequence=number, mac=AuditEvent.objects.get(sequence=number).mac)
    details: dict[str, object] = {"why": why, "found": [one.words for one in found][:20], "breaks": breaks}
    if kept.anchors:
        details["anchor"] = {"file": kept.anchors[-1].own_file, "number": kept.anchors[-1].number}
    if digest := anchors.fault_digest(kept):
        details["anchors_fault"] = digest
    return record(ACCEPTED, actor=actor, subject={}, details=details)
