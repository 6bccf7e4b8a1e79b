"""What a person holds: an authenticator app, and a passkey of their own making (RFC 6238, WebAuthn Level 3)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import struct
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def app_code(key: str, steps: int = 0) -> str:
    """Return what an authenticator app with this key shows now, or so many half minutes later."""
    counter = struct.pack(">Q", int(time.time()) // 30 + steps)
    digest = hmac.digest(base64.b32decode(key), counter, hashlib.sha1)
    place = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[place : place + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(slots=True, kw_only=True)
class Passkey:
    """A passkey for one site; what a test changes is what a bad browser or a bad site would."""

    host: str = "portal.localhost"
    origin: str = "https://portal.localhost"
    flags: int = PRESENT | VERIFIED
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    number: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    user: str = ""

    def _client_data(self, kind: str, options: dict[str, Any]) -> bytes:
        return json.dumps({"type": kind, "challenge": options["challenge"], "origin": self.origin}).encode()

    def _data(self, flags: int, more: bytes = b"") -> bytes:
        return hashlib.sha256(self.host.encode()).digest() + bytes([flags]) + bytes(4) + more

    def made(self, options: str) -> str:
        """Answer ``navigator.credentials.create`` with these options."""
        asked = json.loads(options)
        self.user = asked["user"]["id"]
        numbers = self.key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + struct.pack(">H", len(self.number)) + self.number + cbor.encode(public)
        data = self._data(self.flags | ATTESTED, attested)
        attestation = cbor.encode({"fmt": "none", "attStmt": {}, "authData": data})
        response = {
            "clientDataJSON": _text(self._client_data("webauthn.create", asked)),
            "attestationObject": _text(attestation),
        }
        return self._answer(response)

    def used(self, options: str) -> str:
        """Answer ``navigator.credentials.get`` with these options."""
        client_data = self._client_data("webauthn.get", json.loads(options))
        data = self._data(self.flags)
        signature = self.key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": _text(client_data),
            "authenticatorData": _text(data),
            "signature": _text(signature),
            "userHandle": self.user,
        }
        return self._answer(response)

    def _answer(self, response: dict[str, str]) -> str:
        number = _text(self.number)
        answer = {"id": number, "rawId": number, "type": "public-key", "response": response}
        return json.dumps({**answer, "clientExtensionResults": {}})
