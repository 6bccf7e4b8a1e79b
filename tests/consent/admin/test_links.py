"""Links in the admin: made and shown once, followed, extended, sent again, revoked, exported."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import segno
from django.core import mail
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.admin.links import MOST_OFFERED
from consent.invitations import links
from consent.models import ApplicationRegistration, ConsentFlow, ConsentLink
from portal.audit.models import AuditEvent
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.campaigns import attempt
from tests.support.portal import Browser
from tests.support.smtp import serving
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db

ADD, LIST = "/admin/consent/consentlink/add/", "/admin/consent/consentlink/"
LINK = "consent_consentlink"
CONTACT = "admin@northwind.example.com"
Progress = ConsentLink.Progress


@pytest.fixture(autouse=True)
def _mail_server(settings: Settings) -> None:
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    settings.DEFAULT_FROM_EMAIL = "invitations@vendor.example"


@pytest.fixture
def partner() -> PartnerTenant:
    return builders.partner(name="Northwind Cloud", contact_email=CONTACT)


@pytest.fixture
def registration() -> ApplicationRegistration:
    return builders.registration()


@pytest.fixture
def staff() -> Staff:
    return Staff()


def make(staff: Staff, partner: PartnerTenant, registration: ApplicationRegistration, **more: object) -> Any:
    fields = {"partner": partner.pk, "registration": registration.pk, "kind": "sign_in", "days": 5}
    return staff.post(ADD, fields | more)


def address_on(page: Any) -> str:
    match = re.search(r'<code id="consent-link">([^<]+)</code>', page.content.decode())
    assert match, page.content.decode()[:2000]
    return match[1]


def issue(partner: PartnerTenant, registration: ApplicationRegistration) -> ConsentLink:
    return links.issue(partner, registration, actor=builders.ACTOR)[0]


# --- making -----------------------------------------------------------------------------------------------------------


def test_a_new_link_asks_for_its_partner_first_by_words_and_without_a_script(
    staff: Staff, partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    disabled = builders.partner(name="Northwind Disabled", switch=PartnerTenant.Switch.DISABLED)
    builders.partner(name="Harbour")
    all_of_them = staff.get(ADD, {"kind": "admin_consent"})
    assert [one.name for one, _ in all_of_them.context["found"]] == ["Harbour", "Northwind Cloud"]
    page = staff.get(ADD, {"q": "cloud northwind", "kind": "admin_consent"})
    [(found, address)] = page.context["found"]
    assert (found, address) == (partner, f"?partner={partner.pk}&kind=admin_consent")
    assert partner.tenant_id in page.content.decode()  # names may be alike
    form = staff.get(ADD + address).context["adminform"].form
    assert [str(key) for key, _ in form.fields["partner"].choices] == [str(partner.pk)]
    assert form["kind"].value() == "admin_consent"
    for key in (disabled.pk, 0):
        assert not list(staff.get(ADD, {"partner": key}).context["adminform"].form.fields["partner"].choices)
    assert "Which partner" in staff.post(ADD, {"registration": registration.pk, "days": 5}).content.decode()
    assert "No partner was found for “nobody”" in staff.get(ADD, {"q": "nobody"}).content.decode()


def test_more_partners_than_a_page_offers_are_found_by_more_words(staff: Staff) -> None:
    for number in range(MOST_OFFERED + 1):
        builders.partner(name=f"Harbour {number:02}")
    page = staff.get(ADD)
    assert len(page.context["found"]) == MOST_OFFERED
    assert "Type more of the name" in page.content.decode()
    assert Staff("consent.add_consentlink").get(ADD).status_code == 403  # names of partners are for who may see them


@pytest.mark.req("S-01")
def test_a_new_link_is_shown_once_with_a_button_to_copy_it(
    staff: Staff, partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    page = make(staff, partner, registration)

    assert page.status_code == 200
    address = address_on(page)
    assert f'data-copy="{address}"' in page.content.decode()
    assert "no-store" in page["Cache-Control"]
    link = links.usable(urlsplit(address).path.split("/")[2])
    assert link == ConsentLink.objects.get()
    assert link.created_by == staff.user
    assert timedelta(days=4, hours=23) < link.expires_at - timezone.now() < timedelta(days=5)
    assert mail.outbox == [], "nobody is written to unless asked"
    token = urlsplit(address).path.split("/")[2]
    for path in (ADD, LIST, f"{LIST}{link.pk}/change/", f"{LIST}{link.pk}/history/", "/admin/"):
        assert token not in staff.get(path).content.decode(), path
    assert Browser().get(urlsplit(address).path).status_code == 200


def test_the_qr_code_holds_exactly_the_address(
    staff: Staff, partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    page = make(staff, partner, registration)
    image = re.search(r'id="consent-link-code" src="(data:image/svg\+xml[^"]+)"', page.content.decode())
    assert image
    code = segno.make_qr(address_on(page), error="m")
    assert image[1].replace("&#x27;", "'") == code.svg_data_uri(border=4, light="#fff", omitsize=True)
    other = segno.make_qr(f"{address_on(page)}?", error="m")
    assert other.matrix != code.matrix, "another address would be another picture"


def test_the_first_step_without_a_token_can_be_chosen(
    staff: Staff, partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    address = address_on(make(staff, partner, registration, kind="admin_consent"))
    assert ConsentLink.objects.get().kind == ConsentLink.Kind.ADMIN_CONSENT
    text = Browser().get(urlsplit(address).path).content.decode()
    assert "Global Administrator" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [({"days": 0}, "greater than"), ({"days": 91}, "less than"), ({"days": ""}, "required"), ({"kind": "x"}, "valid")],
)
def test_a_bad_form_makes_no_link(
    staff: Staff, partner: PartnerTenant, registration: ApplicationRegistration, change: dict[str, Any], words: str
) -> None:
    page = make(staff, partner, registration, **change)
    assert words in page.content.decode()
    assert not ConsentLink.objects.exists()


def test_a_link_that_must_not_be_made_is_refused_in_words(staff: Staff, partner: PartnerTenant) -> None:
    china = builders.registration(cloud="china")
    page = make(staff, partner, china, days=33)
    assert "different clouds" in page.content.decode()
    assert 'value="33"' in page.content.decode(), "what was typed is still there"
    assert not ConsentLink.objects.exists()


def test_a_partner_disabled_in_the_same_moment_gets_no_link(
    staff: Staff, partner: PartnerTenant, registration: ApplicationRegistration, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = links.issue

    def meanwhile(partner: PartnerTenant, *args: Any, **kwargs: Any) -> Any:
        partner.switch = "disabled"
        return really(partner, *args, **kwargs)

    monkeypatch.setattr(links, "issue", meanwhile)
    page = make(staff, partner, registration)
    assert "is disabled; enable it first" in told(staff.get(page["Location"]))
    assert not ConsentLink.objects.exists()


# --- making and sending -----------------------------------------------------------------------------------------------


@pytest.mark.req("S-58")
def test_a_link_can_be_sent_when_it_is_made(
    staff: Staff, partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    page = make(staff, partner, registration, send="on")
    assert f"It was sent to {CONTACT}." in page.content.decode()
    assert [one.to for one in mail.outbox] == [[CONTACT]]
    assert address_on(page) in mail.outbox[0].body
    trail = [f"{one.action} {one.outcome}" for one in AuditEvent.objects.order_by("sequence")]
    assert trail == ["link.issued done", "link.sent intent", "link.sent done"]
    assert {one.actor for one in AuditEvent.objects.all()} == {staff.user.get_username()}


@pytest.mark.req("S-58")
@pytest.mark.parametrize("why", ["no address", "refused", "away"])
def test_a_mail_that_does_not_leave_is_told_and_the_link_is_shown(
    staff: Staff, partner: PartnerTenant, registration: ApplicationRegistration, settings: Settings, why: str
) -> None:
    with serving() as server:
        if why == "no address":
            partner.contacts.all().delete()
        server.refuse.add(CONTACT)
        settings.MAILERS = {
            "default": {
                "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
                "OPTIONS": {"host": "127.0.0.1", "port": 1 if why == "away" else server.port, "timeout": 5},
            }
        }
        page = make(staff, partner, registration, send="on")
    text = page.content.decode()
    assert "The link works all the same" in text
    assert "canary" not in text
    assert links.usable(urlsplit(address_on(page)).path.split("/")[2])
    trail = [f"{one.action} {one.outcome}" for one in AuditEvent.objects.order_by("sequence")]
    assert trail == ["link.issued done", "link.sent intent", "link.sent failed"]


def test_without_a_mail_server_or_permission_nothing_offers_to_send(
    partner: PartnerTenant, registration: ApplicationRegistration, settings: Settings
) -> None:
    allowed = ("consent.view_consentlink", "consent.add_consentlink", "tenants.view_partnertenant")
    maker, sender = Staff(*allowed), Staff(*allowed, "consent.send_consentlink")
    assert b'name="send"' in sender.get(ADD, {"partner": partner.pk}).content
    assert b'name="send"' not in maker.get(ADD, {"partner": partner.pk}).content
    make(maker, partner, registration, send="on")
    assert mail.outbox == []
    settings.MAILERS = {}
    assert b'name="send"' not in sender.get(ADD, {"partner": partner.pk}).content
    assert b"send_again" not in sender.get(LIST).content


@pytest.mark.req("S-65")
def test_a_hostile_name_is_text_on_every_page(staff: Staff, registration: ApplicationRegistration) -> None:
    hostile = '<img src=x onerror="alert(1)">'
    partner = builders.partner(contact_email=CONTACT)
    PartnerTenant.objects.update(name=hostile)
    pages = [make(staff, partner, registration, send="on")]
    page = staff.choose(LINK, "send_again", ConsentLink.objects.get().pk)
    pages += [page, staff.confirm(page), staff.get(LIST)]
    for page in pages:
        assert hostile not in page.content.decode()
    assert len(mail.outbox) == 2


# --- following --------------------------------------------------------------------------------------------------------


def one_of_each(registration: ApplicationRegistration) -> dict[str, ConsentLink]:
    """Make a link in each state, each of a partner of its own."""
    made = {}
    for progress in Progress:
        made[progress.value] = issue(builders.partner(contact_email=CONTACT), registration)
    attempt(made["started"], "open")
    attempt(made["failed"], "refused", "wrong_tenant")
    attempt(made["mfa_missing"], "connected_mfa_missing")
    attempt(made["waiting"], "waiting_approval")
    attempt(made["done"], "connected")
    links.close(made["done"], actor=builders.ACTOR)
    links.revoke(made["revoked"], actor=builders.ACTOR)
    expired = ConsentLink.objects.filter(pk=made["expired"].pk)
    expired.update(created_at=timezone.now() - timedelta(days=9), expires_at=timezone.now() - timedelta(days=1))
    PartnerTenant.objects.filter(pk=made["off"].partner_id).update(switch="disabled")
    return made


@pytest.mark.req("S-02")
def test_the_list_says_how_far_each_partner_came_and_filters_by_it(
    staff: Staff, registration: ApplicationRegistration
) -> None:
    made = one_of_each(registration)
    text = staff.get(LIST).content.decode()
    for progress in Progress:
        assert str(progress.label) in text
        page = staff.get(f"{LIST}?progress={progress.value}")
        assert list(page.context["cl"].result_list) == [made[progress.value]], progress
    assert "wrong_tenant" not in text.replace("?problem=wrong_tenant", ""), (
        "the words that the partner read, not our name for them"
    )
    assert "tenant" in staff.get(f"{LIST}?progress=failed").content.decode()


def test_the_page_of_a_link_tells_each_attempt(
    staff: Staff, partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    link = issue(partner, registration)
    flows = [attempt(link, "refused", "declined"), attempt(link, "open")]
    text = staff.get(f"{LIST}{link.pk}/change/").content.decode()
    for flow in flows:
        assert flow.reference in text
    assert ConsentFlow.Outcome.OPEN.label in text
    assert link.token_hash not in text


def test_lists_cost_the_same_for_two_rows_and_twenty(staff: Staff, registration: ApplicationRegistration) -> None:
    def cost(path: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            assert staff.get(path).status_code == 200
        return len(queries)

    for _ in range(2):
        attempt(issue(builders.partner(), registration), "refused", "declined")
    staff.get(LIST)
    few = cost(LIST)
    for _ in range(18):
        attempt(issue(builders.partner(), registration), "refused", "declined")
    assert cost(LIST) == few
    link = ConsentLink.objects.all()[0]
    page = f"{LIST}{link.pk}/change/"
    staff.get(page)
    few = cost(page)
    for _ in range(9):
        attempt(link, "refused", "declined")
    assert cost(page) == few


@pytest.mark.req("S-64")
def test_the_export_says_how_far_and_why_and_holds_no_hash(staff: Staff, registration: ApplicationRegistration) -> None:
    made = one_of_each(registration)
    answer = staff.choose(LINK, "export_csv", *(link.pk for link in made.values()))
    content = b"".join(answer.streaming_content).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content)))
    assert {row["Progress"] for row in rows} == {progress.label for progress in Progress}
    failed = next(row for row in rows if row["Progress"] == Progress.FAILED.label)
    assert (failed["Last outcome"], failed["Last problem"]) == ("Refused", "wrong_tenant")
    for link in made.values():
        assert link.token_hash not in content


# --- actions ----------------------------------------------------------------------------------------------------------


def test_extending_asks_for_days_and_lets_an_expired_link_work_again(
    staff: Staff, registration: ApplicationRegistration
) -> None:
    made = one_of_each(registration)
    page = staff.choose(LINK, "extend_links", made["expired"].pk, made["revoked"].pk, made["done"].pk)
    assert ConsentLink.objects.usable().filter(pk=made["expired"].pk).count() == 0, "a question changes nothing"

    again = staff.confirm(page, days=91)
    assert "less than or equal to 90" in again.content.decode()
    done = staff.confirm(again, days=30)

    assert "1 extended." in told(done)
    assert told(done).count("revoked or used") == 2
    usable = ConsentLink.objects.usable().filter(pk__in=[made[key].pk for key in ("expired", "revoked", "done")])
    assert list(usable) == [made["expired"]]
    made["expired"].refresh_from_db()
    assert timedelta(days=29) < made["expired"].expires_at - timezone.now() < timedelta(days=30)
    event = AuditEvent.objects.get(action="link.extended")
    assert set(event.details) == {"before", "after"}
    assert "already done" in told(staff.confirm(again, days=60))
    assert AuditEvent.objects.filter(action="link.extended").count() == 1


def test_a_link_is_never_shortened_by_extending_it(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    link, _ = links.issue(partner, registration, actor=builders.ACTOR, lifetime=timedelta(days=60))
    with pytest.raises(links.LinkRefused, match="valid for longer"):
        links.extend(link, lifetime=timedelta(days=5), actor=builders.ACTOR)
    for lifetime in (timedelta(0), timedelta(days=91)):
        with pytest.raises(links.LinkRefused, match="90 days"):
            links.extend(link, lifetime=lifetime, actor=builders.ACTOR)


def test_sending_again_makes_new_links_and_revokes_the_older_ones(
    staff: Staff, registration: ApplicationRegistration
) -> None:
    made = one_of_each(registration)
    chosen = [made[key] for key in ("open", "failed", "expired", "revoked", "done", "off")]
    page = staff.choose(LINK, "send_again", *(link.pk for link in chosen))
    assert mail.outbox == []

    done = staff.confirm(page)

    assert "4 sent." in told(done)
    assert "connected through this link already" in told(done)
    assert "is disabled; enable it first" in told(done)
    assert len(mail.outbox) == 4
    for key in ("open", "failed", "expired"):
        made[key].refresh_from_db()
        assert made[key].revoked_at is not None
        new = ConsentLink.objects.usable().get(partner=made[key].partner)
        assert new.created_by == staff.user
    staff.confirm(page)
    assert len(mail.outbox) == 4, "the button works once"


def test_a_mail_server_that_goes_away_stops_and_says_how_many(
    staff: Staff, registration: ApplicationRegistration, settings: Settings
) -> None:
    made = [issue(builders.partner(contact_email=CONTACT), registration) for _ in range(3)]
    page = staff.choose(LINK, "send_again", *(link.pk for link in made))
    with serving() as server:
        server.closed_after = 1
        settings.MAILERS = {
            "default": {
                "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
                "OPTIONS": {"host": "127.0.0.1", "port": server.port, "timeout": 5},
            }
        }
        done = staff.confirm(page)
    assert "421" in told(done)
    assert "canary" not in told(done)
    assert "1 sent." in told(done)


def test_more_than_fifty_are_a_campaigns_work(
    staff: Staff, partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    made = [issue(partner, registration) for _ in range(51)]
    page = staff.post(
        LIST, {"action": "send_again", "_selected_action": [one.pk for one in made], "index": 0, "select_across": 1}
    )
    assert "a campaign is for more than that" in told(staff.get(page["Location"]))
    assert mail.outbox == []


PERMISSIONS = {
    "extend_links": "consent.extend_consentlink",
    "send_again": "consent.send_consentlink",
    "revoke_links": "consent.revoke_consentlink",
}


@pytest.mark.parametrize("action", PERMISSIONS)
def test_each_action_needs_its_own_permission(
    action: str, partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    link = issue(partner, registration)
    others = [name for key, name in PERMISSIONS.items() if key != action]
    somebody = Staff("consent.view_consentlink", "consent.change_consentlink", *others)
    confirmation = Staff("consent.view_consentlink", PERMISSIONS[action]).choose(LINK, action, link.pk)
    assert b"_once" in confirmation.content

    answer = somebody.choose(LINK, action, link.pk)
    assert b"_once" not in answer.content
    somebody.confirm(confirmation, days=80)

    before = (link.expires_at, link.revoked_at)
    link.refresh_from_db()
    assert (link.expires_at, link.revoked_at) == before
    assert mail.outbox == []


def test_pages_are_for_staff_with_permission(partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    link = issue(partner, registration)
    stranger, viewer = Staff("tenants.view_partnertenant"), Staff("consent.view_consentlink")
    for path in (LIST, ADD, f"{LIST}{link.pk}/change/"):
        assert Browser().get(path).status_code == 302
        assert stranger.get(path).status_code == 403
    assert viewer.get(LIST).status_code == 200
    assert viewer.get(ADD).status_code == 403
    assert viewer.post(ADD, {"partner": partner.pk}).status_code == 403
    assert Staff().post(f"{LIST}{link.pk}/change/", {"expires_at_0": "2040-01-01"}).status_code == 403
    assert Staff().get(reverse("admin:consent_consentlink_delete", args=[link.pk])).status_code == 403
