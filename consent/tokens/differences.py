"""What can differ between database and vault, each with its words, its owner, and whether it is safe to repair."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from consent.vault.base import SecretVersion
from portal.microsoft.diagnosis import Owner


class Kind(StrEnum):
    """What differs."""

    NEWER = "newer_version"
    LEFTOVER = "old_version_enabled"
    CUT_OFF = "first_consent_cut_off"
    DISCONNECTED = "disconnected_still_enabled"
    WAITING_OVER = "waiting_token_over"
    ORPHAN = "orphan"
    OLD_CREDENTIAL = "credential_without_row"
    RETIRED_CREDENTIAL = "retired_credential_enabled"
    MISSING = "token_missing"
    DELETED = "token_deleted"
    DISABLED = "token_disabled"
    DAMAGED = "token_damaged"
    UNREADABLE = "token_not_readable"
    MISMATCH = "identity_mismatch"
    FOREIGN = "foreign_version"
    OTHER_DAMAGED = "old_version_damaged"
    WAITING_LOST = "waiting_token_lost"
    REVIVED = "erased_partner_is_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """``repair`` is empty for what only a person can decide; ``loud`` opens an incident.

    ``option`` of ``vault_reconcile`` does what the remedy says; pages do not name it.
    """

    what: str
    repair: str = ""
    remedy: str = ""
    option: str = ""
    owner: Owner = Owner.US
    loud: bool = False


MEANINGS: dict[Kind, Meaning] = {
    Kind.NEWER: Meaning(
        what="The vault holds a newer token of this partner than the database names.",
        repair="use the newer one and switch the older off",
    ),
    Kind.LEFTOVER: Meaning(what="An older token of this partner is still enabled.", repair="switch it off"),
    Kind.CUT_OFF: Meaning(what="A token of a first consent that was interrupted is enabled.", repair="switch it off"),
    Kind.DISCONNECTED: Meaning(
        what="The partner is disconnected and its token is still enabled.", repair="switch it off"
    ),
    Kind.WAITING_OVER: Meaning(
        what="The token of a changed account is enabled, although it was decided on, or its time is over.",
        repair="switch it off",
    ),
    Kind.ORPHAN: Meaning(
        what="No row names this entry: a write was cut off, the partner was erased, or the database is an older copy.",
        remedy="Restore the newer database if there is one; else let an operator disable such entries.",
        option="--disable-orphans",
    ),
    Kind.OLD_CREDENTIAL: Meaning(
        what="This secret or key of an application is enabled, and no credential names it: making it was cut off, or "
        "the database is an older copy.",
        remedy="Restore the newer database if there is one. Else there is nothing to do: it is switched off 30 days "
        "after it was made, once the credential in use is a newer one; an operator can disable it sooner.",
        option="--disable-orphans",
    ),
    Kind.RETIRED_CREDENTIAL: Meaning(
        what="The secret or key of a credential that was retired is still enabled.", repair="switch it off"
    ),
    Kind.MISSING: Meaning(
        what="The vault does not hold the token that the database names.",
        remedy="Restore the vault's newer backup, let an operator take up the older token, or send a new link.",
        option="--adopt-older",
        loud=True,
    ),
    Kind.DELETED: Meaning(
        what="This partner's entry in the vault was deleted; it can still be recovered.",
        remedy="Let an administrator of the vault recover it, or send the partner a new link.",
        loud=True,
    ),
    Kind.DISABLED: Meaning(
        what="The token that the database names is disabled in the vault.",
        remedy="Find out who disabled it; enable it in the vault, or send the partner a new link.",
        loud=True,
    ),
    Kind.DAMAGED: Meaning(
        what="The stored token that the database names cannot be read.",
        remedy="Put the file back from a backup of the vault, or send the partner a new link.",
        loud=True,
    ),
    Kind.UNREADABLE: Meaning(
        what="The vault refuses the token that the database names.",
        remedy="Check the identity's right Get and this row's names; then compare again.",
        loud=True,
    ),
    Kind.MISMATCH: Meaning(
        what="The vault's token is not the one that this partner stored.",
        repair="stop the partner",
        remedy="Find out who changed the database or the vault; afterwards send the partner a new link.",
        loud=True,
    ),
    Kind.FOREIGN: Meaning(
        what="Another record's token is enabled under this partner's entry.",
        remedy="Find out who wrote it into the vault; it is used for nothing.",
        loud=True,
    ),
    Kind.OTHER_DAMAGED: Meaning(
        what="An old version cannot be read; the token in use is not affected.",
        remedy="Put the file back from a backup of the vault, or delete it.",
    ),
    Kind.WAITING_LOST: Meaning(
        what="The token of an account that waits for approval cannot be used.",
        remedy="Reject it in the admin, and ask the partner to sign in again.",
        loud=True,
    ),
    Kind.REVIVED: Meaning(
        what="The vault says that this partner was erased: the database is an older copy, in which it is back.",
        repair="close the partner and its links",
        remedy="Restore the newer database, or erase the partner again.",
        loud=True,
    ),
}


@dataclass(slots=True, kw_only=True)
class Difference:
    """One difference, and what became of it. Names of entries are random ids, so they may be printed (S-41)."""

    kind: Kind
    subject: dict[str, int]
    """``partner``, and ``consent`` or ``waiting`` if it is about a token, or ``registration``; empty for what no row
    names."""
    name: str
    version: str = ""
    note: str = ""
    """What is special here, in our words."""
    outcome: str = ""
    """``repaired`` or ``older token taken up``, why not, or empty where nothing was tried."""
    older: list[SecretVersion] = field(default_factory=list)
    """Enabled versions of this record that could be tried in place of the missing one, newest first."""

    @property
    def meaning(self) -> Meaning:
        return MEANINGS[self.kind]

    @property
    def is_over(self) -> bool:
        """Whether this run ended the difference."""
        return self.outcome in {REPAIRED, TAKEN_UP}

    @property
    def about(self) -> str:
        """What an incident is about: ``consent:41``."""
        label = next((name for name in ("consent", "waiting", "partner") if name in self.subject), "waiting")
        return f"{label}:{self.subject.get(label, 0)}"

    @property
    def words(self) -> str:
        """Say what differs, and what is special here."""
        return f"{self.meaning.what} {self.note}".strip()


@dataclass(slots=True, kw_only=True)
class ReconcileReport:
    """What one run saw and did."""

    dry_run: bool
    looked_at: int = 0
    """Rows and entries."""
    differences: list[Difference] = field(default_factory=list)
    busy: int = 0
    """Rows that are being renewed right now; the next run looks at them."""
    stopped: int = 0
    """Partners that were stopped before; nothing of theirs is touched."""
    not_looked_at: list[str] = field(default_factory=list)
    """What the identity's rights do not show, in plain words."""

    @property
    def open(self) -> int:
        """How many differences remain."""
        return sum(not each.is_over for each in self.differences)

    @property
    def taken_up(self) -> int:
        """How many partners work with an older token, because the newer one is lost."""
        return sum(each.outcome == TAKEN_UP for each in self.differences)

    @property
    def counts(self) -> dict[str, int]:
        """How many differences of each kind."""
        return {kind.value: number for kind in Kind if (number := sum(d.kind is kind for d in self.differences))}


REPAIRED = "repaired"
TAKEN_UP = "older token taken up"
