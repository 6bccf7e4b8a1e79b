"""Rows that are inserted in one statement are those that Django would have written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import models, transaction

from consent.models import TokenUse
from portal.bulk import insert_all
from portal.microsoft.diagnosis import Owner
from portal.runs.models import RunItem
from tests.support import builders
from tests.support.work import Work

pytestmark = pytest.mark.django_db
AT = datetime(2026, 11, 30, 12, 34, 56, 789012, tzinfo=UTC)


def items() -> list[models.Model]:
    run = Work().start()
    common: dict[str, Any] = {"run": run, "group": 1, "turn": 0, "correlation_id": builders.guid()}
    done = {"state": RunItem.State.DONE, "finished_at": AT, "owner": Owner.US, "message": 'It\'s "so" – 100 %s'}
    return [
        RunItem(key=1, label="unit 1", **common),
        RunItem(key=2, label="unit 2", systemic=True, rank=-(2**40), **common, **done),
    ]


def uses() -> list[models.Model]:
    consent = builders.consent(builders.partner(), builders.registration())
    common: dict[str, Any] = {
        "partner": consent.partner,
        "registration": consent.registration,
        "at": AT,
        "last_at": AT,
        "audience": "graph",
        "purpose": TokenUse.Purpose.CHECK,
        "actor_kind": "command",
        "actor": "check_tokens",
        "issued": 1,
    }
    return [TokenUse(run=7, **common), TokenUse(address="2001:db8::1", cached=3, **common)]


def stored(rows: list[models.Model]) -> list[dict[str, Any]]:
    model = type(rows[0])
    found = model._default_manager.in_bulk([row.pk for row in rows])
    return [
        {field.attname: getattr(found[row.pk], field.attname) for field in model._meta.concrete_fields} for row in rows
    ]


@pytest.mark.parametrize("make", [items, uses])
def test_all_columns_are_as_bulk_create_writes_them(make: Any) -> None:
    rows, same = make(), make()
    with transaction.atomic():
        insert_all(rows)
    plain = stored(rows)
    type(rows[0])._default_manager.all().delete()
    type(rows[0])._default_manager.bulk_create(same)
    other = stored(same)

    for one in (*plain, *other):
        del one["id"]
        for own in ("run_id", "partner_id", "registration_id", "correlation_id"):
            one.pop(own, None)
    assert plain == other


def test_rows_can_be_saved_afterwards_and_none_is_nothing() -> None:
    insert_all([])
    rows = items()
    insert_all(rows)
    rows[0].attempts = 3  # type: ignore[attr-defined]
    rows[0].save()
    assert sorted(RunItem.objects.values_list("key", "attempts")) == [(1, 3), (2, 0)]


def test_a_value_of_another_kind_is_refused() -> None:
    row = items()[0]
    row.label = b"bytes"  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="bytes is no kind of value"):
        insert_all([row])
    assert not RunItem.objects.exists()
