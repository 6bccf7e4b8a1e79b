"""Partners out of a file: read, compared with what is there, found by domain, confirmed, applied.

A file is read into rows of the database first (``read``), each with its result: nothing else is changed by that.
Applying says the results anew, and writes. What a cell leaves empty stays as it is; tags and contacts are added and
never taken away; tenant and cloud of a partner never change. So the same file a second time has no effect.

The rows hold names and addresses of people, so they are removed with their import (``consent.upkeep``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import batched
from typing import Final

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone

from consent.models import PartnerImport, PartnerImportRow
from consent.moving_in.files import FileRefused, TableRow, read_table
from portal.audit.trail import Actor, Entry, Outcome, record, record_all
from portal.fields import validate_name
from portal.microsoft.clouds import CLOUD_CHOICES, UnknownCloud, get_cloud
from portal.microsoft.identifiers import parse_domain, parse_tenant_id
from portal.rights import require, require_unlimited
from portal.site.export import heading
from portal.text import number_of
from tenants.models import PartnerContact, PartnerTag, PartnerTenant

KEPT_FOR = timedelta(days=30)
MOST_TOGETHER = 20  # contacts or tags of one row
_PIECE = 200  # rows that are applied in one transaction
_LONGEST_TAG = 50
_LONGEST_WHY = 300
Result = PartnerImportRow.Result
_TO_APPLY: Final = (Result.NEW, Result.CHANGED)

_FIELDS: Final = ("name", "tenant_id", "cloud", "domain", "kind", "contact_addresses", "tag_names", "notes")
COLUMNS: Final[Mapping[str, str]] = {heading(PartnerTenant, name): name for name in _FIELDS}
"""Fields by the words above their columns: those of the list's export, and notes."""
# What the export has beside them says how a partner stands; it cannot be imported.
_PASSED_OVER: Final = {heading(PartnerTenant, name).casefold() for name in ("customers_synced_at", "state")}
_OF_WORDS: Final = {words.casefold(): name for words, name in COLUMNS.items()}
_CHANGEABLE: Final = ("name", "domain", "kind", "notes")
_SILENT: Final = frozenset({"notes"})  # of which a plan says only that it changes
_NOT_IN_THE_TRAIL: Final = frozenset({"name", "domain", "notes"})  # it says only that they changed (S-68)


# --- reading ------------------------------------------------------------------------------------------------------


def read(content: bytes, *, file_name: str, actor: Actor) -> PartnerImport:
    """Read a file of partners and keep its rows, each with what it would do.

    Args:
        file_name: for people; control characters are taken out.

    Raises:
        FileRefused: nothing was kept.
    """
    require(actor, "tenants.add_partnertenant")
    require(actor, "tenants.change_partnertenant")
    require_unlimited(actor)
    table = read_table(content)
    _check_header(table)
    name = re.sub(r"[^\w .()-]", "_", file_name)[:120] or "file"
    with transaction.atomic():
        imported = PartnerImport.objects.create(file_name=name, created_by=actor.name)
        rows = [_parsed(imported, row) for row in table]
        _leave_out_people(rows)
        judge(rows)
        PartnerImportRow.objects.bulk_create(rows)
        record(
            "partner_import.read",
            actor=actor,
            subject={"partner_import": imported.pk},
            details={"rows": len(rows), "results": dict(Counter(str(row.result) for row in rows))},
        )
    return imported


def _check_header(table: Sequence[TableRow]) -> None:
    if not table:
        raise FileRefused("The file has no row below the names of the columns.")
    words = {word for row in table for word in row.cells}
    unknown = sorted(words - set(_OF_WORDS) - _PASSED_OVER)
    if unknown:
        raise FileRefused(
            f"The column “{unknown[0][:60]}” is not known. These are: {', '.join(COLUMNS)}. Rename or remove it."
        )
    if not words & {"tenant id", "domain"}:
        raise FileRefused("The file needs a column “Tenant id” or “Domain”.")


def _parsed(imported: PartnerImport, row: TableRow) -> PartnerImportRow:
    """Return the row as it is kept. The first thing that is wrong with it is its problem."""
    cells = {_OF_WORDS[words]: text for words, text in row.cells.items() if words in _OF_WORDS}
    parsed = PartnerImportRow(imported=imported, number=row.number, problem=row.problem, notes=cells.get("notes", ""))
    for column, parse in _PARSERS.items():
        text = cells.get(column, "")
        try:
            value = parse(text) if text else ""
        except ValueError as error:  # whose text repeats nothing of the file
            parsed.problem = parsed.problem or f"{error}"[:199].rstrip(".") + "."
        else:
            setattr(parsed, column, value)
    return parsed


