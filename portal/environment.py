"""Read the process environment strictly: a misspelt boolean or an unreadable file stops the start."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from environ import Env

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


class Environment:
    """The only reader of the environment. ``NAME_FILE`` may hold the path of a file with the value of ``NAME``."""

    def __init__(self, env_file: Path | None = None) -> None:
        self._env = Env()
        self.files: list[str] = []
        """The files that were read for ``NAME_FILE``, which hold keys and passwords."""
        if env_file is not None and env_file.is_file():
            self._env.read_env(str(env_file))

    def text(self, name: str, default: str | None = None) -> str:
        """Return the value; unset or empty means the default, and without a default the variable is required."""
        value = self._read(name).strip()
        if value:
            return value
        if default is None:
            raise ImproperlyConfigured(f"Set {name} (or {name}_FILE); .env.example says what it is for")
        return default

    def _read(self, name: str) -> str:
        # Not through django-environ's casts: they take a value that begins with $ for another variable's name.
        if path := self._env.ENVIRON.get(f"{name}_FILE"):
            self.files.append(path)
            try:
                return Path(path).read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "it is no text"
                raise ImproperlyConfigured(f"{name}_FILE names {path}, which cannot be read: {reason}") from None
        value = str(self._env.ENVIRON.get(name, ""))
        if value.startswith("$"):
            raise ImproperlyConfigured(f"{name} begins with $, but nothing is replaced here; put it into {name}_FILE")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean; anything but true/false, yes/no, on/off, 1/0 is refused."""
        value = self.text(name, "").lower()
        if not value:
            return default
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise ImproperlyConfigured(f"{name} must be true or false")

    def number(self, name: str, default: int, *, minimum: int = 0, maximum: int = 1_000_000_000) -> int:
        """Return a whole number within the bounds."""
        value = self.text(name, str(default))
        if not value.isdecimal() or not minimum <= int(value) <= maximum:
            raise ImproperlyConfigured(f"{name} must be a whole number from {minimum} to {maximum}")
        return int(value)

    def choice(self, name: str, default: str, allowed: Sequence[str]) -> str:
        """Return one of the allowed words."""
        value = self.text(name, default)
        if value not in allowed:
            raise ImproperlyConfigured(f"{name} must be one of {', '.join(allowed)}")
        return value

    def words(self, name: str, default: tuple[str, ...] = ()) -> list[str]:
        """Return a comma separated list without blanks."""
        value = self.text(name, ",".join(default))
        return [word.strip() for word in value.split(",") if word.strip()]

    def guids(self, name: str, default: tuple[str, ...]) -> list[str]:
        """Return a comma separated list of GUIDs in their canonical form; at least one."""
        try:
            found = [str(UUID(word)) for word in self.words(name, default)]
        except ValueError:
            found = []
        if not found:
            raise ImproperlyConfigured(f"{name} takes GUIDs, separated by commas")
        return found

    def networks(self, name: str) -> list[str]:
        """Return a comma separated list of IP networks in CIDR form, an address as a network of one."""
        try:
            return [str(ip_network(word)) for word in self.words(name)]
        except ValueError:
            raise ImproperlyConfigured(
                f"{name} takes IP addresses or networks such as 203.0.113.0/28, separated by commas"
            ) from None

    def database(self, name: str, default: str) -> dict[str, object]:
        """Return Django's settings for the database at this address."""
        address = self.text(name, default)
        found: dict[str, object] = {}
        if address.startswith(("sqlite:///", "postgres://", "postgresql://")):
            with suppress(ValueError, KeyError):
                found = dict(self._env.db_url_config(address))
        if not found.get("NAME"):
            raise ImproperlyConfigured(
                f"{name} must look like sqlite:////path/db.sqlite3 or postgres://user:password@host/database"
            )
        return found


def readers(first: Sequence[str], more: str) -> dict[str, tuple[str, str]]:
    """Return the identities that read registrations: client id and credential file, by their tenant's id.

    Args:
        first: tenant, client and file that have variables of their own.
        more: those of further tenants, as MORE_READERS has them.
    """
    if bool(first[0]) != bool(first[1]):
        raise ImproperlyConfigured("READER_CLIENT_ID and READER_TENANT_ID belong together")
    found: dict[str, tuple[str, str]] = {}
    given = [[part.strip() for part in one.split(",")] for one in more.split(";") if one.strip()]
    for one in [list(first), *given] if first[0] else given:
        tenant, client, file = [*one, ""][:3] if len(one) in {2, 3} else ("", "", "")
        if not tenant or not client:
            raise ImproperlyConfigured(
                "MORE_READERS must be TENANT_ID,CLIENT_ID or TENANT_ID,CLIENT_ID,CREDENTIAL_FILE; several are "
                "separated by semicolons"
            )
        if tenant.lower() in found:
            raise ImproperlyConfigured("A tenant has one reader: READER_TENANT_ID and MORE_READERS name one twice")
        found[tenant.lower()] = client, file
    return found
