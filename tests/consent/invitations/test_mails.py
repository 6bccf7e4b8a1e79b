"""Invitations by e-mail: one recipient, nothing that a partner wrote in a header, no link left behind anywhere."""

from __future__ import annotations

import re
import runpy
import smtplib
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.locmem import EmailBackend
from django.db import connection
from pytest_django.fixtures import Settings

from consent.invitations import links, mails
from consent.models import ConsentLink
from portal.audit.models import AuditEvent
from portal.mail import MailLost, MailRefused, MailUnavailable, can_send, open_mailer
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.portal import Browser
from tests.support.smtp import serving
from tests.support.source import ROOT

LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
CONTACT = "admin@northwind.example.com"


@pytest.fixture(autouse=True)
def _mail_server(settings: Settings) -> None:
    settings.MAILERS = {"default": {"BACKEND": LOCMEM}}
    settings.DEFAULT_FROM_EMAIL = "Example <invitations@vendor.example>"


@pytest.fixture
def partner(db: None) -> PartnerTenant:
    return builders.partner(name="Northwind Cloud", contact_email=CONTACT)


def invite(partner: PartnerTenant, *, again: bool = False, **columns: Any) -> tuple[ConsentLink, Secret]:
    link, address = links.issue(partner, builders.registration(**columns), actor=builders.ACTOR)
    with open_mailer() as mailer:
        mails.deliver(link, address, mailer=mailer, actor=builders.ACTOR, again=again)
    return link, address


def html_of(mail: Any) -> str:
    return str(mail.alternatives[0].content)


def events() -> list[str]:
    return [f"{one.action} {one.outcome}" for one in AuditEvent.objects.order_by("sequence")]


def dump() -> str:
    with connection.cursor() as cursor:
        text = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608  # names come from the database itself
            text.append(repr(cursor.fetchall()))
    return "\n".join(text)


# --- what it says -----------------------------------------------------------------------------------------------------


def test_both_parts_say_who_asks_for_what_with_which_account_until_when(
    partner: PartnerTenant, mailoutbox: list[Any], settings: Settings
) -> None:
    link, address = invite(partner)

    (mail,) = mailoutbox
    assert (mail.to, mail.cc, mail.bcc, mail.reply_to) == ([CONTACT], [], [], [settings.SUPPORT_EMAIL])
    assert settings.VENDOR_NAME in mail.subject
    for part in (mail.body, html_of(mail)):
        for told in (
            settings.VENDOR_NAME,
            "Northwind Cloud",
            partner.tenant_id,
            link.registration.name,
            link.registration.application_id,
            "service account",
            "Admin Agent",
            "MFA",
            f"{link.expires_at:%Y}",
            address.reveal(),
        ):
            assert told in part, told
    assert "takes the place" not in mail.body


def test_a_link_in_place_of_another_says_so(partner: PartnerTenant, mailoutbox: list[Any]) -> None:
    invite(partner, again=True)
    assert "takes the place of the one that we sent you before" in mailoutbox[0].body


def test_the_mail_of_the_first_step_names_the_other_account(partner: PartnerTenant, mailoutbox: list[Any]) -> None:
    link, address = links.issue(
        partner, builders.registration(), actor=builders.ACTOR, kind=ConsentLink.Kind.ADMIN_CONSENT
    )
    text = mails.compose(link, address).body
    assert "Your own administrator account" in str(text)


@pytest.mark.req("S-05")
def test_the_mail_says_no_more_than_the_page_behind_the_link(partner: PartnerTenant, mailoutbox: list[Any]) -> None:
    """Names and ids of the mail all stand on the page; the contact's own name and the staff's notes on neither."""
    partner.notes = "Notes canary"
    partner.save()
    partner.contacts.update(name="Contact Canary", role="Role canary")
    link, address = invite(partner)
    page = Browser().get(address.reveal()).content.decode()
    for told in (partner.name, partner.tenant_id, link.registration.name, link.registration.application_id):
        assert told in page
    for part in (mailoutbox[0].body, html_of(mailoutbox[0])):
        assert "anary" not in part


