"""Links that staff make, mail, extend, send again and send in campaigns lie nowhere but in the mail (S-01, S-37)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail
from django.urls import reverse
from pytest_django.fixtures import Settings

from consent.invitations import campaigns
from consent.models import Campaign, ConsentLink
from tenants.models import PartnerTenant
from tests.leaks.conftest import Gate
from tests.leaks.walks import crawl_admin
from tests.support import builders
from tests.support.campaigns import let_time_pass
from tests.support.smtp import serving
from tests.support.staff import Staff

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.req("S-37"),
    pytest.mark.req("S-01"),
]
_TOKEN = re.compile(r"/consent/([\w-]{43})/")


class Watched(Staff):
    """Staff whose pages are kept, but for the one that shows a new link."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def request(self, **environ: Any) -> Any:
        response = super().request(**environ)
        body = response.content.decode()
        if 'id="consent-link"' in body:
            assert "no-store" in response["Cache-Control"]
            self._gate.canaries.add("link", *_TOKEN.findall(body))
        else:
            self._gate.sinks.pages.append(repr(dict(response.items())).encode() + response.content)
        return response


def open_the_mail(gate: Gate) -> None:
    """Mails are where links lie: note each link, and the mail has been read."""
    for message in mail.outbox:
        gate.canaries.add("link", *_TOKEN.findall(str(message.body)))
    mail.outbox.clear()


@pytest.fixture(autouse=True)
def _mail_server(settings: Settings) -> None:
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    settings.DEFAULT_FROM_EMAIL = "invitations@vendor.example"


def links_of_staff(gate: Gate, staff: Watched) -> None:
    add = reverse("admin:consent_consentlink_add")
    fields = {"partner": gate.portal.partner.pk, "registration": gate.portal.registration.pk, "days": 5}
    for more in ({"kind": "sign_in"}, {"kind": "sign_in", "send": "on"}, {"kind": "admin_consent", "send": "on"}):
        assert staff.post(add, fields | more).status_code == 200
    open_the_mail(gate)
    for action, more in (("extend_links", {"days": "40"}), ("send_again", {}), ("revoke_links", {})):
        keys = ConsentLink.objects.usable().values_list("pk", flat=True)
        staff.confirm(staff.choose("consent_consentlink", action, *keys), **more)
        open_the_mail(gate)


def campaign_of_staff(gate: Gate, staff: Watched) -> None:
    add = f"{reverse('admin:consent_campaign_add')}?registration={gate.portal.registration.pk}"
    told = {"name": "Autumn", "registration": gate.portal.registration.pk, "reason": "new_scope", "link_days": 5}
    staff.confirm(staff.post(add), **told)
    campaign = Campaign.objects.get()
    staff.confirm(staff.get(f"/admin/consent/campaign/{campaign.pk}/send/"))
    open_the_mail(gate)
    let_time_pass()
    staff.confirm(staff.get(f"/admin/consent/campaign/{campaign.pk}/remind/"))
    open_the_mail(gate)
    staff.confirm(staff.get(f"/admin/consent/campaign/{campaign.pk}/close/"))


def campaign_of_an_operator(gate: Gate, staff: Watched) -> None:
    campaign = _campaign(gate)
    gate.command("send_campaign", str(campaign.pk))
    open_the_mail(gate)
    let_time_pass()
    gate.command("send_campaign", str(campaign.pk), "--remind")
    open_the_mail(gate)


def _campaign(gate: Gate) -> Campaign:
    return campaigns.create(
        name="Autumn",
        registration=gate.portal.registration,
        reason=Campaign.Reason.FIRST_INVITATION,
        partners=PartnerTenant.objects.all(),
        link_days=5,
        actor=builders.ACTOR,
    ).campaign


@pytest.mark.parametrize("work", [links_of_staff, campaign_of_staff, campaign_of_an_operator])
def test_a_mailed_link_lies_nowhere_else(gate: Gate, work: Callable[[Gate, Watched], None]) -> None:
    builders.contact(PartnerTenant.objects.get(), "admin@northwind.example.com")
    work(gate, Watched(gate))
    crawl_admin(gate)
    assert "link" in gate.canaries.kinds()
    assert gate.found() == []


def test_a_mail_server_that_hangs_up_gets_no_link_into_a_log(gate: Gate, settings: Settings) -> None:
    builders.contact(PartnerTenant.objects.get(), "admin@northwind.example.com")
    campaign = _campaign(gate)
    with serving() as server:
        server.hang_up_after = 0
        settings.MAILERS = {
            "default": {
                "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
                "OPTIONS": {"host": "127.0.0.1", "port": server.port, "timeout": 5},
            }
        }
        gate.command("send_campaign", str(campaign.pk))
        for kept in server.kept:
            gate.canaries.add("link", *_TOKEN.findall(kept.text))
    assert "link" in gate.canaries.kinds()
    assert gate.found() == []
