import asyncio
import signal
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from portal.commands import PortalCommand


class Command(PortalCommand):
    help = (
        "Run a local imitation of Microsoft (Entra, Partner Center, Graph, Key Vault) on this machine. Only where "
        "TEST_ENDPOINTS is set; Ctrl-C stops it."
    )
    examples = ("sandbox --scenario demo",)
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--scenario", default="minimal", choices=["empty", "minimal", "demo"])

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.TEST_ENDPOINTS or Path(settings.TEST_CA_FILE).name != "ca.pem":
            raise CommandError("Set TEST_ENDPOINTS to a free port and TEST_CA_FILE to a path ending in ca.pem first.")
        try:
            from tests.sandbox.server import Sandbox
        except ModuleNotFoundError as error:
            raise CommandError(f"{error.name} is missing: the sandbox needs requirements-dev.txt.") from None
        try:
            sandbox = Sandbox(
                Path(settings.TEST_CA_FILE).parent,
                port=settings.TEST_ENDPOINTS,
                browser_port=settings.TEST_SIGN_IN_PORT,
                scenario=options["scenario"],
            )
        except OSError as error:
            ports = f"TEST_ENDPOINTS={settings.TEST_ENDPOINTS} or TEST_SIGN_IN_PORT={settings.TEST_SIGN_IN_PORT}"
            raise CommandError(f"{error.filename or ports} cannot be used: {error.strerror}.") from None
        self.stdout.write(
            f"Sandbox on https://login.global.localhost:{sandbox.port} and the other hosts of its clouds."
        )
        self.stdout.write(f"Pages for a browser: http://login.global.localhost:{sandbox.browser_port}")
        self.stdout.write(f"Control: http://control.localhost:{sandbox.browser_port}/state    CA: {sandbox.ca_file}")

        def ready() -> None:
            # Until here a signal ends the process as it always does; from here on open requests are finished first.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: sandbox.stop())
            self.stdout.write("Ready. Ctrl-C stops it.")

        asyncio.run(sandbox.serve(ready))