def test_nothing_in_it_is_loaded_or_counted(partner: PartnerTenant, mailoutbox: list[Any]) -> None:
    _, address = invite(partner)
    html = html_of(mailoutbox[0])
    assert not re.search(r"<(?:img|script|style|link|iframe|form)\b|\bsrc=|url\(|style=", html)
    assert set(re.findall(r'href="([^"]+)"', html)) == {address.reveal()}
    text = mailoutbox[0].body + html.replace("<wbr>", "")
    assert set(re.findall(r"https?://[^\s<\"]+", text)) == {address.reveal()}
    assert text.count(address.reveal()) == 3  # as text, as a link, and to copy


# --- hostile names and addresses --------------------------------------------------------------------------------------


@pytest.mark.req("S-65")
@pytest.mark.parametrize(
    "name",
    [
        "Evil\r\nBcc: thief@evil.example",
        "Evil\nSubject: free",
        "<img src=x onerror=alert(1)>",
        "Evil\u2028Works until: for ever",
        "\u202eevil",
        '"><script>alert(1)</script>',
    ],
)
def test_a_hostile_name_stays_in_its_place(partner: PartnerTenant, mailoutbox: list[Any], name: str) -> None:
    PartnerTenant.objects.update(name=name)  # past all validation
    partner.refresh_from_db()
    invite(partner, name=name)

    (mail,) = mailoutbox
    sent = mail.message()
    assert mail.recipients() == [CONTACT]
    assert sent.get_all("Subject") == [mail.subject]
    assert "Bcc" not in sent
    assert name not in mail.subject
    assert re.fullmatch(r"Your company: [^\n\r\u2028\u202e]+", mail.body.split("\n\n")[1].splitlines()[0])
    assert len(mail.body.split("\n\n")[1].splitlines()) == 6
    assert "<img" not in html_of(mail)
    assert "<script" not in html_of(mail)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nobody",
        "a@b.example, c@evil.example",
        "a@b.example;c@evil.example",
        "a@b.example\nBcc: c@evil.example",
        "a@b.example\r\n\r\nbody",
        "Name <a@b.example>",
        "a@b.example c@evil.example",
    ],
)
def test_what_is_not_one_address_gets_no_mail(partner: PartnerTenant, mailoutbox: list[Any], address: str) -> None:
    partner.contacts.update(email=address, gets_invitations=bool(address))
    with pytest.raises(MailRefused, match="gets invitations"):
        invite(partner)
    assert mailoutbox == []
    assert events() == ["link.issued done", "link.sent failed"]
    assert ConsentLink.objects.usable().count() == 1


# --- nothing is left behind -------------------------------------------------------------------------------------------


