"""Campaigns in the admin: choose, make, send, watch, remind, close, export; each behind its permission.

Covers: consent.admin.asking.
"""

from __future__ import annotations

import csv
import io
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core import mail
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.admin import campaigns as pages
from consent.models import ApplicationRegistration, Campaign, CampaignPartner, ConsentLink
from tenants.models import PartnerTag, PartnerTenant
from tests.support import builders
from tests.support.campaigns import attempt, items, let_time_pass, link_of, make, partners, send
from tests.support.portal import Browser
from tests.support.smtp import serving
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db

LIST, ADD = "/admin/consent/campaign/", "/admin/consent/campaign/add/"
INVITED = "/admin/consent/campaignpartner/"
PARTNERS = "tenants_partnertenant"
Progress = CampaignPartner.Progress


@pytest.fixture(autouse=True)
def _mail_server(settings: Settings) -> None:
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    settings.DEFAULT_FROM_EMAIL = "invitations@vendor.example"


@pytest.fixture
def registration() -> ApplicationRegistration:
    return builders.registration()


@pytest.fixture
def staff() -> Staff:
    return Staff()


def page_of(campaign: Campaign) -> str:
    return f"{LIST}{campaign.pk}/change/"


def open_action(staff: Staff, campaign: Campaign, name: str) -> Any:
    return staff.get(f"{LIST}{campaign.pk}/{name}/")


def fields(registration: ApplicationRegistration, **more: object) -> dict[str, object]:
    return {
        "name": "Autumn",
        "registration": registration.pk,
        "reason": "new_scope",
        "link_days": 10,
    } | more


# --- choosing and making ----------------------------------------------------------------------------------------------


def test_a_filter_chooses_and_the_next_page_names_them(staff: Staff, registration: ApplicationRegistration) -> None:
    europe = PartnerTag.objects.create(name="Europe")
    chosen, other = partners(3), builders.partner(name="Elsewhere")
    for partner in chosen:
        partner.tags.add(europe)
    where = f"{ADD}?{urlencode({'registration': registration.pk, 'tags': europe.pk, 'states': 'new'})}"

    found = staff.get(where)
    assert "3 partners match" in found.content.decode()
    named = staff.post(where)
    text = named.content.decode()
    assert all(partner.name in text for partner in chosen)
    assert other.name not in text
    assert not Campaign.objects.exists()

    chosen[0].tags.clear()  # the filter matches two by now; the page named three
    done = staff.confirm(named, **fields(registration))

    campaign = Campaign.objects.get()
    assert "3 partners are in the campaign." in told(done)
    assert {item.partner for item in items(campaign)} == set(chosen)
    assert (campaign.reason, campaign.link_days, campaign.created_by) == ("new_scope", 10, staff.user)
    assert mail.outbox == []
    staff.confirm(named, **fields(registration))
    assert Campaign.objects.count() == 1, "the button works once"


def test_a_form_filled_in_wrongly_is_asked_again(staff: Staff, registration: ApplicationRegistration) -> None:
    partners(2)
    named = staff.post(f"{ADD}?registration={registration.pk}")
    again = staff.confirm(named, **fields(registration, name="", link_days=400))
    assert "required" in again.content.decode()
    assert "less than or equal to 90" in again.content.decode()
    assert not Campaign.objects.exists()
    staff.confirm(again, **fields(registration))
    assert Campaign.objects.get().partners.count() == 2


def test_partners_of_the_list_can_be_invited_together(staff: Staff, registration: ApplicationRegistration) -> None:
    chosen = list(partners(3))
    PartnerTenant.objects.filter(pk=chosen[0].pk).update(switch="disabled")
    named = staff.choose(PARTNERS, "invite_in_campaign", *(partner.pk for partner in chosen))
    done = staff.confirm(named, **fields(registration))
    assert "2 partners are in the campaign. 1 was left out" in told(done)
    assert Campaign.objects.get().partners.count() == 2


