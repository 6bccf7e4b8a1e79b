"""How many statements each list of the admin asks: recorded in a file, the same for few rows and for many."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext

from consent.models import CustomerConsent
from portal.site.list_filters import FEW
from tenants.models import PartnerTag
from tests.browser.rows_for_each_list import fill
from tests.support import builders
from tests.support.staff import Staff, asked

RECORDED = Path(__file__).with_name("list_statements.json")


def statements(staff: Staff) -> dict[str, int]:
    """Open each list, and return how many statements each page asked."""
    found = {}
    for model in sorted(admin.site._registry, key=lambda one: one._meta.label_lower):
        path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        with CaptureQueriesContext(connection) as queries:
            assert staff.get(path).status_code == 200, path
        found[path] = len(asked(queries))
    return found


@pytest.mark.django_db
@pytest.mark.req("R-29")
def test_each_list_asks_what_is_recorded_and_no_more_for_many_rows() -> None:
    fill()
    staff = Staff()
    staff.get("/admin/")  # the first page of a session costs more
    recorded = json.loads(RECORDED.read_text())
    few = statements(staff)
    assert few == recorded["few"], json.dumps(few, indent=2)
    registration = CustomerConsent.objects.first().registration  # type: ignore[union-attr]
    PartnerTag.objects.bulk_create(PartnerTag(name=f"Tag {number}") for number in range(FEW + 1))
    for _ in range(60):
        partner = builders.partner()
        builders.consent(partner, registration)
        CustomerConsent.objects.create(customer=builders.customer(partner), registration=registration)
    many = statements(staff)
    assert many == recorded["many"], json.dumps(many, indent=2)
    assert many == few
