"""Partners out of CSV and XLSX: what each row would do, found tenants that a person confirms, and once only.

Covers: consent.moving_in.files, consent.runs.find_tenants, consent.models.moving_in.
"""

from __future__ import annotations

import io
import json
import threading
import time
import zipfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from django.db import transaction
from django.utils import timezone

from consent.models import PartnerImport, PartnerImportRow
from consent.moving_in import files, partners
from consent.moving_in.files import FileRefused
from consent.moving_in.partners import apply, confirm, forget_people, note_found, read, remove_old, results
from portal.audit.models import AuditEvent
from portal.runs.models import Run
from tenants.models import PartnerContact, PartnerTag, PartnerTenant
from tests.support import builders
from tests.support.builders import ACTOR, guid
from tests.support.commands import run
from tests.support.moving_in import csv_of, file_row, xlsx_of
from tests.support.portal import Portal
from tests.support.staff import Staff, told
from tests.support.threads import at_once


def read_in(content: bytes) -> PartnerImport:
    return read(content, file_name="partners.csv", actor=ACTOR)


def told_of(imported: PartnerImport) -> list[tuple[str, str]]:
    return list(imported.rows.order_by("number").values_list("result", "why"))


def state() -> list[Any]:
    """Return everything that an import may change."""
    return [
        list(PartnerTenant.objects.order_by("pk").values()),
        list(PartnerContact.objects.order_by("pk").values()),
        list(PartnerTenant.tags.through.objects.order_by("pk").values()),
        list(PartnerTag.objects.order_by("pk").values()),
    ]


@pytest.mark.req("R-44")
@pytest.mark.django_db
@pytest.mark.parametrize("make", [csv_of, xlsx_of])
def test_each_row_says_what_it_would_do_and_nothing_is_changed(make: Any) -> None:
    known = builders.partner(name="Known", domain="known.example.com", contact_email="a@known.example.com")
    known.tags.add(PartnerTag.objects.create(name="gold"))
    gone = builders.partner(name="Gone")
    PartnerTenant.objects.filter(pk=gone.pk).update(switch="offboarded")
    before = state()
    imported = read_in(
        make(
            file_row("New one", guid(), **{"Contact addresses": "x@new.example.com", "Tag names": "gold, silver"}),
            file_row("Known", known.tenant_id, "known.example.com", **{"Tag names": "gold"}),
            file_row("Renamed", known.tenant_id.upper()),
            file_row("Gone", gone.tenant_id),
            file_row("By domain", domain="contoso.example.com"),
            file_row("Nothing"),
            file_row("Bad id", "common"),
            file_row("Bad mail", guid(), **{"Contact addresses": "nobody"}),
            file_row("Bad kind", guid(), Kind="reseller of everything"),
            file_row("", guid()),
            file_row("Elsewhere", guid(), Cloud="Mars"),
        )
    )
    assert state() == before
    result = [one for one, _ in told_of(imported)]
    assert result == ["new", "same", "refused", "refused", "to_find", *["refused"] * 6]
    words = [why for _, why in told_of(imported)]
    assert words[2] == "Row 3 is about the same tenant. Keep one of them."
    assert all(why for one, why in told_of(imported) if one == "refused")
    assert AuditEvent.objects.get(action="partner_import.read").details["rows"] == 11


