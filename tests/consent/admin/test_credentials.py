"""Application credentials in the admin: found, promoted, retired, downloaded, and never shown (S-39)."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consent.microsoft.credentials import sha1_thumbprint
from consent.models import ApplicationCredential
from portal.audit.models import AuditEvent
from tests.sandbox.world import Refusal
from tests.support import builders
from tests.support.credentials import State, add_certificate, add_secret, current, promote, states
from tests.support.portal import Portal
from tests.support.staff import Staff, told

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-39")]

MODEL = "consent_applicationcredential"
LIST = "/admin/consent/applicationcredential/"


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


def text(page: Any) -> str:
    assert page.status_code == 200
    return str(page.content.decode())


def act(staff: Staff, action: str, *credentials: ApplicationCredential) -> str:
    page = staff.choose(MODEL, action, *(credential.pk for credential in credentials))
    return told(staff.confirm(page, **({"word": "retire"} if action == "retire" else {})))


def test_promoting_asks_first_then_proves(connected: Portal) -> None:
    staff, first, candidate = Staff(), current(connected), add_secret(connected, "the-second-secret")
    page = staff.choose(MODEL, "promote", candidate.pk)
    assert "redeemed with this credential" in text(page)
    assert current(connected) == first
    assert "proven with the token of Northwind Cloud" in told(staff.confirm(page))
    assert current(connected) == candidate
    assert AuditEvent.objects.get(action="credential.promoted", subject__credential=candidate.pk).actor == str(
        staff.user
    )
    assert "promoted" in act(staff, "promote", first)  # which is the roll back
    assert current(connected) == first


def test_a_refusal_and_a_missing_partner_are_said_in_plain_words(connected: Portal) -> None:
    staff, first = Staff(), current(connected)
    candidate = add_certificate(connected)
    connected.sandbox.world.refusals.append(Refusal(code=700027))
    assert "Not promoted. Microsoft does not know the certificate" in act(staff, "promote", candidate)
    assert "Select one credential." in told(
        staff.get(staff.choose(MODEL, "promote", candidate.pk, first.pk)["Location"])
    )
    lonely = builders.registration(name="Lonely", credential=None, state="draft")
    alone = builders.credential(lonely)
    page = staff.choose(MODEL, "promote", alone.pk)
    assert "no token can prove the credential" in text(page)
    asked_again = staff.confirm(page, word="yes")
    assert "Type unproven to go on. Nothing was done." in text(asked_again)
    assert "promoted, unproven" in told(staff.confirm(asked_again, word="unproven"))
    lonely.refresh_from_db()
    assert lonely.credential == alone
    assert current(connected) == first


def test_retiring_spares_the_one_in_use(connected: Portal) -> None:
    staff, first, candidate = Staff(), current(connected), add_secret(connected, "the-second-secret")
    answer = act(staff, "retire", first, candidate)
    assert "in use" in answer
    assert "1 retired." in answer
    assert states(connected) == {first.pk: State.CURRENT, candidate.pk: State.RETIRED}


@pytest.mark.parametrize("action", ["promote", "retire"])
def test_each_action_needs_its_own_permission(connected: Portal, action: str) -> None:
    candidate = add_secret(connected, "the-second-secret")
    view = "consent.view_applicationcredential"
    other = {"promote": "retire", "retire": "promote"}[action]
    refused = Staff(view, f"consent.{other}_applicationcredential")
    assert refused.choose(MODEL, action, candidate.pk).status_code == 302
    allowed = Staff(view, f"consent.{action}_applicationcredential")
    assert "_once" in text(allowed.choose(MODEL, action, candidate.pk))


def test_only_the_public_part_is_handed_out_and_only_to_who_may_see_it(connected: Portal) -> None:
    certificate, secret = add_certificate(connected), current(connected)
    address = reverse(f"admin:{MODEL}_public", args=[certificate.pk])
    page = Staff().get(address)
    assert text(page) == certificate.public_certificate
    assert "PRIVATE" not in text(page)
    assert page["Content-Disposition"] == f'attachment; filename="application-{certificate.pk}.pem"'
    assert Staff().get(reverse(f"admin:{MODEL}_public", args=[secret.pk])).status_code == 404
    assert Staff("tenants.view_partnertenant").get(address).status_code == 404


def test_the_page_says_what_to_do_at_microsoft_and_shows_no_vault_name(connected: Portal) -> None:
    certificate = add_certificate(connected)
    page = text(Staff().get(f"{LIST}{certificate.pk}/change/"))
    assert "Upload certificate" in page
    assert certificate.key_id in page
    assert sha1_thumbprint(certificate.public_certificate) in page
    for hidden in (certificate.secret_name, certificate.secret_version):
        assert hidden not in page


def test_the_list_finds_by_state_kind_and_id_and_exports(connected: Portal) -> None:
    first, second, third = current(connected), add_secret(connected, "the-second"), add_certificate(connected)
    promote(second)
    staff = Staff()
    for query, wanted in {
        "state=current": {second.pk},
        "state=previous": {first.pk},
        "state=candidate": {third.pk},
        "kind__exact=certificate": {third.pk},
        f"q={third.key_id}": {third.pk},
        "q=Example": {first.pk, second.pk, third.pk},
    }.items():
        page = staff.get(f"{LIST}?{query}")
        assert {row.pk for row in page.context["cl"].result_list} == wanted, query
    answer = staff.choose(MODEL, "export_csv", first.pk, second.pk, third.pk)
    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode("utf-8-sig"))))
    assert {row["State"] for row in rows} == {"Current", "Previous, kept for roll back", "Candidate"}
    assert "Secret name" not in rows[0]


def test_the_list_costs_the_same_for_two_rows_and_twenty(connected: Portal) -> None:
    staff = Staff()
    counts = []
    for number in (1, 18):
        for _ in range(number):
            builders.credential(connected.registration)
        staff.get(LIST)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            staff.get(LIST)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_the_first_page_names_what_ends_soon_and_is_silent_otherwise(connected: Portal) -> None:
    staff, credential = Staff(), ApplicationCredential.objects.filter(pk=current(connected).pk)
    for days, shown in ((61, False), (59, True), (3, True)):
        credential.update(expires_at=timezone.now() + timedelta(days=days))
        page = text(staff.get("/admin/"))
        assert ("Credential of " in page) is shown
        assert "badge" in text(staff.get(LIST))
    assert "Credential of " not in text(Staff("tenants.view_partnertenant").get("/admin/"))