@pytest.mark.req("S-01")
def test_neither_the_link_nor_the_address_is_in_database_log_or_trail(
    partner: PartnerTenant, mailoutbox: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    _, address = invite(partner)
    token = address.reveal().rstrip("/").rpartition("/")[2]
    assert token in mailoutbox[0].body
    assert token not in dump()
    assert token not in caplog.text
    assert CONTACT not in repr(list(AuditEvent.objects.values_list("subject", "details")))


@pytest.mark.req("S-58")
def test_an_intent_precedes_the_mail_and_an_outcome_follows(
    partner: PartnerTenant, mailoutbox: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = links.issue(partner, builders.registration(), actor=builders.ACTOR)
    before: list[list[str]] = []
    send = EmailBackend.send_messages

    def watch(self: EmailBackend, messages: Any) -> Any:
        before.append(events())
        return send(self, messages)

    monkeypatch.setattr(EmailBackend, "send_messages", watch)
    with open_mailer() as mailer:
        mails.send_again(old, mailer=mailer, actor=builders.ACTOR)
    assert before == [["link.issued done", "link.revoked done", "link.issued done", "link.sent intent"]]
    assert events()[-1] == "link.sent done"


# --- the mail server --------------------------------------------------------------------------------------------------

SERVER_WORDS = "canary of the server <admin@northwind.example.com>"
FAILURES: dict[str, tuple[Exception, type[Exception]]] = {
    "refused address": (smtplib.SMTPRecipientsRefused({CONTACT: (550, SERVER_WORDS.encode())}), MailRefused),
    "refused message": (smtplib.SMTPDataError(554, SERVER_WORDS), MailRefused),
    "an address that cannot be encoded": (ValueError(SERVER_WORDS), MailRefused),
    "refused sender": (smtplib.SMTPSenderRefused(550, SERVER_WORDS.encode(), "x"), MailUnavailable),
    "hung up": (smtplib.SMTPServerDisconnected(SERVER_WORDS), MailLost),
    "silent": (TimeoutError(SERVER_WORDS), MailLost),
    "reset": (ConnectionResetError(SERVER_WORDS), MailLost),
}


@pytest.mark.parametrize(("error", "kind"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_told_in_our_words_and_the_link_stays(
    partner: PartnerTenant,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    kind: type[Exception],
) -> None:
    def fail(self: EmailBackend, messages: Any) -> None:
        raise error

    monkeypatch.setattr(EmailBackend, "send_messages", fail)
    with pytest.raises(kind) as told:
        invite(partner)

    assert "canary" not in str(told.value) + caplog.text + dump()
    assert type(told.value) is kind
    assert told.value.__cause__ is None
    assert events()[-1] == "link.sent failed"
    assert ConsentLink.objects.usable().count() == 1


@pytest.mark.parametrize("error", [smtplib.SMTPAuthenticationError(535, b"canary"), OSError("canary")])
def test_a_server_that_does_not_let_us_in_stops_the_work_before_anything_changes(
    partner: PartnerTenant, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(self: EmailBackend) -> None:
        raise error

    monkeypatch.setattr(EmailBackend, "open", fail, raising=False)
    with pytest.raises(MailUnavailable, match="EMAIL_HOST") as told, open_mailer():
        pytest.fail("the work began")
    assert "canary" not in str(told.value)


def test_a_portal_without_a_mail_server_says_so(settings: Settings) -> None:
    settings.MAILERS = {}
    assert not can_send()
    with pytest.raises(MailUnavailable, match="set EMAIL_HOST"), open_mailer():
        pytest.fail("the work began")


# --- sending again ----------------------------------------------------------------------------------------------------


def test_sending_again_makes_a_new_link_and_revokes_the_older(partner: PartnerTenant, mailoutbox: list[Any]) -> None:
    old, _ = links.issue(partner, builders.registration(), actor=builders.ACTOR)
    with open_mailer() as mailer:
        new = mails.send_again(old, mailer=mailer, actor=builders.ACTOR)

    old.refresh_from_db()
    assert old.revoked_at is not None
    assert list(ConsentLink.objects.usable()) == [new]
    token = re.search(r"/consent/([\w-]{43})/", mailoutbox[0].body)
    assert token
    assert links.usable(token[1]) == new


@pytest.mark.parametrize("why", ["no address", "disabled", "served"])
def test_what_cannot_be_sent_again_leaves_the_older_link_alone(
    partner: PartnerTenant, mailoutbox: list[Any], why: str
) -> None:
    old, _ = links.issue(partner, builders.registration(), actor=builders.ACTOR)
    if why == "no address":
        partner.contacts.all().delete()
    elif why == "disabled":
        PartnerTenant.objects.update(switch="disabled")
    else:
        links.close(old, actor=builders.ACTOR)
    old = ConsentLink.objects.select_related("partner").get(pk=old.pk)
    with pytest.raises((MailRefused, links.LinkRefused)), open_mailer() as mailer:
        mails.send_again(old, mailer=mailer, actor=builders.ACTOR)
    assert ConsentLink.objects.get().revoked_at is None
    assert mailoutbox == []


# --- the settings, and a real conversation ----------------------------------------------------------------------------


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, Any]:
    for name in ("EMAIL_HOST", "EMAIL_TLS", "EMAIL_PORT", "EMAIL_USER", "EMAIL_PASSWORD", "EMAIL_FROM"):
        monkeypatch.setenv(name, variables.get(name, ""))
    monkeypatch.setenv("TEST_ENDPOINTS", variables.get("TEST_ENDPOINTS", ""))
    monkeypatch.setenv("TEST_CA_FILE", "/ca.pem")
    return runpy.run_path(str(ROOT / "portal/settings.py"))


@pytest.mark.parametrize(
    ("tls", "port", "flags"), [("", 587, (True, False)), ("starttls", 587, (True, False)), ("tls", 465, (False, True))]
)
def test_the_way_to_the_mail_server_is_encrypted_unless_it_is_this_machine(
    monkeypatch: pytest.MonkeyPatch, tls: str, port: int, flags: tuple[bool, bool]
) -> None:
    loaded = load(monkeypatch, EMAIL_HOST="mail.vendor.example", EMAIL_TLS=tls, EMAIL_FROM="a@vendor.example")
    options = loaded["MAILERS"]["default"]["OPTIONS"]
    assert (options["port"], options["use_tls"], options["use_ssl"]) == (port, *flags)
    assert 0 < options["timeout"] <= 20


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"EMAIL_HOST": "mail.vendor.example"}, "EMAIL_FROM"),
        ({"EMAIL_HOST": "mail.vendor.example", "EMAIL_FROM": "nobody"}, "EMAIL_FROM"),
        ({"EMAIL_HOST": "mail.vendor.example", "EMAIL_FROM": "a@b.example\nBcc: c@d.example"}, "EMAIL_FROM"),
        ({"EMAIL_HOST": "mail.vendor.example", "EMAIL_FROM": "a@b.example", "EMAIL_TLS": "none"}, "EMAIL_TLS"),
        ({"EMAIL_HOST": "mail.vendor.example", "EMAIL_FROM": "a@b.example", "EMAIL_TLS": "ssl"}, "EMAIL_TLS"),
        ({"EMAIL_HOST": "mail.vendor.example", "EMAIL_FROM": "a@b.example", "EMAIL_PORT": "99999"}, "EMAIL_PORT"),
    ],
)
def test_a_bad_mail_setting_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=told):
        load(monkeypatch, **variables)


