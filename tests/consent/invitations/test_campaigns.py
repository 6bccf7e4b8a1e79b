"""Campaigns: nothing is sent twice, nobody who is done is written to, and everything can be run again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings as portal_settings
from django.core.mail.backends.locmem import EmailBackend
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.invitations import campaigns, links, mails
from consent.models import ApplicationRegistration, Campaign, CampaignPartner, ConsentLink, PartnerConsent
from portal.audit.models import AuditEvent
from portal.audit.walking import first_broken_sequence
from portal.mail import MailLost, MailUnavailable, open_mailer
from tenants.models import PartnerContact, PartnerTag, PartnerTenant
from tests.support import builders
from tests.support.campaigns import attempt, items, let_time_pass, link_of, make, partners, send
from tests.support.commands import run
from tests.support.portal import SERVICE_ACCOUNT, Browser, Portal
from tests.support.smtp import MailServer, serving
from tests.support.source import ROOT, variables
from tests.support.threads import at_once

pytestmark = pytest.mark.django_db

Progress, Problem = CampaignPartner.Progress, CampaignPartner.SendProblem


@pytest.fixture(autouse=True)
def _mail_server(settings: Settings) -> None:
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    settings.DEFAULT_FROM_EMAIL = "Example <invitations@vendor.example>"


@pytest.fixture
def mail_server(settings: Settings) -> Iterator[MailServer]:
    """A real one on loopback, and a portal that uses it."""
    with serving() as server:
        settings.MAILERS = {
            "default": {
                "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
                "OPTIONS": {"host": "127.0.0.1", "port": server.port, "timeout": 5},
            }
        }
        yield server


@pytest.fixture
def registration() -> ApplicationRegistration:
    return builders.registration()


def remind(campaign: Campaign, **limits: Any) -> list[campaigns.Mailing]:
    with open_mailer() as mailer:
        return list(campaigns.remind(campaign, mailer=mailer, actor=builders.ACTOR, **limits))


def progress(campaign: Campaign) -> list[str]:
    rows: Any = CampaignPartner.objects.filter(campaign=campaign).with_progress().order_by("partner")
    return [item.progress for item in rows]


def recipients(mailoutbox: list[Any]) -> Counter[str]:
    return Counter(address for mail in mailoutbox for address in mail.recipients())


def usable_links() -> int:
    return ConsentLink.objects.usable().count()


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_partners_are_chosen_by_state_tag_age_of_the_token_and_cloud(registration: ApplicationRegistration) -> None:
    europe, asia = PartnerTag.objects.create(name="Europe"), PartnerTag.objects.create(name="Asia")
    fresh, stale, other, waiting = (builders.partner() for _ in range(4))
    for switch in (PartnerTenant.Switch.DISABLED, PartnerTenant.Switch.OFFBOARDED):
        builders.partner(switch=switch)
    builders.partner(cloud="china")
    fresh.tags.add(europe)
    stale.tags.add(asia, europe)
    now = timezone.now()
    builders.consent(fresh, registration, stored_at=now - timedelta(days=3))
    builders.consent(stale, registration, stored_at=now - timedelta(days=80), last_problem="not_permitted")
    # Another application's token is none of this one's business.
    builders.consent(other, builders.registration(), stored_at=now - timedelta(days=80))
    links.issue(waiting, registration, actor=builders.ACTOR)

    def found(**filters: Any) -> set[PartnerTenant]:
        return set(campaigns.matching(registration, **filters))

    assert found() == {fresh, stale, other, waiting}
    assert found(states=["invited", "connected"]) == {fresh, other, waiting}
    assert found(tags=[europe]) == {fresh, stale}
    assert campaigns.matching(registration, tags=[europe, asia]).count() == 2, "each partner once"
    assert found(tags=[europe], states=["attention"]) == {stale}
    assert found(token_older_than=timedelta(days=60)) == {stale}
    assert found(token_older_than=timedelta(days=1)) == {fresh, stale}


def test_an_application_of_one_partner_invites_that_partner_only() -> None:
    own, _ = builders.partner(), builders.partner()
    registration = builders.registration(kind="csp", home_tenant_id=own.tenant_id)
    assert list(campaigns.matching(registration)) == [own]


# --- making -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("S-58")
def test_making_a_campaign_sends_nothing_and_is_recorded(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    campaign = make(registration, partners(3))
    assert mailoutbox == []
    assert not ConsentLink.objects.exists()
    assert progress(campaign) == [Progress.INVITED] * 3
    event = AuditEvent.objects.get()
    assert (event.action, event.subject["campaign"]) == ("campaign.created", campaign.pk)
    assert event.details == {"reason": "first_invitation", "partners": 3}


def test_who_cannot_be_invited_is_left_out_and_counted(registration: ApplicationRegistration) -> None:
    fine, done, disabled, elsewhere = partners(4)
    builders.consent(done, registration)
    PartnerTenant.objects.filter(pk=disabled.pk).update(switch="disabled")
    PartnerTenant.objects.filter(pk=elsewhere.pk).update(cloud="china")
    chosen = PartnerTenant.objects.all()

    def create(reason: Campaign.Reason) -> campaigns.Created:
        return campaigns.create(
            name="x", registration=registration, reason=reason, partners=chosen, link_days=7, actor=builders.ACTOR
        )

    first, again = create(Campaign.Reason.FIRST_INVITATION), create(Campaign.Reason.NEW_SCOPE)

    assert (first.invited, first.left_out) == (1, 3)
    assert (again.invited, again.left_out) == (2, 2), "for new permissions the connected ones are just who is asked"
    assert {item.partner for item in items(again.campaign)} == {fine, done}


@pytest.mark.parametrize("why", ["nobody", "not active", "all connected"])
def test_a_campaign_for_nobody_is_refused(registration: ApplicationRegistration, why: str) -> None:
    chosen = partners(1)
    if why == "nobody":
        chosen.update(switch="offboarded")
    elif why == "not active":
        registration.state = ApplicationRegistration.State.RETIRED
    else:
        builders.consent(chosen.get(), registration)
    with pytest.raises(campaigns.CampaignRefused):
        make(registration, chosen)
    assert not Campaign.objects.exists()
    assert not AuditEvent.objects.exists()


# --- sending ----------------------------------------------------------------------------------------------------------


def test_each_partner_gets_one_mail_with_a_link_of_its_own(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    campaign = make(registration, partners(3))
    done = send(campaign)
    assert [mailing.problem for mailing in done] == [None] * 3
    assert recipients(mailoutbox) == {f"admin@{item.partner.domain}": 1 for item in items(campaign)}
    tokens = [re.search(r"/consent/([\w-]{43})/", mail.body) for mail in mailoutbox]
    found = [links.usable(match[1]) for match in tokens if match]
    assert found == [item.link for item in items(campaign)]
    for link in found:
        assert link is not None
        assert timedelta(days=6, hours=23) < link.expires_at - timezone.now() < timedelta(days=7)
    assert progress(campaign) == [Progress.SENT] * 3


def test_sending_again_sends_nothing(registration: ApplicationRegistration, mailoutbox: list[Any]) -> None:
    campaign = make(registration, partners(2))
    send(campaign)
    assert send(campaign) == []
    let_time_pass()
    assert send(campaign) == []
    assert len(mailoutbox) == 2


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (Campaign.Reason.NEW_SCOPE, "needs other permissions now"),
        (Campaign.Reason.NEW_APPLICATION, "have a new application"),
        (Campaign.Reason.EXPIRING_TOKEN, "before it expires"),
        (Campaign.Reason.FIRST_INVITATION, ""),
    ],
)
def test_the_mail_says_why_we_ask(
    registration: ApplicationRegistration, mailoutbox: list[Any], reason: Campaign.Reason, told: str
) -> None:
    send(make(registration, partners(1), reason))
    (mail,) = mailoutbox
    assert told in mail.body
    assert told in mail.alternatives[0].content
    others = {"needs other permissions now", "have a new application", "before it expires"} - {told}
    assert [other for other in others if other in mail.body] == []


def test_only_the_named_ones_and_only_while_there_is_time(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    campaign = make(registration, partners(3))
    assert send(campaign, until=time.monotonic() - 1) == []
    assert len(send(campaign, only=[items(campaign)[1].pk])) == 1
    assert progress(campaign) == [Progress.INVITED, Progress.SENT, Progress.INVITED]


@pytest.mark.parametrize("way", ["flow", "another link"])
def test_who_connected_meanwhile_gets_no_mail(
    registration: ApplicationRegistration, mailoutbox: list[Any], way: str
) -> None:
    campaign = make(registration, partners(2))
    first = items(campaign)[0]
    if way == "another link":
        link, _ = links.issue(first.partner, registration, actor=builders.ACTOR)
        attempt(link, "connected")
    builders.consent(first.partner, registration)
    send(campaign)
    assert recipients(mailoutbox) == {f"admin@{items(campaign)[1].partner.domain}": 1}
    assert progress(campaign) == [Progress.CONNECTED, Progress.SENT]


def test_what_was_agreed_before_the_campaign_does_not_count(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    chosen = partners(1)
    builders.consent(chosen.get(), registration, consented_at=timezone.now() - timedelta(days=30))
    campaign = make(registration, chosen, Campaign.Reason.NEW_SCOPE)
    assert progress(campaign) == [Progress.INVITED]
    send(campaign)
    assert len(mailoutbox) == 1
    PartnerConsent.objects.update(consented_at=timezone.now())
    assert progress(campaign) == [Progress.CONNECTED]


def test_a_partner_without_an_address_or_disabled_meanwhile_stops_nobody_else(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    campaign = make(registration, partners(3))
    first, second, third = items(campaign)
    first.partner.contacts.update(email="a@b.example, c@evil.example")
    PartnerTenant.objects.filter(pk=second.partner_id).update(switch="disabled")

    told = {mailing.partner: mailing.problem for mailing in send(campaign)}

    assert told == {first.partner.name: Problem.NO_ADDRESS, second.partner.name: Problem.NO_LINK, str(third): None}
    assert recipients(mailoutbox) == {third.partner.contacts.get().email: 1}
    assert progress(campaign) == [Progress.SEND_FAILED, Progress.SEND_FAILED, Progress.SENT]
    assert ConsentLink.objects.count() == 1, "no link was made for nothing"
    first.partner.contacts.update(email="a@b.example")
    assert [mailing.problem for mailing in send(campaign)] == [None, Problem.NO_LINK]


def test_a_refused_address_is_tried_again_with_a_new_link(
    registration: ApplicationRegistration, mail_server: MailServer
) -> None:
    campaign = make(registration, partners(3))
    refused = items(campaign)[1].partner
    mail_server.refuse.add(refused.contacts.get().email)

    told = {mailing.partner: mailing.problem for mailing in send(campaign)}

    assert told[refused.name] == Problem.REFUSED
    assert Counter(told.values()) == {None: 2, Problem.REFUSED: 1}
    assert progress(campaign) == [Progress.SENT, Progress.SEND_FAILED, Progress.SENT]
    mail_server.refuse.clear()
    assert [mailing.partner for mailing in send(campaign)] == [refused.name]
    assert Counter(kept.recipients[0] for kept in mail_server.kept) == dict.fromkeys(
        PartnerContact.objects.values_list("email", flat=True), 1
    )
    assert usable_links() == 3
    assert "takes the place" not in mail_server.kept[-1].text, "the first mail never came"


def test_a_mail_server_that_answers_no_stops_the_run_and_the_next_goes_on(
    registration: ApplicationRegistration, mail_server: MailServer
) -> None:
    campaign = make(registration, partners(4))
    mail_server.closed_after = 2
    with pytest.raises(MailUnavailable, match="421") as stopped:
        send(campaign)
    assert "canary" not in str(stopped.value)
    assert not isinstance(stopped.value, MailLost)
    assert progress(campaign) == [Progress.SENT, Progress.SENT, Progress.SEND_FAILED, Progress.INVITED]
    mail_server.closed_after = None
    assert len(send(campaign)) == 2
    assert max(Counter(kept.recipients[0] for kept in mail_server.kept).values()) == 1


@pytest.mark.req("R-18")
def test_a_mail_that_may_have_left_is_repeated_by_a_reminder_only(
    registration: ApplicationRegistration, mail_server: MailServer
) -> None:
    """The server took the second mail and hung up before it said so."""
    campaign = make(registration, partners(3))
    mail_server.hang_up_after = 1
    with pytest.raises(MailLost, match="may have left"):
        send(campaign)
    assert progress(campaign) == [Progress.SENT, Progress.INTERRUPTED, Progress.INVITED]
    mail_server.hang_up_after = None
    assert len(send(campaign)) == 1
    assert set(Counter(kept.recipients[0] for kept in mail_server.kept).values()) == {1}
    assert progress(campaign) == [Progress.SENT, Progress.INTERRUPTED, Progress.SENT]
    let_time_pass()
    assert len(remind(campaign)) == 3
    assert progress(campaign) == [Progress.SENT] * 3


def test_a_mail_server_that_is_away_changes_nothing(registration: ApplicationRegistration, settings: Settings) -> None:
    campaign = make(registration, partners(2))
    settings.MAILERS = {}
    with pytest.raises(MailUnavailable):
        send(campaign)
    assert not ConsentLink.objects.exists()
    assert progress(campaign) == [Progress.INVITED] * 2


@pytest.mark.req("S-58")
def test_each_mail_has_its_intent_before_it_and_its_outcome_after_it(
    registration: ApplicationRegistration, mailoutbox: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make(registration, partners(2))
    seen: list[list[str]] = []
    really = EmailBackend.send_messages

    def watch(self: EmailBackend, messages: Any) -> Any:
        assert connection.savepoint_ids == [], "no mail leaves inside a transaction"
        seen.append([f"{one.action} {one.outcome}" for one in AuditEvent.objects.order_by("sequence")])
        return really(self, messages)

    monkeypatch.setattr(EmailBackend, "send_messages", watch)
    send(campaign)
    assert [trail[-2:] for trail in seen] == [["link.issued done", "link.sent intent"]] * 2
    assert (
        AuditEvent.objects.order_by("sequence").last()
        == AuditEvent.objects.filter(action="link.sent", outcome="done").order_by("sequence").last()
    )
    assert first_broken_sequence() is None


@pytest.mark.req("S-01")
def test_no_link_is_left_behind(
    registration: ApplicationRegistration, mailoutbox: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    campaign = make(registration, partners(2))
    send(campaign)
    let_time_pass()
    remind(campaign)
    with connection.cursor() as cursor:
        everything = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608  # names come from the database itself
            everything.append(repr(cursor.fetchall()))
    assert len(mailoutbox) == 4
    for mail in mailoutbox:
        match = re.search(r"/consent/([\w-]{43})/", mail.body)
        assert match
        assert match[1] not in "".join(everything) + caplog.text


# --- two at once, and a sudden end ------------------------------------------------------------------------------------


@pytest.mark.req("R-18")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("again", [False, True], ids=["send", "remind"])
def test_senders_at_the_same_moment_send_each_mail_once(
    registration: ApplicationRegistration, mailoutbox: list[Any], again: bool
) -> None:
    campaign = make(registration, partners(12))
    if again:
        send(campaign)
        let_time_pass()
        mailoutbox.clear()
    work: Callable[[Campaign], list[campaigns.Mailing]] = remind if again else send

    done = at_once(lambda number: work(campaign), 4)

    assert sum(map(len, done)) == 12
    assert set(recipients(mailoutbox).values()) == {1}
    assert len(mailoutbox) == 12
    assert usable_links() == 12
    assert progress(campaign) == [Progress.SENT] * 12
    assert first_broken_sequence() is None


@pytest.mark.req("R-18")
def test_a_sender_that_comes_late_finds_its_partner_done(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    """The second run listed who is due before the first one mailed them."""
    campaign = make(registration, partners(2))
    with open_mailer() as mailer:
        late = campaigns.send(campaign, mailer=mailer, actor=builders.ACTOR)
        next(late)
        assert len(send(campaign)) == 1
        assert list(late) == []
    assert len(mailoutbox) == 2


@pytest.mark.req("R-18")
@pytest.mark.django_db(transaction=True)
def test_a_campaign_closed_in_the_same_moment_leaves_no_open_link(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    campaign = make(registration, partners(8))

    def work(number: int) -> None:
        if number == 0:
            campaigns.close(campaign, actor=builders.ACTOR)
            return
        try:
            send(campaign)
        except campaigns.CampaignRefused:
            return

    at_once(work, 3)

    assert usable_links() == 0
    assert set(recipients(mailoutbox).values()) <= {1}


def test_a_link_that_staff_replaced_in_between_is_not_left_open(
    registration: ApplicationRegistration, mailoutbox: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make(registration, partners(1))
    send(campaign)
    let_time_pass()
    really = mails.addresses_of

    def meanwhile(partner: PartnerTenant) -> list[str]:
        monkeypatch.setattr(mails, "addresses_of", really)
        links.replace(link_of(items(campaign)[0]), actor=builders.ACTOR)
        return really(partner)

    monkeypatch.setattr(mails, "addresses_of", meanwhile)
    remind(campaign)
    assert usable_links() == 1
    assert link_of(items(campaign)[0]) == ConsentLink.objects.usable().get()


def operator(server: MailServer, *arguments: object) -> subprocess.Popen[str]:
    """Start ``manage.py send_campaign`` over this test's database, in a process of its own."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        address = f"sqlite:///{database['NAME']}"
    else:
        login = f"{database['USER']}:{database['PASSWORD']}" if database["PASSWORD"] else database["USER"]
        address = f"postgres://{login}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= dict.fromkeys(variables(), "") | {
        "SECRET_KEY": portal_settings.SECRET_KEY,
        "INTEGRITY_KEY": portal_settings.INTEGRITY_KEY,
        "PUBLIC_BASE_URL": portal_settings.PUBLIC_BASE_URL,
        "DATABASE_URL": address,
        "VAULT_URL": str(portal_settings.VAULT_URL),
        "SERVE_STATIC_FROM_SOURCE": "true",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": str(server.port),
        "EMAIL_TLS": "none",
        "EMAIL_FROM": "Example <invitations@vendor.example>",
    }
    return subprocess.Popen(
        [sys.executable, "manage.py", "send_campaign", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.req("R-18")
@pytest.mark.django_db(transaction=True)
def test_a_sender_killed_in_the_middle_goes_on_and_sends_nothing_twice(
    registration: ApplicationRegistration, mail_server: MailServer
) -> None:
    campaign = make(registration, partners(6))
    mail_server.silent_after = 2
    with operator(mail_server, campaign.pk) as first:
        assert mail_server.is_silent.wait(60), "three mails arrived, the third without an answer"
        os.kill(first.pid, signal.SIGKILL)
        first.communicate(timeout=30)
    assert progress(campaign) == [Progress.SENT] * 2 + [Progress.INTERRUPTED] + [Progress.INVITED] * 3
    mail_server.silent_after = None

    with operator(mail_server, campaign.pk) as second:
        out, err = second.communicate(timeout=60)

    assert second.returncode == 0, err
    assert {json.loads(line)["message"] for line in err.splitlines()} == {"audit entry"}
    assert "3 sent, 0 could not be mailed." in out
    assert Counter(kept.recipients[0] for kept in mail_server.kept) == dict.fromkeys(
        PartnerContact.objects.values_list("email", flat=True), 1
    )
    assert Counter(progress(campaign)) == {Progress.SENT: 5, Progress.INTERRUPTED: 1}
    # The one that nobody knows about keeps its intent without an outcome; a reminder mails it anew.
    assert AuditEvent.objects.filter(action="link.sent", outcome="intent").count() == 6
    assert AuditEvent.objects.filter(action="link.sent", outcome="done").count() == 5
    assert first_broken_sequence() is None


@pytest.mark.django_db(transaction=True)
def test_two_operators_at_once_send_each_mail_once(
    registration: ApplicationRegistration, mail_server: MailServer
) -> None:
    campaign = make(registration, partners(10))
    with operator(mail_server, campaign.pk) as one, operator(mail_server, campaign.pk) as other:
        told = [process.communicate(timeout=60) for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), told
    assert len(mail_server.kept) == len({kept.recipients[0] for kept in mail_server.kept}) == 10
    assert usable_links() == 10


# --- watching ---------------------------------------------------------------------------------------------------------


def test_the_funnel_counts_each_partner_once_and_says_what_kept_them(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    campaign = make(registration, partners(9))
    people = items(campaign)
    people[8].partner.contacts.all().delete()
    send(campaign, only=[item.pk for item in people[:7]])
    send(campaign, only=[people[8].pk])
    CampaignPartner.objects.filter(pk=people[6].pk).update(sent_at=None)  # as a process that was killed leaves it
    attempt(link_of(people[1]), "open")
    attempt(link_of(people[2]), "refused", "wrong_tenant")
    attempt(link_of(people[3]), "connected_mfa_missing")
    attempt(link_of(people[4]), "waiting_approval")
    attempt(link_of(people[5]), "refused", "wrong_tenant")
    attempt(link_of(people[5]), "connected")
    builders.consent(people[5].partner, registration)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        funnel = campaigns.funnel(campaign)

    assert len(queries) == 1
    assert (funnel.invited, funnel.sent) == (9, 6)
    assert funnel.by_progress == {
        Progress.INVITED: 1,
        Progress.SEND_FAILED: 1,
        Progress.INTERRUPTED: 1,
        Progress.SENT: 1,
        Progress.STARTED: 1,
        Progress.FAILED: 1,
        Progress.MFA_MISSING: 1,
        Progress.WAITING: 1,
        Progress.CONNECTED: 1,
    }
    assert sorted(funnel.by_problem) == [("connected_mfa_missing", "", 1), ("refused", "wrong_tenant", 1)]


def test_another_campaign_and_another_application_count_for_themselves(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    chosen = partners(2)
    first, second = make(registration, chosen), make(builders.registration(), chosen)
    send(first)
    attempt(link_of(items(first)[0]), "open")
    assert progress(first) == [Progress.STARTED, Progress.SENT]
    assert progress(second) == [Progress.INVITED] * 2
    counted: Any = Campaign.objects.with_counts().order_by("pk")
    assert [(one.invited_count, one.sent_count, one.connected_count) for one in counted] == [(2, 2, 0), (2, 0, 0)]


# --- reminding --------------------------------------------------------------------------------------------------------


def test_nobody_is_reminded_before_the_quiet_time_is_over(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    campaign = make(registration, partners(1))
    assert remind(campaign) == [], "who was never invited is not reminded"
    send(campaign)
    for passed, due in ((timedelta(days=2, hours=23), 0), (timedelta(hours=2), 1)):
        let_time_pass(passed)
        assert campaigns.to_remind(campaign).count() == due
        assert len(remind(campaign)) == due
    assert remind(campaign) == [], "the quiet time counts from the latest mail"
    assert len(mailoutbox) == 2


def test_a_reminder_brings_a_new_link_and_the_older_one_is_revoked(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    campaign = make(registration, partners(1))
    send(campaign)
    old = link_of(items(campaign)[0])
    let_time_pass()
    remind(campaign)
    old.refresh_from_db()
    assert old.revoked_at is not None
    assert usable_links() == 1
    assert "takes the place of the one that we sent you before" in mailoutbox[1].body
    (item,) = items(campaign)
    assert item.link != old
    assert item.reminded_at is not None
    assert progress(campaign) == [Progress.SENT]


@pytest.mark.parametrize(
    ("outcome", "problem", "reminded"),
    [
        ("open", "", True),
        ("refused", "wrong_tenant", True),
        ("connected_mfa_missing", "", True),
        ("waiting_approval", "", False),
    ],
)
def test_who_is_not_done_is_reminded_and_who_waits_for_us_is_not(
    registration: ApplicationRegistration, mailoutbox: list[Any], outcome: str, problem: str, reminded: bool
) -> None:
    campaign = make(registration, partners(1))
    send(campaign)
    attempt(link_of(items(campaign)[0]), outcome, problem)
    let_time_pass()
    assert bool(remind(campaign)) is reminded


def test_a_link_that_staff_send_again_counts_as_the_campaigns_mail(
    registration: ApplicationRegistration, mail_server: MailServer
) -> None:
    campaign = make(registration, partners(2))
    first, second = items(campaign)
    mail_server.refuse.add(second.partner.contacts.get().email)
    send(campaign)
    let_time_pass()
    mail_server.refuse.clear()
    for item in (first, second):
        with open_mailer() as mailer:
            mails.send_again(link_of(item), mailer=mailer, actor=builders.ACTOR)

    assert (send(campaign), remind(campaign)) == ([], []), "both were mailed a moment ago"
    assert progress(campaign) == [Progress.SENT] * 2
    first, second = items(campaign)
    assert (first.reminded_at is None, second.reminded_at is None) == (False, True)
    let_time_pass()
    assert len(remind(campaign)) == 2


# --- finishing --------------------------------------------------------------------------------------------------------


def mailed_path(mail: Any) -> str:
    match = re.search(r"https://\S+/consent/[\w-]{43}/", mail.body)
    assert match
    return urlsplit(match[0]).path


def go_through(portal: Portal, path: str, **choices: Any) -> Any:
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, path), SERVICE_ACCOUNT, **choices)
    response = portal.come_back(who, answer)
    return who.get(response["Location"])


@pytest.fixture
def northwind(portal: Portal) -> Portal:
    builders.contact(portal.partner, "admin@northwind.example.com")
    return portal


def test_a_partner_goes_from_the_mail_to_connected_and_the_funnel_follows(
    northwind: Portal, mailoutbox: list[Any]
) -> None:
    campaign = make(northwind.registration, PartnerTenant.objects.all())
    send(campaign)
    northwind.press_continue(Browser(), mailed_path(mailoutbox[0]))
    assert progress(campaign) == [Progress.STARTED]
    go_through(northwind, mailed_path(mailoutbox[0]), accept=False)
    assert progress(campaign) == [Progress.FAILED]
    assert campaigns.funnel(campaign).by_problem == [("refused", "declined", 1)]
    page = go_through(northwind, mailed_path(mailoutbox[0]))
    assert page.status_code == 200
    assert progress(campaign) == [Progress.CONNECTED]
    let_time_pass()
    assert (send(campaign), remind(campaign)) == ([], [])


def test_finishing_twice_through_two_links_is_harmless(northwind: Portal, mailoutbox: list[Any]) -> None:
    campaign = make(northwind.registration, PartnerTenant.objects.all())
    send(campaign)
    other = northwind.link()

    go_through(northwind, other)
    first = northwind.consent()
    assert progress(campaign) == [Progress.CONNECTED], "through another link is done as well"
    page = go_through(northwind, mailed_path(mailoutbox[0]))

    assert page.status_code == 200
    second = northwind.consent()
    assert (second.pk, second.state, second.pinned_oid) == (first.pk, "connected", first.pinned_oid)
    assert second.generation == first.generation + 1, "the newer sign-in is the one that counts"
    assert PartnerConsent.objects.count() == 1
    assert progress(campaign) == [Progress.CONNECTED]
    assert usable_links() == 0


def test_the_mailed_link_of_a_partner_connected_elsewhere_is_closed_by_the_next_run(
    northwind: Portal, mailoutbox: list[Any]
) -> None:
    campaign = make(northwind.registration, PartnerTenant.objects.all())
    send(campaign)
    go_through(northwind, northwind.link())
    assert usable_links() == 1
    assert send(campaign) == []
    assert usable_links() == 0
    assert AuditEvent.objects.filter(action="link.closed").count() == 1
    assert campaigns.settle(campaign, actor=builders.ACTOR) == 0


@pytest.mark.req("S-58")
def test_closing_revokes_open_links_once_and_is_recorded(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    campaign = make(registration, partners(4))
    people = items(campaign)
    send(campaign, only=[item.pk for item in people[:3]])
    links.close(link_of(people[0]), actor=builders.ACTOR)
    builders.consent(people[1].partner, registration)  # connected through another link

    assert campaigns.close(campaign, actor=builders.ACTOR) == 1
    assert campaigns.close(campaign, actor=builders.ACTOR) is None

    assert usable_links() == 0
    assert AuditEvent.objects.filter(action="campaign.closed").get().details == {"revoked_links": 1}
    for work in (send, remind):
        with pytest.raises(campaigns.CampaignRefused, match="closed"):
            work(campaign)
    assert progress(campaign) == [Progress.CONNECTED, Progress.CONNECTED, Progress.SENT, Progress.INVITED]


def test_other_links_of_a_partner_survive_the_end_of_the_campaign(
    registration: ApplicationRegistration, mailoutbox: list[Any]
) -> None:
    campaign = make(registration, partners(1))
    send(campaign)
    own, _ = links.issue(items(campaign)[0].partner, registration, actor=builders.ACTOR)
    campaigns.close(campaign, actor=builders.ACTOR)
    assert list(ConsentLink.objects.usable()) == [own]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_sends_and_says_so(registration: ApplicationRegistration, mailoutbox: list[Any]) -> None:
    campaign = make(registration, partners(2))
    ran = run("send_campaign", campaign.pk)
    assert (ran.code, ran.err) == (0, "")
    assert "2 sent, 0 could not be mailed." in ran.out
    assert "0 sent" in run("send_campaign", campaign.pk).out
    assert "0 sent" in run("send_campaign", campaign.pk, "--remind").out
    let_time_pass()
    assert "2 sent" in run("send_campaign", campaign.pk, "--remind").out
    assert len(mailoutbox) == 4
    assert "/consent/" not in ran.out, "no link is printed"


def test_the_command_tells_who_could_not_be_mailed(registration: ApplicationRegistration) -> None:
    campaign = make(registration, partners(2))
    first = items(campaign)[0].partner
    first.contacts.all().delete()
    ran = run("send_campaign", campaign.pk)
    assert ran.code == 1
    assert f"{first.name}: No contact of the partner gets invitations" in ran.out
    assert "1 sent, 1 could not be mailed." in ran.out


def test_the_command_says_when_the_mail_server_is_away(
    registration: ApplicationRegistration, mail_server: MailServer
) -> None:
    campaign = make(registration, partners(3))
    mail_server.closed_after = 1
    ran = run("send_campaign", campaign.pk)
    assert ran.code == 3
    assert "Stopped after 1 sent" in ran.err
    assert "Run the command again" in ran.err
    assert "EMAIL_HOST" in ran.err


def test_the_command_without_a_mail_server_says_what_to_set(
    registration: ApplicationRegistration, settings: Settings
) -> None:
    campaign = make(registration, partners(1))
    settings.MAILERS = {}
    ran = run("send_campaign", campaign.pk)
    assert ran.code == 3
    assert "set EMAIL_HOST" in ran.err


@pytest.mark.parametrize("why", ["unknown", "closed"])
def test_a_campaign_that_cannot_be_sent_is_a_usage_error(registration: ApplicationRegistration, why: str) -> None:
    campaign = make(registration, partners(1))
    if why == "closed":
        campaigns.close(campaign, actor=builders.ACTOR)
    ran = run("send_campaign", campaign.pk if why == "closed" else 4711)
    assert ran.code == 2
    assert ("closed" if why == "closed" else "no campaign 4711") in ran.err


# --- beside a sandbox, without a mail server ---------------------------------------------------------------------


def test_a_mail_that_was_only_printed_is_not_sent(
    registration: ApplicationRegistration, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run of real data beside the sandbox left partners invited that had got nothing."""
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.console.EmailBackend"}}
    campaign = make(registration, partners(2))

    ran = run("send_campaign", str(campaign.pk))

    assert ran.code == 1
    assert "0 sent, 2 could not be mailed." in ran.out
    assert "Printed, not sent: this portal has no mail server." in ran.out
    assert capsys.readouterr().out.count("https://portal.localhost/consent/") >= 2, "the links can be taken from there"
    assert progress(campaign) == [Progress.SEND_FAILED] * 2
    assert not CampaignPartner.objects.exclude(sent_at=None).exists()
    assert set(CampaignPartner.objects.values_list("last_send_problem", flat=True)) == {Problem.PRINTED}
    assert set(AuditEvent.objects.filter(action="link.sent").values_list("outcome", flat=True)) == {"intent", "failed"}

    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    assert [done.problem for done in send(campaign)] == [None, None], "a mail server that comes later sends them"
    assert progress(campaign) == [Progress.SENT] * 2
