"""Killing from outside: a process that forks others on demand, and SIGKILL that is waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def forking_process(module: str, directory: Path, key_file: Path) -> Iterator[Callable[[], int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.consent.vault.{module}", str(directory), str(key_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def fork() -> int:
        stdin.write("\n")
        stdin.flush()
        return int(stdout.readline())

    try:
        yield fork
    finally:
        stdin.close()
        stdout.close()
        process.wait(10)


def kill(process: int) -> None:
    """Kill and wait until the system has really ended it."""
    deadline = time.monotonic() + 10
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(process, signal.SIGKILL)
            time.sleep(0.001)
        pytest.fail("the writer does not die")
