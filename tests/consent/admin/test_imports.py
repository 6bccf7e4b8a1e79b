"""Staff upload a file of partners, look at what it would do, export that, and apply it."""

from __future__ import annotations

import io

import pytest

from consent.models import PartnerImport
from consent.moving_in.partners import read
from tenants.models import PartnerTenant
from tests.support.builders import ACTOR, guid
from tests.support.moving_in import csv_of, file_row
from tests.support.staff import Staff, told


@pytest.mark.django_db
def test_staff_upload_look_export_and_apply() -> None:
    staff = Staff()
    staff.get("/admin/consent/partnerimport/add/")
    file = io.BytesIO(csv_of(file_row("Contoso", guid()), file_row("Bad", "x")))
    file.name = "list <b>of</b> partners.csv"
    page = staff.post("/admin/consent/partnerimport/add/", {"file": file}, follow=True)
    text = page.content.decode()
    assert "2 rows" in text
    assert "<b>of" not in text
    imported = PartnerImport.objects.get()
    rows = staff.get(f"/admin/consent/partnerimportrow/?imported__id__exact={imported.pk}").content.decode()
    assert "A tenant id must be a GUID" in rows
    exported = staff.choose("consent_partnerimportrow", "export_csv", *imported.rows.values_list("pk", flat=True))
    assert b'"Refused"' in b"".join(exported.streaming_content)
    asked = staff.post(f"/admin/consent/partnerimport/{imported.pk}/apply/", follow=True)
    assert "1 partner added, 0 updated, 0 same, 1 refused" in told(staff.confirm(asked))
    assert PartnerTenant.objects.get().name == "Contoso"
    assert "Choose a CSV" in staff.post("/admin/consent/partnerimport/add/", {}).content.decode()
    for content in (b"no table", b"x" * 2_600_000):
        file = io.BytesIO(content)
        file.name = "x.csv"
        answer = staff.post("/admin/consent/partnerimport/add/", {"file": file})
        assert 'role="alert"' in answer.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("permissions", [("tenants.view_partnertenant", "tenants.change_partnertenant")])
def test_who_may_not_add_partners_sees_no_import(permissions: tuple[str, ...]) -> None:
    imported = read(csv_of(file_row("Contoso", guid())), file_name="partners.csv", actor=ACTOR)
    staff = Staff(*permissions)
    for path in ("", "add/", f"{imported.pk}/change/", f"{imported.pk}/apply/", f"{imported.pk}/find/"):
        assert staff.get(f"/admin/consent/partnerimport/{path}").status_code == 403
    assert staff.get("/admin/consent/partnerimportrow/").status_code == 403
