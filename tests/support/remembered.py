"""States that tests begin in: really made once, then put back.

Most tests begin behind a sign-in that is not what they are about. The first test of a process walks through it; what
that left in the database, in the vault's folder and in the sandbox is kept, and put back for the next tests that stand
where the first one stood. All is compared before: a test that changed a row, a file, a setting or the sandbox walks by
itself. So do tests that commit or travel in time, and all on PostgreSQL. What a process keeps in memory is not put
back: the test goes on as a process that has just started and opened its vault.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from pickle import dumps, loads  # a world of this process, copied ten times as fast as by deepcopy
from typing import Any

import time_machine
from django.conf import UserSettingsHolder, settings
from django.db import connection
from django.db.backends.utils import CursorWrapper

from consent import clients
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.world import World
from tests.support.databases import Rows, filled

SECONDS = 20.0
"""No time in a state that is put back is older than this, as it may be on a slow machine."""
# These name the same files in another folder. An Azure Key Vault is a part of the world.
_OF_EACH_TEST = {"VAULT_KEY_FILE", "VAULT_CREDENTIAL_FILE", "VAULT_RECONCILE_IDENTITY", "VAULT_ERASE_IDENTITY"}

type Files = dict[str, tuple[int, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that outlives a process. ``files``: by name, with their modes; ``world``: of the sandbox."""

    rows: Rows
    files: Files
    world: dict[str, Any]
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What an act made of a state."""

    before: State
    rows: Rows
    files: Files
    world: bytes
    result: Any
    until: float
    """By the monotonic clock."""


_remembered: dict[str, Remembered] = {}
_worlds: dict[str, tuple[bytes, float]] = {}
"""Fresh worlds, and until when they are, by the monotonic clock."""


def load_minimal(sandbox: Sandbox) -> None:
    """Give the sandbox a fresh world. Those of a few seconds are equal, or no state behind them could be put back."""
    name = f"minimal {sandbox.port}"
    world, until = _worlds.get(name, (b"", 0.0))
    if time.monotonic() < until:
        sandbox.world.clear()
        vars(sandbox.world).update(_copied(world))
        return
    scenarios.load(sandbox.world, "minimal", sandbox.clouds)
    _worlds[name] = (dumps(vars(sandbox.world)), time.monotonic() + SECONDS)


def again[T](name: str, world: World, act: Callable[[], T]) -> T:
    """Do ``act``, or put back what it did a moment ago from where we stand now; return what it returned.

    Args:
        name: the state's name.
        act: changes nothing but the database, the vault and the sandbox's world.
    """
    if not _may_put_back():
        return act()
    before = state(world)
    known = _remembered.get(name)
    if known is not None and time.monotonic() < known.until and before == known.before:
        _put_back(known, before, world)
        _start_anew()
        return known.result  # type: ignore[no-any-return]
    kept = replace(before, world=_copied(dumps(before.world)))
    result = act()
    after = state(world)
    _remembered[name] = Remembered(
        before=kept,
        rows=after.rows,
        files=after.files,
        world=dumps(after.world),
        result=result,
        until=time.monotonic() + SECONDS,
    )
    _start_anew()
    return result


def _copied(world: bytes) -> dict[str, Any]:
    return loads(world)  # type: ignore[no-any-return]  # noqa: S301  # our own


def _start_anew() -> None:
    """Know what a new process knows, whether the act was done or put back: no test may depend on which it was."""
    clients.reset()
    clients.vault()


def _may_put_back() -> bool:
    return (
        connection.vendor == "sqlite" and connection.in_atomic_block and not time_machine.escape_hatch.is_travelling()
    )


def _has_folder() -> bool:
    """Tell whether the embedded vault is used."""
    return bool(settings.VAULT_URL.startswith("/"))


def state(world: World) -> State:
    """Return where a test stands now."""
    return State(rows=_rows(), files=_files(), world=vars(world), settings=_changed_settings())


def _put_back(known: Remembered, before: State, world: World) -> None:
    with connection.cursor() as cursor:
        for table, rows in known.rows.items():
            had = before.rows.get(table, [])
            if rows == had:
                continue
            if rows[: len(had)] != had:
                cursor.execute(f'DELETE FROM "{table}"')  # noqa: S608  # the names are Django's
                had = []
            places = ", ".join(["%s"] * len(rows[0]))
            cursor.executemany(f'INSERT INTO "{table}" VALUES ({places})', rows[len(had) :])  # noqa: S608
        for table in before.rows.keys() - known.rows.keys():
            cursor.execute(f'DELETE FROM "{table}"')  # noqa: S608
    put_files(known.files)
    vars(world).update(_copied(known.world))


def put_files(files: Files) -> None:
    """Give the embedded vault, where it is used, these files and no others."""
    if not _has_folder():
        return
    shutil.rmtree(settings.VAULT_URL, ignore_errors=True)
    Path(settings.VAULT_URL).mkdir(mode=0o700)
    for name, (mode, content) in files.items():
        path = _path(name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode)
        path.write_bytes(content)


@cache
def _selects() -> dict[str, str]:
    """Return for each table of a model the statement that reads it. The plus keeps a column's stored form."""
    with connection.cursor() as cursor:
        return {
            table: f'SELECT {_columns(cursor, table)} FROM "{table}" ORDER BY 1'  # noqa: S608
            for table in connection.introspection.django_table_names(only_existing=True)
        }


def _columns(cursor: CursorWrapper, table: str) -> str:
    cursor.execute(f'PRAGMA table_info("{table}")')  # without the generated columns, which no statement may write
    return ", ".join(f'+"{name}"' for _, name, *_ in cursor.fetchall())


def _rows() -> Rows:
    found: Rows = {}
    for table in sorted(filled(_selects())):
        with connection.cursor() as cursor:
            cursor.execute(_selects()[table])
            found[table] = cursor.fetchall()
    return found


def _files() -> Files:
    """Return the embedded vault's files, and its key under an empty name."""
    if not _has_folder():
        return {}
    vault = Path(settings.VAULT_URL)
    paths = [path for path in vault.rglob("*") if path.is_file()]
    found = {str(path.relative_to(vault)): path for path in paths}
    with suppress(FileNotFoundError):
        return {
            name: (path.stat().st_mode & 0o777, path.read_bytes())
            for name, path in (found | {"": Path(settings.VAULT_KEY_FILE)}).items()
        }
    return {}


def _path(name: str) -> Path:
    return Path(settings.VAULT_URL) / name if name else Path(settings.VAULT_KEY_FILE)


def _changed_settings() -> dict[str, Any]:
    """Return what tests set, by name."""
    changed: dict[str, Any] = {}
    holder = vars(settings)["_wrapped"]
    while isinstance(holder, UserSettingsHolder):
        changed = {name: value for name, value in vars(holder).items() if name.isupper()} | changed
        holder = holder.default_settings
    left_out = _OF_EACH_TEST | ({"VAULT_URL"} if _has_folder() else set())
    return {name: value for name, value in changed.items() if name not in left_out}
