"""The ledger of uses: complete against Microsoft's own books, cheap, and without a secret."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consent import clients
from consent.access_tokens import get_access_token
from consent.applications import rotation
from consent.models import TokenUse
from consent.runs.token_check import TOKEN_CHECK
from consent.tokens.service import Audience
from consent.uses.book import Book, By, Use
from portal.microsoft.identifiers import new_correlation_id
from portal.runs import service as runs
from portal.runs.executor import Executor
from tests.support import builders, custody
from tests.support.commands import run
from tests.support.connected import connect
from tests.support.custody import ask
from tests.support.portal import Browser, Portal

Purpose = TokenUse.Purpose
pytestmark = pytest.mark.req("S-81")


def issued_by_microsoft(portal: Portal) -> Counter[str]:
    """Return how many tokens the sign-in service gave for each partner's account, by the partner's tenant."""
    grants = {"refresh_token", "authorization_code"}
    books = [line for line in portal.sandbox.world.ledger if line.get("grant") in grants and line["status"] == 200]
    return Counter(line["home"] for line in books)


def issued_by_the_ledger() -> Counter[str]:
    found: Counter[str] = Counter()
    for tenant, number in TokenUse.objects.values_list("partner__tenant_id", "issued"):
        found[tenant] += number
    return +found


@pytest.mark.django_db(transaction=True)
def test_the_ledger_has_every_token_that_microsoft_issued(portal: Portal) -> None:
    """A sign-in, checks, a sync, a push and a read of customers, a program, a proof of a credential, the doctor."""
    portal.onboard(Browser())
    connect(portal, 6)
    customer = custody.first_customer(portal)
    assert run("check_tokens", "--concurrency", "4").code == 0
    assert run("sync_customers", "--partner", portal.partner.tenant_id).code == 0
    assert run("push_consent", portal.partner.tenant_id, customer.tenant_id).code == 0
    assert run("verify_consents", "--partner", portal.partner.tenant_id).code == 0
    get_access_token(portal.partner.tenant_id, "graph", customer=customer.tenant_id)
    get_access_token(portal.partner.tenant_id, "graph", customer=customer.tenant_id)
    current = portal.registration.__class__.objects.get().credential
    assert current is not None
    rotation.promote(current, door=clients.tokens_with, actor=builders.ACTOR)
    run("doctor")

    assert issued_by_the_ledger() == issued_by_microsoft(portal)
    assert set(TokenUse.objects.values_list("purpose", flat=True)) == {
        Purpose.SIGN_IN,
        Purpose.CHECK,
        Purpose.SYNC,
        Purpose.APPLY,
        Purpose.VERIFY,
        Purpose.PROGRAM,
        Purpose.CREDENTIAL,
        Purpose.DOCTOR,
    }
    first, second = TokenUse.objects.filter(purpose=Purpose.PROGRAM).order_by("pk")
    assert (first.customer, first.issued, second.cached) == (customer, 1, 1)
    assert first.actor.startswith("python (")
    assert TokenUse.objects.filter(purpose=Purpose.SIGN_IN).first().address is not None  # type: ignore[union-attr]
    assert not TokenUse.objects.filter(run__isnull=True, correlation_id="").exists()
    # One row for each partner and service of a run, however many customers it has.
    of_runs = TokenUse.objects.filter(run__isnull=False).values_list("run", "partner", "audience")
    assert len(of_runs) == len(set(of_runs))


@pytest.mark.django_db(transaction=True)
def test_a_token_that_proves_nothing_stands_there_all_the_same(portal: Portal) -> None:
    portal.connect()
    TokenUse.objects.all().delete()
    portal.sandbox.world.ledger.clear()
    type(portal.consent()).objects.update(pinned_oid=builders.guid())

    with pytest.raises(Exception, match="another account"):
        ask(portal.consent(), fresh=True)

    assert issued_by_the_ledger() == issued_by_microsoft(portal) == {portal.partner.tenant_id: 1}


@pytest.mark.django_db(transaction=True)
def test_the_calls_of_one_client_are_one_use(portal: Portal) -> None:
    portal.connect()
    TokenUse.objects.all().delete()
    ask(portal.consent())
    source = clients.tokens().source(
        portal.consent(), Audience.PARTNER_CENTER, by=builders.BY, correlation_id=new_correlation_id()
    )

    for _ in range(5):
        source()

    assert list(TokenUse.objects.order_by("pk").values_list("issued", "cached")) == [(1, 0), (0, 1)]


@pytest.mark.django_db(transaction=True)
def test_a_token_whose_use_cannot_be_written_does_not_leave(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    portal.connect()

    def full(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("no space")

    with monkeypatch.context() as broken:
        broken.setattr(type(TokenUse.objects.all()), "bulk_create", full)
        with pytest.raises(DatabaseError):
            ask(portal.consent(), fresh=True)

    before = TokenUse.objects.count()
    ask(portal.consent())  # and the next one writes both
    assert TokenUse.objects.count() == before + 2


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def use(db: None) -> Use:
    partner, registration = builders.partner(), builders.registration()
    by = By(actor=builders.ACTOR, purpose=Purpose.CHECK, run=7)
    return Use(by=by, partner=partner.pk, registration=registration.pk, audience=Audience.GRAPH)


@pytest.mark.django_db(transaction=True)
def test_what_a_run_counts_is_one_row_that_grows(use: Use) -> None:
    book = Book()
    for _ in range(3):
        for _ in range(10):
            book.note(use)
        with CaptureQueriesContext(connection) as queries, transaction.atomic():
            book.write_run(7)
        assert len([one for one in queries if "consent_tokenuse" in one["sql"]]) == 1

    assert TokenUse.objects.get().issued == 30
    with CaptureQueriesContext(connection) as queries:
        book.write_run(7)
    assert len(queries) == 0


@pytest.mark.django_db(transaction=True)
def test_what_was_rolled_back_is_written_the_next_time(use: Use) -> None:
    book = Book()
    book.note(use)
    with transaction.atomic():
        book.write_run(7)
        transaction.set_rollback(True)
    assert not TokenUse.objects.exists()

    book.note(use)
    with transaction.atomic():
        book.write_run(7)

    assert TokenUse.objects.get().issued == 2


@pytest.mark.django_db(transaction=True)
def test_a_check_of_a_hundred_partners_writes_their_uses_with_the_results(portal: Portal) -> None:
    connect(portal, 100)
    started, _ = runs.start(TOKEN_CHECK, scope={}, actor=builders.ACTOR)

    with CaptureQueriesContext(connection) as queries:
        Executor(started, concurrency=16).work()

    assert TokenUse.objects.filter(run=started.pk, issued=1, cached=0).count() == 100
    inserts = [one for one in queries if one["sql"].startswith('INSERT INTO "consent_tokenuse"')]
    assert len(inserts) <= 30


@pytest.mark.django_db
def test_what_is_older_than_it_is_kept_is_removed(portal: Portal) -> None:
    row = {"partner": portal.partner, "registration": portal.registration, "audience": "graph", "issued": 1}
    now = timezone.now()
    for days in (181, 179):
        at = now - timedelta(days=days)
        TokenUse.objects.create(
            at=at, last_at=at, purpose=Purpose.PROGRAM, actor_kind="command", actor="python (x)", **row
        )

    cleaned = run("clean_up")

    assert "1 old token use removed" in cleaned.out
    assert TokenUse.objects.count() == 1