def test_keys_that_the_page_did_not_name_cannot_bring_in_a_disabled_partner(
    staff: Staff, registration: ApplicationRegistration
) -> None:
    partners(1)
    disabled = builders.partner(switch="disabled")
    named = staff.post(f"{ADD}?registration={registration.pk}")
    done = staff.confirm(named, _selected_action=[disabled.pk, "x"], **fields(registration))
    assert "None of these partners can be invited" in told(done)
    assert not Campaign.objects.exists()


@pytest.mark.parametrize("query", ["registration=x", "registration=999", "registration={}&token_days=-1", "states=x"])
def test_a_bad_filter_is_told_and_finds_nobody(staff: Staff, registration: ApplicationRegistration, query: str) -> None:
    partners(1)
    page = staff.get(f"{ADD}?{query.format(registration.pk)}")
    assert page.status_code == 200
    assert page.context["number"] is None
    assert staff.post(f"{ADD}?{query.format(registration.pk)}").status_code == 200
    assert not Campaign.objects.exists()


# --- sending ----------------------------------------------------------------------------------------------------------


def test_sending_asks_first_and_the_funnel_follows(staff: Staff, registration: ApplicationRegistration) -> None:
    campaign = make(registration, partners(3))
    asked = open_action(staff, campaign, "send")
    assert all(item.partner.name in asked.content.decode() for item in items(campaign))
    assert mail.outbox == []

    done = staff.confirm(asked)

    assert "3 sent." in told(done)
    assert len(mail.outbox) == 3
    attempt(link_of(items(campaign)[0]), "refused", "wrong_tenant")
    text = staff.get(page_of(campaign)).content.decode()
    assert "3 of 3 mailed, 0 connected" in text
    assert "1 × “This account belongs to another tenant”" in text
    assert "Who acts: the partner" in text
    assert f"{INVITED}?campaign__id__exact={campaign.pk}&amp;progress=failed" in text
    assert "already done" in told(staff.confirm(asked))
    assert "All were sent." in told(staff.get(f"{LIST}{campaign.pk}/send/", follow=True))
    assert len(mail.outbox) == 3


