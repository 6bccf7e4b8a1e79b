"""Which vault holds what this database names."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class VaultPairing(models.Model):
    """The id that stands in this database and in its vault, so that no other vault is taken for it. At most one row.

    Written by ``consent.tokens.pairing`` only.
    """

    vault_id = models.CharField(max_length=32)
    paired_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(pk=1), name="vault_pairing_once")]

    def __str__(self) -> str:
        return f"Vault {self.vault_id[:8]}"
