"""Each column of each table has a class, in one document (S-30, S-70)."""

from __future__ import annotations

import re

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection

from tests.sandbox.world import User as Account
from tests.support import builders, custody, schema
from tests.support.portal import Browser, Portal
from tests.support.source import ROOT


def columns() -> set[str]:
    """Return all columns of all models, those of Django and of libraries included."""
    return {
        f"{model._meta.db_table}.{field.column}"
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed
        for field in model._meta.concrete_fields
    }


@pytest.mark.req("S-70")
def test_each_column_has_exactly_one_class() -> None:
    described = schema.described()
    assert sorted(columns() - described.classes.keys()) == [], f"say in {schema.DOCUMENT.name} what these may hold"
    assert sorted(described.classes.keys() - columns()) == [], "no longer there"
    assert described.twice == []


@pytest.mark.req("S-70")
@pytest.mark.django_db
def test_the_database_has_no_table_and_no_column_beside() -> None:
    described = schema.described()
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        assert [table for table in tables if not described.is_known(table)] == []
        for table in tables:
            there = {f"{table}.{one.name}" for one in connection.introspection.get_table_description(cursor, table)}
            mine = {column for column in described.classes if column.startswith(f"{table}.")}
            assert not mine or sorted(there - mine) == []


@pytest.mark.req("S-30")
def test_each_column_that_could_tempt_says_what_it_holds_and_which_test_shows_it() -> None:
    described = schema.described()
    assert described.never.keys() == {column for column, one in described.classes.items() if one == "never"}
    for one in described.never.values():
        assert one.holds, one.column
        assert (ROOT / one.shown_by).is_file(), one.column
        re.compile(one.shape)


# A name like these makes somebody put a secret there, or believe that one stands there.
_TEMPTING = re.compile(
    r"token|secret|password|passwd|nonce|verifier|assertion|_key$|credential|cookie|fingerprint|hash$"
)
_HARMLESS = {
    "audit_auditevent.customer_key": "the number of a customer",
    "audit_auditevent.partner_key": "the number of a partner",
    "consent_applicationregistration.credential_id": "the number of a row",
    "consent_customerconsent.requested_hash": "of scopes",
    "consent_customerconsent.wanted_hash": "of scopes",
    "consent_wantedgrants.grants_hash": "of scopes",
    "dj_queue_blocked_executions.concurrency_key": "a word of ours",
    "dj_queue_jobs.concurrency_key": "a word of ours",
    "dj_queue_recurring_executions.task_key": "a word of ours",
    "runs_run.scope_hash": "of what was chosen",
}


@pytest.mark.req("S-30")
def test_a_column_with_a_tempting_name_is_among_those_that_never_hold_a_secret() -> None:
    described = schema.described()
    tempting = {column for column in columns() if _TEMPTING.search(column.partition(".")[2])}
    assert sorted(tempting - _HARMLESS.keys() - described.never.keys()) == []


@pytest.mark.django_db
def test_a_value_of_another_shape_is_noticed() -> None:
    assert schema.misshapen() == []
    partner, registration = builders.partner(), builders.registration()
    consent = builders.consent(partner, registration)
    assert schema.misshapen() == []
    type(consent).objects.update(fingerprint="0.AXoA-a-token--")
    assert schema.misshapen() == ["consent_partnerconsent.fingerprint"]


def test_the_document_is_read_as_it_stands() -> None:
    text = (
        "\n## Columns\n| Table | Public | Internal | Personal | Never |\n|---|---|---|---|---|\n"
        "| `a` | `x` | `y z` |  | `key` |\n| `b` |  | `x` | `x` |  |\n"
        "\n## Columns that never hold a secret\n"
        "| Column | Holds | Shape | Personal | Shown by |\n|---|---|---|---|---|\n"
        "| `a.key` | a hash | `[0-9]+` | yes | `tests/x.py` |\n"
    )
    read = schema.read(text)
    assert read.classes == {"a.x": "public", "a.y": "internal", "a.z": "internal", "a.key": "never", "b.x": "personal"}
    assert (read.twice, read.personal, read.never["a.key"].shape) == (["b.x"], {"a.key", "b.x"}, "[0-9]+")


# --- what the database knows of who signs in ------------------------------------------------------------------------


def sign_in(portal: Portal) -> Account:
    """Let the service account sign in from an address of its own, and return it."""
    person = Browser()
    person.defaults["REMOTE_ADDR"] = "198.51.100.77"
    assert portal.onboard(person).status_code == 200
    account: Account = custody.service_account(portal)
    return account


@pytest.mark.req("S-70")
def test_of_who_signs_in_neither_name_nor_address_is_kept(portal: Portal) -> None:
    User.objects.create_user("staff")
    account = sign_in(portal)
    custody.ask(portal.consent(), fresh=True)

    assert schema.holders("staff"), "the search finds nothing"
    assert (schema.holders(account.upn), schema.holders(account.name)) == (set(), set())
    known = schema.holders(account.oid) | schema.holders("198.51.100.77")
    assert known >= {"consent_partnerconsent.pinned_oid", "audit_auditevent.address"}
    assert known <= schema.described().personal
