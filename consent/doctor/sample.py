"""The configuration of Microsoft's Secure Application Model sample, in words of ours.

Reads ``web.config`` and ``app.config`` of the sample, or an ``appsettings.json`` with the same keys, and says for each
key where its value belongs here. A secret is never repeated: only where to put it is said.

Source: the sample ``secure-app-model/keyvault`` of Microsoft's Partner Center samples, and "Create a secure partner
application", Configure the prototype.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.parsers import expat

from portal.microsoft.clouds import GERMANY_IS_CLOSED, MICROSOFT, NationalCloud
from portal.microsoft.identifiers import canonical_guid

_LARGEST = 1_000_000  # bytes
_DEEPEST = 10
_GERMANY = "login.microsoftonline.de"
_VAULT_HOST = re.compile(r"[0-9a-z-]{3,24}")


class NoSample(ValueError):
    """The file is not what the sample is configured by; the text says why and repeats nothing of it."""


class Meaning(StrEnum):
    """What a key of the sample holds."""

    APPLICATION = "application"
    APPLICATION_SECRET = "application secret"
    HOME_TENANT = "home tenant"
    AUTHORITY = "authority"
    VAULT = "vault"
    VAULT_TENANT = "vault tenant"
    VAULT_CLIENT = "vault client"
    VAULT_SECRET = "vault secret"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the sample.

    Attributes:
        name: as the sample spells it; ``ida:`` and case make no difference when a file is read.
        here: where its value belongs in this portal; docs/seed-map.md has the same words.
    """

    name: str
    meaning: Meaning
    here: str


_REGISTRATION = "application registration in the admin: "
_CREDENTIAL = "credential of the registration, kept in the vault; never a setting"
KEYS = (
    Key("ida:CPVApplicationId", Meaning.APPLICATION, f"{_REGISTRATION}application id, kind CPV"),
    Key("ida:CPVApplicationSecret", Meaning.APPLICATION_SECRET, _CREDENTIAL),
    Key("ida:CSPApplicationId", Meaning.APPLICATION, f"{_REGISTRATION}application id, kind CSP"),
    Key("ida:CSPApplicationSecret", Meaning.APPLICATION_SECRET, _CREDENTIAL),
    Key("ida:AADInstance", Meaning.AUTHORITY, f"{_REGISTRATION}cloud; and `VAULT_CLOUD`"),
    Key("KeyVaultEndpoint", Meaning.VAULT, "`VAULT_URL`"),
    Key("ida:KeyVaultTenantId", Meaning.VAULT_TENANT, "`VAULT_TENANT_ID`"),
    Key("ida:KeyVaultClientId", Meaning.VAULT_CLIENT, "`VAULT_CLIENT_ID`, with `VAULT_IDENTITY=client-secret`"),
    Key("ida:KeyVaultClientSecret", Meaning.VAULT_SECRET, "a file with mode 0600 that `VAULT_CREDENTIAL_FILE` names"),
    Key("AzureAd:Instance", Meaning.AUTHORITY, f"{_REGISTRATION}cloud; and `VAULT_CLOUD`"),
    Key("AzureAd:ClientId", Meaning.APPLICATION, f"{_REGISTRATION}application id"),
    Key("AzureAd:ClientSecret", Meaning.APPLICATION_SECRET, _CREDENTIAL),
    Key("AzureAd:TenantId", Meaning.HOME_TENANT, f"{_REGISTRATION}home tenant id"),
)
_BY_NAME = {one.name.lower().removeprefix("ida:"): one for one in KEYS}


def env_lines(path: Path) -> Iterator[str]:
    """Yield lines for ``.env``, with comments for what does not belong there.

    Raises:
        NoSample: it is too large, no such file, or holds none of the sample's keys.
        OSError: it cannot be read.
    """
    found = _known(_values(path))
    yield f"# From {path.name}. Lines that begin with # say what to do by hand."
    cloud, why = _cloud(found)
    if why:
        yield why
    yield f"VAULT_CLOUD={cloud.key}"
    yield from _registration(found, cloud)
    yield from _vault(found, cloud)


def why_not(path: Path, error: NoSample | OSError) -> str:
    """Return one sentence about a file that could not be read."""
    if isinstance(error, OSError):
        return f"{path} cannot be read: {error.strerror}."
    return f"{path} is no configuration of the sample. {error}"


def _known(values: Mapping[str, str]) -> dict[Key, str]:
    """Return what the file says of keys that we know. Values that a person never filled in are empty."""
    found = {
        key: value.strip()
        for name, value in values.items()
        if (key := _BY_NAME.get(name.lower().removeprefix("ida:"))) is not None
    }
    if not found:
        raise NoSample(f"It has none of the sample's keys, such as {KEYS[0].name}.")
    return found


def _first(found: Mapping[Key, str], meaning: Meaning) -> tuple[Key, str] | None:
    return next(((key, value) for key, value in found.items() if key.meaning is meaning and value), None)


