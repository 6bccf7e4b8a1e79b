"""What an audit event says in a sentence: one vocabulary for every page and export that shows the trail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from portal.audit.models import AuditEvent
from portal.audit.walking import ACCEPTED, ARCHIVED, CHECKED
from portal.site.extension_points import extensions

Outcome = AuditEvent.Outcome

_OURS: Mapping[str, str] = {
    ACCEPTED: "What is wrong with the audit trail was taken note of",
    ARCHIVED: "Entries of the audit trail were moved to a file",
    CHECKED: "The audit trail was checked",
    "audit_trail.anchored": "A new file of anchors of the audit trail was begun",
    "command.run": "A command was run on the server",
    "filter.kept": "A filter was saved",
    "filter.removed": "A saved filter was removed",
    "list.exported": "A list was exported",
    "settings.in_force": "The portal was started, with these settings in force",
    "trail.read": "The audit trail was read",
    "page.refused": "A page or an action was refused to a member of staff",
    "right.refused": "Something was refused because the right to it was missing",
}


@cache
def _words() -> Mapping[str, str]:
    """Return the sentences by action, and by ``action:outcome`` where an outcome has one of its own."""
    return {**_OURS, **{name: text for extension in extensions() for name, text in extension.audit_words.items()}}


def in_a_sentence(action: str, outcome: str) -> str:
    """Return what happened; an action that no app declares any more is said by its own words."""
    words = _words()
    plain = words.get(action) or action.replace(".", " ").replace("_", " ").capitalize()
    return words.get(f"{action}:{outcome}", plain)


def known_actions() -> frozenset[str]:
    """Return the actions that have a sentence."""
    return frozenset(name.partition(":")[0] for name in _words())


def sentences() -> Iterator[tuple[str, str]]:
    """Yield ``action:outcome`` with its sentence, for all that are known."""
    for action in sorted(known_actions()):
        for outcome in Outcome.values:
            yield f"{action}:{outcome}", in_a_sentence(action, outcome)
