"""A process for the kill -9 test: for each line on standard input it forks a writer that writes until it is killed.

Forking spares each round the start of an interpreter. Arguments: the vault's directory and its key file.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from pathlib import Path

from consent.vault.base import SecretName
from consent.vault.keys import KeyRing
from consent.vault.local import LocalVault
from portal.microsoft.secret import Secret

NAME = SecretName("rt-kill")
FILLING = "x" * 4_000


def value_of(number: int) -> str:
    """Return a value that shows by itself whether it is whole."""
    return f"CANARY:{number}:{FILLING}:{number}"


def write_for_ever(directory: Path, key_file: Path) -> None:
    vault = LocalVault(directory, KeyRing.open(key_file))
    before = None
    for number in count():
        version = vault.write(NAME, Secret(value_of(number)), tags={"generation": str(number)}, expires_at=None)
        if before is not None:
            vault.disable(NAME, before)
        before = version


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    directory, key_file = Path(sys.argv[1]), Path(sys.argv[2])
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            write_for_ever(directory, key_file)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
