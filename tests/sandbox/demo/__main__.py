"""``make demo``: read the arguments, set the demo's own environment, and only then load the portal."""

import argparse

import django

from tests.sandbox.demo import environment

_parser = argparse.ArgumentParser(
    prog="python -m tests.sandbox.demo",
    description="From nothing to a running portal: sandbox, SQLite, embedded vault and eight example partners in the "
    "folder .demo (or DEMO_FOLDER), which is made anew; a folder that it did not make, or in which a demo runs, is "
    "left alone. Ctrl-C stops everything it started.",
)
_parser.add_argument("--seconds", type=int, default=0, help="stop by itself after this time (0: at Ctrl-C)")
_parser.add_argument("--https", action="store_true", help="over TLS, for browsers that drop Secure cookies over http")
_options = _parser.parse_args()

environment.set_environment(https=_options.https)
django.setup()

from tests.sandbox.demo import processes  # noqa: E402  # it loads models, which must find the demo's settings

try:
    processes.run(_options.seconds)
except environment.FolderRefused as refused:
    _parser.exit(2, f"{refused}\n")
except processes.DemoFailed as failed:
    _parser.exit(1, f"{failed}\n")
