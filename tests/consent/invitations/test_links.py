"""Consent links: locators with 256 bits, bound to one partner whose tenant staff fixed before."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.containment import service
from consent.containment.service import Scope, contain
from consent.invitations import links
from consent.models import ApplicationRegistration, ConsentLink, Containment
from portal.audit.models import AuditEvent
from tenants.models import PartnerTenant
from tests.support import builders, decisions
from tests.support.commands import run

pytestmark = pytest.mark.django_db


@pytest.fixture
def partner() -> PartnerTenant:
    return builders.partner()


@pytest.fixture
def registration() -> ApplicationRegistration:
    return builders.registration()


def issue(
    partner: PartnerTenant, registration: ApplicationRegistration, *, lifetime: timedelta | None = None
) -> tuple[ConsentLink, str]:
    link, address = links.issue(partner, registration, actor=builders.ACTOR, lifetime=lifetime)
    return link, urlsplit(address.reveal()).path.split("/")[2]


def dump() -> str:
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        text = []
        for table in tables:
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608  # names come from the database itself
            text.append(repr(cursor.fetchall()))
    return "\n".join(text)


@pytest.mark.req("S-01")
def test_a_link_is_a_random_token_of_which_the_database_knows_the_hash_only(
    partner: PartnerTenant, registration: ApplicationRegistration, settings: Settings
) -> None:
    link, address = links.issue(partner, registration, actor=builders.ACTOR)

    match = re.fullmatch(re.escape(settings.PUBLIC_BASE_URL) + r"/consent/([A-Za-z0-9_-]{43})/", address.reveal())
    assert match
    token = match[1]
    assert link.token_hash == links.token_hash(token)
    assert token not in dump()
    assert "***" in repr(address)
    assert links.usable(token) == link
    assert link.expires_at - timezone.now() > timedelta(days=settings.LINK_LIFETIME_DAYS) - timedelta(minutes=1)
    event = AuditEvent.objects.get(action="link.issued")
    assert event.subject == {"link": link.pk, "partner": partner.pk, "registration": registration.pk}


@pytest.mark.req("S-01")
def test_a_thousand_tokens_are_all_different(
    partner: PartnerTenant, registration: ApplicationRegistration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConsentLink.objects, "create", lambda **columns: ConsentLink(pk=1, **columns))
    monkeypatch.setattr(links, "record", lambda *args, **kwargs: None)
    tokens = {issue(partner, registration)[1] for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(token) for token in tokens} == {43}


@pytest.mark.req("S-01")
def test_every_changed_character_makes_the_token_unknown(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    _, token = issue(partner, registration)
    for position, character in enumerate(token):
        other = "A" if character != "A" else "B"
        assert links.usable(token[:position] + other + token[position + 1 :]) is None


@pytest.mark.req("S-04")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tenant_id": ""}, "tenant id"),
        ({"tenant_id": "common"}, "tenant id"),
        ({"tenant_id": "organizations"}, "tenant id"),
        ({"tenant_id": "consumers"}, "tenant id"),
        ({"tenant_id": "contoso.onmicrosoft.com"}, "tenant id"),
        ({"tenant_id": "9188040d-6c67-4c5b-b112-36a304b66dad"}, "tenant id"),
        ({"switch": "disabled"}, "disabled"),
        ({"switch": "offboarded"}, "offboarded for good"),
        ({"cloud": "china"}, "different clouds"),
        ({"pk": None}, "Save the partner"),
    ],
    ids=str,
)
def test_a_link_needs_an_active_partner_with_a_fixed_tenant(
    partner: PartnerTenant, registration: ApplicationRegistration, change: dict[str, str], words: str
) -> None:
    for name, value in change.items():
        setattr(partner, name, value)

    with pytest.raises(links.LinkRefused, match=words):
        issue(partner, registration)

    assert not ConsentLink.objects.exists()
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize("state", ["draft", "retired"])
def test_a_registration_that_is_not_active_gets_no_link(
    partner: PartnerTenant, registration: ApplicationRegistration, state: str
) -> None:
    registration.state = state
    with pytest.raises(links.LinkRefused, match="not active"):
        issue(partner, registration)


@pytest.mark.parametrize("own", [True, False])
def test_a_csp_registration_serves_its_own_tenant_only(partner: PartnerTenant, own: bool) -> None:
    registration = builders.registration(kind="csp", home_tenant_id=partner.tenant_id if own else builders.guid())
    if own:
        assert issue(partner, registration)
    else:
        with pytest.raises(links.LinkRefused, match="CSP"):
            issue(partner, registration)


@pytest.mark.req("S-01")
@pytest.mark.parametrize(
    ("lifetime", "allowed"),
    [
        (timedelta(seconds=1), True),
        (timedelta(days=90), True),
        (timedelta(0), False),
        (timedelta(days=-1), False),
        (timedelta(days=90, seconds=1), False),
        (timedelta.max, False),
    ],
    ids=str,
)
def test_a_link_lives_at_most_ninety_days(
    partner: PartnerTenant, registration: ApplicationRegistration, lifetime: timedelta, allowed: bool
) -> None:
    if not allowed:
        with pytest.raises(links.LinkRefused, match="90 days"):
            issue(partner, registration, lifetime=lifetime)
        return
    link, _ = issue(partner, registration, lifetime=lifetime)
    assert abs(link.expires_at - timezone.now() - lifetime) < timedelta(minutes=1)


def test_the_database_refuses_a_link_without_a_hash_or_with_no_life(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    link, _ = issue(partner, registration)
    for change in ({"token_hash": "the-token-itself"}, {"expires_at": link.created_at}):
        with pytest.raises(IntegrityError), transaction.atomic():
            ConsentLink.objects.update(**change)


def _expire(link: ConsentLink) -> None:
    past = timezone.now() - timedelta(days=2)
    ConsentLink.objects.update(created_at=past, expires_at=past + timedelta(days=1))


@pytest.mark.req("S-03")
@pytest.mark.parametrize(
    "die",
    [
        _expire,
        lambda link: ConsentLink.objects.update(revoked_at=timezone.now()),
        lambda link: ConsentLink.objects.update(closed_at=timezone.now()),
        lambda link: PartnerTenant.objects.update(switch="disabled"),
        lambda link: PartnerTenant.objects.update(switch="offboarded"),
        lambda link: ApplicationRegistration.objects.update(state="retired"),
    ],
    ids=["expired", "revoked", "closed", "disabled", "offboarded", "retired"],
)
def test_every_dead_link_is_unusable_and_costs_the_same_single_query(
    partner: PartnerTenant, registration: ApplicationRegistration, die: Callable[[ConsentLink], object]
) -> None:
    link, token = issue(partner, registration)
    die(link)
    for text in (token, "A" * 43, "", "rubbish", "é" * 43, token + "A", f"{token}\n"):
        with CaptureQueriesContext(connection) as queries:
            assert links.usable(text) is None
        assert len(queries) == 1


@pytest.mark.req("S-10")
def test_a_link_is_revoked_once_and_that_is_recorded(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    link, token = issue(partner, registration)

    assert links.revoke(link, actor=builders.ACTOR)
    assert links.usable(token) is None
    first = ConsentLink.objects.get().revoked_at
    assert not links.revoke(link, actor=builders.ACTOR)

    assert ConsentLink.objects.get().revoked_at == first
    assert AuditEvent.objects.filter(action="link.revoked").count() == 1


@pytest.mark.req("S-58")
def test_a_link_that_cannot_be_recorded_is_not_made(
    partner: PartnerTenant, registration: ApplicationRegistration, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(links, "record", full)
    with pytest.raises(OSError, match="no space"):
        issue(partner, registration)
    assert not ConsentLink.objects.exists()


# --- during an emergency stop ----------------------------------------------------------------------------------------


@pytest.mark.req("S-80")
@pytest.mark.parametrize("what", ["everything", "registration", "partner"])
def test_no_link_is_made_during_an_emergency_stop_of_it(
    partner: PartnerTenant, registration: ApplicationRegistration, what: str
) -> None:
    link, _ = issue(partner, registration)
    others = builders.partner(), builders.registration()
    scope = {"registration": Scope(registration=registration), "partner": Scope(partner=partner)}.get(what, Scope())
    stop = contain(scope, reason="a stranger", actor=builders.ACTOR)

    with pytest.raises(links.LinkRefused, match="no link is made"):
        issue(partner, registration)
    with pytest.raises(links.LinkRefused, match="two members of staff"):
        links.replace(link, actor=builders.ACTOR)
    ran = run("issue_consent_link", partner.tenant_id, "--registration", registration.pk)
    assert (ran.code, "Emergency stop of" in ran.err) == (2, True)

    assert ConsentLink.objects.usable().get() == link, "the older one was revoked, and there is no other"
    if what != "everything":
        assert issue(*others)
    service.resume(stop, approved=decisions.approval())
    assert service.release(Containment.objects.get(), to=partner.pk, run=None)
    assert issue(partner, registration), "its wave is released"
