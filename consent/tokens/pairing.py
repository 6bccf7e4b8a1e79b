"""Database and vault know each other: an id that is made at the first start stands in both.

Another vault, or the empty folder that an unmounted disk leaves, holds nothing of what the database names. Every
partner would look as if it had never consented, and a new sign-in would store its token in the wrong place. The id is
an entry of the vault like any other, so Get and Set are enough for it (S-40).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from django.db import transaction

from consent.models import ApplicationCredential, PartnerConsent, VaultPairing, WaitingToken
from consent.vault.base import (
    ID_NAME,
    SecretDisabled,
    SecretName,
    Vault,
    VaultConfigurationError,
    VaultDamaged,
)
from portal.audit.trail import SYSTEM, Actor, record
from portal.microsoft.errors import NotFound
from portal.microsoft.secret import Secret

_ASKED = 20  # entries of which the vault must hold one, where it carries no id


def names_entries() -> bool:
    """Tell whether this database names anything that its vault must hold."""
    return next(_entries(), None) is not None


def pair(vault: Vault, place: str) -> None:
    """Make sure that this vault is the database's own; the first time, write the id into both.

    Where one of the two has no id (an older portal's, a copy from before the first start, a process that died between
    the two), the vault must hold one of the entries that the database names.

    Args:
        place: where the vault is, for the operator.

    Raises:
        VaultConfigurationError: it is another vault. Nothing was written.
        RemoteError: the vault does not say.
    """
    row = VaultPairing.objects.first()
    known, found = "" if row is None else row.vault_id, _id_in(vault)
    if known and known == found:
        return
    if (known and found) or not _holds_one_of_ours(vault):
        raise VaultConfigurationError(
            f"VAULT_URL leads to {place}, which is not the vault of this database: mount or restore the right one, or "
            "correct VAULT_URL or DATABASE_URL; nothing was changed, and no partner has to consent again"
        )
    _write(vault, known or found or secrets.token_hex(16), found)


def pair_anew(vault: Vault, *, actor: Actor) -> None:
    """Take this vault for the database's own, whatever it holds: the former one is lost for good.

    Raises:
        RemoteError: the vault does not answer; nothing was changed.
    """
    found = _id_in(vault)
    with transaction.atomic():
        VaultPairing.objects.all().delete()
        record("vault.replaced", actor=actor, subject={})
    _write(vault, found or secrets.token_hex(16), found)


def _write(vault: Vault, vault_id: str, found: str) -> None:
    """Write the row first: of several processes at the first start one decides, and all write the same id."""
    with transaction.atomic():
        row, new = VaultPairing.objects.get_or_create(pk=1, defaults={"vault_id": vault_id})
        if new:
            record("vault.paired", actor=SYSTEM, subject={}, details={"id": row.vault_id})
    if row.vault_id != found:
        vault.write(ID_NAME, Secret(row.vault_id), tags={}, expires_at=None)


def _id_in(vault: Vault) -> str:
    try:
        return vault.read_newest(ID_NAME).value.reveal()
    except (NotFound, SecretDisabled, VaultDamaged):
        return ""


def _entries() -> Iterator[SecretName]:
    """Yield names of entries that must be there: credentials, and tokens that are not given up, newest first."""
    credentials = ApplicationCredential.objects.exclude(secret_name="").filter(retired_at=None)  # no secret
    consents = PartnerConsent.objects.exclude(secret_version="").exclude(state__in=PartnerConsent.LEFT_STATES)
    waiting = WaitingToken.objects.exclude(secret_version="").filter(decision=WaitingToken.Decision.WAITING)
    for rows in (credentials, consents, waiting):
        for name in rows.order_by("-pk").values_list("secret_name", flat=True)[: _ASKED // 2]:
            yield SecretName(name)


def _holds_one_of_ours(vault: Vault) -> bool:
    """Tell whether the vault holds an entry that the database names, in whatever version; true if it names none."""
    names = list(_entries())[:_ASKED]
    for name in names:
        try:
            vault.read_newest(name)
        except NotFound:
            continue
        except (SecretDisabled, VaultDamaged):
            pass
        return True
    return not names