def _name(text: str) -> str:
    if len(text) > 200:
        raise ValueError("A name has at most 200 characters")
    try:
        validate_name(text)
    except ValidationError as error:
        raise ValueError(error.messages[0]) from None
    return text


def _cloud(text: str) -> str:
    known = {label.casefold(): key for key, label in CLOUD_CHOICES} | {key: key for key, _ in CLOUD_CHOICES}
    try:
        return get_cloud(known.get(text.casefold(), text)).key
    except UnknownCloud as error:
        raise ValueError(str(error)) from None


def _kind(text: str) -> str:
    known = {str(kind.label).casefold(): kind for kind in PartnerTenant.Kind} | {
        str(kind): kind for kind in PartnerTenant.Kind
    }
    if text.casefold() not in known:
        raise ValueError(f"A kind is one of: {', '.join(str(kind.label) for kind in PartnerTenant.Kind)}")
    return str(known[text.casefold()])


def _contacts(text: str) -> str:
    addresses = list({address.casefold(): address for address in re.split(r"[\s,;]+", text) if address}.values())
    if len(addresses) > MOST_TOGETHER:
        raise ValueError(f"A row names at most {MOST_TOGETHER} contacts")
    for address in addresses:
        try:
            validate_email(address)
        except ValidationError:
            raise ValueError("A contact address is not an e-mail address") from None
    return ", ".join(addresses)


def _tags(text: str) -> str:
    names = list(dict.fromkeys(name for part in re.split(r"[,;]", text) if (name := " ".join(part.split()))))
    if len(names) > MOST_TOGETHER or any(len(name) > _LONGEST_TAG for name in names):
        raise ValueError(f"A row has at most {MOST_TOGETHER} tags of at most {_LONGEST_TAG} characters")
    return ", ".join(_name(name) for name in names)


_PARSERS: Final[Mapping[str, Callable[[str], str]]] = {
    "name": _name,
    "tenant_id": parse_tenant_id,
    "cloud": _cloud,
    "domain": parse_domain,
    "kind": _kind,
    "contact_addresses": _contacts,
    "tag_names": _tags,
}


# --- comparing ----------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Known:
    """The partners that are there, with what rows are compared with."""

    partners: dict[str, PartnerTenant] = field(default_factory=dict)
    """By tenant id."""
    tags: dict[int, set[str]] = field(default_factory=dict)
    contacts: dict[int, set[str]] = field(default_factory=dict)
    """Addresses in lower case."""


@dataclass(slots=True, kw_only=True)
class _Change:
    """What a row would do to a partner that is there."""

    columns: dict[str, tuple[str, str]]
    """Before and after."""
    tags: list[str]
    contacts: list[str]

    def words(self) -> str:
        parts = [
            f"{name}: {'changed' if name in _SILENT else f'{before or "empty"} → {after}'}"
            for name, (before, after) in self.columns.items()
        ]
        parts += [f"tag {name}" for name in self.tags]
        parts += [number_of(len(self.contacts), "contact") + " more"] if self.contacts else []
        return "; ".join(parts)


def judge(rows: Sequence[PartnerImportRow]) -> None:
    """Set what each row would do now; rows are not saved. Three queries for every 200 rows.

    Rows that were done, or whose tenant waits for a person, keep their result.
    """
    first: dict[str, int] = {}
    known = _known(row.tenant_id for row in rows)
    for row in rows:
        name = row.tenant_id or row.domain
        if name and not row.problem:
            first.setdefault(name, row.number)
        if row.result and row.result not in PartnerImportRow.OPEN_RESULTS:
            continue
        row.result, why = _judged(row, known, first.get(name, row.number))
        row.why = why[:_LONGEST_WHY]


