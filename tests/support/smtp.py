"""A mail server on loopback that keeps what it is given. It shares no code with what sends."""

from __future__ import annotations

import email
import email.policy
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import cast


@dataclass(slots=True, kw_only=True)
class Kept:
    """One mail as it arrived."""

    sender: str
    recipients: list[str]
    message: EmailMessage

    @property
    def text(self) -> str:
        part = self.message.get_body(("plain",))
        assert part is not None
        return str(part.get_content())

    @property
    def link(self) -> str:
        """The address of the consent link in the plain part."""
        match = re.search(r"https?://\S+/consent/[\w-]{43}/", self.text)
        assert match, self.text
        return match[0]


@dataclass(slots=True, kw_only=True)
class MailServer:
    """Its port, what it took, and how it shall behave."""

    port: int = 0
    kept: list[Kept] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    """Recipients that it does not know."""
    silent_after: int | None = None
    """When it has taken so many mails it takes one more and never says so; ``is_silent`` tells when."""
    hang_up_after: int | None = None
    """The same, but it hangs up."""
    closed_after: int | None = None
    """When it has taken so many mails it answers 421 to the next sender."""
    is_silent: threading.Event = field(default_factory=threading.Event)
    _end: threading.Event = field(default_factory=threading.Event)


class _Conversation(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = cast("_Listener", self.server).told
        self._say("220 here")
        sender = ""
        recipients: list[str] = []
        while line := self.rfile.readline().decode().rstrip("\r\n"):
            server.heard.append(line)
            verb, _, rest = line.partition(" ")
            address = rest[rest.find("<") + 1 : rest.find(">")]
            match verb.upper():
                case "MAIL" if server.closed_after is not None and len(server.kept) >= server.closed_after:
                    self._say("421 canary of the server, come back later")
                    return
                case "MAIL":
                    sender, recipients = address, []
                    self._say("250 fine")
                case "RCPT" if address in server.refuse:
                    self._say("550 canary of the server: nobody here")
                case "RCPT":
                    recipients.append(address)
                    self._say("250 fine")
                case "DATA":
                    self._say("354 go on")
                    taken = len(server.kept)
                    server.kept.append(Kept(sender=sender, recipients=recipients, message=self._read()))
                    if server.silent_after is not None and taken >= server.silent_after:
                        server.is_silent.set()
                        server._end.wait(30)
                        return
                    if server.hang_up_after is not None and taken >= server.hang_up_after:
                        return
                    self._say("250 taken")
                case "QUIT":
                    self._say("221 goodbye")
                    return
                case _:
                    self._say("250 fine")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def _read(self) -> EmailMessage:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        return email.message_from_bytes(b"".join(lines), policy=email.policy.default)


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, told: MailServer) -> None:
        self.told = told
        super().__init__(("127.0.0.1", 0), _Conversation)

    def handle_error(self, request: object, client_address: object) -> None:
        """A sender that was killed is no news."""


@contextmanager
def serving() -> Iterator[MailServer]:
    """Run a mail server for the duration of the block."""
    told = MailServer()
    with _Listener(told) as listener:
        assert listener.address_family == socket.AF_INET
        told.port = listener.server_address[1]
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield told
        finally:
            told._end.set()
            listener.shutdown()
            thread.join(10)
