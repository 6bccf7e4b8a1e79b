"""``python -m tests.roles`` writes the tables of docs/roles.md anew: each role tries everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/test_role_matrix.py"]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "CI": "1", "WRITE_ROLES": "1"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
