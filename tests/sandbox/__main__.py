"""``make sandbox``: run the local Microsoft in the foreground, on the ports that the settings name."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from tests.sandbox.server import Sandbox


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until a signal comes. What is wrong with the settings ends it with 1 and one clear line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sandbox",
        description="Run a local imitation of Microsoft (Entra, Partner Center, Graph, Key Vault) on this machine. "
        "Only where TEST_ENDPOINTS is set; Ctrl-C stops it.",
    )
    parser.add_argument("--scenario", default="minimal", choices=["empty", "minimal", "demo"])
    options = parser.parse_args(arguments)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    try:
        port, sign_in_port, ca_file = settings.TEST_ENDPOINTS, settings.TEST_SIGN_IN_PORT, Path(settings.TEST_CA_FILE)
    except ImproperlyConfigured as error:
        sys.exit(f"Configuration: {error}")
    if not port or ca_file.name != "ca.pem":
        sys.exit("Set TEST_ENDPOINTS to a free port and TEST_CA_FILE to a path ending in ca.pem first.")
    try:
        sandbox = Sandbox(ca_file.parent, port=port, browser_port=sign_in_port, scenario=options.scenario)
    except OSError as error:
        ports = f"TEST_ENDPOINTS={port} or TEST_SIGN_IN_PORT={sign_in_port}"
        sys.exit(f"{error.filename or ports} cannot be used: {error.strerror}.")
    _say(f"Sandbox on https://login.global.localhost:{sandbox.port} and the other hosts of its clouds.")
    _say(f"For a browser: http://control.localhost:{sandbox.browser_port}")
    _say(f"CA: {sandbox.ca_file}")

    def ready() -> None:
        # Until here a signal ends the process as it always does; from here on open requests are finished first.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sandbox.stop())
        _say("Ready. Ctrl-C stops it.")

    asyncio.run(sandbox.serve(ready))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
