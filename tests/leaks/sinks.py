"""The leak gate (S-37): collect every secret that passes, look for it in every place where it must not lie.

Decided here, and nowhere else:

* ``state`` and ``nonce`` may stand in the ``Location`` header that leads to the sign-in page; the flow cookie in its
  own ``Set-Cookie``.
* A link's token may stand on the page behind that link, as the page's own address, and where staff made it (the
  command's output, the one page that shows it). An access log of the web server holds it too: that is why a link is a
  locator and not an authority (S-01).
"""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import subprocess
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import CodeType
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, urlsplit

from django.contrib.sessions.models import Session
from django.core import mail
from django.db import connection
from django.http import HttpResponseBase

from portal.audit.models import AuditEvent
from portal.site.logs import ConsoleFormatter, JsonFormatter, RedactionFilter
from tests.support.portal import Browser
from tests.support.staff import Staff

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = tuple(str(ROOT / name) + "/" for name in ("portal", "tenants", "consent"))
SANDBOX = str(ROOT / "tests" / "sandbox") + "/"
PIECE = 12
COOKIE = "__Host-cpv-flow-token"
_MONITOR = 4  # sys.monitoring: 0 to 2 belong to debuggers, coverage and profilers


def forms(value: str) -> set[bytes]:
    """Return what to search for: cut, and written in each of the usual ways. Forms that hold another are left out."""
    raw = value.encode()
    found = {
        raw[:PIECE],
        raw[-PIECE:],
        raw,
        raw.hex().encode(),
        raw.hex().upper().encode(),
        quote(value, safe="").encode(),
        quote_plus(value).encode(),
        json.dumps(value)[1:-1].encode(),
        html.escape(value).encode(),
    }
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(bytes(offset) + raw)
            # Without the characters that what stands before and behind would change.
            found.add(encoded[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6])
    return {one for one in found if not any(other != one and other in one for other in found)}


