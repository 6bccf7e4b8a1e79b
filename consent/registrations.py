"""Our application registrations: their credential goes into the vault, and nowhere else."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from consent.credentials import read_credential
from consent.health import refresh_registration
from consent.models import ApplicationRegistration
from consent.vault.base import RECORD_TAG, Vault, new_secret_name
from portal.audit.trail import Actor, record
from portal.microsoft.secret import Secret


def store_credential(
    registration: ApplicationRegistration,
    value: Secret,
    *,
    kind: str,
    expires_at: datetime | None,
    vault: Vault,
    actor: Actor,
) -> None:
    """Put the application's credential into the vault and point the registration to it.

    The vault is written first; a registration never points to something that was not stored.

    Raises:
        RemoteError: the vault did not take it; the registration is unchanged.
        ValueError: it is not a credential of this kind.
    """
    read_credential(kind, value)  # a damaged certificate is refused here, not at the first redemption
    name = new_secret_name()
    version = vault.write(name, value, tags={RECORD_TAG: f"registration-{registration.pk}"}, expires_at=expires_at)
    before = {"kind": registration.credential_kind, "name": registration.credential_name}
    with transaction.atomic():
        registration.credential_kind = kind
        registration.credential_name = name
        registration.credential_version = version
        registration.credential_expires_at = expires_at
        registration.save(
            update_fields=["credential_kind", "credential_name", "credential_version", "credential_expires_at"]
        )
        refresh_registration(registration)
        record(
            "registration.credential_stored",
            actor=actor,
            subject={"registration": registration.pk},
            details={"before": before, "after": {"kind": kind, "name": name}},
        )
