"""Limits that all processes share: one row per limit, and single statements that hand out time (R-22).

A process asks for the times at which its next calls may leave. The row knows when the next free time is; the statement
moves it on by as many calls as were asked for, so no two processes ever get the same time, and a whole second of
calls costs one statement. When a service complains, the rate goes down for everybody, and comes back step by step;
after two minutes without another complaint it is the nominal one again, whether anybody called meanwhile or not.

The times are of the database's clock, which may jump and be set right again (R-42). So none counts that lies further
ahead than the longest wait, and none that says that a complaint is still to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from portal.microsoft.http import MAX_RETRY_AFTER_SECONDS
from portal.runs.models import RateBucket

LOWEST_SHARE = 0.1  # of the nominal rate; lower would stand still
_BELOW = 0.95  # of what the service took until it complained; and of the rate, whatever it took
_LOWER_AT_MOST = 0.4  # by one complaint: what was taken in a moment may say little
_RAISE_BY = 1.05  # at least; half of the way to what was refused if that is more
_PATIENCE, _LONGEST_PATIENCE = 20.0, 120.0  # seconds; twice as long after each try that was refused
QUIET = 120.0  # seconds without a complaint, after the wait that it asked for; then it is over
_ONE_MOMENT = 1.0  # seconds in which 64 refusals are one complaint
_LONGEST_AHEAD = 60.0  # seconds until the next free time, when no service asked for more
_QUEUE = 64.0  # calls that stand in line for a slow limit: twice as many as one command has processes


@dataclass(frozen=True, slots=True)
class Grant:
    """Times for ``calls`` calls: the first after ``delay`` seconds, the others ``1 / rate`` seconds apart."""

    calls: int
    delay: float
    rate: float


def take(name: str, nominal: float, calls: int) -> Grant:
    """Take the next free times of this limit; makes its row when there is none, or with another nominal rate."""
    table = connection.ops.quote_name(RateBucket._meta.db_table)
    now, greatest, least = _words()
    is_over = f"abs({now} - {table}.refused_at) > {table}.held_for + {QUIET}"
    has_waited = f"abs({now} - {table}.changed_at) > {table}.patience"
    is_due = f"({table}.rate < {table}.nominal AND ({is_over} OR {has_waited}))"
    half_way = f"({table}.rate + {table}.refused_rate) / 2"
    step = f"{least}({table}.nominal, {greatest}({table}.rate * {_RAISE_BY}, {half_way}))"
    higher = f"CASE WHEN {is_over} THEN {table}.nominal ELSE {step} END"
    rate = f"CASE WHEN {table}.nominal <> %s THEN %s WHEN {is_due} THEN {higher} ELSE {table}.rate END"
    statement = (
        f"INSERT INTO {table} "  # noqa: S608
        "(name, nominal, rate, next_free, refused_at, held_for, refused_rate, good_rate, changed_at, patience) "
        f"VALUES (%s, %s, %s, {now} + %s, 0, 0, 0, 0, 0, {_PATIENCE}) ON CONFLICT (name) DO UPDATE SET "
        f"next_free = {_free(table)} + %s / {rate}, rate = {rate}, nominal = excluded.nominal, "
        f"good_rate = CASE WHEN {is_due} THEN {table}.rate ELSE {table}.good_rate END, "
        f"changed_at = CASE WHEN {is_due} THEN {now} ELSE {table}.changed_at END "
        f"RETURNING next_free - {now}, rate"
    )
    again = [nominal, nominal]
    with connection.cursor() as cursor:
        cursor.execute(statement, [name, nominal, nominal, calls / nominal, float(calls), *again, *again])
        ahead, current = cursor.fetchone()
    return Grant(calls, max(ahead - calls / current, 0.0), current)


def _free(table: str) -> str:
    """Return the words for when the next call may leave: now, or later, but not later than is ever waited."""
    now, greatest, _ = _words()
    longest_hold = MAX_RETRY_AFTER_SECONDS + _LONGEST_AHEAD
    lately = f"{now} - {table}.refused_at BETWEEN 0 AND {longest_hold}"
    asked = f"CASE WHEN {lately} THEN {longest_hold} ELSE {_LONGEST_AHEAD} END"
    longest = f"{greatest}({asked}, {_QUEUE} / {table}.rate)"
    return f"CASE WHEN {table}.next_free BETWEEN {now} AND {now} + {longest} THEN {table}.next_free ELSE {now} END"


def waits(least_seconds: float) -> Sequence[tuple[str, float]]:
    """Return the limits whose next call leaves only after ``least_seconds`` or more, with the seconds; one query."""
    table = connection.ops.quote_name(RateBucket._meta.db_table)
    ahead = f"{_free(table)} - {_words()[0]}"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT name, {ahead} FROM {table} WHERE {ahead} >= %s ORDER BY name",  # noqa: S608
            [least_seconds],
        )
        return list(cursor.fetchall())


def complain(name: str, hold_seconds: float, taken: float) -> None:
    """Slow this limit down for all executors after a 429, and let nothing leave for ``hold_seconds``.

    The new rate is a little less than what the service took. A higher one that was only tried is taken back to the one
    that was good; trying waits longer the next time, but never longer than two quiet minutes. The executor that
    complains gives up the times that it was handed before, so the next ones begin right after the hold.

    Args:
        taken: calls a second of all processes that the service answered until it began to refuse.
    """
    table = connection.ops.quote_name(RateBucket._meta.db_table)
    now, greatest, least = _words()
    is_new = f"(abs({now} - refused_at) > {_ONE_MOMENT})"
    was_tried = "(good_rate > 0 AND good_rate < rate)"
    wanted = f"{greatest}(rate * {_LOWER_AT_MOST}, {least}(rate, {taken:f}) * {_BELOW})"
    lower = f"{greatest}(nominal * {LOWEST_SHARE}, {wanted})"
    columns = {
        "rate": f"CASE WHEN {was_tried} THEN good_rate ELSE {lower} END",
        "patience": f"CASE WHEN {was_tried} THEN {least}({_LONGEST_PATIENCE}, patience * 2) ELSE {_PATIENCE} END",
        "good_rate": f"CASE WHEN {was_tried} THEN good_rate ELSE 0 END",
        "refused_rate": f"CASE WHEN {was_tried} THEN rate ELSE {least}(rate, {greatest}({taken:f}, {lower})) END",
        "refused_at": now,
        "changed_at": now,
    }
    hold = min(hold_seconds, MAX_RETRY_AFTER_SECONDS)
    written = ", ".join(f"{one} = CASE WHEN {is_new} THEN {value} ELSE {one} END" for one, value in columns.items())
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET next_free = {now} + %s, held_for = %s, {written} WHERE name = %s",  # noqa: S608
            [hold, hold, name],
        )


def _words() -> tuple[str, str, str]:
    """Return the database's words for now in seconds since 1970, for the greatest and for the least of two."""
    if connection.vendor == "postgresql":
        return "extract(epoch from clock_timestamp())::float8", "greatest", "least"
    return "((julianday('now') - 2440587.5) * 86400.0)", "max", "min"
