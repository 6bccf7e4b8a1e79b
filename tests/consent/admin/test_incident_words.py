"""Incidents, events, runs and confirmations name partner, customer and application, and settle when it works again.

Covers: portal.site.named, portal.site.subjects.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consent import alarms
from consent.alarms import Cause
from consent.customers.applying import GRANTS_LOST
from consent.invitations import links
from consent.models import ConsentFlow, ConsentLink, CustomerConsent, PartnerConsent, WaitingToken
from consent.settling import settle_what_is_over
from portal.audit.models import AuditEvent
from portal.audit.trail import record
from portal.incidents.models import Incident
from portal.incidents.service import report
from portal.microsoft.diagnosis import Owner
from portal.microsoft.errors import AuthenticationFailed
from portal.runs.models import Run
from tests.support import builders, custody
from tests.support.portal import Portal
from tests.support.staff import Staff
from tests.support.token_checks import check
from tests.support.units import check_token

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[3]
CONSENTS = [*alarms.OF_TOKENS, Cause.DISCONNECT_UNFINISHED]


@pytest.fixture
def consent() -> PartnerConsent:
    return builders.consent(builders.partner(name="Harbour Managed"), builders.registration(name="Control Panel"))


def open_causes() -> set[str]:
    return set(Incident.objects.open().values_list("cause", flat=True))


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", CONSENTS)
def test_an_incident_names_partner_and_application_and_is_found_by_them(consent: PartnerConsent, cause: Cause) -> None:
    alarms.report(cause, consent, days=60, left=30, why="The consent was withdrawn.")
    incident, staff = Incident.objects.get(), Staff()

    assert str(incident).startswith("Harbour Managed, Control Panel: ")
    shown = staff.get(reverse("admin:incidents_incident_changelist") + "?q=Harbour Managed")
    assert [one.pk for one in shown.context["cl"].result_list] == [incident.pk]
    page = staff.get(reverse("admin:incidents_incident_change", args=[incident.pk])).content.decode()
    groups = staff.get(reverse("admin:incidents_incident_groups")).content.decode()
    for text in (shown.content.decode(), page, groups):
        assert "Harbour Managed" in text
        assert f"consent:{consent.pk}" not in text
        assert f"consent {consent.pk}" not in text
    assert reverse("admin:tenants_partnertenant_change", args=[consent.partner_id]) in page


def test_every_report_about_something_names_it() -> None:
    """Guard: whoever adds an incident about a thing says its name."""
    nameless = []
    for path in sorted(path for app in ("consent", "tenants", "portal") for path in (ROOT / app).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"report", "report_incident"}:
                given = {keyword.arg for keyword in node.keywords}
                if "words" in given and "about" in given and "name" not in given:
                    nameless.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert nameless == []


def test_a_name_from_outside_forges_no_line_of_a_mail() -> None:
    incident = report("drift", about="customer:1", name="Fabrikam\nBcc: a@b\u202e", owner=Owner.US, words="Look.")
    assert str(incident) == "Fabrikam\\u000aBcc: a@b\\u202e: drift"


def test_nothing_is_called_by_its_number(consent: PartnerConsent) -> None:
    customer = builders.customer(consent.partner, company_name="Fabrikam")
    of_customer = builders.customer_consent(customer, consent.registration)
    waiting = WaitingToken(consent=consent, object_id=builders.guid())
    assert str(consent) == "Harbour Managed, Control Panel"
    assert str(of_customer) == "Fabrikam, customer of Harbour Managed, Control Panel"
    assert str(waiting) == f"Account {waiting.object_id} of Harbour Managed, Control Panel"


@pytest.mark.req("S-54")
def test_who_is_disconnected_or_removed_is_named_before_it_happens(consent: PartnerConsent) -> None:
    staff = Staff()
    rows = [
        builders.customer_consent(builders.customer(consent.partner, company_name=name), consent.registration)
        for name in ("Fabrikam", "Litware")
    ]

    page = staff.choose("consent_customerconsent", "remove_consents", *(row.pk for row in rows)).content.decode()
    assert "Fabrikam, customer of Harbour Managed, Control Panel" in page
    assert "Litware, customer of Harbour Managed, Control Panel" in page
    page = staff.choose("consent_partnerconsent", "disconnect_partners", consent.pk).content.decode()
    assert 'row-text">Harbour Managed, Control Panel</span>' in page


@pytest.mark.req("S-15")
def test_an_account_to_approve_names_partner_and_application_and_says_how_to_ask(portal: Portal) -> None:
    portal.onboard()
    portal.onboard(user="second@northwind.example.com")
    waiting, staff = WaitingToken.objects.get(), Staff()
    listed = staff.get(reverse("admin:consent_waitingtoken_changelist")).content.decode()
    page = staff.get(reverse("admin:consent_waitingtoken_change", args=[waiting.pk])).content.decode()
    asked = staff.choose("consent_waitingtoken", "approve", waiting.pk).content.decode()
    for text in (listed, page, asked):
        assert portal.partner.name in text
        assert portal.registration.name in text
        assert waiting.object_id in text
    for text in (page, asked):
        assert "a search for an object id shows the account with its name" in text
    assert str(Incident.objects.open().get()).startswith(f"{portal.partner.name}, {portal.registration.name}: ")


def test_an_audit_event_names_what_it_was_about_without_a_query_a_row(consent: PartnerConsent) -> None:
    staff = Staff()
    for number in range(30):
        record(
            "token.checked",
            actor=builders.ACTOR,
            subject={"partner": consent.partner_id, "consent": consent.pk, "tenant_id": "x"},
            details={"fields": ["name", "tags"], "before": {"state": "connected"}, "number": number},
        )
    address = reverse("admin:audit_auditevent_changelist")
    staff.get(address)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        page = staff.get(address).content.decode()
    assert page.count("Consent: Harbour Managed, Control Panel") >= 30
    assert "{&#x27;" not in page
    assert "&quot;partner&quot;" not in page
    assert len(queries) < 20
    event = AuditEvent.objects.filter(action="token.checked").latest("sequence")
    page = staff.get(reverse("admin:audit_auditevent_change", args=[event.pk])).content.decode()
    assert "Before: state: connected" in page
    assert "Fields: name, tags" in page
    assert "&quot;" not in page[page.index("Details") :].split("</form>")[0]


def test_what_is_gone_is_said_to_be_gone() -> None:
    report("drift", about="partner:77", name="Gone Ltd", owner=Owner.US, words="Look.", subject={"partner": 77})
    page = Staff().get(reverse("admin:incidents_incident_change", args=[Incident.objects.get().pk])).content.decode()
    assert "Partner: 77, not there any more" in page


def test_a_run_names_what_was_chosen(consent: PartnerConsent) -> None:
    run = Run.objects.create(
        kind="customer_sync",
        scope={"partner": [consent.partner.tenant_id], "state": ["attention"]},
        options={"wait": 60.0, "force": True},
        actor="anna",
        concurrency=4,
    )
    page = Staff().get(reverse("admin:runs_run_change", args=[run.pk])).content.decode()
    assert "Partner: Harbour Managed" in page
    assert "State: attention" in page
    assert "Customers are marked missing also when they are very many" in page
    assert consent.partner.tenant_id not in page


# --- settling -----------------------------------------------------------------------------------------------------


def refused(consent: PartnerConsent) -> None:
    refused = AuthenticationFailed("entra", "redeem", code="AADSTS7000222")
    alarms.report(Cause.CREDENTIAL_REFUSED, consent.registration, error=refused)


@pytest.mark.req("S-60")
def test_a_refused_credential_is_settled_by_the_next_token_that_it_redeems(portal: Portal) -> None:
    portal.connect()
    refused(portal.consent())
    assert open_causes() == {"credential_refused"}

    assert check_token(portal.consent()).ok

    assert not open_causes()


def test_a_new_sign_in_settles_all_that_was_said_of_the_older_token(portal: Portal) -> None:
    portal.connect()
    consent = portal.consent()
    for cause in CONSENTS:
        alarms.report(cause, consent, days=60, left=30, why="The consent was withdrawn.")
    PartnerConsent.objects.update(state="stopped", alerted_days=60)
    portal.onboard()
    assert portal.consent().state == "connected"
    assert not open_causes()


def flow_through(link: ConsentLink) -> ConsentFlow:
    now = timezone.now()
    return ConsentFlow.objects.create(
        link=link,
        public_id=builders.guid().replace("-", ""),
        state_hash="0" * 64,
        binder_hash="0" * 64,
        expires_at=now,
        correlation_id=builders.guid(),
    )


@pytest.mark.parametrize(
    "ends",
    [
        lambda link: links.revoke(link, actor=builders.ACTOR),
        lambda link: links.close(link, actor=builders.ACTOR),
        lambda link: ConsentLink.objects.update(expires_at=timezone.now() - timedelta(minutes=1)),
    ],
    ids=["revoked", "closed", "expired"],
)
def test_what_was_said_of_a_link_is_over_with_the_link(ends: Callable[[ConsentLink], object]) -> None:
    link, _ = links.issue(builders.partner(), builders.registration(), actor=builders.ACTOR)
    ConsentLink.objects.update(created_at=timezone.now() - timedelta(days=1))
    alarms.report(Cause.WRONG_TENANT, flow_through(link))
    settle_what_is_over()
    assert open_causes() == {"wrong_tenant"}
    ends(link)
    settle_what_is_over()
    assert not open_causes()


@pytest.mark.parametrize(
    ("model", "columns"),
    [("partner", {"switch": "offboarded"}), ("registration", {"state": "retired"}), ("consent", {"state": "revoked"})],
)
def test_what_was_said_of_a_token_is_over_when_nobody_wants_it(
    consent: PartnerConsent, model: str, columns: dict[str, Any]
) -> None:
    for cause in CONSENTS:
        alarms.report(cause, consent, days=60, left=30, why="The consent was withdrawn.")
    settle_what_is_over()
    assert len(open_causes()) == len(CONSENTS)
    row: Any = consent if model == "consent" else getattr(consent, model)
    type(row).objects.filter(pk=row.pk).update(**columns)
    settle_what_is_over()
    assert open_causes() == {"disconnect_unfinished"}, "the vault still has to be asked"


def test_the_hourly_look_settles_what_another_process_saw_working(consent: PartnerConsent) -> None:
    refused(consent)
    assert settle_what_is_over() == 0
    PartnerConsent.objects.update(last_success_at=timezone.now() + timedelta(seconds=1))
    assert settle_what_is_over() == 1


@pytest.mark.parametrize(
    ("columns", "over"),
    [
        ({"state": "granted"}, True),
        ({"state": "absent", "requested_at": timezone.now()}, True),
        ({"state": "absent", "requested_at": timezone.now(), "requested_hash": "x"}, False),
        ({"state": "partial"}, False),
    ],
)
def test_lost_grants_are_over_when_a_read_shows_them_or_we_removed_the_consent(
    consent: PartnerConsent, columns: dict[str, Any], over: bool
) -> None:
    customer = builders.customer(consent.partner)
    builders.customer_consent(customer, consent.registration)
    plan = consent.registration.plans.create(purpose="remove", created_by="anna")
    report(
        GRANTS_LOST,
        about=f"customer:{customer.pk}",
        name="x",
        owner=Owner.US,
        words="Removed.",
        subject={"plan": plan.pk, "customer": customer.pk},
    )
    assert settle_what_is_over() == 0
    CustomerConsent.objects.update(verified_at=timezone.now() + timedelta(seconds=1), **columns)
    assert settle_what_is_over() == int(over)


def test_tokens_that_are_saved_in_bulk_settle_the_report_that_none_can_be_saved(portal: Portal) -> None:
    portal.connect()
    alarms.report(Cause.NOT_SAVED)
    custody.make_due(portal.consent())
    check()
    assert "renewed_but_not_saved" not in open_causes()
