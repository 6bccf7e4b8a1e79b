"""Database and vault know each other: an id that is made at the first start stands in both.

Another vault, or the empty folder that an unmounted disk leaves, holds nothing of what the database names. Every
partner would look as if it had never consented, and a new sign-in would store its token in the wrong place. The id is
an entry of the vault like any other, so Get and Set are enough for it (S-40).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice

from django.db import transaction

from consent.models import ApplicationCredential, PartnerConsent, VaultPairing, WaitingToken
from consent.vault.base import (
    ID_NAME,
    SERVICE,
    SecretDisabled,
    SecretName,
    SecretVersion,
    StoredSecret,
    Vault,
    VaultConfigurationError,
    VaultDamaged,
)
from portal.audit.trail import SYSTEM, Actor, record
from portal.microsoft.errors import NotFound, RemoteError, Unreachable
from portal.microsoft.http import turn_of
from portal.microsoft.secret import Secret
from portal.rights import SERVER, require

_ASKED = 20  # entries of which the vault must hold one, where it carries no id


class OwnVault:
    """This database's vault. Nothing is written or given out before its id was compared, by one of many threads.

    The database is asked when it is made; to compare then takes no query, but at the first start. A vault that does not
    tell its id is asked again before its next use. An entry may be read beside the id, and is kept back until the id is
    known: the first tokens of a run wait for one answer of the vault, not for two.

    Args:
        place: where the vault is, for the operator.
    """

    def __init__(self, vault: Vault, place: str) -> None:
        row = VaultPairing.objects.first()
        self._known = "" if row is None else row.vault_id
        self._names = list(islice(_entries(), _ASKED))
        self._vault = vault
        self._place = place
        self._compared = False
        self._failure: RemoteError | None = None
        self._turn = threading.Lock()

    def compare(self) -> None:
        """Make sure that this vault is the database's own; the first time, write the id into both.

        Where one of the two has no id (an older portal's, a copy from before the first start, a process that died
        between the two), the vault must hold one of the entries that the database names.

        Raises:
            VaultConfigurationError: it is another vault. Nothing was written.
            RemoteError: the vault does not say.
        """
        if self._compared:
            return
        before = self._failure
        try:
            with turn_of(self._turn):
                if self._failure is not before and self._failure is not None:
                    raise self._failure  # of the thread that was waited for
                if not self._compared:
                    self._compare_once()
        except RemoteError as error:
            self._failure = error
            raise
        except TimeoutError:
            raise Unreachable(SERVICE, "read the vault's id") from None

    def _compare_once(self) -> None:
        known, found = self._known, _id_in(self._vault)
        if not known or known != found:
            if (known and found) or not self._holds_one_of_ours():
                raise VaultConfigurationError(
                    f"VAULT_URL leads to {self._place}, which is not the vault of this database: mount or restore the "
                    "right one, or correct VAULT_URL or DATABASE_URL; nothing was changed, and no partner has to "
                    "consent again"
                )
            _write(self._vault, known or _id_of_database(found), found)
        self._compared = True

    def _holds_one_of_ours(self) -> bool:
        """Tell whether it holds an entry that the database names, in whatever version; true if it names none."""
        for name in self._names:
            try:
                self._vault.read_newest(name)
            except NotFound:
                continue
            except (SecretDisabled, VaultDamaged):
                pass
            return True
        return not self._names

    def write(
        self, name: SecretName, value: Secret, *, tags: Mapping[str, str], expires_at: datetime | None
    ) -> SecretVersion:
        self.compare()
        return self._vault.write(name, value, tags=tags, expires_at=expires_at)

    def read(self, name: SecretName, version: SecretVersion) -> StoredSecret:
        return self._compared_read(lambda: self._vault.read(name, version))

    def read_newest(self, name: SecretName) -> StoredSecret:
        return self._compared_read(lambda: self._vault.read_newest(name))

    def _compared_read(self, read: Callable[[], StoredSecret]) -> StoredSecret:
        try:
            found = read()
        except RemoteError:
            self.compare()  # in another vault it is missing for another reason
            raise
        self.compare()
        return found

    def disable(self, name: SecretName, version: SecretVersion) -> None:
        self.compare()
        self._vault.disable(name, version)

    def check_writable(self) -> None:
        self.compare()
        self._vault.check_writable()


def names_entries() -> bool:
    """Tell whether this database names anything that its vault must hold."""
    return next(_entries(), None) is not None


def pair_anew(vault: Vault, *, actor: Actor) -> None:
    """Take this vault for the database's own, whatever it holds: the former one is lost for good.

    Raises:
        RemoteError: the vault does not answer; nothing was changed.
    """
    require(actor, SERVER)
    found = _id_in(vault)
    with transaction.atomic():
        VaultPairing.objects.all().delete()
        record("vault.replaced", actor=actor, subject={})
    _write(vault, _id_of_database(found), found)


def _id_of_database(found: str) -> str:
    """Return the database's id of its vault, made now if it has none: of several processes one decides."""
    with transaction.atomic():
        row, new = VaultPairing.objects.get_or_create(pk=1, defaults={"vault_id": found or secrets.token_hex(16)})
        if new:
            record("vault.paired", actor=SYSTEM, subject={}, details={"id": row.vault_id})
    return row.vault_id


def _write(vault: Vault, vault_id: str, found: str) -> None:
    if vault_id != found:
        vault.write(ID_NAME, Secret(vault_id), tags={}, expires_at=None)


def _id_in(vault: Vault) -> str:
    try:
        return vault.read_newest(ID_NAME).value.reveal()
    except (NotFound, SecretDisabled, VaultDamaged):
        return ""


def _entries() -> Iterator[SecretName]:
    """Yield names of entries that must be there: credentials, and tokens that are not given up, newest first."""
    stored = [ApplicationCredential.Kind.CERTIFICATE, ApplicationCredential.Kind.SECRET]  # others are no entries
    credentials = ApplicationCredential.objects.filter(kind__in=stored, retired_at=None)
    consents = PartnerConsent.objects.exclude(secret_version="").exclude(state__in=PartnerConsent.LEFT_STATES)
    waiting = WaitingToken.objects.exclude(secret_version="").filter(decision=WaitingToken.Decision.WAITING)
    for rows in (credentials, consents, waiting):
        for name in rows.order_by("-pk").values_list("secret_name", flat=True)[: _ASKED // 2]:
            yield SecretName(name)
