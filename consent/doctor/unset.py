"""The doctor where the settings cannot be read, so that no command can start: before the first ``.env``, or after a
mistake in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from consent.doctor.sample import NoSample, env_lines, why_not
from consent.doctor.steps import as_json, summary, unreadable_settings

EXIT_FAILS, EXIT_USAGE = 1, 2


def answer(arguments: Sequence[str], why: str) -> int:
    """Say that the settings are what fails first, or read the sample's configuration all the same.

    Args:
        arguments: those behind ``doctor``.
        why: the sentence of the settings.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--from-sample", type=Path)
    known, _ = parser.parse_known_args(arguments)
    if known.from_sample is not None:
        return _say_sample(known.from_sample)
    report = unreadable_settings(why)
    _say(json.dumps(as_json(report, datetime.now(UTC)), ensure_ascii=False) if known.json else summary(report))
    return EXIT_FAILS


def _say_sample(path: Path) -> int:
    try:
        lines = list(env_lines(path))
    except (NoSample, OSError) as error:
        sys.stderr.write(f"{why_not(path, error)}\n")
        return EXIT_USAGE
    _say("\n".join(lines))
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
