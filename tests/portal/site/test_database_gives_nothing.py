"""Who reads the database cannot sign in with what stands there; who writes it runs no code in our processes."""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.db import connection
from django.test import Client
from django.utils import timezone

from portal.models import SpentForm
from portal.site.sessions import SessionStore

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-30"), pytest.mark.req("S-43")]
PASSWORD = "correct horse battery staple"


class Hostile:
    """What somebody with the right to write a table may leave there: unpickling it makes a folder."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


@pytest.fixture
def anna() -> User:
    return User.objects.create_superuser("anna", "anna@vendor.example", PASSWORD)


@pytest.fixture
def staff(client: Client, anna: User) -> Client:
    client.force_login(anna)
    return client


def values_of_every_table() -> Iterator[tuple[str, str]]:
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608  # the database's own names
            columns = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                yield from ((f"{table}.{name}", str(value)) for name, value in zip(columns, row, strict=True))


def test_no_value_of_any_table_is_a_session_cookie(staff: Client) -> None:
    assert staff.get("/admin/").status_code == 200
    real = staff.cookies[settings.SESSION_COOKIE_NAME].value
    found = dict.fromkeys(values_of_every_table())
    assert any(where == "django_session.session_key" for where, _ in found), "the sessions were looked at"
    stranger = Client(headers={"host": "portal.localhost"})

    def opens(value: str) -> bool:
        stranger.cookies[settings.SESSION_COOKIE_NAME] = value
        return stranger.get("/admin/password_change/", secure=True).status_code == 200

    assert opens(real), "this is how a session is used"
    # A cookie has no room for more, and no place for such characters.
    usable = {(where, value) for where, value in found if value.isascii() and value.isprintable() and len(value) < 4000}
    assert [where for where, value in usable if opens(value)] == []


@pytest.mark.req("S-47")
def test_a_session_lives_ends_and_is_cleared_as_before(staff: Client, anna: User) -> None:
    before = staff.cookies[settings.SESSION_COOKIE_NAME].value
    assert not Session.objects.filter(session_key=before).exists()
    assert SessionStore().exists(before)
    staff.logout()
    assert not SessionStore().exists(before)
    assert Session.objects.count() == 0

    staff.force_login(anna)
    staff.force_login(anna)  # a second sign-in changes the key and leaves no row behind
    assert Session.objects.count() == 1
    Session.objects.update(expire_date=timezone.now())
    assert staff.get("/admin/password_change/").status_code == 302
    SessionStore.clear_expired()
    assert Session.objects.count() == 0


async def _through_the_asynchronous_door(key: str | None) -> tuple[str, bool]:
    store = SessionStore(key)
    await store.aset("seen", 1)
    await store.asave()
    made = str(store.session_key)
    again = SessionStore(made)
    seen = await again.aget("seen") == 1 and await again.aexists(made)
    await again.adelete()
    return made, seen and not await again.aexists(made)


@pytest.mark.django_db(transaction=True)
def test_asynchronous_code_finds_sessions_by_the_same_hash() -> None:
    # The browser's driver keeps a loop running in this thread, beside which no other may start.
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        made, worked = async_to_sync(_through_the_asynchronous_door)(None)
    finally:
        asyncio._set_running_loop(running)
    assert worked
    assert len(made) == 32


def test_a_pickle_planted_as_a_session_is_never_loaded(staff: Client, tmp_path: Path) -> None:
    planted = pickle.dumps(Hostile(tmp_path / "proof"))
    pickle.loads(pickle.dumps(Hostile(tmp_path / "works")))  # noqa: S301  # the plant itself works
    assert (tmp_path / "works").exists()
    for text in (
        base64.b64encode(planted).decode(),
        planted.hex(),
        f".{base64.urlsafe_b64encode(planted).decode()}:a:b",
    ):
        Session.objects.update(session_data=text)
        assert staff.get("/admin/password_change/").status_code == 302
    assert not (tmp_path / "proof").exists()


def test_the_only_cache_keeps_nothing() -> None:
    assert list(settings.CACHES) == ["default"]
    caches["default"].set("key", 1)
    assert caches["default"].get("key") is None


@pytest.mark.req("S-54")
@pytest.mark.django_db(transaction=True)
def test_a_form_is_spent_once_by_all_processes_and_forgotten_when_it_is_too_old() -> None:
    assert SpentForm.objects.spend("one", seconds=3600)
    assert not SpentForm.objects.spend("one", seconds=3600)
    assert SpentForm.objects.spend("two", seconds=3600)
    SpentForm.objects.filter(number="one").update(until=timezone.now())
    assert SpentForm.objects.spend("three", seconds=3600)
    assert set(SpentForm.objects.values_list("number", flat=True)) == {"two", "three"}
