"""The order in which renewed tokens are saved, for one partner or many: written once, for both drivers (R-02, R-03).

1. ``lease_all`` or ``Custody.lease``: one renewer at a time, and the note that the stored token is about to be spent.
2. ``keep_rotated``: the new token into the vault, and read back.
3. ``write``: the pointers to it, in one transaction with everything else that the renewals brought.
4. ``put_away``: the version that is not in use any more is switched off.
5. ``give_back``: what was switched off is forgotten, and the leases are free.

``TokenService`` takes these steps for one partner, the token check for a batch. Steps 2 and 4 call the vault and run no
query but in rare cases, so threads can take them; 3 and 5 are a few statements for any number of partners.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from django.db.models import Case, F, Value, When
from django.db.models.functions import Coalesce, Now

from consent import alarms
from consent.alarms import Cause
from consent.models import PartnerConsent
from consent.tokens import health
from consent.tokens.custody import FASTER, PARTNER_DISABLED, Custody
from consent.tokens.renewal import Renewal
from consent.vault.base import SecretDisabled, SecretName, SecretVersion
from portal.audit.trail import Actor, Entry, Outcome, record_all
from portal.microsoft.errors import RemoteError

log = logging.getLogger(__name__)

# A refresh of these leaves the partner and the registration that were loaded with the row.
_OWN_COLUMNS: Final = [column.name for column in PartnerConsent._meta.concrete_fields if not column.is_relation]


class Renewals(Custody):
    """Custody of the tokens that are being renewed."""

    def lease_all(self, consents: Sequence[PartnerConsent]) -> str:
        """Take the renewal leases of these rows as far as they are free, and set them on the rows; return the owner."""
        owner = str(uuid.uuid4())
        keys = [consent.pk for consent in consents]
        if not keys or not self._take(keys, owner, renewal_started_at=Coalesce("renewal_started_at", Now())):
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

    def keep_rotated(self, renewal: Renewal) -> None:
        """Write the rotated token, if there is one, into the vault. A failure loses nothing at Entra (R-06)."""
        if renewal.rotated is None:
            return
        try:
            renewal.place = self.keep(renewal.consent, renewal.rotated)
        except SecretDisabled:  # before it was read back, another renewal had adopted and replaced it
            renewal.discarded = FASTER
        except RemoteError as error:
            log.warning("renewed but not saved: %s", error, extra={"partner": renewal.consent.partner_id})
            renewal.not_saved = error.code

    def write(self, renewals: Sequence[Renewal], *, actor: Actor) -> None:
        """Write what came of these renewals. Call it in a transaction."""
        self._point_all([renewal for renewal in renewals if renewal.place is not None])
        for renewal in renewals:
            if renewal.mismatch:
                self.stop(renewal.consent, renewal.mismatch, renewal.correlation_id)
            if renewal.is_lost:
                self.interrupted(renewal.consent, renewal.correlation_id)
        if saved := [renewal.consent.pk for renewal in renewals if renewal.saved]:
            health.refresh(saved)
            alarms.settle([Cause.NOT_SAVED])
        if any(renewal.not_saved is not None for renewal in renewals):
            alarms.report(Cause.NOT_SAVED)
        record_all([*_saved(renewals, actor), *(one for renewal in renewals if (one := _unsaved(renewal, actor)))])

    def _point_all(self, renewals: Sequence[Renewal]) -> None:
        """Move the pointers to the new versions, in one statement.

        A row whose lease or generation is another's by now, or whose partner was disabled meanwhile, keeps its pointer
        (R-03, R-12).
        """
        if not renewals:
            return
        places = {renewal.consent.pk: renewal.place for renewal in renewals if renewal.place is not None}

        def of_row(value: Callable[[Renewal], object]) -> Case:
            return Case(*(When(pk=renewal.consent.pk, then=Value(value(renewal))) for renewal in renewals))

        # No joins: PostgreSQL would not look again after waiting for another's update (see ConsentFlowQuerySet).
        PartnerConsent.objects.of_active_partner().filter(
            pk__in=places,
            lease_owner=of_row(lambda renewal: renewal.owner),
            generation=of_row(lambda renewal: renewal.consent.generation),
        ).update(
            generation=F("generation") + 1,
            secret_name=of_row(lambda renewal: places[renewal.consent.pk].name),
            secret_version=of_row(lambda renewal: places[renewal.consent.pk].version),
            fingerprint=of_row(lambda renewal: places[renewal.consent.pk].fingerprint),
            stored_at=Now(),
            replaced_version=F("secret_version"),
            renewal_started_at=None,
        )
        columns = "pk", "lease_owner", "generation", "secret_version"
        rows = {row[0]: row[1:] for row in PartnerConsent.objects.filter(pk__in=places).values_list(*columns)}
        for renewal in renewals:
            consent = renewal.consent
            found = rows.get(consent.pk, ())
            renewal.saved = found == (renewal.owner, consent.generation + 1, places[consent.pk].version)
            if found[:2] == (renewal.owner, consent.generation):  # it was still ours to move
                renewal.discarded = PARTNER_DISABLED

    def put_away(self, renewal: Renewal) -> None:
        """Switch off what is not in use any more: the older version, or the newer one that was not wanted.

        Runs no query, unless the newer one came too late.
        """
        if renewal.place is None:
            return
        name, version = renewal.place.name, renewal.place.version
        if renewal.saved:
            older = SecretName(renewal.consent.secret_name), SecretVersion(renewal.consent.secret_version)
            renewal.is_off = self.versions.switch_off(*older)
        elif renewal.discarded:
            self.versions.switch_off(name, version)
        else:
            self.decide_late(renewal.consent, renewal.owner, renewal.place, renewal.correlation_id)

    def forget_replaced(self, renewals: Sequence[Renewal]) -> None:
        """Note that the older versions of these rows are off (S-42)."""
        if off := [renewal.consent for renewal in renewals if renewal.is_off]:
            PartnerConsent.objects.filter(
                pk__in=[consent.pk for consent in off],
                replaced_version__in={consent.secret_version for consent in off},
            ).update(replaced_version="")

    def give_back(self, renewals: Sequence[Renewal]) -> None:
        """Give back the leases, with the notes of those that spent nothing.

        A version that was kept and is in no row is adopted by the next renewal.
        """
        for owner in {renewal.owner for renewal in renewals} - {""}:
            mine = [renewal for renewal in renewals if renewal.owner == owner]
            if unspent := [renewal.consent.pk for renewal in mine if renewal.nothing_spent]:
                PartnerConsent.objects.filter(pk__in=unspent, lease_owner=owner).update(renewal_started_at=None)
            self._free([renewal.consent.pk for renewal in mine], owner)


def _saved(renewals: Sequence[Renewal], actor: Actor) -> list[Entry]:
    """Return what the audit trail says of saved tokens: of one, or in one entry of all that a run saved together."""
    saved = [renewal for renewal in renewals if renewal.saved]
    if not saved:
        return []
    if len(saved) == 1:
        (renewal,) = saved
        details: dict[str, object] = {"generation": renewal.consent.generation + 1}
        return [Entry("token.stored", actor, Outcome.DONE, _subject(renewal), details, renewal.correlation_id)]
    generations = {str(renewal.consent.pk): renewal.consent.generation + 1 for renewal in saved}
    return [Entry("tokens.stored", actor, Outcome.DONE, subject={}, details={"generations": generations})]


def _unsaved(renewal: Renewal, actor: Actor) -> Entry | None:
    """Return what the audit trail says of a renewed token that was not saved; nothing where it came too late."""
    if renewal.discarded:
        details: dict[str, object] = {"why": renewal.discarded}
        action, outcome = "token.discarded", Outcome.REFUSED
    elif renewal.not_saved is not None:
        details = {"generation": renewal.consent.generation + 1, "code": renewal.not_saved}
        action, outcome = "token.stored", Outcome.FAILED
    else:
        return None
    return Entry(action, actor, outcome, _subject(renewal), details, renewal.correlation_id)


def _subject(renewal: Renewal) -> dict[str, int]:
    return {"partner": renewal.consent.partner_id, "consent": renewal.consent.pk}