class Canaries:
    """Secrets by kind, with their forms."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[str]] = defaultdict(set)
        self._lock = threading.Lock()

    def add(self, kind: str, *values: str) -> None:
        """Remember secrets. Short ones would be found by accident."""
        for value in values:
            if len(value) < 2 * PIECE:
                raise ValueError(f"a canary of {len(value)} characters proves nothing")
            with self._lock:
                self._kinds[kind].add(value)

    def kinds(self) -> set[str]:
        return set(self._kinds)

    def found_in(self, sinks: dict[str, bytes]) -> list[str]:
        """Return ``kind in sink`` for each secret that lies where it must not; never the secret itself."""
        hits = set()
        for kind, values in self._kinds.items():
            for form in {form for value in values for form in forms(value)}:
                hits |= {f"{kind} in {sink}" for sink, content in sinks.items() if form in content}
        return sorted(hits)


class RecordingBrowser(Browser):
    """A browser that keeps everything it was shown, and knows which of it was meant for it alone."""

    def __init__(self, canaries: Canaries, seen: list[bytes]) -> None:
        super().__init__()
        self._canaries = canaries
        self._seen = seen

    def request(self, **environ: Any) -> Any:
        response = super().request(**environ)
        self._keep(str(environ.get("PATH_INFO", "")), response)
        return response

    def _keep(self, path: str, response: HttpResponseBase) -> None:
        headers = dict(response.items())
        location = headers.get("Location", "")
        if re.search(r"/(oauth2/v2\.0/authorize|v2\.0/adminconsent)\?", location):
            query = parse_qs(urlsplit(headers.pop("Location")).query)
            self._canaries.add("state", *query["state"])
            self._canaries.add("nonce", *query.get("nonce", []))
        if COOKIE in response.cookies:
            self._canaries.add("flow cookie", response.cookies[COOKIE].value)
        body = b"".join(response) if response.streaming else getattr(response, "content", b"")
        parts = path.split("/")
        if parts[1:2] == ["consent"] and len(parts[2:3]) == 1 and len(parts[2]) == 43:
            self._canaries.add("link", parts[2])
            own = f"/consent/{parts[2]}/"
            for form in (own, quote(own, safe="")):  # the second one in the mail that passes the page on
                body = body.replace(form.encode(), b"[own address]")
        self._seen.append(repr(headers).encode() + body)


class RecordingStaff(RecordingBrowser, Staff):
    """Such a browser, of a superuser who is signed in."""


class Sinks:
    """Every place that keeps something. ``contents`` reads them all."""

    def __init__(self, *, files: Path, apart_from: set[str]) -> None:
        self.pages: list[bytes] = []
        self.printed: list[str] = []
        self._files = files
        self._apart_from = apart_from
        self._exceptions: dict[int, tuple[BaseException, str]] = {}
        self._streams = {"log as JSON": StringIO(), "log for a console": StringIO(), "our own raw log": StringIO()}

    @contextmanager
    def open(self) -> Iterator[None]:
        """Listen: each logger at DEBUG, through the production handlers and, for our own, without any redaction."""
        root = logging.getLogger()
        loggers = [root, *(one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
        before = [(one, one.level) for one in loggers]
        handlers = [self._handler(name, stream) for name, stream in self._streams.items()]
        for one in loggers:
            # Django's templates print their whole context for each variable they lack, megabytes for one page. What
            # is in it and matters is on the pages, which are a sink of their own.
            one.setLevel(logging.INFO if one.name == "django.template" else logging.DEBUG)
        for handler in handlers:
            root.addHandler(handler)
        try:
            with self._exceptions_kept():
                yield
        finally:
            for handler in handlers:
                root.removeHandler(handler)
            for one, level in before:
                one.setLevel(level)

    @staticmethod
    def _handler(name: str, stream: StringIO) -> logging.Handler:
        handler = logging.StreamHandler(stream)
        if name == "our own raw log":
            handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)r"))
            handler.addFilter(lambda record: record.name.partition(".")[0] in {"portal", "tenants", "consent"})
        else:
            handler.setFormatter(JsonFormatter() if name == "log as JSON" else ConsoleFormatter())
            handler.addFilter(RedactionFilter())
        return handler

    @contextmanager
    def _exceptions_kept(self) -> Iterator[None]:
        monitoring, raised = sys.monitoring, sys.monitoring.events.RAISE

        def keep(code: CodeType, offset: int, error: BaseException) -> None:
            if code.co_filename.startswith(OURS) and not code.co_filename.startswith(SANDBOX):
                text = "".join(traceback.TracebackException.from_exception(error, limit=0).format())
                self._exceptions[id(error)] = (error, f"{text} {error.args!r}")

        monitoring.use_tool_id(_MONITOR, "leaks")
        monitoring.register_callback(_MONITOR, raised, keep)
        monitoring.set_events(_MONITOR, raised)
        try:
            yield
        finally:
            monitoring.set_events(_MONITOR, monitoring.events.NO_EVENTS)
            monitoring.register_callback(_MONITOR, raised, None)
            monitoring.free_tool_id(_MONITOR)

    def contents(self) -> dict[str, bytes]:
        """Return every sink by name."""
        return {
            **{name: stream.getvalue().encode() for name, stream in self._streams.items()},
            "exceptions": "\n".join(text for _, text in self._exceptions.values()).encode(),
            "pages": b"\n".join(self.pages),
            "printed": "\n".join(self.printed).encode(),
            "mails": b"\n".join(_decoded(message) for message in mail.outbox),
            "database": _database(),
            "database file": _database_file(),
            "audit trail": repr(list(AuditEvent.objects.values_list())).encode(),
            "sessions": repr([one.get_decoded() for one in Session.objects.all()]).encode(),
            "files": b"\n".join(
                str(path).encode() + path.read_bytes()
                for path in self._files.rglob("*")
                if path.is_file() and path.name not in self._apart_from
            ),
        }


def _decoded(message: Any) -> bytes:
    """Return headers and bodies of a mail, free of any transfer encoding."""
    parts = [str(message.subject), str(message.body), repr(message.extra_headers), repr(message.to)]
    parts += [str(content) for content, _ in getattr(message, "alternatives", [])]
    return "\n".join(parts).encode() + bytes(message.message())


def _database() -> bytes:
    """Return every value of every table, also what this transaction has not committed."""
    parts: list[bytes] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608  # the database's own names
            for row in cursor.fetchall():
                parts += [
                    bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode() for value in row
                ]
    return b"\n".join(parts)


def _database_file() -> bytes:
    """Return the bytes of SQLite's files, with all that was deleted and not overwritten yet."""
    if connection.vendor != "sqlite":
        return b""
    name = str(connection.settings_dict["NAME"])
    files = [name + end for end in ("", "-wal", "-journal") if Path(name + end).is_file()]
    # Another process reads them: closing one of these files here would drop all locks that SQLite holds in this process
    # (POSIX), and the next process that closes the database would take its shared memory away under our connections.
    return subprocess.run(["/bin/cat", *files], check=True, capture_output=True).stdout
