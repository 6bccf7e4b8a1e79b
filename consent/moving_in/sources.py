"""Where refresh tokens come from that a vendor already has: lines on standard input, or another vault.

A source is read and never written. Its tokens are in the memory of one process: no exception, line or row has one.

Source: the sample of the secure application model keeps each token as a secret whose name is the partner's tenant id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from consent.vault.base import MAX_SECRET_BYTES, SecretDisabled, SecretName, StoredSecret
from portal.microsoft.api import parse_json
from portal.microsoft.errors import NotFound
from portal.microsoft.identifiers import InvalidIdentifier, TenantId, parse_tenant_id
from portal.microsoft.secret import Secret

LONGEST_LINE = 65_536  # bytes: a token of 25,000 whose characters are all escaped does not fit, and does not exist
MOST_LINES = 20_000


class TooManyTokens(ValueError):
    """More than one import takes; the text says how many that is."""

    def __init__(self) -> None:
        super().__init__(f"An import takes at most {MOST_LINES:,} tokens; divide the input.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One token of a source, without the token.

    Attributes:
        where: for people: ``line 7``, or the name of a secret.
        tenant_id: whose it is, as the source says; None where it does not say so in the right form.
        problem: what is wrong with its form; empty when nothing is.
    """

    where: str
    tenant_id: TenantId | None
    problem: str = ""


class TokenMissing(LookupError):
    """The source does not give this token; the text says why."""


class Source(Protocol):
    """Tokens by the tenant ids of partners."""

    @property
    def name(self) -> str:
        """What the audit trail and people call it."""

    @property
    def lines(self) -> Sequence[Line]:
        """All its tokens in their order, good or not."""

    def token(self, tenant_id: TenantId) -> Secret:
        """Return the token of the first good line with this tenant id.

        Raises:
            TokenMissing: the source has none, or has switched it off.
            RemoteError: the vault did not answer, or lets us read nothing.
        """


class JsonLines:
    """Lines of JSON, each ``{"tenant_id": "…", "refresh_token": "…"}``; blank lines say nothing.

    Raises:
        TooManyTokens: more than ``MOST_LINES``.
    """

    name = "standard input"

    def __init__(self, stream: BinaryIO) -> None:
        self._tokens: dict[TenantId, Secret] = {}
        self.lines: list[Line] = []
        for number, raw in _numbered(stream):
            if len(self.lines) == MOST_LINES:
                raise TooManyTokens
            self.lines.append(self._read(f"line {number}", raw))

    def token(self, tenant_id: TenantId) -> Secret:
        """See :meth:`Source.token`."""
        if tenant_id not in self._tokens:
            raise TokenMissing("The input has no token of this partner any more.")
        return self._tokens[tenant_id]

    def _read(self, where: str, raw: bytes) -> Line:
        if len(raw) > LONGEST_LINE:
            return Line(where=where, tenant_id=None, problem=f"It is longer than {LONGEST_LINE:,} bytes.")
        try:
            content = parse_json(raw)
        except ValueError:  # whose own text and members carry the line
            content = None
        if not isinstance(content, dict):
            return Line(where=where, tenant_id=None, problem="It is not one JSON object in UTF-8.")
        try:
            tenant_id = parse_tenant_id(str(content.get("tenant_id", "")))
        except InvalidIdentifier:
            return Line(where=where, tenant_id=None, problem="Its tenant_id is not the GUID of a tenant.")
        token = content.get("refresh_token")
        # RFC 6749, appendix A.17: visible ASCII characters. Anything else was damaged on its way.
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or " " in token:
            return Line(where=where, tenant_id=tenant_id, problem="Its refresh_token is not the text of a token.")
        if len(token) > MAX_SECRET_BYTES:
            return Line(where=where, tenant_id=tenant_id, problem="Its refresh_token is longer than a vault keeps.")
        self._tokens.setdefault(tenant_id, Secret(token))
        return Line(where=where, tenant_id=tenant_id)


def _numbered(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers; of a line that is too long only its beginning."""
    number = 0
    while raw := stream.readline(LONGEST_LINE + 1):
        number += 1
        rest = raw
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_LINE)
        if raw.strip():
            yield number, raw


class OtherVault(Protocol):
    """What an import may do with a vault that is not the portal's: Get and List."""

    def all_names(self) -> Iterator[str]:
        """Yield the names of all secrets. Raises RemoteError."""

    def read_newest(self, name: SecretName) -> StoredSecret:
        """Return the newest version. Raises RemoteError."""


class NamedByTenant:
    """The secrets of a vault whose names are tenant ids; each is read when its turn comes.

    Raises:
        TooManyTokens: more than ``MOST_LINES``.
        RemoteError: the vault does not list its secrets.
    """

    def __init__(self, vault: OtherVault, name: str) -> None:
        self.name = name
        self._vault = vault
        self.lines: list[Line] = []
        self.passed_over = 0
        """Secrets with other names."""
        for secret in vault.all_names():
            try:
                tenant_id = parse_tenant_id(secret)
            except InvalidIdentifier:
                self.passed_over += 1
                continue
            if len(self.lines) == MOST_LINES:
                raise TooManyTokens
            self.lines.append(Line(where=f"secret {tenant_id}", tenant_id=tenant_id))

    def token(self, tenant_id: TenantId) -> Secret:
        """See :meth:`Source.token`."""
        try:
            return self._vault.read_newest(SecretName(tenant_id)).value
        except SecretDisabled:
            raise TokenMissing("The newest version of this secret is switched off.") from None
        except NotFound:
            raise TokenMissing("The vault has no such secret any more.") from None
