"""The first page: each number is that of the list it leads to, whatever the rows are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import resolve
from django.utils import timezone

from consent import overview as counts
from consent.admin import overview
from consent.extension import EXTENSION
from consent.figures import count_today
from consent.models import (
    ApplicationRegistration,
    Campaign,
    CampaignPartner,
    ConsentFlow,
    ConsentLink,
    CustomerConsent,
    DailyFigures,
    PartnerConsent,
)
from consent.states import Trouble
from consent.words import Problem
from portal.incidents import service
from portal.microsoft.diagnosis import FailureClass, Owner
from portal.site.dashboard import Figure, Panel
from tenants.models import CustomerTenant, PartnerTenant
from tests.support import builders
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db
OWNERS = ["", *Owner]
CLASSES = ["", "mfa_unproven", "skipped", *FailureClass]
CODES = [*[""] * 5, "AADSTS50173", "AADSTS65001"]
DAYS = [-3, 5, 10, 20, 45, 80]


@dataclass
class Rows:
    """Rows of all kinds, drawn with a fixed seed."""

    dice: random.Random
    now: datetime
    number: int = 0

    def next(self) -> int:
        self.number += 1
        return self.number

    def one_of(self, *values: Any) -> Any:
        return self.dice.choice(values)

    def ago(self, *days: float | None) -> datetime | None:
        chosen = self.one_of(*days)
        return None if chosen is None else self.now - timedelta(days=chosen)

    def partner(self) -> PartnerTenant:
        return PartnerTenant(
            name=f"Partner {self.next()}",
            tenant_id=builders.guid(),
            switch=self.one_of("on", "on", "on", "on", "disabled", "offboarded"),
            offboarding_since=self.ago(None, None, None, None, None, 1),
        )

    def consent(self, partner: PartnerTenant, registration: ApplicationRegistration) -> PartnerConsent:
        state = PartnerConsent.State(self.one_of(*PartnerConsent.State, *[PartnerConsent.State.CONNECTED] * 9))
        living = state in PartnerConsent.LIVING_STATES
        number = f"{self.next():032x}"
        return PartnerConsent(
            partner=partner,
            registration=registration,
            state=state,
            consented_at=self.now,
            pinned_oid=builders.guid(),
            generation=1 if living else self.one_of(0, 1, 1),
            secret_name=f"rt-{number}",
            secret_version=number,
            fingerprint=number[:16],
            stored_at=self.now,
            mfa="missing" if state == "mfa_missing" else self.one_of("proven", "unproven"),
            mfa_checked_at=self.ago(None, 0.1, 3),
            last_problem=self.one_of("", "", "not_permitted"),
            last_class=self.one_of(*CLASSES),
            last_code=self.one_of(*CODES),
            last_owner=self.one_of(*OWNERS),
            last_try_at=self.ago(None, 0.1, 3),
            forecast_at=self.now + timedelta(days=self.one_of(*DAYS)) if living else None,
            forecast_cause=self.one_of(*PartnerConsent.ForecastCause) if living else "",
        )

    def customer(self, partner: PartnerTenant) -> CustomerTenant:
        tenant_id = builders.guid()
        return CustomerTenant(
            partner=partner,
            tenant_id=tenant_id,
            partner_center_id=tenant_id,
            company_name=f"Customer {self.next()}",
            first_seen_at=self.now,
            last_seen_at=self.now,
            missing_since=self.ago(None, None, None, 1),
            readiness=self.one_of(*CustomerTenant.Readiness),
            readiness_owner=self.one_of(*OWNERS),
            gdap_ends_at=self.ago(None, -20, -300),
        )

    def customer_consent(self, customer: CustomerTenant, registration: ApplicationRegistration) -> CustomerConsent:
        failed, unread = self.ago(None, None, 1, 3), self.ago(None, None, 1)
        return CustomerConsent(
            customer=customer,
            registration=registration,
            state=self.one_of(*CustomerConsent.State),
            service_principal_id=builders.guid(),
            verified_at=self.ago(2, 4),
            owner=self.one_of(*OWNERS),
            unread_since=unread,
            unread_owner=self.one_of(*OWNERS) if unread else "",
            tried_at=unread,
            failed_at=failed,
            failed_what="apply" if failed else "",
            failed_owner=self.one_of(*OWNERS) if failed else "",
        )

    def link(self, partner: PartnerTenant, registration: ApplicationRegistration) -> ConsentLink:
        return ConsentLink(
            partner=partner,
            registration=registration,
            token_hash=f"{self.next():064x}",
            expires_at=self.now + timedelta(days=self.one_of(3, 5)),
            closed_at=self.ago(None, None, None, 0.1),
            revoked_at=self.ago(None, None, None, 0.1),
        )

    def flow(self, link: ConsentLink) -> ConsentFlow:
        outcome, number = self.one_of(*ConsentFlow.Outcome), self.next()
        return ConsentFlow(
            link=link,
            public_id=f"{number:032x}",
            state_hash=f"{number:064x}",
            binder_hash="0" * 64,
            expires_at=self.now,
            claimed_at=None if outcome == "open" else self.now,
            outcome=outcome,
            problem=self.one_of(*Problem) if outcome == "refused" else "",
            correlation_id=builders.guid(),
        )


@pytest.fixture
def rows(db: None) -> Rows:
    """Fill the database; two applications serve, one is retired."""
    drawn = Rows(random.Random(7), timezone.now())  # no secret
    registrations = [builders.registration(name=name) for name in ("First", "Second")]
    retired = builders.registration(name="Old", state="retired")
    partners = PartnerTenant.objects.bulk_create([drawn.partner() for _ in range(220)])
    PartnerConsent.objects.bulk_create(
        [
            drawn.consent(partner, by)
            for partner in partners[10:]
            for by in [*registrations, retired]
            if drawn.dice.random() < 0.7
        ]
    )
    customers = CustomerTenant.objects.bulk_create([drawn.customer(drawn.one_of(*partners)) for _ in range(300)])
    CustomerConsent.objects.bulk_create(
        [
            drawn.customer_consent(customer, by)
            for customer in customers
            for by in registrations
            if drawn.dice.random() < 0.5
        ]
    )
    links = ConsentLink.objects.bulk_create(
        [drawn.link(drawn.one_of(*partners), drawn.one_of(*registrations, retired)) for _ in range(150)]
    )
    old = [link.pk for link in links if drawn.dice.random() < 0.6]
    ConsentLink.objects.filter(pk__in=old).update(created_at=drawn.now - timedelta(days=10))
    ConsentLink.objects.filter(pk__in=old[::5]).update(expires_at=drawn.now - timedelta(days=1))
    ConsentFlow.objects.bulk_create([drawn.flow(link) for link in links for _ in range(drawn.one_of(0, 0, 1, 2))])
    for name in ("Long ago", "Spring", "Summer", "Autumn"):
        campaign = Campaign.objects.create(name=name, registration=registrations[0])
        CampaignPartner.objects.bulk_create(
            [
                CampaignPartner(campaign=campaign, partner=partner, last_send_problem=drawn.one_of("", "refused"))
                for partner in partners[:20]
            ]
        )
    for owner in (Owner.US, Owner.US, Owner.PARTNER):
        service.report(f"cause_{drawn.next()}", owner=owner, words="Look into it.")
    return drawn


def figures(panel: Panel) -> Iterator[tuple[str, Figure]]:
    """Return all numbers of a card, with where they stand."""
    yield from ((panel.title, one) for one in panel.figures)
    for group in panel.groups:
        yield from ((f"{panel.title}, {group.title}", one) for one in group.figures)
    for line in panel.lines:
        yield from ((f"{panel.title}, {line.title}", one) for one in (*line.figures, *line.parts))


def counted(link: str, user: Any) -> int:
    """Return how many rows a list has at this address; a filter that it does not know is an error."""
    request: Any = RequestFactory().get(link)
    request.user = user
    view: Any = resolve(request.path).func
    return int(view.model_admin.get_changelist_instance(request).result_count)


def shown(staff: Staff) -> list[Panel]:
    return list(staff.get("/admin/").context["panels"])


def test_each_number_is_that_of_the_list_it_leads_to(rows: Rows) -> None:
    staff, wrong, titles = Staff(), [], set()
    for panel in shown(staff):
        for where, figure in figures(panel):
            titles.add(where)
            if str(figure.value) != f"{(found := counted(figure.link, staff.user)):,}":
                wrong.append((where, figure.label, figure.value, found, figure.link))
    assert wrong == []
    assert {title.partition(",")[0] for title in titles} == {
        "Who must act", "Partners", "Customers", "When tokens end", "MFA and checks", "Invitations",
    }  # fmt: skip
    assert {f"Who must act, {owner.label}" for owner in Owner} <= titles


def test_every_trouble_and_every_state_is_counted(rows: Rows) -> None:
    labels = {figure.label for panel in shown(Staff()) for _, figure in figures(panel)}
    assert {str(one.label) for one in (*Trouble, *PartnerTenant.State)} - labels == set()
    assert "Never looked at" in labels


def test_links_of_actions_open_lists(rows: Rows) -> None:
    staff = Staff()
    actions = [line.action for panel in shown(staff) for line in panel.lines if line.action]
    assert {action.label for action in actions} >= {"Invite these partners again", "Check these tokens again"}
    for action in actions:
        counted(action.link, staff.user)
    (ends,) = [panel for panel in shown(staff) if panel.title == "What ends next"]
    for row in ends.rows[::3]:
        assert staff.get(row.link).status_code == 200, row


@pytest.mark.parametrize("more", [0, 1])
def test_six_statements_for_any_number_of_rows(rows: Rows, more: int) -> None:
    if more:
        customers = list(CustomerTenant.objects.all()[:50])
        third = builders.registration(name="Third")
        CustomerConsent.objects.bulk_create([rows.customer_consent(one, third) for one in customers])
    request: Any = RequestFactory().get("/")
    request.user = Staff().user
    with CaptureQueriesContext(connection) as queries:
        panels = [panel(request) for panel in EXTENSION.panels]
    assert None not in panels
    incidents = [one for one in queries if "incidents_incident" in one["sql"]]  # the bell's, which every page asks
    assert len(incidents) == 1
    assert len(queries) - len(incidents) <= 6


def test_many_customers_are_counted_by_the_schedule_and_the_page_says_when(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def customers() -> Panel:
        return next(panel for panel in shown(Staff()) if panel.title == "Customers")

    live = customers()
    assert live.note == ""
    monkeypatch.setattr(counts, "MANY_CUSTOMERS", 10)
    count_today()
    CustomerTenant.objects.update(missing_since=rows.now)
    assert customers().groups == live.groups
    for minutes, note in ((0, "just now"), (12, "12 minutes ago")):
        DailyFigures.objects.update(counted_at=timezone.now() - timedelta(minutes=minutes))
        assert customers().note == f"Customers were counted {note}."
    assert "Customers were counted 12 minutes ago." in Staff().get("/admin/").content.decode()
    for hours in (1.1, -1):  # the schedule stands still; a clock was wrong
        DailyFigures.objects.update(counted_at=timezone.now() - timedelta(hours=hours))
        assert (customers().note, customers().groups) == ("", [])


def test_invitations_of_many_partners_are_counted_by_the_schedule_as_well(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def invitations() -> Panel:
        return next(panel for panel in shown(Staff()) if panel.title == "Invitations")

    live = invitations()
    assert live.note == ""
    monkeypatch.setattr(counts, "MANY_PARTNERS", 10)
    count_today()
    ConsentLink.objects.update(revoked_at=rows.now)
    Campaign.objects.update(closed_at=timezone.now())
    kept = invitations()
    assert (kept.figures, kept.lines) == (live.figures, live.lines)
    assert kept.note == "Invitations were counted just now."
    DailyFigures.objects.update(counted_at=timezone.now() - timedelta(hours=1.1))
    assert (invitations().note, invitations().figures, invitations().lines) == ("", [], [])


def test_a_person_sees_only_what_its_lists_show(rows: Rows) -> None:
    titles = {panel.title for panel in shown(Staff("tenants.view_partnertenant"))}
    assert titles == set()
    titles = {panel.title for panel in shown(Staff("tenants.view_partnertenant", "consent.view_partnerconsent"))}
    assert titles == {"Who must act", "Partners", "When tokens end", "MFA and checks", "What ends next"}
    (panel,) = shown(Staff("consent.view_consentlink"))
    assert {row.label.partition(" ")[0] for row in panel.rows} == {"Link"}


def test_good_news_is_said_in_words(db: None) -> None:
    registration = builders.registration()
    now = timezone.now()
    for _ in range(2):
        builders.consent(
            builders.partner(),
            registration,
            last_try_at=now - timedelta(hours=1),
            mfa_checked_at=now - timedelta(hours=3),
            forecast_at=now + timedelta(days=89),
            forecast_cause="idle",
        )
    by_title = {panel.title: panel for panel in shown(Staff())}
    assert by_title["Who must act"].news == ["Nobody must act: all 2 tokens work."]
    assert by_title["When tokens end"].news == ["None of 2 tokens in use ends within 30 days."]
    assert by_title["MFA and checks"].news == ["All 2 tokens in use were checked in the last 24 hours."]
    assert by_title["MFA and checks"].groups[0].note == "oldest verdict 3 hours ago"
    assert by_title["Invitations"].news == ["No link waits for a partner."]
    PartnerConsent.objects.filter(pk=PartnerConsent.objects.earliest("pk").pk).update(last_try_at=None)
    assert {panel.title: panel for panel in shown(Staff())}["MFA and checks"].news == []


def test_an_empty_portal_says_what_belongs_there(db: None) -> None:
    page = Staff().get("/admin/").content.decode()
    for words in (
        "no partner is connected yet",
        "No customers yet",
        "No token is stored yet",
        "Nothing ends within 60",
    ):
        assert words in page, words


def test_what_ends_next_stands_in_one_line_of_time(db: None) -> None:
    now = timezone.now()
    registration = builders.registration(name="Panel", credential={"expires_at": now + timedelta(days=20, hours=1)})
    partner = builders.partner(name="Northwind")
    builders.consent(partner, registration, forecast_at=now + timedelta(days=10, hours=1), forecast_cause="sign_in")
    builders.customer(partner, company_name="Bakery", gdap_ends_at=now + timedelta(days=5, hours=1))
    builders.customer(partner, company_name="Gone", gdap_ends_at=now + timedelta(days=4), missing_since=now)
    (panel,) = [panel for panel in shown(Staff()) if panel.title == "What ends next"]
    assert [row.label for row in panel.rows] == ["GDAP with Bakery", "Token of Northwind", "Credential of Panel"]
    assert "in 5 days. Customer of Northwind" in panel.rows[0].detail
    assert "Sign-in frequency policy; Panel" in panel.rows[1].detail


def test_the_trend_has_a_line_and_a_table(db: None) -> None:
    now = timezone.now()
    for days, number in ((2, 10), (1, 12), (0, 15)):
        DailyFigures.objects.create(
            day=timezone.localdate(now) - timedelta(days=days),
            partners={"connected": number},
            granted_customers=100 * number,
            counted_at=now,
        )
    builders.customer(builders.partner())
    charts = [chart for panel in shown(Staff()) for chart in panel.charts]
    assert [(chart.title, chart.latest, chart.change) for chart in charts] == [
        ("Connected partners", 15, "+5 in 3 days"),
        ("Granted customers", 1500, "+500 in 3 days"),
    ]
    page = Staff().get("/admin/").content.decode()
    assert "<polyline points=" in page
    assert '<td class="number">1,500</td>' in page


def test_the_addresses_are_those_of_lists() -> None:
    assert overview._tokens(token="living", ends=7).endswith("/partnerconsent/?token=living&ends=7")
