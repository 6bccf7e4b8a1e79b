"""Records that can never work stop nobody else, and nothing is sent while a transaction is open (R-30, R-35)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from consent import clients
from consent.models import ApplicationRegistration, PartnerConsent
from consent.runs.customer_sync import CUSTOMER_SYNC
from consent.runs.token_check import TOKEN_CHECK
from consent.vault.base import SecretName, SecretVersion
from portal.microsoft.http import GuardedSession
from portal.runs import service
from portal.runs.executor import Executor
from portal.runs.listening import Ending
from portal.runs.models import RunItem
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.connected import connect
from tests.support.portal import Portal

Break = Callable[[PartnerConsent], None]


def columns(**values: Any) -> Break:
    """Change the row past every check of the application, as an old import might have."""

    def change(consent: PartnerConsent) -> None:
        PartnerConsent.objects.filter(pk=consent.pk).update(**values)

    return change


def tenant(value: str) -> Break:
    def change(consent: PartnerConsent) -> None:
        with connection.cursor() as cursor:
            table = PartnerTenant._meta.db_table
            cursor.execute(f"UPDATE {table} SET tenant_id = %s WHERE id = %s", [value, consent.partner_id])  # noqa: S608

    return change


def damaged(consent: PartnerConsent) -> None:
    row = PartnerConsent.objects.get(pk=consent.pk)
    file = next(path for path in Path(settings.VAULT_URL).rglob("*") if path.name == row.secret_version)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


def switched_off(consent: PartnerConsent) -> None:
    row = PartnerConsent.objects.get(pk=consent.pk)
    clients.vault().disable(SecretName(row.secret_name), SecretVersion(row.secret_version))


def unknown_credential(consent: PartnerConsent) -> None:
    other = builders.registration()
    PartnerConsent.objects.filter(pk=consent.pk).update(registration=other)


BAD: dict[str, Break] = {
    "no such secret": columns(secret_name="rt-" + "0" * 32),
    "no such version": columns(secret_version="0" * 32),
    "impossible name": columns(secret_name="../../etc/passwd"),
    "other fingerprint": columns(fingerprint="f" * 16),
    "other account": columns(pinned_oid=builders.guid()),
    "no tenant of this id": tenant(builders.guid()),
    "damaged value": damaged,
    "switched off": switched_off,
    "application without credential": unknown_credential,
    "stopped": columns(state="stopped"),
}


@pytest.mark.req("R-30")
def test_ten_kinds_of_bad_rows_are_named_and_all_others_are_checked(portal: Portal) -> None:
    consents = connect(portal, len(BAD) + 20)
    for consent, spoil in zip(consents, BAD.values(), strict=False):
        spoil(consent)

    run, _ = service.start(TOKEN_CHECK, scope={}, actor=builders.ACTOR, concurrency=8)
    ending = Executor(run).work()

    run.refresh_from_db()
    assert (ending, run.state) == (Ending.DONE, "done"), run.reason
    items = {item.key: item for item in RunItem.objects.filter(run=run)}
    for (name, _), consent in zip(BAD.items(), consents, strict=False):
        item = items[consent.pk]
        assert item.failure_class not in {"", "ok"}, name
        assert item.message, name
        assert item.owner, name
    assert {items[consent.pk].failure_class for consent in consents[len(BAD) :]} == {"ok"}
    assert ApplicationRegistration.objects.filter(state="active").exists()


@pytest.mark.req("R-35")
@pytest.mark.django_db(transaction=True)
def test_nothing_is_sent_while_a_transaction_is_open(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time, so that calls and statements share a thread and a connection."""
    connect(portal, 3, due=True)
    calls: list[bool] = []
    send = GuardedSession.send

    def watched(self: GuardedSession, *arguments: Any, **options: Any) -> Any:
        calls.append(connection.in_atomic_block)
        return send(self, *arguments, **options)

    monkeypatch.setattr(GuardedSession, "send", watched)
    for kind in (TOKEN_CHECK, CUSTOMER_SYNC):
        run, _ = service.start(kind, scope={}, actor=builders.ACTOR, concurrency=1)
        assert Executor(run).work() is Ending.DONE
    assert len(calls) > 10
    assert not any(calls)
