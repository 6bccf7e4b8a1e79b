"""Compare database and vault; repair what is safe: roll forward, switch off; never delete (R-02, R-41).

Back to an older token goes only who asks for it, after a restore of an older vault, and only with a token that the
sign-in service still honours for the same tenant and account.

A look at everything lists each entry, so it is for once a week and for after a restore. From day to day the rows that
changed are enough: what nobody renewed is redeemed daily anyway, which reads it.

Everything is looked at before anything is changed. Each repair takes the row's lease, looks again, and does only what
is still right then; so a run may be killed, repeated, or run beside a working portal.
"""

from __future__ import annotations

import hmac
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from consent.invitations import links
from consent.models import ApplicationCredential, Erasure, PartnerConsent, WaitingToken
from consent.tokens import tombstones, vault_incidents
from consent.tokens.custody import Custody, TokenUnavailable
from consent.tokens.differences import REPAIRED, TAKEN_UP, Difference, Kind, ReconcileReport
from consent.tokens.orphans import Orphans, is_key
from consent.tokens.service import TokenService
from consent.tokens.versions import IdentityMismatch, record_id, token_fingerprint
from consent.vault.base import (
    TOMBSTONE_NAME,
    Inventory,
    KeyInventory,
    SecretDisabled,
    SecretName,
    SecretVersion,
    StoredSecret,
    Vault,
    VaultDamaged,
    VaultKeys,
    VersionInfo,
)
from portal.audit.trail import Actor, record
from portal.incidents.service import settle
from portal.microsoft.errors import AccessDenied, AuthenticationFailed, ConsentRequired, NotFound, RemoteError
from portal.microsoft.identifiers import CorrelationId, new_correlation_id
from portal.rights import SERVER, require
from tenants.models import PartnerTenant

_DEAD_AFTER = timedelta(days=100)  # a decided token is dead at Entra by then, so its entry is no secret any more
_CROWDED_SHARE = 0.9  # of the versions that an entry may have and still be backed up
_FEW = 10  # changes that need no question, whatever their share
_TRIES = 5
_LONGEST_WAIT = 300.0  # seconds; a longer Retry-After counts as this
_BETWEEN_STEPS = timedelta(hours=1)  # a waiting row without version is in the middle of its write, or was cut off
State = PartnerConsent.State


class TooManyChanges(Exception):
    """The run would change, or report, more than its share; nothing was changed. Says the numbers and what to do."""


