"""One application's connection to a partner: proofs, permissions by name, the forecast's inputs, one timeline."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection as database
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consent.hub.connection import Connection, connections
from consent.invitations import links
from consent.models import ApplicationRegistration, ConsentFlow, PartnerConsent, WaitingToken
from consent.runs import on_request
from consent.words import CHECK_WORDS
from portal.microsoft.clouds import GRAPH_APPLICATION_ID, PARTNER_CENTER_APPLICATION_ID
from portal.runs.latest import Stage
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.hub import facts_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def registration() -> ApplicationRegistration:
    return builders.registration()


@pytest.fixture
def partner() -> PartnerTenant:
    return builders.partner(name="Northwind Cloud")


def shown(partner: PartnerTenant) -> list[Connection]:
    return connections(facts_of(partner), timezone.now())


def test_what_was_proven_at_the_sign_in_is_said_in_words_for_staff(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    checks = [{"check": "tenant", "state": "passed"}, {"check": "mfa", "state": "failed"}]
    builders.consent(partner, registration, checks=[*checks, {"check": "member", "state": "unverified"}])
    [found] = shown(partner)
    assert [(one.text, one.state) for one in found.proofs] == [
        ("The account belongs to the partner's tenant", "Proven"),
        ("Partner Center confirmed multifactor authentication", "Not so"),
        ("The account is a member of the tenant, not a guest", "Not proven"),
    ]


def test_no_check_is_shown_in_the_words_of_the_partner(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    builders.consent(partner, registration, checks=[{"check": name, "state": "passed"} for name in CHECK_WORDS])
    [found] = shown(partner)
    assert not {one.text for one in found.proofs} & {str(words["passed"]["label"]) for words in CHECK_WORDS.values()}


def test_permissions_are_compared_by_name(partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    granted = {GRAPH_APPLICATION_ID: ["User.Read", "Mail.Read", "DelegatedAdminRelationship.ReadWrite.All"]}
    builders.consent(partner, registration, granted_scopes=granted)
    [found] = shown(partner)
    assert [(one.name, one.state) for one in found.permissions] == [
        ("User.Read.All", "Missing"),
        ("user_impersonation", "Not proven"),
        ("DelegatedAdminRelationship.ReadWrite.All", "Granted"),
        ("User.Read", "Granted"),
        ("Mail.Read", "Granted, not asked for"),
    ]
    assert [one.name for one in found.lacking] == ["User.Read.All"]
    assert found.permissions[0].resource == "Microsoft Graph"
    assert found.permissions[0].title == "Read the profiles of the users in a tenant"
    assert PARTNER_CENTER_APPLICATION_ID not in str([one.resource for one in found.permissions])


def test_the_forecast_is_shown_with_all_its_inputs(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    now = timezone.now()
    builders.consent(partner, registration, stored_at=now - timedelta(days=1), sign_in_lifetime=86_400 * 3)
    builders.customer(partner, gdap_ends_at=now + timedelta(days=10))
    [found] = shown(partner)
    assert [(one.cause, one.at is not None, one.is_first) for one in found.endings] == [
        ("Sign-in frequency policy", True, True),
        ("GDAP relationship", True, False),
        ("90 days without renewal", True, False),
        ("Application credential", False, False),
    ]
    PartnerConsent.objects.update(state="expired")
    assert shown(partner)[0].endings == ()


def test_links_attempts_accounts_and_the_token_are_one_timeline(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    now = timezone.now()
    link, _ = links.issue(partner, registration, actor=builders.ACTOR)
    ConsentFlow.objects.create(
        link=link,
        public_id="abcd1234" + "0" * 24,
        state_hash="s",
        binder_hash="",
        expires_at=now,
        outcome="refused",
        problem="declined",
        code="AADSTS65004",
        claimed_at=now,
        finished_at=now,
        correlation_id=builders.guid(),
    )
    links.revoke(link, actor=builders.ACTOR)
    consent = builders.consent(
        partner,
        registration,
        generation=4,
        last_try_at=now,
        last_success_at=now - timedelta(hours=2),
        last_message="Somebody revoked it.",
        last_owner="partner",
        first_denied_at=now - timedelta(hours=1),
        last_code="AADSTS50173",
    )
    WaitingToken.objects.create(
        consent=consent, object_id=builders.guid(), secret_name="rt-w", mfa="proven", expires_at=now,
        decision="approved", decided_at=now, decided_by="anna",
    )  # fmt: skip
    [found] = shown(partner)
    texts = [event.text for event in found.timeline]
    for words in (
        f"Link {link.pk} was made",
        f"Link {link.pk} was revoked",
        "Attempt ABCD1234: Refused",
        "The partner consented, and its account was pinned",
        "Version 4 of the token was stored",
        "The last check that worked",
        "The last check: Somebody revoked it.",
        "Microsoft first refused the token",
        "Another account signed in and waited",
        "The other account was approved",
    ):
        assert words in texts, words
    assert [event.at for event in found.timeline] == sorted((event.at for event in found.timeline), reverse=True)
    attempt = next(event for event in found.timeline if event.text.startswith("Attempt"))
    assert attempt.detail.endswith("Microsoft's code AADSTS65004")
    assert attempt.detail.startswith("The partner read “")


def test_a_check_that_was_asked_for_is_seen_before_any_worker_took_it(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    builders.consent(partner, registration)
    on_request.check_tokens(PartnerConsent.objects.all(), actor=builders.ACTOR)
    [found] = shown(partner)
    assert found.check is not None
    assert (found.check.stage, found.check.worked_by_nobody) == (Stage.WAITING, True)


def test_connections_cost_the_same_for_any_number(
    partner: PartnerTenant, registration: ApplicationRegistration, django_assert_num_queries: Any
) -> None:
    builders.consent(partner, registration)
    links.issue(partner, registration, actor=builders.ACTOR)
    facts = facts_of(partner)
    with CaptureQueriesContext(database) as few:
        connections(facts, timezone.now())
    for number in range(3):
        other = builders.registration(name=f"Product {number}")
        builders.consent(partner, other)
        links.issue(partner, other, actor=builders.ACTOR)
    facts = facts_of(partner)
    with django_assert_num_queries(len(few)):
        assert len(connections(facts, timezone.now())) == 4
    assert len(few) <= 9
