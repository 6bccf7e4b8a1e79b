"""A process for the kill -9 tests of a rotation: for each line on standard input it forks one that rotates the key.

Forking spares each round the start of an interpreter. Arguments: the vault's directory and its key file.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from consent.vault.rotation import rotate


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    directory, key_file = Path(sys.argv[1]), Path(sys.argv[2])
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            rotate(directory, key_file, progress=lambda done, of: None)
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
