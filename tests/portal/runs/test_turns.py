"""Whose turn it is: a partner gets its share of the threads, and one that must wait takes up none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from portal.runs.models import RunItem
from portal.runs.threads import Held
from portal.runs.turns import Turns


def waiting(turns: Turns, groups: Sequence[int]) -> None:
    for key, group in enumerate(groups, start=1):
        turns.waiting.append(Held(RunItem(pk=key, key=key, group=group), None))


def begun(turns: Turns, room: int, put_off: list[int] | None = None, held: Sequence[int] = ()) -> list[int]:
    off = [] if put_off is None else put_off
    chosen = turns.next(
        room,
        held_for=lambda group: 3.0 if group in held else 0.0,
        put_off=lambda unit, seconds: off.append(unit.item.pk),
    )
    return [unit.item.pk for unit in chosen]


def test_no_partner_gets_more_than_its_share_and_the_others_keep_their_order() -> None:
    turns = Turns(4, 0)
    waiting(turns, [1, 1, 1, 2, 2])
    assert begun(turns, 4) == [1, 2, 4, 5]  # two partners share four threads
    assert [unit.item.pk for unit in turns.waiting] == [3]
    assert turns.startable == 0


@pytest.mark.parametrize(("per_group", "expected"), [(0, [1, 2, 3, 4]), (1, [1]), (9, [1, 2, 3, 4])])
def test_a_partner_alone_gets_all_threads_unless_its_kind_allows_fewer(per_group: int, expected: list[int]) -> None:
    turns = Turns(4, per_group)
    waiting(turns, [1, 1, 1, 1, 1])
    assert begun(turns, 4) == expected


def test_who_ended_counts_no_more_for_the_shares() -> None:
    turns = Turns(4, 0)
    waiting(turns, [1, 2, 2, 2, 2])
    assert begun(turns, 4) == [1, 2, 3]
    turns.end(turns.running[1])
    assert begun(turns, 4) == [4, 5], "one partner is left, so it gets all"
    assert turns.busy


def test_a_partner_that_must_wait_is_put_off_and_takes_up_no_thread() -> None:
    turns, off = Turns(4, 0), list[int]()
    waiting(turns, [1, 2, 1])
    assert begun(turns, 4, off, held=[1]) == [2]
    assert off == [1, 3]


def test_what_fits_in_no_thread_is_startable() -> None:
    turns = Turns(2, 0)
    waiting(turns, [1, 2, 3, 4])
    assert begun(turns, 3) == [1, 2, 3]  # one lies ready
    assert (turns.startable, len(turns.running)) == (1, 3)
