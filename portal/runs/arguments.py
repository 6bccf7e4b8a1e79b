"""The arguments and exit codes of commands that run something. What works a run is not imported to parse them."""

from __future__ import annotations

from argparse import ArgumentParser

# Documented, and never given another meaning: scripts depend on them.
EXIT_SOME_FAILED = 1
EXIT_SYSTEMIC = 3
EXIT_BUSY = 75
_MOST_PROCESSES = 32
EXIT_CODES = (
    "Exit codes: 0 all good, 1 finished or ended early and not all are good, 2 usage, 3 stopped because the cause is "
    "on our side, 75 another process does this just now, 130 or 143 interrupted."
)


def add_run_arguments(parser: ArgumentParser, *, concurrency: int = 64, skips: bool = True) -> None:
    """Add the arguments of every command that runs something; ``skips``: its runs leave out what failed often.

    The units of the other commands are new in each run, so that nothing is known of them.
    """
    parser.add_argument("--concurrency", type=int, default=concurrency, metavar="N", help="units at once")
    add_processes(parser)
    parser.add_argument("--rate", type=float, default=0, metavar="N", help="at most N calls a second in all")
    parser.add_argument("--deadline", type=float, metavar="MINUTES", help="begin nothing new after this many minutes")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be worked; nothing is sent")
    if skips:
        parser.add_argument("--skipped", action="store_true", help="also try units that were skipped for failing often")
    parser.add_argument("--background", action="store_true", help="leave the work to the workers and return")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of text")


def add_processes(parser: ArgumentParser) -> None:
    """Add ``--processes``."""
    parser.add_argument(
        "--processes",
        type=int,
        choices=range(1, _MOST_PROCESSES + 1),
        default=1,
        metavar="N",
        help=f"processes that share the units at once, 1 to {_MOST_PROCESSES}; each can use one core",
    )