def test_nobody_is_mailed_unless_somebody_says_by_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch)["MAILERS"] == {}
    beside_a_sandbox = load(monkeypatch, TEST_ENDPOINTS="8443")["MAILERS"]["default"]
    assert beside_a_sandbox["BACKEND"].endswith("console.EmailBackend")


def test_the_settings_reach_a_real_mail_server(
    partner: PartnerTenant, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    with serving() as server:
        loaded = load(
            monkeypatch,
            EMAIL_HOST="127.0.0.1",
            EMAIL_PORT=str(server.port),
            EMAIL_TLS="none",
            EMAIL_FROM="We <we@vendor.example>",
        )
        settings.MAILERS, settings.DEFAULT_FROM_EMAIL = loaded["MAILERS"], loaded["DEFAULT_FROM_EMAIL"]
        _, address = invite(partner)

    (kept,) = server.kept
    assert (kept.sender, kept.recipients) == ("we@vendor.example", [CONTACT])
    assert (kept.message["From"], kept.message["To"]) == ("We <we@vendor.example>", CONTACT)
    assert kept.message["Auto-Submitted"] == "auto-generated"
    assert kept.link == address.reveal()
    html = kept.message.get_body(("html",))
    assert html is not None
    assert address.reveal() in html.get_content()
    assert events()[-1] == "link.sent done"
