"""Steps of the vault: whether it is ours and lets us in, and whether it can be written."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from consent import clients
from consent.doctor.case import Case
from consent.doctor.steps import Finding, failed, not_seen, well
from consent.models import VaultPairing
from consent.tokens import pairing
from consent.vault.base import DOCTOR_NAME, ID_NAME, StoredSecret, WholeVault
from portal.microsoft.errors import NotFound
from portal.microsoft.secret import Secret

_A_DAY = timedelta(days=1)
_IS_MADE = "The vault's folder is not there yet; the first start of the portal makes it."


def look_at_vault(case: Case) -> Iterator[Finding]:
    """Sign in with the portal's identity, read the vault's id, and compare it with the database's."""
    if _is_not_made_yet():
        yield not_seen(_IS_MADE)
        return
    try:
        found = clients.vault_as_it_is().read_newest(ID_NAME)
    except NotFound:
        found = None
    known = VaultPairing.objects.first()
    if known is None:
        yield well("The vault lets us read (Get). The first start of the portal pairs it with the database.")
    elif found is None or not found.value.same_as(Secret(known.vault_id)):
        yield failed(
            f"VAULT_URL leads to {settings.VAULT_URL}, which does not carry the id of this database's vault.",
            "Mount or restore the right vault, or correct VAULT_URL or DATABASE_URL; nothing was changed.",
        )
    else:
        yield well("The vault lets us read (Get), and it is this database's own.")


def look_at_writing(case: Case) -> Iterator[Finding]:
    """Write the doctor's own entry, read the version back, and remove it where that is possible.

    With Get and Set nothing can be deleted in a Key Vault. So that the entry does not grow without end there, a version
    is written at most once a day, and in between an attribute is updated, which needs Set as well.
    """
    if _is_not_made_yet():
        yield not_seen(_IS_MADE)
        return
    vault = clients.vault_as_it_is()
    if settings.VAULT_URL.startswith("https://"):
        newest = _newest(vault)
        if newest is not None and timezone.now() - newest.created_at < _A_DAY:
            vault.check_writable()
            yield well("The vault lets us write (Set): an attribute was updated. A version was written within a day.")
            return
        yield from _write(vault)
        yield well(f"Get and Set cannot remove anything, so the entry {DOCTOR_NAME} stays; it holds no secret.")
        return
    try:
        yield from _write(vault)
    finally:
        vault.erase(DOCTOR_NAME)


def _write(vault: WholeVault) -> Iterator[Finding]:
    value = Secret(secrets.token_hex(16))
    version = vault.write(DOCTOR_NAME, value, tags={}, expires_at=None)
    if vault.read(DOCTOR_NAME, version).value.same_as(value):
        yield well("An entry of the doctor's own was written (Set) and read back (Get).")
    else:
        yield failed(
            "The vault gave back something else than was written.",
            "Look who else writes there, and at the disk or the proxy in between.",
        )


def _newest(vault: WholeVault) -> StoredSecret | None:
    try:
        return vault.read_newest(DOCTOR_NAME)
    except NotFound:
        return None


def _is_not_made_yet() -> bool:
    """Whether this is an embedded vault before the first start, which is no fault."""
    embedded = not settings.VAULT_URL.startswith("https://")
    return embedded and not Path(settings.VAULT_URL).exists() and not pairing.names_entries()
