"""Many rows are written by one statement, each with its own values."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.bulk import update_each
from portal.runs.models import Run

pytestmark = pytest.mark.django_db
NOW = timezone.now()


def runs(number: int) -> list[Run]:
    return Run.objects.bulk_create(
        Run(kind="check", scope={"number": each}, scope_hash=str(each), actor_kind="command", actor="a person")
        for each in range(number)
    )


def test_each_row_gets_its_own_values_and_keeps_its_other_columns() -> None:
    rows = runs(3)
    for number, row in enumerate(rows):
        row.options = {"names": ["Müller & Söhne", None, number]}
        row.started_at = NOW + timedelta(minutes=number) if number else None
        row.rate, row.held = number / 2, bool(number)
        row.actor = "is not written"

    update_each(rows, ["options", "started_at", "rate", "held"])

    for number, row in enumerate(Run.objects.order_by("pk")):
        assert row.options == {"names": ["Müller & Söhne", None, number]}
        assert row.started_at == (NOW + timedelta(minutes=number) if number else None)
        assert (row.rate, row.held, row.actor) == (number / 2, bool(number), "a person")


def test_it_is_one_statement_for_any_number_of_rows_and_none_for_none() -> None:
    rows = runs(5)
    with CaptureQueriesContext(connection) as asked:
        update_each(rows, ["rate"])
        update_each([], ["rate"])
    assert len(asked) == 1


def test_a_row_that_is_gone_is_passed_over() -> None:
    gone, stays = runs(2)
    Run.objects.filter(pk=gone.pk).delete()
    gone.rate = stays.rate = 7.0

    update_each([gone, stays], ["rate"])

    assert list(Run.objects.values_list("rate", flat=True)) == [7.0]


def test_a_key_of_another_row_is_written_as_a_key() -> None:
    first, second = runs(2)
    second.origin = first

    update_each([second], ["origin"])

    assert Run.objects.get(pk=second.pk).origin == first


def test_a_constraint_of_the_database_holds() -> None:
    (row,) = runs(1)
    row.state = Run.State.DONE  # without finished_at

    with pytest.raises(IntegrityError):
        update_each([row], ["state"])
