"""Erase a partner: its tokens in the vault, its links and attempts, and what rows say of its people (S-68).

The order makes it safe to end anywhere and be repeated:

    start     one transaction: from its commit on nothing is done for the partner; the vault's entries are noted
    vault     every entry is switched off, deleted and purged; then the vault remembers that the partner was erased
    rows      one transaction empties all rows, and seals and stores the report

The last transaction is all or nothing, so a person's name is never half gone, and the report is true. The vault
remembers the erasure before the rows are emptied: a database that is restored later meets it (S-69).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from consent import clients
from consent.invitations import links
from consent.models import ConsentLink, Erasure, Offboarding, PartnerConsent, WaitingToken
from consent.offboarding.erasure import ErasureReport, entries_of, erase_all
from consent.offboarding.personal import forget, pseudonym
from consent.offboarding.report import ERASURE_FORMAT, VAULT_WORDS, sealed_file, time_of
from consent.tokens import tombstones
from consent.tokens.custody import TokenUnavailable
from consent.vault.base import SecretName, VaultConfigurationError
from portal.audit.seals import Seal, canonical, digest, seal
from portal.audit.trail import Actor, record
from portal.decisions.kinds import Approval
from portal.incidents.service import report as report_incident
from portal.incidents.service import settle
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import RemoteError
from portal.rights import require
from portal.site.sight import require_sight
from tenants.models import PartnerTenant

ERASE = "consent.erase_partner"
UNFINISHED = "erasure_unfinished"  # cause of the incident
State = Erasure.State


class ErasureRefused(ValueError):
    """It cannot be begun so; the text says why and what comes first."""


class ErasureUnfinished(Exception):
    """The vault did not let everything go; no row was emptied. The text says what to do; then it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How much an erasure takes away, for the person who confirms it."""

    tokens: int
    links: int
    contacts: int
    customers: int


def reach(partner: PartnerTenant) -> Reach:
    """Count what an erasure of this partner takes away; five queries."""
    return Reach(
        tokens=len(entries_of(partner.pk)),
        links=ConsentLink.objects.filter(partner=partner).count(),
        contacts=partner.contacts.count(),
        customers=partner.customers.count(),
    )


FAILURES = (RemoteError, TokenUnavailable, VaultConfigurationError, ErasureUnfinished)
"""What ``advance`` raises when the vault did not do its part."""


def start(partner: PartnerTenant, *, approved: Approval) -> Erasure:
    """Begin, go on with what was begun, or repeat what was done: somebody may have written to the rows since.

    Nothing is done for the partner from then on, in any process. No call leaves.

    Args:
        approved: what two persons decided (S-50); it names who asked.

    Raises:
        ErasureRefused: the partner is active, or is just being offboarded.
    """
    actor = approved.actor
    require(actor, ERASE)
    require_sight(actor, partner)
    if Offboarding.objects.open().filter(partner=partner).exists():
        raise ErasureRefused(f"{partner.name} is being offboarded. Let that come to its end; then it can be erased.")
    with transaction.atomic():
        is_ = PartnerTenant.Switch
        off = PartnerTenant.objects.filter(pk=partner.pk).exclude(switch=is_.ON)
        if not off.update(switch=is_.OFFBOARDED):
            raise ErasureRefused(f"{partner.name} is active. Offboard or disable it first; then it can be erased.")
        begun = {"started_at": timezone.now(), "started_by": actor.name}
        erasure, new = Erasure.objects.get_or_create(partner=partner, defaults=begun)
        done = Erasure.objects.filter(pk=erasure.pk, state=State.DONE).update(
            state=State.ERASING, finished_at=None, report="", seal="", seal_key="", **begun
        )
        if new or done:
            Erasure.objects.filter(pk=erasure.pk).update(vault_entries=_entries(erasure))
            links.revoke_all(partner.pk, actor=actor)
            record("partner.erasure_started", actor=actor, subject=_subject(erasure), details=approved.noted())
    return Erasure.objects.select_related("partner").get(pk=erasure.pk)


def _entries(erasure: Erasure) -> list[dict[str, str]]:
    """Return the entries that the partner has or had: also what its offboarding erased belongs into the report."""
    before = Offboarding.objects.filter(partner=erasure.partner_id).values_list("vault_entries", flat=True)
    entries = [*(entry for entries in before for entry in entries), *erasure.vault_entries]
    known = {one["name"]: {"name": one["name"], "what": one["what"]} for one in entries}
    return list((known | {one["name"]: one for one in entries_of(erasure.partner_id)}).values())


def advance(erasure: Erasure, *, actor: Actor) -> Erasure:
    """Do what is left; safe to call at any time, again, and by several processes at once.

    Raises:
        ErasureUnfinished: the identity may not delete. As with the others, no row was emptied, staff are told, and it
            can be repeated.
        TokenUnavailable: a token is being renewed right now, or the vault did not switch a version off.
        RemoteError, VaultConfigurationError: the vault failed.
    """
    require(actor, ERASE)
    erasure = Erasure.objects.select_related("partner").get(pk=erasure.pk)
    if erasure.state == State.DONE:
        return erasure
    partner = erasure.partner
    try:
        erased = _empty_the_vault(erasure, actor)
        tombstone = tombstones.put(partner, at=erasure.started_at, vault=clients.vault())
    except FAILURES as error:
        _tell(partner, error)
        raise
    with transaction.atomic():
        # The row is locked by this: of two processes the second finds it done.
        if Erasure.objects.filter(pk=erasure.pk, state=State.ERASING).update(started_by=F("started_by")):
            _empty_the_rows(erasure, erased, tombstone, actor)
    return Erasure.objects.select_related("partner").get(pk=erasure.pk)


def _empty_the_vault(erasure: Erasure, actor: Actor) -> ErasureReport:
    partner, vault, eraser = erasure.partner, clients.vault(), clients.eraser()
    erased = erase_all(partner, vault=vault, eraser=eraser, actor=actor, allowed_by=erasure)
    if erased.disabled:
        raise ErasureUnfinished(
            "Entries of the vault could only be switched off: the identity may not delete. Set VAULT_ERASE_IDENTITY to "
            "one that has Delete and Purge."
        )
    # What was cut off between the row and the vault: the row names an entry and no version of it.
    cut_off = [
        *PartnerConsent.objects.filter(partner=partner, generation=0).values_list("secret_name", flat=True),
        *WaitingToken.objects.filter(consent__partner=partner, secret_version="").values_list("secret_name", flat=True),
    ]
    for name in cut_off:
        eraser.erase(SecretName(name))
    return erased


def _empty_the_rows(erasure: Erasure, erased: ErasureReport, tombstone: str, actor: Actor) -> None:
    partner = erasure.partner
    settle(UNFINISHED, about=f"partner:{partner.pk}")
    for entry in erasure.vault_entries:
        # What is not held any more, an earlier try erased.
        entry["result"] = erased.outcomes.get(entry["name"], "erased")
    erasure.finished_at = timezone.now()
    numbers = forget(partner)
    if rewritten := _rename_in_reports(partner, actor):
        numbers["reports of offboardings"] = rewritten
    text = canonical(_report(erasure, numbers, tombstone))
    sealed = seal(text)
    Erasure.objects.filter(pk=erasure.pk).update(
        state=State.DONE,
        finished_at=erasure.finished_at,
        vault_entries=erasure.vault_entries,
        report=text,
        seal=sealed.value,
        seal_key=sealed.key_id,
    )
    record("partner.erased", actor=actor, subject=_subject(erasure), details={"report_sha256": digest(text)})


def _rename_in_reports(partner: PartnerTenant, actor: Actor) -> int:
    """Take the names out of the kept reports of offboardings and seal what is left; what was downloaded stays valid."""
    changed = 0
    for one in Offboarding.objects.filter(partner=partner, state=Offboarding.State.DONE):
        report = json.loads(one.report)
        report["partner"]["name"] = pseudonym(partner)
        for customer in report["customers"]:
            customer["company"] = customer["reason"] = ""
        text = canonical(report)
        if text != one.report:
            sealed = seal(text)
            Offboarding.objects.filter(pk=one.pk).update(report=text, seal=sealed.value, seal_key=sealed.key_id)
            record(
                "offboarding.report_emptied",
                actor=actor,
                subject={"partner": partner.pk, "offboarding": one.pk},
                details={"report_sha256": digest(text)},
            )
            changed += 1
    return changed


def _report(erasure: Erasure, numbers: dict[str, int], tombstone: str) -> dict[str, Any]:
    partner = erasure.partner
    return {
        "format": ERASURE_FORMAT,
        "erasure": erasure.pk,
        "partner": {
            "id": partner.pk,
            "name": pseudonym(partner),
            "tenant_id": partner.tenant_id,
            "cloud": partner.cloud,
        },
        "started_at": erasure.started_at.isoformat(timespec="seconds"),
        "started_by": erasure.started_by,
        "finished_at": time_of(erasure.finished_at),
        "rows": numbers,
        "vault": [{**entry, "meaning": VAULT_WORDS[entry["result"]]} for entry in erasure.vault_entries],
        "tombstone": tombstone,
        "remains": _remains(erasure),
    }


def _remains(erasure: Erasure) -> list[dict[str, str]]:
    """Say what is left, why, and until when."""
    found = []
    if any(entry["result"] == "recoverable" for entry in erasure.vault_entries):
        found.append(
            {
                "what": "Deleted entries of the vault, which its administrator can recover; see their list.",
                "why": "The identity may not purge, or the vault is protected against it.",
                "until": "The vault's retention ends, or this is repeated with the right Purge.",
            }
        )
    found += [
        {
            "what": "The audit trail: ids of the partner, of accounts, links and customers; addresses; what the "
            "partner was called where staff added or renamed it.",
            "why": "It cannot be changed; it shows who did what for whom.",
            "until": "The trail's retention ends.",
        },
        {
            "what": "Tenant ids of the partner and its customers, and what was granted there and when.",
            "why": "They name organisations, and prove what our application could do.",
            "until": "There is no end.",
        },
        {
            "what": "An entry of the vault that says that this tenant was erased.",
            "why": "A database that is restored from an older copy must not bring the partner back.",
            "until": "There is no end.",
        },
        {
            "what": "Copies of the database from before, logs, mails that were sent, reports and exports that were "
            "downloaded, and files from which partners were imported.",
            "why": "The portal does not hold them.",
            "until": "Whoever keeps them removes them.",
        },
        {
            "what": "Tokens that Microsoft issued before: no call of ours ends them.",
            "why": "Only Microsoft can.",
            "until": "Access tokens end within 90 minutes; the partner's administrator revokes the account's sessions.",
        },
    ]
    return found


def _tell(partner: PartnerTenant, error: Exception) -> None:
    report_incident(
        UNFINISHED,
        about=f"partner:{partner.pk}",
        name=partner.name,
        owner=Owner.US,
        words=f"The erasure of this partner is not finished; it is tried again every ten minutes. {_why(error)}",
        subject={"partner": partner.pk},
    )


def _why(error: Exception) -> str:
    """Return the cause and what to do in our own words; a vault's answer is told by the table of diagnoses."""
    if isinstance(error, RemoteError):
        diagnosis = diagnose(error)
        return f"{diagnosis.cause} {diagnosis.remedy}"
    return str(error).rstrip(".") + "."


def to_file(erasure: Erasure) -> str:
    """Return the report with its seal, as a file holds it."""
    return sealed_file(erasure.report, Seal(key_id=erasure.seal_key, value=erasure.seal))


def _subject(erasure: Erasure) -> dict[str, str | int]:
    return {"partner": erasure.partner_id, "erasure": erasure.pk}
