"""What the vault remembers of a partner that was erased, so that an older database does not bring it back (S-69).

The entry's name is an HMAC of cloud and tenant id under a key derived from INTEGRITY_KEY. So it is found again from a
row of the older database, tells a reader of the vault nothing, and is made by this portal only. Its value is no secret.
"""

from __future__ import annotations

import hmac
import json
from datetime import datetime

from django.conf import settings

from consent.vault.base import SecretDisabled, SecretName, Vault
from portal.microsoft.errors import NotFound
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant


def name_of(partner: PartnerTenant) -> SecretName:
    """Return the name of the entry that says that this partner was erased."""
    key = hmac.digest(settings.INTEGRITY_KEY.encode(), b"tombstone", "sha256")
    return SecretName(f"er-{hmac.digest(key, f'{partner.cloud}:{partner.tenant_id}'.encode(), 'sha256').hex()[:32]}")


def put(partner: PartnerTenant, *, at: datetime, vault: Vault) -> SecretName:
    """Let the vault remember it; a second time changes nothing. Returns the entry's name. Raises RemoteError."""
    name = name_of(partner)
    if not stands(partner, vault=vault):
        text = json.dumps({"erased_at": at.isoformat(timespec="seconds")})
        vault.write(name, Secret(text), tags={}, expires_at=None)
    return name


def stands(partner: PartnerTenant, *, vault: Vault) -> bool:
    """Tell whether the vault remembers that this partner was erased. Raises RemoteError when it does not say."""
    try:
        vault.read_newest(name_of(partner))
    except NotFound:
        return False
    except SecretDisabled:  # by somebody else: it is there
        pass
    return True