@pytest.mark.req("R-44")
@pytest.mark.req("S-70")
@pytest.mark.django_db
def test_applied_it_adds_and_changes_and_a_second_import_has_no_effect() -> None:
    known = builders.partner(name="Known", domain="known.example.com", contact_email="a@known.example.com")
    content = csv_of(
        file_row("New one", guid(), "new.example.com", Kind="Indirect reseller", Notes="from the old tool"),
        file_row(
            "Renamed",
            known.tenant_id,
            **{"Contact addresses": "A@KNOWN.example.com, b@known.example.com", "Tag names": "gold", "Notes": "n"},
        ),
    )
    first = read_in(content)
    assert [one for one, _ in told_of(first)] == ["new", "changed"]
    assert told_of(first)[1][1] == "name: Known → Renamed; notes: changed; tag gold; 1 contact more"
    assert apply(first, actor=ACTOR) == {"added": 1, "updated": 1}
    added = PartnerTenant.objects.get(name="New one")
    assert (added.kind, added.cloud, added.domain, added.notes) == (
        "indirect_reseller",
        "global",
        "new.example.com",
        "from the old tool",
    )
    known.refresh_from_db()
    assert known.name == "Renamed"
    assert list(known.contacts.values_list("email", flat=True)) == ["a@known.example.com", "b@known.example.com"]
    assert [tag.name for tag in known.tags.all()] == ["gold"]
    assert PartnerTenant.objects.filter(search_text__finds="b@known.example.com").get() == known

    after, events = state(), AuditEvent.objects.exclude(action="partner_import.read").count()
    again = read_in(content)
    assert [one for one, _ in told_of(again)] == ["same", "same"]
    assert apply(again, actor=ACTOR) == {"same": 2}
    assert apply(first, actor=ACTOR) == {"added": 1, "updated": 1}
    assert state() == after
    assert AuditEvent.objects.exclude(action="partner_import.read").count() == events
    # Of people the trail has only how many there are, and of notes that they changed (S-70).
    trail = json.dumps(list(AuditEvent.objects.values_list("details", flat=True)))
    assert "b@known" not in trail
    assert "from the old tool" not in trail


@pytest.mark.django_db
def test_what_changed_between_the_look_and_applying_is_seen() -> None:
    tenant = guid()
    imported = read_in(csv_of(file_row("Contoso", tenant), file_row("Other", guid())))
    builders.partner(name="Contoso", tenant_id=tenant)
    assert apply(imported, actor=ACTOR) == {"same": 1, "added": 1}


@pytest.mark.django_db(transaction=True)
def test_what_staff_change_while_an_import_is_applied_is_not_undone() -> None:
    known = builders.partner(name="Known")
    imported = read_in(csv_of(file_row("", known.tenant_id, Notes="from the old tool")))
    begun = threading.Event()

    def work(number: int) -> None:
        if number:
            begun.wait(10)
            apply(imported, actor=ACTOR)
            return
        with transaction.atomic():
            PartnerTenant.objects.filter(pk=known.pk).update(name="Renamed meanwhile")
            begun.set()
            time.sleep(0.5)  # the import comes as far as it can

    at_once(work, 2)
    known.refresh_from_db()
    assert (known.name, known.notes) == ("Renamed meanwhile", "from the old tool")


@pytest.mark.django_db(transaction=True)
def test_two_imports_of_the_same_new_partners_at_once_add_each_of_them_once() -> None:
    rows = [file_row(f"Partner {number}", guid(), **{"Tag names": "gold"}) for number in range(250)]
    imports = [read_in(csv_of(*rows)) for _ in range(3)]
    counts = at_once(lambda number: apply(imports[number], actor=ACTOR), 3)
    assert PartnerTenant.objects.count() == 250
    assert sum((each for each in counts), Counter()) == {"added": 250, "same": 500}
    assert AuditEvent.objects.filter(action="partner.created").count() == 250


@pytest.mark.django_db
def test_what_somebody_else_added_between_judging_and_writing_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tenants = guid(), guid()
    imported = read_in(csv_of(file_row("Contoso", tenants[0]), file_row("Fabrikam", tenants[1])))
    judge, times = partners.judge, Counter[str]()

    def judged(rows: Any) -> None:
        judge(rows)
        times["judged"] += 1
        if times["judged"] == 2:  # the first time is before anything is written
            builders.partner(name="Contoso", tenant_id=tenants[0])
            builders.partner(name="Another name", tenant_id=tenants[1])

    monkeypatch.setattr(partners, "judge", judged)
    assert apply(imported, actor=ACTOR) == {"same": 1, "updated": 1}
    assert set(PartnerTenant.objects.values_list("name", flat=True)) == {"Contoso", "Fabrikam"}


