"""``make demo`` as a process: for its test, and for the pictures of README."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.source import ROOT

START_SECONDS = 180  # README promises one minute, on a machine that does nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What a running demo printed, and its process."""

    process: subprocess.Popen[bytes]
    output: Path
    link: str
    staff: str
    password: str
    sandbox: str


@contextmanager
def running_demo(folder: Path, *arguments: str, seconds: float = START_SECONDS) -> Iterator[Demo]:
    """Start a demo in this folder, wait until it is ready, and stop it at the end as Ctrl-C does.

    Raises:
        AssertionError: it was not ready in time, or ended by itself; the text is what it printed.
    """
    others = {key: value for key, value in os.environ.items() if not key.startswith(("TEST_", "DJANGO_"))}
    output = folder.with_name(f"{folder.name}-output")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.sandbox.demo", "--seconds", "300", *arguments],
            cwd=ROOT,
            env=others | {"DEMO_FOLDER": str(folder), "PYTHONUNBUFFERED": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + seconds
        while "Ctrl-C stops everything" not in output.read_text():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < until, output.read_text()
            time.sleep(0.2)
        said = output.read_text()
        patterns = (r"A partner:\s+(\S+)", r"Staff:\s+(\S+)", r"password (\S+)", r"The sandbox:\s+(\S+)")
        link, staff, password, sandbox = (found[1] if (found := re.search(one, said)) else "" for one in patterns)
        yield Demo(process=process, output=output, link=link, staff=staff, password=password, sandbox=sandbox)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(40)