class Reconciler:
    """One run over all rows and, where the identity may list, all entries of the vault; or over what changed.

    Args:
        since: look only at rows that were renewed, begun or decided after then, and at those that are known to differ;
            not at entries that no row names. None for everything.
        vault: with the portal's own identity, Get and Set.
        inventory: with the identity that may List; without the right the run says what it could not see.
        key_inventory: the same of the vault's keys; None where the vault has none.
        keys: opens the vault's keys with the portal's own identity; called to switch one off.
        disable_orphans: switch off entries that no row names, if they carry our tag and are a day old; without it only
            credentials that were replaced long ago (``consent.tokens.orphans``).
        adopt_older: redeems older tokens where the newer one is missing, and takes up those that are honoured; None
            leaves them as they are.
        max_share: percent of what was looked at that may be changed without a question.
        progress: called now and then with how many rows were looked at.
        between: called after each row; what it raises ends the run there, and the next one begins anew.
    """

    def __init__(
        self,
        *,
        vault: Vault,
        inventory: Inventory,
        actor: Actor,
        since: datetime | None = None,
        key_inventory: KeyInventory | None = None,
        keys: Callable[[], VaultKeys] | None = None,
        dry_run: bool = False,
        disable_orphans: bool = False,
        adopt_older: TokenService | None = None,
        max_share: int = 20,
        progress: Callable[[int], None] = lambda done: None,
        between: Callable[[], None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._vault = vault
        self._custody = Custody(vault)
        self._inventory: Inventory | None = inventory
        self._key_inventory = key_inventory
        self._keys = keys
        self._actor = actor
        self._since = since
        self._looked_at: set[str] = set()  # as incidents name it
        self._crowded: dict[int, int] = {}  # versions, by partner
        self._disable_orphans = disable_orphans
        self._adopt_older = adopt_older
        self._max_share = max_share
        self._progress = progress
        self._between = between
        self._sleep = sleep
        self._names: set[SecretName] = set()
        self._orphans: Orphans | None = None
        self._deleted: set[SecretName] | None = None
        self._report = ReconcileReport(dry_run=dry_run)

    def run(self) -> ReconcileReport:
        """Look at everything, then repair what is safe.

        Raises:
            TooManyChanges: nothing was changed.
            RemoteError: the vault does not answer, or does not let the identity in.
        """
        require(self._actor, SERVER)
        if self._since is None:
            self._list_names()
        for consent in self._consents().order_by("pk").iterator():
            self._looked_at.add(f"consent:{consent.pk}")
            self._add(self._consent(consent))
        for waiting in self._waiting_tokens().select_related("consent").order_by("pk").iterator():
            self._looked_at.add(f"waiting:{waiting.pk}")
            self._add(self._waiting(waiting))
        if self._orphans is not None:
            for difference in self._orphans.find():
                self._add([difference])
        for difference in self._revived():
            self._add([difference])
        self._refuse_too_many()
        if not self._report.dry_run:
            self._repair()
            self._tell_staff()
            record(
                "vault.reconciled",
                actor=self._actor,
                subject={},
                details={
                    "whole": self._since is None,
                    "differences": self._report.counts,
                    "open": self._report.open,
                },
            )
        return self._report

    # --- looking --------------------------------------------------------------------------------------------------

    def _consents(self) -> QuerySet[PartnerConsent]:
        rows = PartnerConsent.objects.all()
        if self._since is None:
            return rows
        unfinished = ~Q(replaced_version="") | Q(renewal_started_at__isnull=False)
        moved = Q(stored_at__gte=self._since) | Q(consented_at__gte=self._since)
        return rows.filter(unfinished | moved | Q(pk__in=self._known("consent")))

    def _waiting_tokens(self) -> QuerySet[WaitingToken]:
        rows = WaitingToken.objects.exclude(decided_at__lt=timezone.now() - _DEAD_AFTER)
        if self._since is None:
            return rows
        return rows.filter(
            Q(decision=WaitingToken.Decision.WAITING)
            | Q(decided_at__gte=self._since)
            | Q(pk__in=self._known("waiting"))
        )

    @staticmethod
    def _known(label: str) -> list[int]:
        """Return the keys of what is known to differ."""
        known = (about.partition(":") for about in vault_incidents.known_to_differ())
        return [int(key) for name, _, key in known if name == label]

    def _list_names(self) -> None:
        """Take the names before the rows: whatever is written meanwhile has its row first, so it is no orphan."""
        inventory = self._inventory
        if inventory is None:
            return
        try:
            self._names = set(self._ask(lambda: list(inventory.names())))
        except AccessDenied:
            self._may_not_list()
            return
        self._orphans = Orphans(inventory, self._names, self._list_keys(), ask=self._ask)

    def _may_not_list(self) -> None:
        self._inventory = None
        self._report.not_looked_at.append(
            "The identity may not List: entries that no row names, and old versions behind the newest one, were "
            "not looked at. Give the right List to the identity of VAULT_RECONCILE_IDENTITY to see them."
        )

    def _list_keys(self) -> dict[SecretName, list[VersionInfo]]:
        """Return the versions of the vault's keys that we made, by name."""
        known = self._key_inventory
        if known is None:
            return {}
        try:
            names = self._ask(lambda: list(known.names()))
            return {name: self._ask(lambda name=name: known.versions(name)) for name in names}  # type: ignore[misc]
        except AccessDenied:
            if ApplicationCredential.objects.filter(kind=ApplicationCredential.Kind.VAULT_KEY).exists():
                self._report.not_looked_at.append(
                    "The identity may not list keys: keys of the vault that no credential names were not looked at. "
                    "Give the right List on keys to the identity of VAULT_RECONCILE_IDENTITY to see them."
                )
        return {}

    def _add(self, found: Sequence[Difference]) -> None:
        self._report.differences += found
        self._report.looked_at += 1
        self._between()
        if self._report.looked_at % 500 == 0:
            self._progress(self._report.looked_at)

    def _versions(self, name: str) -> list[VersionInfo]:
        """Return what is known about the versions of this entry: all with the right to List, else the newest."""
        inventory, known = self._inventory, SecretName(name)
        if inventory is not None and self._since is None and known not in self._names:
            return []
        try:
            if inventory is not None:
                return self._ask(lambda: inventory.versions(known))
        except AccessDenied:
            self._may_not_list()
        try:
            newest = self._ask(lambda: self._vault.read_newest(known))
        except (NotFound, SecretDisabled, VaultDamaged):
            return []
        return [
            VersionInfo(
                name=known, version=newest.version, enabled=True, tags=newest.tags, created_at=newest.created_at
            )
        ]

    def _consent(self, consent: PartnerConsent) -> list[Difference]:
        """Compare one row, again if it was renewed meanwhile."""
        while True:
            found = self._compare(consent)
            if not found:
                return []
            again = PartnerConsent.objects.filter(pk=consent.pk).first()
            if again is None:
                return []
            if again.lease_until is not None and again.lease_until > timezone.now():
                self._report.busy += 1
                return []
            if _pointer(again) == _pointer(consent):
                return found
            consent = again

    def _compare(self, consent: PartnerConsent) -> list[Difference]:
        if consent.state == State.STOPPED:
            self._report.stopped += 1
            return []

        def differs(kind: Kind, version: str = "", note: str = "") -> Difference:
            subject = {"partner": consent.partner_id, "consent": consent.pk}
            return Difference(kind=kind, subject=subject, name=consent.secret_name, version=version, note=note)

        try:
            versions = self._versions(consent.secret_name)
        except RemoteError as error:
            _raise_systemic(error)
            return [differs(Kind.UNREADABLE, note=f"[{error}]")]
        most = 0 if self._inventory is None else self._inventory.most_versions
        if most and len(versions) >= most * _CROWDED_SHARE:
            self._crowded[consent.partner_id] = len(versions)
        enabled = [each for each in versions if each.enabled and not each.damage]
        ours = [each for each in enabled if each.record == record_id(consent)]
        others = [each for each in ours if each.version != consent.secret_version]
        if consent.generation == 0:
            return [differs(Kind.CUT_OFF, each.version) for each in ours]
        if consent.state == State.DISCONNECTED:
            return [differs(Kind.DISCONNECTED, each.version) for each in ours]
        odd = [differs(Kind.FOREIGN, each.version) for each in enabled if each not in ours]
        odd += [
            differs(Kind.OTHER_DAMAGED, each.version, each.damage)
            for each in versions
            if each.damage and each.version != consent.secret_version
        ]
        newest = max(others, key=lambda each: (each.generation, each.created_at), default=None)
        if newest is not None and newest.generation > consent.generation:
            old = [each for each in others if each is not newest]
            return [differs(Kind.NEWER, newest.version), *(differs(Kind.LEFTOVER, each.version) for each in old), *odd]
        pointer = self._compare_pointer(consent, versions)
        if pointer is None:
            return [*(differs(Kind.LEFTOVER, each.version) for each in others), *odd]
        kind, note = pointer
        if kind is Kind.MISMATCH:
            return [differs(kind, consent.secret_version)]
        missing = differs(kind, consent.secret_version, note)
        if others:  # never back: it stays for a person to decide
            missing.note = f"{note} {len(others)} older enabled version(s) are left as they are.".strip()
        if kind is Kind.MISSING:
            others.sort(key=lambda each: (each.generation, each.created_at), reverse=True)
            missing.older = [each.version for each in others]
        return [missing, *odd]

    def _compare_pointer(self, consent: PartnerConsent, versions: list[VersionInfo]) -> tuple[Kind, str] | None:
        """Read the version that the database names. Returns what is wrong with it, or None."""
        seen = next((each for each in versions if each.version == consent.secret_version), None)
        if seen is not None and not seen.damage and not seen.enabled:
            return Kind.DISABLED, ""
        try:
            self._ask(lambda: self._custody.versions.look_up(consent))
        except IdentityMismatch:
            return Kind.MISMATCH, ""
        except NotFound:
            return (Kind.DELETED, "") if self._is_deleted(consent.secret_name) else (Kind.MISSING, "")
        except SecretDisabled:
            return Kind.DISABLED, ""
        except VaultDamaged as error:
            return Kind.DAMAGED, seen.damage if seen is not None else error.detail
        except RemoteError as error:
            _raise_systemic(error)
            return Kind.UNREADABLE, f"[{error}]"
        return None

    def _is_deleted(self, name: str) -> bool:
        inventory = self._inventory
        if inventory is None:
            return False
        if self._deleted is None:
            self._deleted = set(self._ask(lambda: list(inventory.deleted_names())))
        return SecretName(name) in self._deleted

    def _waiting(self, waiting: WaitingToken) -> list[Difference]:
        now = timezone.now()
        undecided = waiting.decision == WaitingToken.Decision.WAITING

        def differs(kind: Kind, version: str = "", note: str = "") -> Difference:
            subject = {"partner": waiting.consent.partner_id, "waiting": waiting.pk}
            return Difference(kind=kind, subject=subject, name=waiting.secret_name, version=version, note=note)

        if undecided and not waiting.secret_version and waiting.created_at > now - _BETWEEN_STEPS:
            return []
        try:
            if not undecided or waiting.expires_at <= now or not waiting.secret_version:
                return [
                    differs(Kind.WAITING_OVER, each.version)
                    for each in self._versions(waiting.secret_name)
                    if each.enabled and not each.damage
                ]
            stored = self._read(waiting.secret_name, waiting.secret_version)
        except RemoteError as error:
            _raise_systemic(error)
            return [differs(Kind.WAITING_LOST, waiting.secret_version, f"[{error}]")]
        if not hmac.compare_digest(token_fingerprint(stored.value), waiting.fingerprint):
            return [differs(Kind.WAITING_LOST, waiting.secret_version, "It is not the one that was stored.")]
        return []

    def _revived(self) -> Iterator[Difference]:
        """Yield the partners that the vault knows to be erased and the database does not (S-69)."""
        if any(TOMBSTONE_NAME.fullmatch(name) for name in self._names):
            erased = set(Erasure.objects.values_list("partner", flat=True))  # what is not done goes on by itself
            for partner in PartnerTenant.objects.exclude(pk__in=erased).order_by("pk").iterator():
                if (name := tombstones.name_of(partner)) in self._names:
                    yield Difference(kind=Kind.REVIVED, subject={"partner": partner.pk}, name=name)

    # --- repairing ------------------------------------------------------------------------------------------------

    def _refuse_too_many(self) -> None:
        """Stop before the first change when this looks like the wrong vault or the wrong database."""
        report = self._report
        wrong = {(each.name, each.about) for each in report.differences if each.meaning.repair or each.meaning.loud}
        allowed = max(_FEW, report.looked_at * self._max_share // 100)
        if report.dry_run:
            return
        if len(wrong) <= allowed:
            if self._since is None:
                settle(vault_incidents.MANY)
        else:
            vault_incidents.tell_of_many(len(wrong), report.looked_at)
            raise TooManyChanges(
                f"{len(wrong)} of {report.looked_at} rows and entries differ, more than {self._max_share} percent; "
                "nothing was changed. Make sure that VAULT_URL and DATABASE_URL belong together and that no older copy "
                "was restored by mistake; see what differs with --dry-run, then allow it with --max-share 100"
            )

    def _repair(self) -> None:
        for difference in self._report.differences:
            self._between()
            try:
                if difference.kind in {Kind.ORPHAN, Kind.OLD_CREDENTIAL}:
                    difference.outcome = self._disable_orphan(difference)
                elif difference.older and self._adopt_older is not None:
                    difference.outcome = self._take_up_older(difference, self._adopt_older)
                elif difference.meaning.repair:
                    difference.outcome = self._repair_one(difference)
            except RemoteError as error:
                difference.outcome = f"failed: {error}"

    def _repair_one(self, difference: Difference) -> str:
        if difference.kind in {Kind.WAITING_OVER, Kind.RETIRED_CREDENTIAL}:
            self._switch_off(difference)
            return REPAIRED
        if difference.kind is Kind.REVIVED:
            return self._close_again(difference)
        consent = PartnerConsent.objects.get(pk=difference.subject["consent"])
        with self._custody.lease(consent) as owner:
            if owner is None:
                return "busy: its token is being renewed; run this again"
            consent = PartnerConsent.objects.select_related("partner", "registration__credential").get(pk=consent.pk)
            if difference.kind is Kind.MISMATCH:
                pointer = self._compare_pointer(consent, [])
                if pointer is not None and pointer[0] is Kind.MISMATCH:
                    self._custody.stop(consent, "reconcile", CorrelationId(""))
                return "partner stopped"
            if not any(
                (now.kind, now.version) == (difference.kind, difference.version) for now in self._compare(consent)
            ):
                return REPAIRED  # by an earlier step of this run, or by the portal meanwhile
            if difference.kind is Kind.NEWER:
                newer = self._read(difference.name, difference.version)
                self._custody.adopt(consent, newer, owner)
                consent.refresh_from_db()
                return REPAIRED if consent.secret_version == difference.version else "busy: run this again"
            self._switch_off(difference)
        return REPAIRED

    def _close_again(self, difference: Difference) -> str:
        """Do nothing for the partner any more; its rows a person erases again."""
        partner = difference.subject["partner"]
        with transaction.atomic():
            gone = PartnerTenant.Switch.OFFBOARDED
            if PartnerTenant.objects.filter(pk=partner).exclude(switch=gone).update(switch=gone):
                links.revoke_all(partner, actor=self._actor)
                record("vault.partner_closed", actor=self._actor, subject=difference.subject)
        return "partner closed; its rows are still there"

    def _take_up_older(self, difference: Difference, tokens: TokenService) -> str:
        """Try the older versions, newest first; the others of them are switched off when one is taken up."""
        consent = PartnerConsent.objects.get(pk=difference.subject["consent"])
        with self._custody.lease(consent) as owner:
            if owner is None:
                return "busy: its token is being renewed; run this again"
            consent = PartnerConsent.objects.select_related("partner", "registration__credential").get(pk=consent.pk)
            now = next((each for each in self._compare(consent) if each.kind is Kind.MISSING), None)
            if now is None:
                return REPAIRED  # by the portal meanwhile
            why = ""
            for version in now.older:
                try:
                    older = self._read(consent.secret_name, version)
                    tokens.take_up_older(consent, older, owner, actor=self._actor, correlation_id=new_correlation_id())
                except (TokenUnavailable, IdentityMismatch, ConsentRequired) as refused:
                    why = f"not taken up: {refused}"
                    continue
                for other in now.older:
                    if other != version:
                        self._switch_off(replace(now, kind=Kind.LEFTOVER, version=other))
                return TAKEN_UP
            return why

    def _disable_orphan(self, difference: Difference) -> str:
        if self._orphans is None:
            return ""
        why_not = self._orphans.why_not(difference, asked=self._disable_orphans)
        if why_not is not None:
            return why_not
        self._switch_off(difference)
        return REPAIRED

    def _switch_off(self, difference: Difference) -> None:
        holder = self._vault if not is_key(difference.name) or self._keys is None else self._keys()
        self._ask(lambda: holder.disable(SecretName(difference.name), SecretVersion(difference.version)))
        record(
            "vault.version_disabled",
            actor=self._actor,
            subject=difference.subject,
            details={"why": difference.kind.value, "name": difference.name, "version": difference.version},
        )

    def _tell_staff(self) -> None:
        looked_at = None if self._since is None else self._looked_at
        vault_incidents.tell_of_differences(self._report.differences, looked_at)
        if self._inventory is not None:
            most = self._inventory.most_versions
            vault_incidents.tell_of_versions(self._crowded, most, whole=self._since is None)

    # --- the vault ------------------------------------------------------------------------------------------------

    def _read(self, name: str, version: str) -> StoredSecret:
        return self._ask(lambda: self._vault.read(SecretName(name), SecretVersion(version)))

    def _ask[T](self, call: Callable[[], T]) -> T:
        """Ask the vault patiently: what may be retried is, after the time it names (R-08)."""
        for attempt in range(1, _TRIES + 1):
            try:
                return call()
            except RemoteError as error:
                if not error.retryable or attempt == _TRIES:
                    raise
                wait = error.retry_after if error.retry_after is not None else 2.0**attempt
                self._sleep(min(wait, _LONGEST_WAIT) + random.uniform(0, 1))  # noqa: S311
        raise AssertionError("unreachable")


def _raise_systemic(error: RemoteError) -> None:
    """Let through what concerns the whole vault; anything else is about this entry and must not stop the run (R-30)."""
    if error.retryable or isinstance(error, AuthenticationFailed):
        raise error


def _pointer(consent: PartnerConsent) -> tuple[int, str, str, str, datetime | None]:
    return consent.generation, consent.secret_name, consent.secret_version, consent.state, consent.stored_at
