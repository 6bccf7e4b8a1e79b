"""What lies enabled in the vault and is named by no row, or by the row of a credential that was retired.

A refresh token has its row before it is written, a credential after it: a process that dies in between leaves a secret
or a key that nothing uses. Nothing here is changed; ``consent.tokens.reconcile`` switches off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.utils import timezone

from consent.models import ApplicationCredential, ApplicationRegistration
from consent.tokens.differences import REPAIRED, Difference, Kind
from consent.vault.base import OUR_KEY_NAME, OUR_NAME, Inventory, SecretName, VersionInfo

ORPHAN_AGE = timedelta(days=1)  # nothing takes that long between the vault and the row
CREDENTIAL_AGE = timedelta(days=30)
"""So long a credential without a row stays enabled unasked: an older copy of the database is found out by then."""
_REFRESH_TOKEN_OF_OURS = re.compile(r"(consent|waiting)-[0-9]+")
_CREDENTIAL_OF_OURS = re.compile(r"registration-([0-9]{1,9})")


def is_key(name: str) -> bool:
    """Tell whether this is the name of a key that the vault made for us, and not of a secret."""
    return OUR_KEY_NAME.fullmatch(name) is not None


class Orphans:
    """Entries and keys as they were listed before any row was read.

    Args:
        names: names of all entries.
        keys: versions of all keys, by name.
        ask: calls the vault patiently.
    """

    def __init__(
        self,
        inventory: Inventory,
        names: Collection[SecretName],
        keys: Mapping[SecretName, list[VersionInfo]],
        *,
        ask: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._inventory = inventory
        self._names = names
        self._keys = keys
        self._ask = ask

    def find(self) -> Iterator[Difference]:
        """Yield what no row names, and what a retired credential left enabled."""
        known = _names_of_rows()
        credentials = {
            (one.secret_name, one.secret_version): one for one in ApplicationCredential.objects.exclude(secret_name="")
        }
        of_credentials = {name for name, _ in credentials}
        registrations = set(ApplicationRegistration.objects.values_list("pk", flat=True))
        for name in sorted({*self._names, *self._keys}):
            if name in known and name not in of_credentials:
                continue
            if not OUR_NAME.fullmatch(name) and not is_key(name):
                continue
            for each in self._versions(name):
                row, owner = credentials.get((name, each.version)), _CREDENTIAL_OF_OURS.fullmatch(each.record)
                if not (each.enabled or each.damage):
                    continue
                if name in of_credentials and owner is None:
                    continue  # somebody else's, which we never switch off, or not readable
                if row is not None and row.retired_at is None:
                    continue
                kind = Kind.ORPHAN if owner is None else Kind.OLD_CREDENTIAL if row is None else Kind.RETIRED_CREDENTIAL
                number = 0 if owner is None else int(owner[1])
                subject = {"registration": number} if number in registrations else {}
                note = each.damage or (f"Its tag says {each.record}." if each.record else "It carries no tag.")
                yield Difference(kind=kind, subject=subject, name=name, version=each.version, note=note)

    def _versions(self, name: SecretName) -> list[VersionInfo]:
        if name in self._keys:
            return self._keys[name]
        found: list[VersionInfo] = self._ask(lambda: self._inventory.versions(name))
        return found

    def why_not(self, difference: Difference, *, asked: bool) -> str | None:
        """Return why this is not switched off: empty for what only who asks switches off; None when it may be.

        Args:
            asked: whether a person asked for it.
        """
        credential = difference.kind is Kind.OLD_CREDENTIAL
        if not asked and not credential:
            return ""
        name = SecretName(difference.name)
        if (name, difference.version) in _named_versions() or (not credential and name in _names_of_rows()):
            return "a row names it by now"
        info = next((each for each in self._versions(name) if each.version == difference.version), None)
        if info is None or not info.enabled:
            return "not repaired: it cannot be read" if info is not None and info.damage else REPAIRED
        owner = _CREDENTIAL_OF_OURS.fullmatch(info.record)
        if owner is None and not _REFRESH_TOKEN_OF_OURS.fullmatch(info.record):
            return "not repaired: it does not carry our tag"
        age = timezone.now() - info.created_at
        if asked:
            return "not repaired: it is less than a day old" if age < ORPHAN_AGE else None
        # Of an older copy of the database the credential in use is older than what the copy does not know.
        newer = ApplicationCredential.objects.current().filter(
            registration=0 if owner is None else int(owner[1]), created_at__gt=info.created_at
        )
        return None if age >= CREDENTIAL_AGE and newer.exists() else ""


def _named_versions() -> set[tuple[str, str]]:
    return set(ApplicationCredential.objects.values_list("secret_name", "secret_version"))


def _names_of_rows() -> set[SecretName]:
    """Return the names that any row points to: tokens, waiting tokens, credentials; found by the columns' names."""
    found: set[SecretName] = set()
    for model in apps.get_app_config("consent").get_models():
        for column in model._meta.concrete_fields:
            if column.name in {"secret_name", "credential_name"}:
                found.update(model._default_manager.values_list(column.name, flat=True))
    return found
