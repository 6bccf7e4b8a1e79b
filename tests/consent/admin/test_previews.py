"""The mail of an invitation is seen, tested and copied before or instead of being sent; a draft is stored nowhere."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.urls import reverse
from pytest_django.fixtures import Settings

from consent.invitations import links, mails
from consent.models import Campaign, ConsentLink
from portal.audit.models import AuditEvent
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.portal import Browser
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"


@pytest.fixture(autouse=True)
def _mail_server(settings: Settings) -> None:
    settings.MAILERS = {"default": {"BACKEND": LOCMEM}}
    settings.DEFAULT_FROM_EMAIL = "Example <invitations@vendor.example>"


def staff() -> Staff:
    somebody = Staff()
    somebody.user.email = "anna@vendor.example"
    somebody.user.save()
    return somebody


def address_for(kind: str = "sign_in", *, contact: str = "admin@northwind.example.com") -> str:
    partner = builders.partner(name="Northwind Cloud", contact_email=contact)
    registration = builders.registration()
    page = reverse("admin:consent_consentlink_preview")
    return f"{page}?partner={partner.pk}&registration={registration.pk}&kind={kind}"


def test_a_preview_shows_the_very_mail_and_makes_nothing() -> None:
    page = staff().get(address_for()).content.decode()
    for text in ("Northwind Cloud", "admin@northwind.example.com", "A dedicated service account", "leads nowhere"):
        assert text in page
    assert "Your own administrator account" in staff().get(address_for("admin_consent")).content.decode()
    assert not ConsentLink.objects.exists()
    assert not AuditEvent.objects.exists()


def test_a_test_goes_to_the_person_who_looks_and_to_nobody_else(mailoutbox: list[Any]) -> None:
    answer = staff().post(address_for(), {"to": "stranger@example.org"}, follow=True)
    assert "A test was sent to anna@vendor.example." in told(answer)
    [mail] = mailoutbox
    assert (mail.to, mail.cc, mail.bcc) == (["anna@vendor.example"], [], [])
    assert mail.subject.startswith("[Test] ")
    assert not ConsentLink.objects.exists()
    event = AuditEvent.objects.get(action="invitation.tested")
    assert "anna@vendor.example" not in repr(event.subject) + repr(event.details)


def test_the_address_in_a_draft_is_no_link() -> None:
    _, address = links.draft(builders.partner(), builders.registration())
    assert not ConsentLink.objects.exists()
    page = Browser().get(urlsplit(address.reveal()).path)
    assert page.status_code == 404
    assert page.content == Browser().get("/consent/" + "x" * 43 + "/").content


def test_a_preview_says_why_the_mail_would_not_leave_and_its_text_can_be_copied(settings: Settings) -> None:
    page = staff().get(address_for(contact="")).content.decode()
    assert "No contact of the partner gets invitations" in page
    assert "Northwind Cloud" in page
    settings.MAILERS = {}
    page = staff().get(address_for()).content.decode()
    assert "no mail server: copy the text" in page
    assert "Send a test" not in page


def test_a_partner_who_may_not_be_invited_has_no_preview() -> None:
    address = address_for()
    PartnerTenant.objects.update(switch="disabled")
    assert "disabled" in told(staff().get(address, follow=True))


@pytest.mark.parametrize("query", ["", "?partner=x&registration=1", "?partner=1&registration=999999"])
def test_a_preview_of_nothing_is_not_found(query: str) -> None:
    assert staff().get(reverse("admin:consent_consentlink_preview") + query).status_code == 404


def test_who_makes_no_links_sees_no_preview() -> None:
    assert Staff("consent.view_consentlink").get(address_for()).status_code == 403


@pytest.mark.parametrize("with_server", [True, False])
def test_a_link_that_was_not_mailed_shows_the_text_with_its_own_address_once(
    settings: Settings, with_server: bool
) -> None:
    settings.MAILERS = settings.MAILERS if with_server else {}
    partner, registration = builders.partner(contact_email=""), builders.registration()
    page = staff().post(
        reverse("admin:consent_consentlink_add"),
        {"partner": partner.pk, "registration": registration.pk, "kind": "sign_in", "days": 14},
    )
    text = page.content.decode()
    [link] = ConsentLink.objects.all()
    mail = page.context["mail"]
    assert links.token_hash(mail.text.split("/consent/")[1].split("/")[0]) == link.token_hash
    assert "The mail, to send it yourself" in text
    assert "no-store" in page["Cache-Control"]


def test_a_campaign_shows_its_mail_with_its_reason_and_days() -> None:
    partner = builders.partner(name="Northwind Cloud", contact_email="admin@northwind.example.com")
    campaign = Campaign.objects.create(
        name="Renewal", registration=builders.registration(), reason="expiring_token", link_days=30
    )
    campaign.partners.create(partner=partner)
    who = staff()
    address = reverse("admin:consent_campaign_change", args=[campaign.pk]).replace("change/", "preview/")
    assert address in who.get(reverse("admin:consent_campaign_change", args=[campaign.pk])).content.decode()
    page = who.get(address).content.decode()
    assert "renewed with a new sign-in before it expires" in page
    assert mails.preview(*links.draft(partner, campaign.registration)).text not in page
    assert not ConsentLink.objects.exists()
