"""Custody for many partners at once: leases and pointers in one statement each, the vault in threads.

The order for each partner is that of ``consent.tokens.custody``: vault, read back, pointer, old version off (R-02).
What one renewal does in one go is cut here where the database comes in, so that the threads between run no query.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from django.db.models import Case, F, Value, When
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from consent.models import PartnerConsent
from consent.tokens.custody import LEASE, Custody, Place
from consent.vault.base import SecretName, SecretVersion
from portal.audit.trail import Actor, Entry, Outcome, record_all
from portal.microsoft.identifiers import CorrelationId

# A refresh of these leaves the partner and the registration that were loaded with the row.
_OWN_COLUMNS: Final = [column.name for column in PartnerConsent._meta.concrete_fields if not column.is_relation]


@dataclass(frozen=True, slots=True)
class Pointer:
    """A token that is in the vault and not yet in use."""

    consent: PartnerConsent
    owner: str
    place: Place
    correlation_id: CorrelationId


class Renewals(Custody):
    """The custody of a batch. Methods that say so run no query and may be called in threads."""

    def lease_all(self, consents: Sequence[PartnerConsent]) -> str:
        """Take the renewal leases of these rows as far as they are free, and set them on the rows; return the owner."""
        owner = str(uuid.uuid4())
        keys = [consent.pk for consent in consents]
        if not keys:
            return owner
        taken = (
            PartnerConsent.objects.lease_free()
            .filter(pk__in=keys)
            .update(
                lease_owner=owner,
                lease_until=Now() + LEASE,
                renewal_started_at=Coalesce("renewal_started_at", Now()),  # the intent row
            )
        )
        if not taken:
            return owner
        mine = dict(PartnerConsent.objects.filter(pk__in=keys, lease_owner=owner).values_list("pk", "secret_version"))
        for consent in consents:
            if consent.pk not in mine:
                continue
            if consent.secret_version != mine[consent.pk]:  # renewed elsewhere between the look and the lease
                consent.refresh_from_db(fields=_OWN_COLUMNS)
                consent.renewal_started_at = None  # the note is this renewal's own
            consent.lease_owner = owner
        return owner

    def release_all(self, consents: Sequence[PartnerConsent], owner: str) -> None:
        """Give back the leases of these rows that are still this owner's."""
        PartnerConsent.objects.filter(pk__in=[consent.pk for consent in consents], lease_owner=owner).update(
            lease_owner="", lease_until=None
        )

    def point_all(self, pointers: Sequence[Pointer], *, actor: Actor) -> set[int]:
        """Move the pointers of these rows to their new versions; return the rows for which that was still allowed.

        Call it in a transaction. Rows whose lease is another's by now, or whose partner was disabled meanwhile, keep
        their pointer (R-03, R-12).
        """
        if not pointers:
            return set()
        keys = [pointer.consent.pk for pointer in pointers]
        moved = {
            "secret_name": _by_row({pointer.consent.pk: pointer.place.name for pointer in pointers}),
            "secret_version": _by_row({pointer.consent.pk: pointer.place.version for pointer in pointers}),
            "fingerprint": _by_row({pointer.consent.pk: pointer.place.fingerprint for pointer in pointers}),
        }
        now = timezone.now()
        # No joins: PostgreSQL would not look again after waiting for another's update (see ConsentFlowQuerySet).
        PartnerConsent.objects.of_active_partner().filter(
            pk__in=keys,
            lease_owner__in={pointer.owner for pointer in pointers},
            generation__in={pointer.consent.generation for pointer in pointers},
        ).update(
            generation=F("generation") + 1,
            stored_at=now,
            replaced_version=F("secret_version"),
            renewal_started_at=None,
            **moved,
        )
        written = dict(PartnerConsent.objects.filter(pk__in=keys, stored_at=now).values_list("pk", "secret_version"))
        won = {pointer.consent.pk for pointer in pointers if written.get(pointer.consent.pk) == pointer.place.version}
        record_all(
            [
                Entry(
                    "token.stored",
                    actor,
                    Outcome.DONE,
                    subject={"partner": pointer.consent.partner_id, "consent": pointer.consent.pk},
                    details={"generation": pointer.place.generation},
                    correlation_id=pointer.correlation_id,
                )
                for pointer in pointers
                if pointer.consent.pk in won
            ]
        )
        return won

    def switch_off(self, pointer: Pointer, *, won: bool) -> bool:
        """Switch off what is not in use any more, and tell whether it is: the older version, or the unwanted newer one.

        No query.
        """
        if won:
            return self.versions.switch_off(
                SecretName(pointer.consent.secret_name), SecretVersion(pointer.consent.secret_version)
            )
        return self.versions.switch_off(pointer.place.name, pointer.place.version)

    def forget_replaced(self, pointers: Sequence[Pointer]) -> None:
        """Note that the older versions of these rows are off (S-42); one statement."""
        PartnerConsent.objects.filter(
            pk__in=[pointer.consent.pk for pointer in pointers],
            replaced_version__in={pointer.consent.secret_version for pointer in pointers},
        ).update(replaced_version="")


def _by_row(values: Mapping[int, str]) -> Case:
    return Case(*(When(pk=key, then=Value(value)) for key, value in values.items()))
