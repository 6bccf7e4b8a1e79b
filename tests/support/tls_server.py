"""A small TLS server on loopback that behaves exactly as badly as a test says, with a certificate of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOST = "graph.global.localhost"

type Connection = ssl.SSLSocket
type Handler = Callable[[Connection], None]
type RawHandler = Callable[[socket.socket], None]


class Authority:
    """A throw-away certificate authority."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        public_key = self._key.public_key()
        usage = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        self._certificate = (
            self._builder(self._name, days=1)
            .public_key(public_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, days: int) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=10))
            .not_valid_after(now + timedelta(days=days))
        )

    def context(self, host: str = HOST, *, days: int = 1) -> ssl.SSLContext:
        """Return a server's context with a certificate for ``host`` that ends in ``days`` days."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(x509.Name([]), days)
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"{host}-{days}-{key.private_numbers().private_value % 10**6}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


class Server:
    """Accepts until closed; each connection runs in a thread of its own."""

    def __init__(self, handle: RawHandler) -> None:
        self._handle = handle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"https://{HOST}:{self.port}"
        self.connections = 0
        self.handshakes = 0
        self.closing = threading.Event()
        self.live: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            with suppress(OSError):
                connection, _ = self._listener.accept()
                self.connections += 1
                connection.settimeout(5)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        # What a client does to a connection is not this server's concern.
        self.live.append(connection)
        with connection, suppress(OSError, ValueError):
            self._handle(connection)

    def close(self) -> None:
        self.closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(timeout=10)
        for one in self.live:  # whoever still reads from a kept connection would wait for its time limit
            with suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=10)


@contextmanager
def raw_server(handle: Callable[[socket.socket, threading.Event], None]) -> Iterator[Server]:
    """Run a server below TLS. ``handle`` also gets the event that ends the test."""
    server: Server
    server = Server(lambda connection: handle(connection, server.closing))
    try:
        yield server
    finally:
        server.close()


@contextmanager
def tls_server(context: ssl.SSLContext, handle: Callable[[Connection, threading.Event], None]) -> Iterator[Server]:
    """Run a server whose ``handle`` gets each connection after the handshake and before the request was read."""

    def wrapped(connection: socket.socket, closing: threading.Event) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            server.handshakes += 1
            server.live.append(secure)
            handle(secure, closing)

    with raw_server(wrapped) as server:
        yield server


def read_request(connection: Connection) -> bytes:
    """Return one request's head and what came with it."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65_536)
        if not part:
            break
        received += part
    return received


def good_answer(body: bytes = b"{}", headers: str = "") -> bytes:
    """Return a whole good answer."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body