def _judged(row: PartnerImportRow, known: _Known, first: int) -> tuple[PartnerImportRow.Result, str]:
    if row.problem:
        return Result.REFUSED, row.problem
    if first != row.number:
        return Result.REFUSED, f"Row {first} is about the same tenant. Keep one of them."
    if not row.tenant_id:
        if not row.domain:
            return Result.REFUSED, "It names neither a tenant id nor a domain. Add one."
        return Result.TO_FIND, "The sign-in service is asked which tenant has the domain; then confirm it."
    partner = known.partners.get(row.tenant_id)
    if partner is None:
        return (Result.NEW, "") if row.name else (Result.REFUSED, "A new partner needs a name. Add it.")
    if partner.switch == PartnerTenant.Switch.OFFBOARDED:
        return Result.REFUSED, partner.why_inactive
    if row.cloud and row.cloud != partner.cloud:
        there, here = get_cloud(partner.cloud).name, get_cloud(row.cloud).name
        return Result.REFUSED, f"The partner is in {there}, the row says {here}. The cloud of a partner never changes."
    change = _change(row, partner, known)
    words = change.words()
    return (Result.CHANGED, words) if words else (Result.SAME, "")


def _known(tenants: Iterable[str]) -> _Known:
    known = _Known()
    for some in batched(sorted({tenant for tenant in tenants if tenant}), _PIECE):
        found = {partner.tenant_id: partner for partner in PartnerTenant.objects.filter(tenant_id__in=some)}
        known.partners |= found
        keys = [partner.pk for partner in found.values()]
        for key, tag in PartnerTenant.tags.through.objects.filter(partnertenant__in=keys).values_list(
            "partnertenant_id", "partnertag__name"
        ):
            known.tags.setdefault(key, set()).add(tag)
        for key, email in PartnerContact.objects.filter(partner__in=keys).values_list("partner_id", "email"):
            known.contacts.setdefault(key, set()).add(email.casefold())
    return known


def _change(row: PartnerImportRow, partner: PartnerTenant, known: _Known) -> _Change:
    tags, contacts = known.tags.get(partner.pk, set()), known.contacts.get(partner.pk, set())
    columns = {
        name: (getattr(partner, name), getattr(row, name))
        for name in _CHANGEABLE
        if getattr(row, name) not in ("", getattr(partner, name))
    }
    return _Change(
        columns=columns,
        tags=[name for name in row.tags if name not in tags],
        contacts=[address for address in row.contacts if address.casefold() not in contacts],
    )


# --- tenants of domains -------------------------------------------------------------------------------------------


def note_found(found: Sequence[tuple[PartnerImportRow, str, str]]) -> None:
    """Note which tenants have the domains of these rows, for staff to confirm. Call it in a transaction.

    Args:
        found: row, tenant id and cloud; the tenant id is empty where no tenant of any cloud has the domain.
    """
    for row, tenant_id, cloud in found:
        _note_found(row, tenant_id, cloud)
    rows = [row for row, _, _ in found]
    _leave_out_people(rows)
    columns = ["found_tenant_id", "found_cloud", "result", "why", "contact_addresses", "notes"]
    PartnerImportRow.objects.bulk_update(rows, columns)


def _note_found(row: PartnerImportRow, tenant_id: str, cloud: str) -> None:
    if not tenant_id:
        row.result = Result.REFUSED
        row.why = "No tenant of any cloud has this domain. Ask the partner for the tenant id itself."
    elif row.cloud and row.cloud != cloud:
        row.result = Result.REFUSED
        row.why = f"The domain's tenant is in {get_cloud(cloud).name}, and the row names another cloud."
    else:
        row.found_tenant_id, row.found_cloud, row.result = tenant_id, cloud, Result.TO_CONFIRM
        row.why = f"Is {tenant_id} in {get_cloud(cloud).name} the partner's tenant? Compare it, then confirm."


def confirm(imported: PartnerImport, keys: Sequence[int], *, actor: Actor) -> int:
    """Take the tenants that were found for those of the partners, because a person compared them; return how many."""
    require(actor, "tenants.add_partnertenant")
    require(actor, "tenants.change_partnertenant")
    require_unlimited(actor)
    with transaction.atomic():
        _hold(imported)
        rows = list(imported.rows.to_confirm().filter(pk__in=keys).order_by("number"))
        for row in rows:
            row.tenant_id, row.cloud, row.confirmed_by = row.found_tenant_id, row.found_cloud, actor.name[:150]
            row.result = Result.NEW
        PartnerImportRow.objects.bulk_update(rows, ["tenant_id", "cloud", "confirmed_by", "result"], batch_size=_PIECE)
        _judge_anew(imported)
        if rows:
            record(
                "partner_import.tenants_confirmed",
                actor=actor,
                subject={"partner_import": imported.pk},
                details={"tenants": {str(row.number): row.tenant_id for row in rows}},
            )
    return len(rows)


