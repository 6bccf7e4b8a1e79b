"""Was I touched? The answer for one partner and one window.

Covers: consent.admin.uses, consent.models.uses.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.urls import reverse

from consent.models import TokenUse
from consent.uses.touched import HEADER, touched
from portal.audit.models import AuditEvent
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.commands import run
from tests.support.staff import Staff

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-81")]
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def use(partner: PartnerTenant, at: datetime, until: datetime | None = None, **columns: object) -> TokenUse:
    values = {
        "purpose": "program",
        "actor_kind": "command",
        "actor": "python (panel)",
        "audience": "graph",
        "issued": 1,
    }
    registration = partner.consents.get().registration
    return TokenUse.objects.create(
        partner=partner, registration=registration, at=at, last_at=until or at, **values | columns
    )


@pytest.fixture
def partner() -> PartnerTenant:
    made = builders.partner(name="Northwind Cloud")
    builders.consent(made, builders.registration())
    return made


def test_a_window_has_what_began_before_it_or_ended_after_it_and_no_other_partners(partner: PartnerTenant) -> None:
    other = builders.partner()
    builders.consent(other, builders.registration())
    hour = timedelta(hours=1)
    inside = use(partner, NOON)
    around = use(partner, NOON - 3 * hour, NOON + 3 * hour)
    use(partner, NOON - 3 * hour)
    use(partner, NOON + 3 * hour)
    use(other, NOON)

    assert list(touched(partner, NOON - hour, NOON + hour)) == [around, inside]


def test_the_command_says_it_and_writes_each_use(partner: PartnerTenant, tmp_path: Path) -> None:
    customer = builders.customer(partner, company_name="Adventure Works")
    use(partner, NOON, customer=customer, address="198.51.100.7", correlation_id="c-1")
    use(partner, NOON, issued=0, cached=3)
    file = tmp_path / "uses.csv"

    said = run(
        "token_uses", partner.tenant_id, "--since", "2026-11-29T00:00Z", "--until", "2026-11-30T00:00Z", "--csv", file
    )

    assert said.code == 0, said.err
    assert "Microsoft Graph: 1 issued, 3 given out again from memory" in said.out
    header, first, second = csv.reader(file.read_text().splitlines())
    assert tuple(header) == HEADER
    assert first[2:5] == ["Microsoft Graph", "Adventure Works", customer.tenant_id]
    assert (first[9], first[14]) == ("198.51.100.7", "c-1")
    assert second[10:12] == ["0", "3"]
    assert file.stat().st_mode & 0o077 == 0
    assert AuditEvent.objects.get(action="token_uses.exported").details["rows"] == 2


def test_nothing_and_nonsense_are_said_as_that(partner: PartnerTenant) -> None:
    assert "No token was issued" in run("token_uses", partner.tenant_id).out
    assert run("token_uses", builders.guid()).code == 2
    assert (
        run("token_uses", partner.tenant_id, "--since", "2026-11-29T00:00Z", "--until", "2026-11-28T00:00Z").code == 2
    )


def test_the_list_is_reached_from_the_partner_filtered_and_read_only(partner: PartnerTenant) -> None:
    other = builders.partner(name="Southridge IT")
    builders.consent(other, builders.registration())
    use(partner, NOON)
    use(other, NOON, audience="partner_center")
    who = Staff()

    led = who.choose("tenants_partnertenant", "see_uses", partner.pk)
    page = who.get(led["Location"]).content.decode()

    assert page.count("python (panel)") == 1
    assert "Microsoft Graph" in page
    row = TokenUse.objects.first()
    assert row is not None
    assert who.get(reverse("admin:consent_tokenuse_change", args=[row.pk])).status_code == 200
    assert who.get(reverse("admin:consent_tokenuse_add")).status_code == 403
    assert Staff("tenants.view_partnertenant").get(led["Location"]).status_code == 403