def test_a_page_sends_so_many_and_names_the_command_for_the_rest(
    staff: Staff, registration: ApplicationRegistration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAILS_AT_ONCE", 2)
    campaign = make(registration, partners(3))
    asked = open_action(staff, campaign, "send")
    assert "For the rest press the button again." in asked.content.decode()
    staff.confirm(asked, _selected_action=[item.pk for item in items(campaign)])
    assert len(mail.outbox) == 2, "not more than the page may"
    assert "1 sent." in told(staff.confirm(open_action(staff, campaign, "send")))


def test_a_slow_mail_server_leaves_the_rest_for_the_next_time(
    staff: Staff, registration: ApplicationRegistration, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make(registration, partners(2))
    asked = open_action(staff, campaign, "send")
    monkeypatch.setattr(pages, "MAIL_SECONDS", -1.0)
    assert "2 were left for the next time." in told(staff.confirm(asked))
    assert mail.outbox == []


def test_what_could_not_be_mailed_is_told(
    staff: Staff, registration: ApplicationRegistration, settings: Settings
) -> None:
    campaign = make(registration, partners(3))
    items(campaign)[0].partner.contacts.all().delete()
    with serving() as server:
        server.closed_after = 1
        settings.MAILERS = {
            "default": {
                "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
                "OPTIONS": {"host": "127.0.0.1", "port": server.port, "timeout": 5},
            }
        }
        done = told(staff.confirm(open_action(staff, campaign, "send")))
    assert "421" in done
    assert "canary" not in done
    assert "1 could not be mailed; the list of partners says why." in done
    assert "1 sent." in done
    text = staff.get(f"{INVITED}?campaign__id__exact={campaign.pk}&progress=send_failed").content.decode()
    assert "No contact of the partner gets invitations" in text
    assert "went away" in text


def test_reminding_follows_the_quiet_time(staff: Staff, registration: ApplicationRegistration) -> None:
    campaign = make(registration, partners(2))
    send(campaign)
    early = staff.get(f"{LIST}{campaign.pk}/remind/", follow=True)
    assert "No partner is due" in told(early)
    let_time_pass()
    done = staff.confirm(open_action(staff, campaign, "remind"))
    assert "2 sent." in told(done)
    assert len(mail.outbox) == 4
    assert ConsentLink.objects.usable().count() == 2


def test_without_a_mail_server_the_page_says_what_to_set(
    staff: Staff, registration: ApplicationRegistration, settings: Settings
) -> None:
    settings.MAILERS = {}
    campaign = make(registration, partners(1))
    assert "set EMAIL_HOST" in told(staff.get(f"{LIST}{campaign.pk}/send/", follow=True))


def test_closing_asks_first_revokes_and_happens_once(staff: Staff, registration: ApplicationRegistration) -> None:
    campaign = make(registration, partners(2))
    send(campaign)
    asked, other = (open_action(staff, campaign, "close") for _ in range(2))
    assert ConsentLink.objects.usable().count() == 2
    assert "Closed; 2 links were revoked." in told(staff.confirm(asked))
    assert "It was closed before." in told(staff.confirm(other))
    assert ConsentLink.objects.usable().count() == 0
    assert "The campaign is closed." in told(staff.get(f"{LIST}{campaign.pk}/send/", follow=True))


def test_a_confirmation_from_before_the_end_sends_nothing(staff: Staff, registration: ApplicationRegistration) -> None:
    campaign = make(registration, partners(1))
    asked = open_action(staff, campaign, "send")
    staff.confirm(open_action(staff, campaign, "close"))
    assert "The campaign is closed." in told(staff.confirm(asked))
    assert mail.outbox == []


# --- lists ------------------------------------------------------------------------------------------------------------


def test_pages_cost_the_same_for_two_partners_and_twenty(staff: Staff, registration: ApplicationRegistration) -> None:
    def cost(path: str) -> int:
        staff.get(path)
        with CaptureQueriesContext(connection) as queries:
            assert staff.get(path).status_code == 200
        return len(queries)

    small, large = make(registration, partners(2)), make(registration, partners(20))
    few = cost(LIST)
    for campaign in (small, large):
        send(campaign)
        for item in items(campaign):
            attempt(link_of(item), "refused", "declined")
    assert cost(page_of(small)) == cost(page_of(large))
    invited = f"{INVITED}?campaign__id__exact="
    assert cost(f"{invited}{small.pk}") == cost(f"{invited}{large.pk}")
    for _ in range(8):
        make(registration, partners(1))
    assert cost(LIST) == few
    let_time_pass()
    assert cost(f"{LIST}{small.pk}/remind/") == cost(f"{LIST}{large.pk}/remind/")


@pytest.mark.req("S-64")
def test_the_exports_hold_the_figures_and_no_link(staff: Staff, registration: ApplicationRegistration) -> None:
    campaign = make(registration, partners(3))
    send(campaign)
    attempt(link_of(items(campaign)[0]), "refused", "wrong_tenant")

    def export(model: str, *keys: int) -> list[dict[str, str]]:
        answer = staff.choose(model, "export_csv", *keys)
        text = b"".join(answer.streaming_content).decode("utf-8-sig")
        assert not any(link.token_hash in text for link in ConsentLink.objects.all())
        return list(csv.DictReader(io.StringIO(text)))

    (row,) = export("consent_campaign", campaign.pk)
    assert (row["Name"], row["Invited count"], row["Sent count"], row["Connected count"]) == ("Autumn", "3", "3", "0")
    rows = export("consent_campaignpartner", *(item.pk for item in items(campaign)))
    assert sorted(row["Progress"] for row in rows) == ["Failed", "Sent, not started yet", "Sent, not started yet"]
    assert {row["Campaign name"] for row in rows} == {"Autumn"}
    assert all(row["Sent at"] for row in rows)


def test_partners_of_a_campaign_are_filtered_by_progress(staff: Staff, registration: ApplicationRegistration) -> None:
    campaign = make(registration, partners(2))
    make(registration, partners(1))
    send(campaign, only=[items(campaign)[0].pk])
    for progress, expected in ((Progress.SENT, 0), (Progress.INVITED, 1)):
        page = staff.get(f"{INVITED}?campaign__id__exact={campaign.pk}&progress={progress}")
        assert list(page.context["cl"].result_list) == [items(campaign)[expected]]


@pytest.mark.req("S-65")
def test_hostile_names_are_text(staff: Staff, registration: ApplicationRegistration) -> None:
    hostile = '<img src=x onerror="alert(1)">'
    campaign = make(registration, partners(1))
    Campaign.objects.update(name=hostile)
    PartnerTenant.objects.update(name=hostile)
    asked = open_action(staff, campaign, "send")
    for page in (asked, staff.confirm(asked), staff.get(LIST), staff.get(page_of(campaign)), staff.get(INVITED)):
        assert hostile not in page.content.decode()
        assert "&lt;img" in page.content.decode()


# --- who may ----------------------------------------------------------------------------------------------------------


def test_pages_are_for_staff_with_permission(registration: ApplicationRegistration) -> None:
    campaign = make(registration, partners(1))
    viewer, stranger = Staff("consent.view_campaign"), Staff("consent.view_consentlink")
    for path in (LIST, ADD, page_of(campaign), INVITED):
        assert Browser().get(path).status_code == 302
        assert stranger.get(path).status_code == 403
    assert viewer.get(page_of(campaign)).status_code == 200
    assert viewer.get(ADD).status_code == 403
    assert viewer.post(f"{ADD}?registration={registration.pk}").status_code == 403


@pytest.mark.parametrize(
    ("name", "permission"),
    [("send", "consent.send_campaign"), ("remind", "consent.send_campaign"), ("close", "consent.close_campaign")],
)
def test_each_button_needs_its_own_permission(
    registration: ApplicationRegistration, name: str, permission: str
) -> None:
    campaign = make(registration, partners(1))
    if name == "remind":
        send(campaign)
        let_time_pass()
        mail.outbox.clear()
    everything = {"consent.send_campaign", "consent.close_campaign", "consent.change_campaign", "consent.add_campaign"}
    without = Staff("consent.view_campaign", *(everything - {permission}))
    allowed = Staff("consent.view_campaign", permission)
    path = f"{LIST}{campaign.pk}/{name}/"

    assert b"_once" in allowed.get(path).content
    assert f"{campaign.pk}/{name}" in allowed.get(page_of(campaign)).content.decode()
    assert without.get(path).status_code == 403
    assert without.post(path, {"_once": "x"}).status_code == 403
    assert f"{campaign.pk}/{name}" not in without.get(page_of(campaign)).content.decode()
    assert Staff(permission).get(path).status_code == 403, "who may not see it may not touch it"
    assert mail.outbox == []


def test_inviting_from_the_list_of_partners_needs_the_permission(registration: ApplicationRegistration) -> None:
    chosen = partners(1)
    key = chosen.get().pk
    viewer = Staff("tenants.view_partnertenant")
    assert b"_once" not in viewer.choose(PARTNERS, "invite_in_campaign", key).content
    maker = Staff("tenants.view_partnertenant", "consent.add_campaign", "consent.view_campaign")
    named = maker.choose(PARTNERS, "invite_in_campaign", key)
    assert b"_once" in named.content
    maker.confirm(named, **fields(registration))
    assert Campaign.objects.count() == 1


def test_a_connected_partner_whose_later_attempt_was_declined_does_not_read_like_one_who_declined(
    staff: Staff, registration: ApplicationRegistration
) -> None:
    campaign = make(registration, partners(1))
    send(campaign)
    link = link_of(items(campaign)[0])
    attempt(link, "refused", "declined")
    ConsentLink.objects.filter(pk=link.pk).update(closed_at=timezone.now())

    shown = staff.get(f"{INVITED}?campaign__id__exact={campaign.pk}").content.decode()

    assert "Connected" in shown
    assert "Another attempt: “" in shown


def test_a_connection_without_mfa_reads_so_and_not_as_a_failure(
    staff: Staff, registration: ApplicationRegistration
) -> None:
    campaign = make(registration, partners(1))
    send(campaign)
    attempt(link_of(items(campaign)[0]), "connected_mfa_missing")

    for address in (INVITED, "/admin/consent/consentlink/"):
        [row] = staff.get(address).context["cl"].result_list
        assert row.progress == "mfa_missing"
        assert "Connected, MFA missing" in staff.get(f"{address}?progress=mfa_missing").content.decode()