@pytest.mark.django_db
@pytest.mark.req("S-68")
def test_no_row_keeps_the_people_of_a_partner_that_is_offboarded() -> None:
    gone = builders.partner(name="Gone", domain="gone.example.com")
    people = {"Contact addresses": "a@gone.example.com", "Notes": "call Ann"}
    content = csv_of(
        file_row("Gone", gone.tenant_id, **people),
        file_row("Gone", domain="gone.example.com", **people),
        file_row("Gone", domain="gone.example.org", **people),
        file_row("Gone", gone.tenant_id, **people | {"Kind": "reseller of everything"}),
        file_row("Other", guid(), "other.example.com", **people),
    )
    kept = ["a@gone.example.com", "call Ann"]
    before = read_in(content)
    before.rows.filter(domain="gone.example.org").update(
        found_tenant_id=gone.tenant_id, found_cloud="global", result="to_confirm"
    )
    forget_people(gone)
    PartnerTenant.objects.filter(pk=gone.pk).update(switch="offboarded")
    after = read_in(content)
    people_of = [[[row.contact_addresses, row.notes] for row in one.rows.order_by("number")] for one in (before, after)]
    assert people_of[0] == [["", ""]] * 4 + [kept]
    # Which tenant the other domain has is not known yet.
    assert people_of[1] == [["", ""], ["", ""], kept, ["", ""], kept]
    waiting = after.rows.get(domain="gone.example.org")
    note_found([(waiting, gone.tenant_id, "global")])
    waiting.refresh_from_db()
    assert (waiting.result, waiting.contact_addresses, waiting.notes) == ("to_confirm", "", "")


@pytest.mark.django_db
def test_our_own_export_comes_back_as_the_same(client: Any) -> None:
    partner = builders.partner(name="=cmd()|'x", contact_email="a@b.example.com", kind="indirect_provider")
    partner.tags.add(PartnerTag.objects.create(name="gold"), PartnerTag.objects.create(name="@home"))
    for kind in ("csv", "xlsx"):
        answer = Staff().choose("tenants_partnertenant", f"export_{kind}", partner.pk)
        content = b"".join(answer.streaming_content)
        imported = read(content, file_name=f"partners.{kind}", actor=ACTOR)
        assert told_of(imported) == [("same", "")]


@pytest.mark.django_db
def test_a_thousand_rows_take_seconds() -> None:
    rows = [
        file_row(
            f"Partner {number}",
            guid(),
            f"p{number}.example.com",
            **{"Contact addresses": f"a{number}@example.com", "Tag names": f"tag {number % 10}"},
        )
        for number in range(1000)
    ]
    for content in (csv_of(*rows), xlsx_of(*rows)):
        began = time.monotonic()
        imported = read_in(content)
        counts = apply(imported, actor=ACTOR)
        took = time.monotonic() - began
        print(f"1,000 rows, {len(content):,} bytes: {took:.1f} s, {dict(counts)}")  # noqa: T201
        assert took < 30
    assert PartnerTenant.objects.count() == 1000
    assert counts == {"same": 1000}


# --- files --------------------------------------------------------------------------------------------------------


def refused(content: bytes) -> str:
    with pytest.raises(FileRefused) as caught:
        read_in(content)
    return str(caught.value)


@pytest.mark.django_db
def test_files_that_are_none_are_refused_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "empty" in refused(b"")
    assert "UTF-8" in refused("Name,Tenant id\nMünchen,x".encode("latin-1"))
    assert "zero bytes" in refused(b"Name\0,Tenant id\n")
    assert "no row" in refused(csv_of())
    assert "“colour” is not known" in refused(csv_of(["a", "b"], header=["Name", "Colour"]))
    assert "Tenant id" in refused(csv_of(["a"], header=["Name"]))
    assert "stands twice" in refused(csv_of(["a", "b"], header=["Name", "name"]))
    assert "quote" in refused(b'Name,Tenant id\n"a,b\n')
    assert "damaged" in refused(b"PK\x03\x04 no archive at all")
    assert "columns" in refused(csv_of(["a"], header=[f"c{number}" for number in range(41)]))
    assert "larger" in refused(b"x" * (files.MOST_BYTES + 1))
    monkeypatch.setattr(files, "MOST_ROWS", 3)
    assert "more than 3 rows" in refused(csv_of(*[file_row("a", guid())] * 4))
    assert "more than 3 rows" in refused(xlsx_of(*[file_row("a", guid())] * 4))
    assert "more than 6 lines" in refused(xlsx_of(*[[]] * 8, file_row("a", guid())))
    assert not PartnerImport.objects.exists()


