"""What all commands share: how they are run, examples in their help, a quiet end when nothing reads their output."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any, ClassVar

from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter
from django.dispatch import Signal

command_runs = Signal()
"""Sent before a command runs that was typed behind ``manage.py``: ``command``, ``name``, ``arguments``."""


class Utility(ManagementUtility):
    """Django's way from an argument list to a command, which tells the receivers of ``command_runs`` first.

    ``manage.py`` starts without the collection of garbage; it begins when the command is there.
    """

    def fetch_command(self, subcommand: str) -> BaseCommand:
        command = super().fetch_command(subcommand)
        gc.freeze()  # all that was imported, which no collection has to look at any more
        gc.enable()
        if self.argv[1:2] == [subcommand]:
            command_runs.send(type(self), command=command, name=subcommand, arguments=self.argv[2:])
        return command


class _HelpFormatter(DjangoHelpFormatter):
    """Keeps the lines of a text that has some: the examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "\n".join(indent + line for line in text.splitlines())


class Pipe:
    """A stream whose reader may go away, as ``head`` does: what is written afterwards goes nowhere; work goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._let_go()

    def _let_go(self) -> None:
        # What is still in the buffer goes there as well: Python writes it at its end, and would complain then.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


class PortalCommand(BaseCommand):
    """Base of all commands.

    Attributes:
        examples: what somebody types after ``manage.py``; a remark may follow behind ``  # ``.
    """

    # Django's checks look at the code, all pages among it, and take longer than a short command's work. ``check`` runs
    # them, and the tests do; the settings are looked at when they are read, by each command.
    requires_system_checks = ()
    examples: ClassVar[tuple[str, ...]] = ()

    def __init__(self, stdout: Any = None, stderr: Any = None, **options: Any) -> None:
        streams: dict[str, Any] = {"stdout": Pipe(stdout or sys.stdout), "stderr": Pipe(stderr or sys.stderr)}
        super().__init__(**streams, **options)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        kwargs.setdefault("formatter_class", _HelpFormatter)
        lines = [f"  manage.py {example}" for example in self.examples]
        return super().create_parser(prog_name, subcommand, epilog="\n".join(["Examples:", *lines]), **kwargs)

    def execute(self, *args: Any, **options: Any) -> str | None:
        streams = {name: Pipe(options[name]) for name in ("stdout", "stderr") if options.get(name)}
        try:
            return super().execute(*args, **options | streams)
        finally:
            self.stdout.flush()
            self.stderr.flush()