def _hold(imported: PartnerImport) -> None:
    """Let others who change this import wait until the transaction ends."""
    PartnerImport.objects.filter(pk=imported.pk).update(file_name=imported.file_name)


def _judge_anew(imported: PartnerImport) -> None:
    rows = list(imported.rows.order_by("number"))
    before = {row.pk: (row.result, row.why) for row in rows}
    judge(rows)
    changed = [row for row in rows if before[row.pk] != (row.result, row.why)]
    PartnerImportRow.objects.bulk_update(changed, ["result", "why"], batch_size=_PIECE)


# --- applying -----------------------------------------------------------------------------------------------------


def apply(imported: PartnerImport, *, actor: Actor) -> Counter[str]:
    """Add and change the partners of all rows that are good, in pieces; return how many rows came to which result.

    Doing it twice, or at the same time, is harmless: each piece says its results anew and writes in one transaction.
    """
    require(actor, "tenants.add_partnertenant")
    require(actor, "tenants.change_partnertenant")
    require_unlimited(actor)
    with transaction.atomic():
        _hold(imported)
        _judge_anew(imported)
    while _apply_next_again(imported, actor):
        pass
    PartnerImport.objects.filter(pk=imported.pk, applied_at__isnull=True).update(
        applied_at=timezone.now(), applied_by=actor.name[:150]
    )
    return results(imported)


def results(imported: PartnerImport) -> Counter[str]:
    """Return how many rows have which result."""
    rows = imported.rows.order_by().values_list("result").annotate(number=Count("pk"))
    return Counter(dict(rows))


def _apply_next_again(imported: PartnerImport, actor: Actor) -> bool:
    """Apply the next rows, a second time if somebody else added one of their tenants or tags at the same moment."""
    try:
        return _apply_next(imported, actor)
    except IntegrityError:
        return _apply_next(imported, actor)


def _apply_next(imported: PartnerImport, actor: Actor) -> bool:
    """Apply the next rows; return whether there were any."""
    with transaction.atomic():
        _hold(imported)
        rows = list(imported.rows.to_apply().order_by("number")[:_PIECE])
        _hold_partners(rows)
        judge(rows)  # as things are now: others may have changed them since
        PartnerImportRow.objects.bulk_update(rows, ["result", "why"])
        _apply_piece(imported, [row for row in rows if row.result in _TO_APPLY], actor)
    return bool(rows)


def _hold_partners(rows: Sequence[PartnerImportRow]) -> None:
    """Let others who change these partners wait: what is read of them from now on is what is written over."""
    PartnerTenant.objects.filter(tenant_id__in=[row.tenant_id for row in rows]).update(name=F("name"))


def _apply_piece(imported: PartnerImport, rows: Sequence[PartnerImportRow], actor: Actor) -> None:
    known = _known(row.tenant_id for row in rows)
    tags = _tag_keys({name for row in rows for name in row.tags}, actor)
    entries: list[Entry] = []
    added = PartnerTenant.objects.bulk_create(
        PartnerTenant(
            name=row.name,
            tenant_id=row.tenant_id,
            cloud=row.cloud or "global",
            domain=row.domain,
            kind=row.kind or PartnerTenant.Kind.DIRECT,
            notes=row.notes,
        )
        for row in rows
        if row.tenant_id not in known.partners
    )
    partners = known.partners | {partner.tenant_id: partner for partner in added}
    changes: dict[int, _Change] = {}
    for row in rows:
        partner = partners[row.tenant_id]
        change = changes[partner.pk] = _change(row, partner, known)
        is_new = row.tenant_id not in known.partners
        for name, (_, after) in change.columns.items():
            setattr(partner, name, after)
        entries += _entries(partner, row, change, imported, actor, is_new=is_new)
        words = change.words()  # none when somebody else added the same partner since the rows were judged
        row.result, row.why = (Result.ADDED, "") if is_new else (Result.UPDATED if words else Result.SAME, words)
    by_key = {partner.pk: partner for partner in partners.values()}
    PartnerContact.objects.bulk_create(
        PartnerContact(partner=by_key[key], email=address) for key, each in changes.items() for address in each.contacts
    )
    through = PartnerTenant.tags.through
    through.objects.bulk_create(
        through(partnertenant_id=key, partnertag_id=tags[name]) for key, each in changes.items() for name in each.tags
    )
    changed = [by_key[key] for key, each in changes.items() if each.columns]
    PartnerTenant.objects.bulk_update(changed, _CHANGEABLE)
    PartnerTenant.objects.filter(pk__in=[key for key, each in changes.items() if each.columns or each.contacts]).fold()
    PartnerImportRow.objects.bulk_update(rows, ["result", "why"])
    record_all(entries)


