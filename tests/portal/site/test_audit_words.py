"""Each action of the audit trail has a sentence, the same on the trail's pages, a partner's tab and in files.

Covers: consent.words.actions.
"""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse

from consent.models import WaitingToken
from portal.audit.anchors import ANCHORED
from portal.audit.models import AuditEvent
from portal.audit.trail import Outcome, record
from portal.audit.walking import ACCEPTED, ARCHIVED, CHECKED
from portal.runs.results import FINISHED, FORGOTTEN
from portal.site.audit_words import in_a_sentence, known_actions
from portal.site.extension_points import extensions
from portal.start import IN_FORCE
from tests.support import builders
from tests.support.source import modules
from tests.support.staff import Staff

_ACTION = re.compile(r"[a-z_]+\.[a-z_]+")
# Functions that write an event, with the place of the action among their arguments.
_WRITERS = {
    "record": 0,
    "_record": 0,
    "Entry": 0,
    "_decide": 2,
    "_steer": 2,
    "write_event": 0,
    "_refusal": 0,
    "_end_undone": 2,
}
# Actions that are put together from the values of a variable.
_MADE_OF_PARTS = {
    "f'account.{decision.value}'": {f"account.{one}" for one in WaitingToken.Decision.values if one != "waiting"},
    "f'customer_consent.{verb}'": {"customer_consent.create", "customer_consent.remove"},
}


def _texts(node: ast.expr) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and _ACTION.fullmatch(part.value):
            yield part.value


def written() -> set[str]:
    """Return the actions that the source writes to the trail."""
    by_a_name = {
        ACCEPTED,
        ANCHORED,
        ARCHIVED,
        CHECKED,
        FINISHED,
        FORGOTTEN,
        IN_FORCE,
        "token.stored",
        "token.discarded",
    }
    found = set(by_a_name)
    calls = (node for path in modules() for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    for call in calls:
        place = _WRITERS.get(getattr(call.func, "id", getattr(call.func, "attr", "")))
        if place is not None and len(call.args) > place:
            action = call.args[place]
            found |= _MADE_OF_PARTS.get(ast.unparse(action)) or set(_texts(action))
    words = {getattr(page, "audit_word", "") for page in admin.site._registry.values()} - {""}
    return found | {f"{word}.changed" for word in words} | {f"{word}.created" for word in words}


def test_each_action_that_is_written_has_a_sentence_and_no_other() -> None:
    actions = written()
    assert len(actions) > 80
    assert actions - known_actions() == set(), "say in words what happened: AdminExtension.audit_words"
    assert known_actions() - actions == set(), "nothing writes these any more"


def test_sentences_begin_like_one_and_are_told_apart() -> None:
    known = [text for extension in extensions() for text in extension.audit_words.values()]
    assert len(known) == len(set(known))
    assert all(text[0].isupper() and not text.endswith(".") and len(text) < 100 for text in known)


def test_an_outcome_may_have_its_own_sentence_and_what_is_not_known_its_own_words() -> None:
    assert in_a_sentence("link.sent", Outcome.DONE) == "A consent link was sent by e-mail"
    assert in_a_sentence("link.sent", Outcome.FAILED) == "Sending a consent link by e-mail failed"
    assert in_a_sentence("link.issued", Outcome.REFUSED) == "A consent link was made"
    assert in_a_sentence("old_thing.was_done", Outcome.DONE) == "Old thing was done"


@pytest.mark.django_db
def test_all_pages_and_the_file_say_the_same_sentence() -> None:
    partner = builders.partner(name="Harbour")
    record("link.sent", actor=builders.ACTOR, outcome=Outcome.FAILED, subject={"partner": partner.pk})
    record("partner.disabled", actor=builders.ACTOR, subject={"partner": partner.pk})
    staff, trail = Staff(), reverse("admin:audit_auditevent_changelist")
    event = AuditEvent.objects.get(action="link.sent")
    pages = [
        staff.get(trail),
        staff.get(reverse("admin:tenants_partnertenant_audit", args=[partner.pk])),
        staff.get(reverse("admin:audit_auditevent_change", args=[event.pk])),
    ]
    for page in pages:
        shown = page.content.decode()
        assert "Sending a consent link by e-mail failed" in shown
        assert "link.sent" not in shown.replace("?action=link.sent", "").replace("&amp;action=link.sent", "")
    assert "<h1>1: Sending a consent link by e-mail failed</h1>" in pages[2].content.decode()
    assert ">The partner was disabled</a>" in pages[0].content.decode()  # a choice of the filter
    narrowed = staff.get(trail, {"action": "partner.disabled"})
    assert [one.action for one in narrowed.context["cl"].result_list] == ["partner.disabled"]
    file: Any = staff.post(trail, {"action": "export_csv", "_selected_action": [event.pk], "index": 0})
    [row] = csv.DictReader(io.StringIO(b"".join(file.streaming_content).decode()))
    assert row["What happened"] == "Sending a consent link by e-mail failed"
    assert row["Action"] == "link.sent"
