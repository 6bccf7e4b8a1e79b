"""What staff see of tokens: list, page, filters, export, panels, and the two actions of a disconnect.

Covers: consent.admin.cells, consent.admin.consents, consent.admin.panels.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.models import PartnerConsent
from consent.tokens import health
from portal.runs.models import Run
from tenants.models import PartnerTenant
from tests.support import builders, custody
from tests.support.portal import Portal
from tests.support.staff import Staff, told

LIST = "consent_partnerconsent"


def page_of(staff: Staff, query: str = "") -> str:
    page = staff.get(reverse(f"admin:{LIST}_changelist") + query)
    assert page.status_code == 200
    return str(page.content.decode())


def detail_of(staff: Staff, consent: PartnerConsent) -> str:
    page = staff.get(reverse(f"admin:{LIST}_change", args=[consent.pk]))
    assert page.status_code == 200
    return str(page.content.decode())


def tokens() -> dict[str, PartnerConsent]:
    """Make one token of each kind that the pages tell apart."""
    now = timezone.now()
    registration = builders.registration()
    columns: dict[str, dict[str, Any]] = {
        "Alder": {"last_success_at": now, "last_class": "ok"},
        "Birch": {"last_success_at": now - timedelta(hours=25), "last_class": "ok"},
        "Cedar": {"state": "needs_consent", "last_problem": "needs_consent", "last_owner": "partner",
                  "last_class": "needs_consent", "last_message": "Somebody revoked it. Send a new link."},
        "Dogwood": {"last_success_at": now, "last_class": "our_credential", "last_owner": "us"},
        "Elm": {"last_success_at": now, "last_class": "ok", "stored_at": now - timedelta(days=70)},
        "Fir": {"last_success_at": now, "last_class": "ok", "sign_in_lifetime": 86_400 * 3},
        "Gorse": {"state": "stopped", "last_problem": "identity_mismatch", "last_owner": "us"},
    }  # fmt: skip
    rows = {
        name: builders.consent(builders.partner(name=f"{name} Partners"), registration, **values)
        for name, values in columns.items()
    }
    health.watch()
    return rows


@pytest.mark.req("R-45")
def test_the_list_says_of_each_token_who_acts_what_to_do_and_when_it_ends_and_why(db: None) -> None:
    rows = tokens()
    text = page_of(Staff())
    for words in (
        "Nothing to do.",
        "Not checked since",
        "Check it now, and see in the schedule",
        "Somebody revoked it. Send a new link.",
        "Check the application&#x27;s credential, and store a valid one.",
        "90 days without renewal",
        "Sign-in frequency policy. A policy ends each sign-in",
        "Stopped: identity mismatch",
        "70 days",
    ):
        assert words in text, words
    assert len(rows) == 7


@pytest.mark.req("R-45")
def test_old_evidence_is_shown_as_old_for_every_healthy_token_after_a_day(db: None, settings: Settings) -> None:
    tokens()
    PartnerConsent.objects.update(last_success_at=timezone.now() - timedelta(hours=24, minutes=1))
    assert page_of(Staff()).count("Not checked since") == 5
    settings.TOKEN_CHECK_HOURS = 48
    assert page_of(Staff()).count("Not checked since") == 0


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("?state=needs_consent", {"Cedar"}),
        ("?who=us", {"Dogwood", "Gorse"}),
        ("?trouble=our_credential", {"Dogwood"}),
        ("?forecast_cause__exact=sign_in", {"Fir"}),
        ("?ends=7", {"Fir"}),
        ("?ends=30", {"Fir", "Elm"}),
        ("?ends=later", {"Alder", "Birch", "Dogwood"}),
        ("?ends=over", {"Cedar", "Gorse"}),
        ("?age=60", {"Elm"}),
        ("?age=75", set()),
        ("?mfa__exact=missing", set()),
        ("?q=Elm", {"Elm"}),
    ],
)
def test_staff_filter_by_state_owner_end_cause_class_and_age(db: None, query: str, shown: set[str]) -> None:
    rows = tokens()
    text = page_of(Staff(), query)
    assert {name for name in rows if f"{name} Partners" in text} == shown


def test_the_list_costs_the_same_for_any_number_of_tokens_and_exports_the_forecast(
    db: None, django_assert_num_queries: Any
) -> None:
    staff = Staff()
    tokens()
    page_of(staff)
    with CaptureQueriesContext(connection) as few:
        page_of(staff)
    tokens()
    with django_assert_num_queries(len(few)):
        page_of(staff)
    keys = PartnerConsent.objects.values_list("pk", flat=True)
    export = b"".join(staff.choose(LIST, "export_csv", *keys).streaming_content).decode()
    assert '"Ends","Ends because of"' in export
    assert "Sign-in frequency policy" in export


def test_the_page_of_a_token_says_where_the_mfa_verdict_comes_from(db: None) -> None:
    rows = tokens()
    staff = Staff()
    assert "Partner Center answered isMfaCompliant: true." in detail_of(staff, rows["Alder"])
    PartnerConsent.objects.update(mfa="unproven", state="mfa_missing")
    assert "no verdict is not a proof" in detail_of(staff, rows["Alder"])


def test_the_page_of_a_token_shows_the_sign_in_methods_with_their_source(db: None) -> None:
    rows = tokens()
    staff = Staff()
    assert "The access token names none." in detail_of(staff, rows["Alder"])
    PartnerConsent.objects.update(amr=["pwd", "mfa"])
    text = detail_of(staff, rows["Alder"])
    assert "<code>pwd</code>" in text
    assert "Partner Center decides whether that is MFA." in text


@pytest.mark.req("S-67")
def test_the_screens_of_a_disconnect_tell_the_truth_and_what_the_partner_does(portal: Portal) -> None:
    portal.connect()
    staff, consent = Staff(), portal.consent()
    question = staff.choose(LIST, "disconnect_partners", consent.pk)
    assert "Microsoft offers no call that revokes one refresh token" in question.content.decode()
    assert (
        f"{portal.partner.name} (Example Control Panel): all use of the token stops at once"
        in question.content.decode()
    )

    answer = staff.confirm(question)

    assert "disconnected" in told(answer)
    text = detail_of(staff, consent)
    for words in (
        "Disconnected (token may still be valid at Microsoft)",
        "a new password of the service account does not revoke",
        "Revoke the sessions of the service account",
        f"Remove the enterprise application {portal.registration.name} ({portal.registration.application_id})",
    ):
        assert words in text, words
    assert custody.enabled_versions(portal, portal.consent()) == []

    told_dead = staff.confirm(staff.choose(LIST, "confirm_revocation", consent.pk))
    assert "1 noted as dead." in told(told_dead)
    assert "Until the token is dead" not in detail_of(staff, consent)


@pytest.mark.req("S-67")
def test_only_whoever_may_disconnect_is_offered_it(portal: Portal) -> None:
    portal.connect()
    viewer = Staff("consent.view_partnerconsent")
    assert "Disconnect the partner" not in page_of(viewer)
    viewer.choose(LIST, "disconnect_partners", portal.consent().pk)
    assert portal.consent().state == "connected"
    assert "Disconnect the partner" in page_of(
        Staff("consent.view_partnerconsent", "consent.disconnect_partnerconsent")
    )


# --- checking and renewing chosen ones ------------------------------------------------------------------------------


def test_chosen_tokens_are_checked_after_a_page_that_counts_them_by_state(db: None) -> None:
    rows = tokens()
    off = builders.consent(builders.partner(switch="disabled"), rows["Alder"].registration)
    staff = Staff()
    page = staff.choose(LIST, "check_tokens", *(row.pk for row in rows.values()), off.pk)
    text = page.content.decode()
    for words in (
        "7 tokens will be redeemed",
        "5 × Connected",
        "1 × Needs consent again",
        "1 × Stopped: identity mismatch",
        "Left out: 1 × disabled or offboarded: no token may be used.",
        "Alder Partners",
    ):
        assert words in text, words
    assert not Run.objects.exists()
    staff.confirm(page)
    run = Run.objects.get()
    assert (run.kind, run.options) == ("token_check", {})
    assert run.scope == {"tokens": sorted(row.pk for row in rows.values())}


@pytest.mark.parametrize(
    ("model", "action", "options"),
    [(LIST, "renew_tokens", {"renew": True}), ("tenants_partnertenant", "check_partners", {})],
)
def test_tokens_are_renewed_and_those_of_partners_checked(
    db: None, model: str, action: str, options: dict[str, Any]
) -> None:
    rows = tokens()
    key = rows["Alder"].pk if model == LIST else rows["Alder"].partner_id
    staff = Staff()
    staff.confirm(staff.choose(model, action, key))
    run = Run.objects.get()
    assert (run.scope, run.options) == ({"tokens": [rows["Alder"].pk]}, options)
    viewer = Staff("consent.view_partnerconsent", "tenants.view_partnertenant")
    viewer.choose(model, action, key)
    assert Run.objects.count() == 1


def test_where_none_can_be_checked_nothing_is_asked_and_the_reason_is_told(db: None) -> None:
    consent = builders.consent(builders.partner(switch="disabled"), builders.registration())
    staff = Staff()
    page = staff.choose(LIST, "check_tokens", consent.pk)
    assert "disabled or offboarded" in told(staff.get(page["Location"]))
    assert not Run.objects.exists()


def test_a_dangerous_action_on_many_asks_for_their_number(db: None) -> None:
    registration = builders.registration()
    rows = [builders.consent(builders.partner(), registration, state="disconnected") for _ in range(20)]
    staff = Staff()
    page = staff.choose("tenants_partnertenant", "disable_partners", *(row.partner_id for row in rows))
    assert "Type 20 to go on" in page.content.decode()
    again = staff.confirm(page, _word="19")
    assert told(again) == "Type 20 to go on. Nothing was done."
    assert PartnerTenant.objects.filter(switch="on").count() == 20
    staff.confirm(again, _word=" 20 ")
    assert not PartnerTenant.objects.filter(switch="on").exists()
