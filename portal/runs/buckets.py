"""Limits that all processes share: one row per limit, and single statements that hand out time (R-22).

A process asks for the times at which its next calls may leave. The row knows when the next free time is; the statement
moves it on by as many calls as were asked for, so no two processes ever get the same time, and a whole second of
calls costs one statement. When a service complains, the rate goes down for everybody, and comes back step by step.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection

from portal.runs.models import RateBucket

LOWEST_SHARE = 0.1  # of the nominal rate; lower would stand still
_LOWER_BY = 0.7
_RAISE_BY = 0.1  # of the nominal rate, every so many seconds:
_RAISE_AFTER_SECONDS = 5.0
_LOWER_ONCE_IN_SECONDS = 1.0  # 64 refusals of one moment are one complaint


@dataclass(frozen=True, slots=True)
class Grant:
    """Times for so many calls: the first after ``delay`` seconds, the others ``1 / rate`` seconds apart."""

    calls: int
    delay: float
    rate: float


def take(name: str, nominal: float, calls: int) -> Grant:
    """Take the next free times of this limit; makes its row when there is none, or with another nominal rate."""
    table = connection.ops.quote_name(RateBucket._meta.db_table)
    now, greatest, least = _words()
    rate = (
        f"CASE WHEN {table}.nominal <> %s THEN %s "
        f"WHEN {table}.rate < {table}.nominal AND {now} - {table}.lowered_at > {_RAISE_AFTER_SECONDS} "
        f"THEN {least}({table}.nominal, {table}.rate + {table}.nominal * {_RAISE_BY}) ELSE {table}.rate END"
    )
    raised = (
        f"CASE WHEN {table}.rate < {table}.nominal AND {now} - {table}.lowered_at > {_RAISE_AFTER_SECONDS} "
        f"THEN {now} ELSE {table}.lowered_at END"
    )
    statement = (
        f"INSERT INTO {table} (name, nominal, rate, next_free, lowered_at) "  # noqa: S608
        f"VALUES (%s, %s, %s, {now} + %s, 0) ON CONFLICT (name) DO UPDATE SET "
        f"next_free = {greatest}({table}.next_free, {now}) + %s / {rate}, "
        f"rate = {rate}, lowered_at = {raised}, nominal = excluded.nominal "
        f"RETURNING next_free - {now}, rate"
    )
    again = [nominal, nominal]
    with connection.cursor() as cursor:
        cursor.execute(statement, [name, nominal, nominal, calls / nominal, float(calls), *again, *again])
        ahead, current = cursor.fetchone()
    return Grant(calls, max(ahead - calls / current, 0.0), current)


def complain(name: str, hold_seconds: float) -> None:
    """Slow this limit down for everybody after a 429, and let nothing leave for ``hold_seconds``."""
    table = connection.ops.quote_name(RateBucket._meta.db_table)
    now, greatest, _ = _words()
    lowered = f"{now} - lowered_at > {_LOWER_ONCE_IN_SECONDS}"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET next_free = {greatest}(next_free, {now} + %s), "  # noqa: S608
            f"rate = CASE WHEN {lowered} THEN {greatest}(nominal * {LOWEST_SHARE}, rate * {_LOWER_BY}) ELSE rate END, "
            f"lowered_at = CASE WHEN {lowered} THEN {now} ELSE lowered_at END WHERE name = %s",
            [hold_seconds, name],
        )


def _words() -> tuple[str, str, str]:
    """Return the database's words for now in seconds since 1970, for the greatest and for the least of two."""
    if connection.vendor == "postgresql":
        return "extract(epoch from clock_timestamp())::float8", "greatest", "least"
    return "((julianday('now') - 2440587.5) * 86400.0)", "max", "min"
