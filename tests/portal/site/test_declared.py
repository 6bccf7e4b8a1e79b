"""What classes of the admin declare in one line."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from portal.runs.models import Run
from portal.site.declared import badge_column, column, guid_column, moment_column, needs, path_column
from portal.site.display import Tone, badge

ROW = SimpleNamespace(
    name="Northwind",
    at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    never=None,
    link=SimpleNamespace(partner=SimpleNamespace(name="<b>", tenant_id="11111111-2222-4333-8444-555555555555")),
)


def shown(of: Any, row: Any = ROW) -> str:
    return str(of(None, row))


@pytest.mark.parametrize(
    ("declared", "description", "ordering", "part"),
    [
        (column("Name", lambda row: row.name), "Name", None, "Northwind"),
        (column("Name", lambda row: row.name, ordering="pk"), "Name", "pk", "Northwind"),
        (path_column("link__partner__name", "Partner"), "Partner", "link__partner__name", "<b>"),
        (path_column("name", "Length", len, sorts=False), "Length", None, "9"),
        (moment_column("at", "Read"), "Read", "at", "2026-01-02 03:04 UTC"),
        (moment_column("never", "Read", empty="never"), "Read", "never", "never"),
        (guid_column("link__partner__tenant_id", "Id", label="tenant id"), "Id", "link__partner__tenant_id", "copy"),
    ],
)
def test_a_column_has_its_words_its_order_and_its_cell(
    declared: Any, description: str, ordering: str | None, part: str
) -> None:
    assert declared.short_description == description
    assert getattr(declared, "admin_order_field", None) == ordering
    assert part in shown(declared)


def test_a_badge_is_the_label_of_the_choice_in_its_tone() -> None:
    declared = badge_column("state", "State", {Run.State.DONE: Tone.GOOD})

    assert shown(declared, Run(state="done")) == badge(Run.State.DONE.label, Tone.GOOD)
    assert declared.admin_order_field == "state"  # type: ignore[attr-defined]


def test_an_action_needs_the_permission_that_it_names() -> None:
    has_permission = needs("runs.steer_run")

    for held in ("runs.steer_run", "runs.view_run"):
        user = SimpleNamespace(has_perm=held.__eq__)
        assert has_permission(None, SimpleNamespace(user=user)) is (held == "runs.steer_run")
