"""What all commands share: examples in their help, and a quiet end when nothing reads their output any more."""

from __future__ import annotations

import os
import sys
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter


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