@pytest.mark.django_db
def test_semicolons_and_the_names_of_fields_are_read_as_well() -> None:
    imported = read_in(f"name;tenant_id;state\nContoso;{{{guid()}}};Connected\n\n".encode())
    assert told_of(imported) == [("new", "")]


@pytest.mark.django_db
def test_a_formula_is_not_taken_for_a_value() -> None:
    imported = read_in(xlsx_of(file_row('=HYPERLINK("x")', guid()), file_row("Contoso", guid())))
    assert told_of(imported) == [("refused", "A cell holds a formula. Replace it by its value."), ("new", "")]


def parts_of(content: bytes, ending: str = ".xml", **others: bytes) -> bytes:
    """Return a workbook in which parts are replaced, by their file names without what stands before.

    Args:
        ending: what the replaced parts are called then; the workbook names them so.
    """
    renamed = {f"{name}.xml".encode(): f"{name}{ending}".encode() for name in others}
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            name = part.filename.rpartition("/")[2].partition(".")[0]
            found = others.get(name, old.read(part))
            for before, after in renamed.items():
                found = found.replace(before, after)
            new.writestr(part.filename.replace(".xml", ending) if name in others else part.filename, found)
    return made.getvalue()


@pytest.mark.django_db
def test_a_workbook_that_unfolds_or_declares_entities_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    good = xlsx_of(file_row("Contoso", guid()))
    bomb = parts_of(good, sheet1=b"<a>" + b" " * 60_000_000 + b"</a>")
    assert len(bomb) < 200_000
    entities = parts_of(good, sheet1=b'<!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>')
    opened = []
    monkeypatch.setattr(openpyxl, "load_workbook", lambda *a, **k: opened.append(a))
    assert "too large when it is unpacked" in refused(bomb)
    assert "document type" in refused(entities)
    for ending in (".png", ".XML", ".xmlx", ""):
        renamed = parts_of(good, ending, sheet1=b'<!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>')
        assert "document type" in refused(renamed), ending
    assert opened == []


@pytest.mark.parametrize(
    "parts",
    [
        {"sheet1": b"<worksheet><row>" + b"<c/>" * 1_000_000 + b"</row></worksheet>"},
        {"sheet1": b"<worksheet>" + b"<c/>" * 600_000 + b"</worksheet>", "theme1": b"<sst>" + b"<si/>" * 600_000},
        {"styles": b"<styleSheet><fonts>" + b"<font/>" * 100_000 + b"</fonts></styleSheet>"},
        {"styles": b"<styleSheet><fonts>" + b"<c/>" * 100_000 + b"</fonts></styleSheet>"},
        {"theme1": b"<x:sst xmlns:x='x'>" + b"<x:p/>" * 100_000 + b"</x:sst>"},
    ],
)
@pytest.mark.parametrize("ending", [".xml", ".png"])
def test_a_small_workbook_of_very_many_elements_is_not_opened(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, bytes], ending: str
) -> None:
    opened = []
    monkeypatch.setattr(openpyxl, "load_workbook", lambda *a, **k: opened.append(a))
    bomb = parts_of(xlsx_of(file_row("Contoso", guid())), ending, **parts)
    assert len(bomb) < 50_000
    with pytest.raises(FileRefused, match="too large when it is unpacked"):
        files.read_table(bomb)
    assert opened == []


def test_a_workbook_may_hold_pictures_and_many_cells() -> None:
    rows = [[f"{row} {column}" for column in range(files.MOST_COLUMNS)] for row in range(1000)]
    content = io.BytesIO(xlsx_of(*rows, header=[f"c{column}" for column in range(files.MOST_COLUMNS)]))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("xl/media/image1.png", b"\x89PNG\r\n\x1a\n")
        archive.writestr("xl/drawings/vmlDrawing1.vml", b"<xml><br></xml>")
    assert len(files.read_table(content.getvalue())) == 1000


