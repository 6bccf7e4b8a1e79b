"""Where anchors of the audit trail are sent besides their file: a syslog server and an HTTP receiver, by setting.

A receiver gets one JSON object for each anchor (``portal.audit.anchors.Anchor``). It holds no secret, and its seal
shows whether it was changed on the way.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from urllib.parse import urlsplit

import certifi
import requests
from django.conf import settings

from portal.audit.anchors import Anchor
from portal.microsoft.http import GuardedSession
from portal.microsoft.secret import Secret

_SECONDS = 5.0  # to connect, and to send
_PRIORITY = 13 * 8 + 6  # facility "log audit", severity "informational": RFC 5424, 6.2.1


class NotTaken(Exception):
    """A receiver did not take an anchor; the text says why, without its address."""


def sinks() -> Mapping[str, Callable[[Anchor], None]]:
    """Return what sends an anchor, by the setting that asks for it. Each raises NotTaken."""
    found: dict[str, Callable[[Anchor], None]] = {}
    if settings.AUDIT_ANCHOR_SYSLOG:
        found["AUDIT_ANCHOR_SYSLOG"] = lambda anchor: to_syslog(settings.AUDIT_ANCHOR_SYSLOG, anchor)
    if (address := settings.AUDIT_ANCHOR_URL) is not None:
        found["AUDIT_ANCHOR_URL"] = lambda anchor: to_http(address, anchor)
    return found


def to_syslog(address: str, anchor: Anchor) -> None:
    """Send one message as RFC 5424 has it.

    Args:
        address: ``udp://host:514``, ``tcp://host:601``, ``tls://host:6514``, or the path of a socket such as
            ``/dev/log``.
    """
    parts = urlsplit(address)
    text = f"<{_PRIORITY}>1 {anchor.at} {anchor.host or '-'} cpv-portal - audit-anchor - {anchor.line}".encode()
    try:
        if not parts.scheme:
            _to_socket_file(parts.path, text)
        elif parts.scheme == "udp":
            family, kind, *_, target = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as sender:
                sender.sendto(text, target)
        else:
            _to_stream(parts.hostname or "", parts.port or 0, text, secure=parts.scheme == "tls")
    except (OSError, ssl.SSLError) as error:
        raise NotTaken(_why(error)) from None


def _to_socket_file(path: str, text: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_SECONDS)
        sender.connect(path)
        sender.send(text)


def _to_stream(host: str, port: int, text: bytes, *, secure: bool) -> None:
    """Send with octet counting (RFC 6587, 3.4.1)."""
    with socket.create_connection((host, port), timeout=_SECONDS) as plain:
        message = f"{len(text)} ".encode() + text
        if not secure:
            plain.sendall(message)
            return
        context = ssl.create_default_context(cafile=settings.OUTGOING_CA_FILE or certifi.where())
        with context.wrap_socket(plain, server_hostname=host) as wrapped:
            wrapped.sendall(message)


def to_http(address: Secret, anchor: Anchor) -> None:
    """Post one JSON object over https; any answer of 200 to 299 means that it was taken.

    Args:
        address: secret, as the addresses of most receivers hold a key.
    """
    try:
        answer = _session(urlsplit(address.reveal()).netloc).request(
            "POST", address.reveal(), data=anchor.line.encode(), headers={"Content-Type": "application/json"}
        )
    except requests.exceptions.RequestException as error:
        raise NotTaken(_why(error)) from None
    if not 200 <= answer.status_code < 300:
        raise NotTaken(f"it answered {answer.status_code}")


@cache
def _session(netloc: str) -> requests.Session:
    proxy = settings.OUTGOING_PROXY
    return GuardedSession(
        is_allowed=lambda asked: asked == netloc,
        ca_file=settings.OUTGOING_CA_FILE or None,
        proxies={"https": proxy} if proxy else None,
        pool_size=1,
        loopback=bool(settings.TEST_ENDPOINTS),
    )


def forget_session() -> None:
    """Build the session anew at the next call; settings may be others by then."""
    _session.cache_clear()


def _why(error: Exception) -> str:
    """Say it by the type: the texts of these exceptions carry addresses."""
    if isinstance(error, TimeoutError | requests.exceptions.Timeout):
        return "it gave no answer in time"
    if isinstance(error, ssl.SSLError | requests.exceptions.SSLError):
        return "its certificate was refused"
    return f"it cannot be reached ({type(error).__name__})"