def _tag_keys(names: set[str], actor: Actor) -> dict[str, int]:
    """Return the keys of tags by their names; those that are not there are made."""
    known = dict(PartnerTag.objects.filter(name__in=names).values_list("name", "pk"))
    for name in sorted(names - set(known)):
        tag = PartnerTag.objects.create(name=name)
        known[name] = tag.pk
        record("tag.created", actor=actor, subject={"tag": tag.pk}, details={"after": {"name": name}})
    return known


def _entries(
    partner: PartnerTenant,
    row: PartnerImportRow,
    change: _Change,
    imported: PartnerImport,
    actor: Actor,
    *,
    is_new: bool,
) -> list[Entry]:
    """Return what the trail says of one row: values as the form's entries have them, of contacts only how many."""
    subject: dict[str, str | int] = {
        "partner": partner.pk,
        "tenant_id": partner.tenant_id,
        "partner_import": imported.pk,
    }
    found = []
    if is_new:
        after = {name: getattr(partner, name) for name in ("tenant_id", "cloud", "kind")}
        details = {"after": after | {"tags": change.tags}}
        found.append(Entry("partner.created", actor, Outcome.DONE, subject=subject, details=details))
    elif change.columns or change.tags:
        told = {name: pair for name, pair in change.columns.items() if name not in _NOT_IN_THE_TRAIL}
        details = {
            "before": {name: before for name, (before, _) in told.items()},
            "after": {name: after for name, (_, after) in told.items()} | {"tags_added": change.tags},
        }
        silent = sorted(set(change.columns) & _NOT_IN_THE_TRAIL)
        also = {"also_changed": silent} if silent else {}
        found.append(Entry("partner.changed", actor, Outcome.DONE, subject=subject, details=details | also))
    if change.contacts:
        added = {"added": len(change.contacts), "changed": 0, "removed": 0}
        found.append(Entry("partner.contacts_changed", actor, Outcome.DONE, subject=subject, details=added))
    return found


def rows_of(partner: PartnerTenant) -> QuerySet[PartnerImportRow]:
    """Return the rows of imports that say something of a partner."""
    of_it = Q(tenant_id=partner.tenant_id) | Q(found_tenant_id=partner.tenant_id)
    if partner.domain:
        of_it |= Q(domain=partner.domain)  # of which the tenant was not looked for, or not confirmed
    return PartnerImportRow.objects.filter(of_it)


def forget_people(partner: PartnerTenant) -> None:
    """Take what rows of imports say of a partner's people, and the notes, because it is offboarded (S-68)."""
    rows_of(partner).update(contact_addresses="", notes="")


def _leave_out_people(rows: Sequence[PartnerImportRow]) -> None:
    """Take the same out of rows about partners that are offboarded already; they are not saved here."""
    gone = PartnerTenant.objects.filter(switch=PartnerTenant.Switch.OFFBOARDED)
    for some in batched(rows, _PIECE):
        tenants = {tenant for row in some for tenant in (row.tenant_id, row.found_tenant_id) if tenant}
        domains = {row.domain for row in some if row.domain}
        found = gone.filter(Q(tenant_id__in=tenants) | Q(domain__in=domains)).values_list("tenant_id", "domain")
        known = {name for pair in found for name in pair if name}
        for row in some:
            if {row.tenant_id, row.found_tenant_id, row.domain} & known:
                row.contact_addresses = row.notes = ""


def remove_old(between: Callable[[], None] = lambda: None) -> int:
    """Remove imports with their rows when they were kept long enough; return how many."""
    old = PartnerImport.objects.filter(created_at__lt=timezone.now() - KEPT_FOR)
    removed = 0
    for imported in old.order_by("pk"):
        imported.delete()
        removed += 1
        between()
    return removed