@pytest.mark.django_db
def test_a_sheet_that_is_damaged_behind_its_first_rows_keeps_nothing() -> None:
    good = xlsx_of(file_row("Contoso", guid()))
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml")
    assert "damaged" in refused(parts_of(good, sheet1=sheet[: len(sheet) // 2]))
    assert not PartnerImport.objects.exists()


# --- tenants of domains -------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.req("S-04")
def test_a_domains_tenant_is_found_in_a_run_and_counts_only_when_a_person_confirmed_it(portal: Portal) -> None:
    world = portal.sandbox.world
    southridge = next(one for one in world.tenants.values() if one.domain == "southridge.example.com")
    staff = Staff()
    imported = read_in(
        csv_of(
            file_row("Southridge", domain=southridge.domain, **{"Contact addresses": "a@southridge.example.com"}),
            file_row("Nobody", domain="nobody.example.org"),
        )
    )
    page = staff.post(f"/admin/consent/partnerimport/{imported.pk}/find/", follow=True)
    assert "Run" in told(staff.confirm(page))
    assert apply(imported, actor=ACTOR) == {"to_find": 2}
    assert run("run_resume", Run.objects.get(kind="find_tenants").pk).code == 1  # of one domain there is no tenant
    assert [one for one, _ in told_of(imported)] == ["to_confirm", "refused"]
    # Found is not confirmed: applying does nothing for it.
    assert apply(imported, actor=ACTOR) == {"to_confirm": 1, "refused": 1}
    waiting = imported.rows.get(result="to_confirm")
    answer = staff.choose("consent_partnerimportrow", "confirm_tenants", waiting.pk)
    assert southridge.tenant_id in answer.content.decode()
    assert "1 tenant confirmed" in told(staff.confirm(answer))
    assert AuditEvent.objects.get(action="partner_import.tenants_confirmed").actor == staff.user.username
    page = staff.post(f"/admin/consent/partnerimport/{imported.pk}/apply/", follow=True)
    assert "1 partner added" in told(staff.confirm(page))
    added = PartnerTenant.objects.get(tenant_id=southridge.tenant_id)
    assert (added.name, added.domain, added.cloud) == ("Southridge", southridge.domain, "global")


# --- the command --------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_command_is_a_dry_run_until_it_is_told_to_apply(portal: Portal, tmp_path: Path) -> None:
    file = tmp_path / "partners.csv"
    file.write_bytes(
        csv_of(
            file_row("Contoso", guid()), file_row("Southridge", domain="southridge.example.com"), file_row("Bad", "x")
        )
    )
    before = PartnerTenant.objects.count()
    dry = run("import_partners", file)
    assert dry.code == 1
    assert PartnerTenant.objects.count() == before
    assert "new  row 2, Contoso" in dry.out
    assert "to_confirm  row 3, Southridge: Is " in dry.out
    assert "refused  row 4, Bad: A tenant id must be a GUID" in dry.out
    assert "Nothing was applied" in dry.out
    done = run("import_partners", file, "--apply", "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert lines[-1]["results"] == {"added": 1, "to_confirm": 1, "refused": 1}
    assert PartnerTenant.objects.count() == before + 1
    again = run("import_partners", file, "--apply", "--json")
    assert json.loads(again.out.splitlines()[-1])["results"] == {"same": 1, "to_confirm": 1, "refused": 1}
    missing = run("import_partners", tmp_path / "none.csv")
    assert (missing.code, "cannot be read" in missing.err) == (2, True)
    file.write_text("Colour\nred\n")
    assert run("import_partners", file).code == 2


@pytest.mark.django_db
def test_an_import_is_removed_with_its_rows_after_a_month() -> None:
    old, young = (read_in(csv_of(file_row("Contoso", guid()))) for _ in range(2))
    PartnerImport.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=31))
    assert remove_old() == 1
    assert [one.imported_id for one in PartnerImportRow.objects.all()] == [young.pk]
    assert (results(young), confirm(young, [], actor=ACTOR)) == (Counter({"new": 1}), 0)
