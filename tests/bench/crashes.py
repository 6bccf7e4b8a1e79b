"""Kill workers at every point of a renewal, many times, and print what became of the tokens (R-01, R-02).

``python -m tests.bench.crashes [--rounds 20]`` runs the tests of ``tests/consent/tokens/test_crashes.py`` that many
times for each kill point, with both vaults and both rotation switches. Ends with 1 when a round does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

TESTS = "tests/consent/tokens/test_crashes.py"
NAME = "killed_at_any_point"
PLACES = 5 * 2 * 2  # kill points, vaults, rotation switches


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="for each kill point, vault and rotation switch")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table"
        # Without RUN_SLOW the suite leaves one of the vaults out.
        environment = {**os.environ, "RUN_SLOW": "1", "CRASH_ROUNDS": str(rounds), "CRASH_TABLE": str(table)}
        command = [sys.executable, "-m", "pytest", TESTS, "-k", NAME, "-q", "-p", "no:cacheprovider", "-n", "0"]
        failed = subprocess.run(command, env=environment, check=False).returncode
        lines = [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []
    held = Counter((line["point"], line["vault"], line["strict"], line["outcome"]) for line in lines)
    sys.stdout.write(f"{'killed at':<50} {'vault':<6} {'rotation':<8} rounds  each ended\n")
    for (point, vault, strict, outcome), number in sorted(held.items()):
        sys.stdout.write(f"{point:<50} {vault:<6} {'strict' if strict else 'lenient':<8} {number:>6}  {outcome}\n")
    wanted = rounds * PLACES
    sys.stdout.write(f"{len(lines)} of {wanted} rounds hold: no token lost elsewhere, one current, nothing left over\n")
    return int(bool(failed) or len(lines) != wanted)


if __name__ == "__main__":
    sys.exit(main())
