"""A new SECRET_KEY costs at worst a sign-in: tokens, audit trail and running flows survive it (S-45)."""

from __future__ import annotations

import secrets

import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse
from pytest_django.fixtures import Settings

from consent.models import ConsentFlow
from consent.words.problems import PROBLEMS, Problem
from portal.audit.walking import first_broken_sequence
from tests.support.custody import ask
from tests.support.portal import Browser, Portal

pytestmark = pytest.mark.req("S-45")


def change_key(settings: Settings, *, keep_old: bool = True) -> None:
    """Do what the operations page says: a new key, the old one among the fallbacks."""
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY] if keep_old else []
    settings.SECRET_KEY = secrets.token_urlsafe(48)


@pytest.mark.parametrize("keep_old", [True, False])
def test_stored_tokens_and_the_audit_trail_do_not_hang_on_the_key(
    portal: Portal, settings: Settings, keep_old: bool
) -> None:
    portal.onboard()
    change_key(settings, keep_old=keep_old)

    assert ask(portal.consent(), fresh=True)
    assert portal.consent().state == "connected"
    assert first_broken_sequence() is None


def test_staff_stay_signed_in_while_the_old_key_is_a_fallback_and_are_signed_out_after(
    db: None, settings: Settings
) -> None:
    staff = get_user_model().objects.create_superuser("alex", password=None)
    browser = Browser()
    browser.force_login(staff)

    change_key(settings)
    assert browser.get(reverse("admin:index")).status_code == 200
    change_key(settings)
    assert browser.get(reverse("admin:index")).status_code == 200  # the session moved on to the newer key meanwhile

    other = Browser()
    other.force_login(staff)
    change_key(settings, keep_old=False)
    assert other.get(reverse("admin:index")).status_code == 302


def test_a_flow_at_microsoft_is_told_to_start_again_and_then_works(portal: Portal, settings: Settings) -> None:
    who = Browser()
    path = portal.link()
    answer = portal.at_microsoft(portal.press_continue(who, path))
    change_key(settings)

    response = portal.come_back(who, answer)

    page = who.get(response["Location"]) if response.status_code == 303 else response
    assert ConsentFlow.objects.get().problem == "start_again"
    assert page.status_code == PROBLEMS[Problem.START_AGAIN].status
    again = portal.at_microsoft(portal.press_continue(who, path))
    assert portal.come_back(who, again).status_code == 303
    assert portal.consent().state == "connected"