def _cloud(found: Mapping[Key, str]) -> tuple[NationalCloud, str]:
    """Return the cloud, and a line for people where the file names none that we know."""
    authority = _first(found, Meaning.AUTHORITY)
    host = urlsplit(authority[1]).netloc.lower() if authority else ""
    known: NationalCloud | None = next(
        (one for one in MICROSOFT.values() if host in {urlsplit(one.authority).netloc, *one.authority_aliases}), None
    )
    if known is None and authority:
        why = GERMANY_IS_CLOSED if host == _GERMANY else "It is no sign-in host of a cloud that we know."
        return MICROSOFT["global"], f"# {authority[0].name}: {why} Choose the cloud by hand."
    return known or MICROSOFT["global"], ""


def _registration(found: Mapping[Key, str], cloud: NationalCloud) -> Iterator[str]:
    application = _first(found, Meaning.APPLICATION)
    if application is not None:
        key, value = application
        kind = next((one for one in ("CSP", "CPV") if one in key.name), "CPV or CSP (the file does not say which)")
        shown = canonical_guid(value) or "(the file holds no GUID there)"
        yield f"# {key.name}: in the admin, add an application registration of kind {kind}, cloud {cloud.name},"
        yield f"#   application id {shown}."
    home = _first(found, Meaning.HOME_TENANT)
    if home is not None and (tenant := canonical_guid(home[1])):
        yield f"# {home[0].name}: home tenant id {tenant}."
    secret = _first(found, Meaning.APPLICATION_SECRET)
    if secret is not None:
        yield f"# {secret[0].name}: the secret is not shown. Add it as a credential of that registration;"
        yield "#   better, add a certificate and let the secret end. See docs/operations.md#application-credentials."


def _vault(found: Mapping[Key, str], cloud: NationalCloud) -> Iterator[str]:
    address = _first(found, Meaning.VAULT)
    if address is not None:
        host = (urlsplit(address[1]).hostname or "").lower()
        if host.endswith(cloud.vault_suffix) and _VAULT_HOST.fullmatch(host.removesuffix(cloud.vault_suffix)):
            yield f"VAULT_URL=https://{host}"
        else:
            yield f"# {address[0].name}: it is no Key Vault of the cloud {cloud.name}. Write VAULT_URL by hand."
    elif _first(found, Meaning.VAULT_CLIENT):
        yield f"# The sample's file names no vault: VAULT_URL=https://<name>{cloud.vault_suffix}"
    for meaning, variable in ((Meaning.VAULT_TENANT, "VAULT_TENANT_ID"), (Meaning.VAULT_CLIENT, "VAULT_CLIENT_ID")):
        entry = _first(found, meaning)
        if entry is not None:
            value = canonical_guid(entry[1])
            yield f"{variable}={value}" if value else f"# {entry[0].name}: it is no GUID. Write {variable} by hand."
    if _first(found, Meaning.VAULT_CLIENT) and not _first(found, Meaning.VAULT_TENANT):
        yield "# VAULT_TENANT_ID=<the tenant of the vault's application; older samples do not name it>"
    secret = _first(found, Meaning.VAULT_SECRET)
    if secret is not None:
        yield "VAULT_IDENTITY=client-secret"
        yield f"# {secret[0].name}: the secret is not shown. Write it into a file with mode 0600 and name the file;"
        yield "#   better, give the server a managed identity, and leave out both lines."
        yield "# VAULT_CREDENTIAL_FILE=/etc/cpv-portal/vault-credential"


# --- reading ------------------------------------------------------------------------------------------------------


def _values(path: Path) -> dict[str, str]:
    """Return keys and values of the file. Raises NoSample, OSError."""
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise NoSample("It is larger than a megabyte.")
    content = content.removeprefix(b"\xef\xbb\xbf")
    return _from_json(content) if content.lstrip()[:1] == b"{" else _from_xml(content)


def _from_json(content: bytes) -> dict[str, str]:
    """Flatten as .NET does: names of nested objects are joined by colons."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise NoSample("It begins like JSON and cannot be read as such.") from None
    return dict(_flattened(document, "", 0))


def _flattened(node: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEEPEST:
        raise NoSample("It is nested deeper than any configuration of the sample.")
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{name}:", depth + 1)
        elif isinstance(value, str):
            yield f"{prefix}{name}", value


def _from_xml(content: bytes) -> dict[str, str]:
    """Return the ``add`` elements below ``appSettings``. A document type, and with it any entity, is refused."""
    found: dict[str, str] = {}
    path: list[str] = []

    def refuse(*_: object) -> None:
        raise NoSample("It declares a document type, which no configuration of the sample does.")

    def begin(name: str, attributes: Mapping[str, str]) -> None:
        path.append(name.lower())
        if path[-2:] == ["appsettings", "add"]:
            found[attributes.get("key", "")] = attributes.get("value", "")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda name: path.pop()
    try:
        parser.Parse(content, True)
    except expat.ExpatError:
        raise NoSample("It is neither XML nor JSON.") from None
    return found
