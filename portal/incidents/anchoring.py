"""Anchor the end of the audit trail outside the database, and tell staff when that fails (S-57, S-60)."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path

from django.conf import settings

from portal.audit import anchors
from portal.audit.anchors import ANCHORED, Anchor
from portal.audit.trail import SYSTEM, is_genuine, record
from portal.incidents.service import report, settle
from portal.incidents.sinks import NotTaken, sinks
from portal.microsoft.diagnosis import Owner

log = logging.getLogger(__name__)

NOT_ANCHORED = "audit_anchor_failed"
BEGUN_ANEW = "audit_anchors_begun_anew"
_FILE = "AUDIT_ANCHOR_FILE"


def anchor_file() -> Path | None:
    """Return the file of anchors; None where a process keeps none, as tests do."""
    return Path(settings.AUDIT_ANCHOR_FILE) if settings.AUDIT_ANCHOR_FILE else None


def anchor_now() -> str:
    """Write an anchor into its file and send it to the receivers; return what was done in a few words.

    It never fails: what a file or a receiver does not take is an incident, and the work of the portal goes on.
    """
    if (file := anchor_file()) is None:
        return "no file of anchors"
    try:
        anchor = anchors.append(file)
    except OSError as error:
        _not_taken(_FILE, f"the file cannot be written ({error.strerror or type(error).__name__})")
        return "not written"
    settle(NOT_ANCHORED, about=_FILE)
    if anchor.number == 1:
        _begun(anchor)
    log.info("audit anchor", extra={"sequence": anchor.sequence, "seal": anchor.mac, "anchor": anchor.seal})
    failed = [name for name, send in sinks().items() if not _sent(name, send, anchor)]
    taken = f"entry {anchor.sequence} anchored"
    return f"{taken}; not taken by {', '.join(failed)}" if failed else taken


def _sent(name: str, send: Callable[[Anchor], None], anchor: Anchor) -> bool:
    try:
        send(anchor)
    except NotTaken as why:
        _not_taken(name, str(why))
        return False
    settle(NOT_ANCHORED, about=name)
    return True


def _not_taken(name: str, why: str) -> None:
    log.warning("audit anchor not taken by %s: %s", name, why)
    report(
        NOT_ANCHORED,
        about=name,
        name=name,
        owner=Owner.US,
        words=(
            f"The end of the audit trail was not anchored by {name}: {why}. Until it is, entries that are cut off at "
            "the end do not show there. Put that right; the next anchor is written within 15 minutes."
        ),
    )


def _begun(anchor: Anchor) -> None:
    """Note in the trail that a file was begun; where the trail knows another one, a person must look."""
    before = anchors.begun_before()
    record(ANCHORED, actor=SYSTEM, subject={}, details={"file": anchor.own_file, "host": socket.gethostname()[:100]})
    if before is None or not is_genuine(before):
        return
    report(
        BEGUN_ANEW,
        about=f"file:{anchor.own_file}",
        name=anchor.host,
        owner=Owner.US,
        words=(
            f"A new file of anchors was begun on {anchor.host}; entry {before.sequence} of the audit trail knows "
            "another one. If that file was moved or lost, put it back, or compare the trail with what the log and the "
            "receivers hold. If this host is new, let all hosts share one file. Then settle this."
        ),
        subject={"sequence": before.sequence},
    )
