"""The admin at full size: the overview, each list with each filter, order and search, the hubs, the search (R-29).

``python -m tests.bench.lists [--partners 10000] [--customers 50] [--database URL] [--keep FOLDER] [--only TEXT]`` fills
an empty database, asks each page as a member of staff in this process, and exports the customers that are not ready. It
prints the 95th percentile by the clock and of a processor (of this process and of its database), the goal and the
statements. It ends with 1 when a goal is missed by more than a tenth, a page asks too many statements, or the export
grows in memory. Pages that take less than half of their goal are left out of the table; ``--all`` prints them as well.
With ``--keep`` the database stays, and the next start with the same numbers uses it again.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from tests.bench import measured_portal
from tests.bench.checks import say
from tests.bench.figures import Figure, note


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partners", type=int, default=10_000)
    parser.add_argument("--customers", type=int, default=50, help="of each partner")
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database, which is emptied; else SQLite")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the filled database stays")
    parser.add_argument("--rounds", type=int, default=20, help="how often a page is asked that is not quick")
    parser.add_argument("--only", default="", help="measure the pages whose name holds this")
    parser.add_argument("--all", action="store_true", help="print also what is quick")
    options = parser.parse_args()
    with _folder(options.keep) as name:
        folder = Path(name)
        kept, filled = folder / "filled.json", [options.partners, options.customers, options.database]
        known = kept.exists() and json.loads(kept.read_text()) == filled
        if not known:
            for old in (kept, *folder.glob("db.sqlite3*")):
                old.unlink(missing_ok=True)
        settings = {
            "VAULT_URL": str(folder / "vault"),
            "VAULT_KEY_FILE": str(folder / "key"),
            "SERVE_STATIC_FROM_SOURCE": "true",
            "STAFF_PASSWORD_ALONE": "true",  # the member of staff is signed in without one
        }
        measured_portal.open_portal(folder, options.database, not known, **settings)
        from tests.bench import list_pages, many_rows
        from tests.support.staff import Staff

        began = time.perf_counter()
        if known:
            many_rows.measure_tables()  # there may be new indexes
        else:
            many_rows.fill_database(options.partners, options.customers)
            kept.write_text(json.dumps(filled))
        say(
            f"{options.partners:,} partners, {options.partners * options.customers:,} customers, "
            f"{'PostgreSQL' if options.database else 'SQLite'}, "
            f"{'kept' if known else f'filled in {time.perf_counter() - began:.0f} s'}"
        )
        staff = Staff()
        staff.get("/admin/")
        gc.collect()
        gc.freeze()  # as the web process at its start
        return measure_all(list_pages, staff, options)


def _folder(kept: Path | None) -> AbstractContextManager[str]:
    if kept is None:
        return tempfile.TemporaryDirectory()
    kept.mkdir(parents=True, exist_ok=True)
    return nullcontext(str(kept))


def measure_all(pages: Any, staff: Any, options: argparse.Namespace) -> int:
    """Measure and print; return the exit code."""
    say(f"{'p95 in ms':<66}{'clock':>7}{'busy':>7}{'goal':>6}{'statements':>12}")
    number = quick = missed = 0
    for page in pages.everything(staff, options.partners, options.customers):
        if options.only not in page.name:
            continue
        found = pages.measure(page, options.rounds)
        number += 1
        missed += not found.holds
        if found.seconds < page.seconds / 2 and found.holds and not options.all:
            quick += 1
            continue
        say(
            f"{page.name[:65]:<66}{1000 * found.wall:>7.0f}{1000 * found.busy:>7.0f}{1000 * page.seconds:>6.0f}"
            f"{found.statements:>12}{'' if found.holds else '  MISSED'}"
        )
        if not found.holds:
            say(found.slowest)
    note(Figure(name="lists, pages that miss their goal", value=missed, goal=0))
    say(f"{number} pages and searches, {quick} of them in less than half of the goal, {missed} missed it")
    if options.only:
        return 1 if missed else 0
    size, seconds, first, growth = pages.export(staff)
    grown = growth >= pages.MOST_GROWTH
    say(
        f"export of who is not ready: {seconds:.1f} s, the first bytes after {first:.2f} s, {size / 1e6:.0f} MB; "
        f"memory grew by {growth / 1024:.0f} MB{'  MISSED' if grown else ''}"
    )
    return 1 if missed or grown else 0


if __name__ == "__main__":
    sys.exit(main())
