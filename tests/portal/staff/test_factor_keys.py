"""The key of a factor opens in the row of its own account only, and what an older release kept is bound to it."""

from __future__ import annotations

import base64
import hashlib
from importlib import import_module
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from cryptography.fernet import Fernet
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection
from pytest_django.fixtures import Settings

from portal.staff import factors
from portal.staff.factor_keys import FactorAdapter, FactorUnreadable, lock, unlock
from portal.staff.factors import CodeRefused
from tests.support import builders
from tests.support.authenticators import app_code
from tests.support.sign_in import with_app

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-46")]
bind = import_module("portal.staff.migrations.0002_factors_bound_to_accounts").bind


class Editor:
    connection = connection


def older(text: str, integrity_key: str) -> str:
    """Return a key as the release before kept it."""
    key = hashlib.blake2b(integrity_key.encode(), digest_size=32, person=b"staff factors").digest()
    return Fernet(base64.urlsafe_b64encode(key)).encrypt(text.encode()).decode()


def row_of(user: User, kind: str = "totp") -> Any:
    return Authenticator.objects.get(user=user, type=kind)


def test_a_key_that_was_moved_to_the_row_of_another_account_opens_nothing_there() -> None:
    anna, key = with_app()
    ben = User.objects.create_user("ben", is_staff=True)
    Authenticator.objects.create(user=ben, type="totp", data=row_of(anna).data)
    factors.new_recovery_codes(anna, actor=builders.ACTOR)
    codes = Authenticator.objects.create(user=ben, type="recovery_codes", data=row_of(anna, "recovery_codes").data)

    assert not factors.check_app_code(ben, app_code(key))
    own = factors._recovery_codes(unlock(codes.data["seed"], kind="recovery_codes", user=anna.pk))[0]
    with pytest.raises(CodeRefused):
        factors.check_code(ben, own)

    assert factors.check_app_code(anna, app_code(key))


def test_a_key_opens_for_its_kind_and_account_and_under_its_key_only(settings: Settings) -> None:
    kept = lock("a secret", kind="totp", user=7)
    assert "secret" not in kept
    assert unlock(kept, kind="totp", user=7) == "a secret"
    assert kept != lock("a secret", kind="totp", user=7)
    for kind, user in (("totp", 8), ("recovery_codes", 7), ("offered", 7)):
        with pytest.raises(FactorUnreadable):
            unlock(kept, kind=kind, user=user)
    for rubbish in ("", "2:", "2:AAAA", "2:\xff", kept[:-8], kept[2:], older("a secret", settings.INTEGRITY_KEY)):
        with pytest.raises(FactorUnreadable):
            unlock(rubbish, kind="totp", user=7)
    settings.INTEGRITY_KEY = "another-key-of-this-deployment-0123456789"
    with pytest.raises(FactorUnreadable):
        unlock(kept, kind="totp", user=7)


def test_the_library_writes_no_key() -> None:
    with pytest.raises(NotImplementedError):
        FactorAdapter().encrypt("a secret")


def test_the_update_binds_what_an_older_release_kept_so_that_everybody_gets_in_as_before(settings: Settings) -> None:
    anna, key = with_app()
    shown = factors.new_recovery_codes(anna, actor=builders.ACTOR)
    seed = unlock(row_of(anna, "recovery_codes").data["seed"], kind="recovery_codes", user=anna.pk)
    ben = User.objects.create_user("ben", is_staff=True)
    lost = {"secret": older(key, "another-key-of-this-deployment-0123456789")}
    Authenticator.objects.create(user=ben, type="totp", data=lost)
    for kind, name, plain in (("totp", "secret", key), ("recovery_codes", "seed", seed)):
        row = row_of(anna, kind)
        row.data[name] = older(plain, settings.INTEGRITY_KEY)
        row.save()
    assert not factors.check_app_code(anna, app_code(key)), "an older form is not taken: it names no account"

    bind(apps, Editor)

    assert factors.check_app_code(anna, app_code(key))
    assert factors.check_code(anna, shown[3]) == "recovery_code"
    assert row_of(anna, "recovery_codes").data["used_mask"] == 1 << 3
    assert row_of(ben).data == lost
    before = row_of(anna).data
    bind(apps, Editor)  # again does no harm
    assert row_of(anna).data == before
