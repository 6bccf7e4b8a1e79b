"""All benches in small, each figure beside its goal: ``python -m tests.bench``, or ``make bench``; under five minutes.

Each bench runs in processes of its own, so that one does not warm up the next. Ends with 1 when a goal is missed by
more than a tenth, or a bench fails. ``--only WORD`` runs the benches whose name begins with it. A machine that others
use too misses goals of the clock; figures of the processor say more there.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import measured_portal
from tests.bench.checks import say
from tests.bench.figures import FILE, HEAD, Figure, note, noted

_START = 0.6  # seconds until a command has said its help
_VAULT = {"VAULT_URL": "vault", "VAULT_KEY_FILE": "vault-key"}  # which a command that says its help does not open
BENCHES: Sequence[tuple[str, Sequence[str]]] = (
    ("commands", ["tests.bench", "--commands"]),
    ("checks", ["tests.bench.checks", "--partners", "500", "--rounds", "3", "--processes", "1,2", "--no-samples"]),
    ("failing_checks", ["tests.bench.failing_checks", "--partners", "500", "--only", "partners"]),
    ("consents", ["tests.bench.consents", "--customers", "600"]),
    ("customer_sync", ["tests.bench.customer_sync", "--customers", "2000,8000"]),
    ("lists", ["tests.bench.lists", "--partners", "200", "--customers", "10", "--only", "customer"]),
)


def commands() -> int:
    """Measure how long a command needs until it has said its help; the least of three."""
    found = []
    command = [sys.executable, "manage.py", "check_tokens", "--help"]
    known = os.environ | measured_portal.own_environment(Path(), "") | _VAULT
    for _ in range(3):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env=known, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append(min(busy, time.perf_counter() - began))
    note(Figure(name="start of a command", value=min(found), goal=_START, unit="s"))
    return 0


def run(name: str, arguments: Sequence[str], file: Path) -> bool:
    """Run one bench and tell whether it ended well. One that missed its own goals has noted figures, which say it."""
    say(f"\n--- {name}: python -m {' '.join(arguments)}")
    began, before = time.perf_counter(), len(list(noted(file)))
    ended = subprocess.run([sys.executable, "-m", *arguments], env=os.environ | {FILE: str(file)}, check=False)
    say(f"    {time.perf_counter() - began:.0f} s")
    return ended.returncode == 0 or len(list(noted(file))) > before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run the benches whose name begins with this")
    parser.add_argument("--commands", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.commands:
        return commands()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures"
        chosen = [bench for bench in BENCHES if bench[0].startswith(options.only)]
        failed = [name for name, arguments in chosen if not run(name, arguments, file)]
        figures = list(noted(file))
    say(f"\n{HEAD}")
    for figure in figures:
        say(figure.line())
    for name in failed:
        say(f"{name}: the bench itself failed")
    return 1 if failed or not all(figure.holds for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
