"""The doctor's page: opening it makes no call, pressing its button shows each step, and no secret is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from pytest_django.fixtures import Settings

from consent.doctor.examining import STEPS
from portal.audit.models import AuditEvent
from tests.sandbox.server import Sandbox
from tests.support import doctor
from tests.support.commands import secrets_of
from tests.support.doctor import Ward, make_ward
from tests.support.smtp import serving
from tests.support.staff import Staff

PAGE = "/admin/consent/applicationregistration/doctor/"
SEE, EXAMINE = "consent.view_applicationregistration", "consent.promote_applicationcredential"


@pytest.fixture
def ward(
    db: None, settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Ward]:
    with serving() as server:
        yield make_ward(settings, sandbox, monkeypatch, tmp_path, server.port, key_vault=False)


def text_of(response: Any) -> str:
    pieces = response.streaming_content if response.streaming else [response.content]
    return unescape(b"".join(pieces).decode())


def badges(page: str) -> list[str]:
    return re.findall(r'<span class="badge [\w-]+">([^<]+)</span>', page)


def test_opening_the_page_makes_no_call_and_lists_what_is_tried(ward: Ward) -> None:
    before = len(ward.sandbox.world.ledger)
    page = Staff(SEE, EXAMINE).get(PAGE)
    assert page.status_code == 200
    assert len(ward.sandbox.world.ledger) == before
    assert all(step.title in text_of(page) for step in STEPS)
    assert not AuditEvent.objects.filter(action="doctor.examined").exists()


def test_the_button_tries_everything_and_the_trail_says_who_pressed_it(ward: Ward) -> None:
    staff = Staff(SEE, EXAMINE)
    response = staff.post(PAGE)
    page = text_of(response)
    assert len(badges(page)) == len(STEPS)
    assert "Fails" not in badges(page)
    assert "Nothing fails" in page
    assert "Could not be verified" in badges(page)
    assert 'class="notice tone-warn" role="status">Nothing fails: ' in page  # what was not seen makes no green
    assert not [one for one in secrets_of(ward.portal) if one in page]
    assert "no-store" in response["Cache-Control"]
    assert AuditEvent.objects.get(action="doctor.examined").actor == staff.user.get_username()


def test_each_step_is_sent_as_soon_as_it_is_known(ward: Ward) -> None:
    response: Any = Staff().post(PAGE)
    pieces = list(response.streaming_content)
    assert len(pieces) == 1 + len(STEPS) + 3
    assert b"Settings" in pieces[1]
    assert pieces[-1].rstrip().endswith(b"</html>")


def test_what_fails_stands_in_its_place_with_what_to_do(ward: Ward) -> None:
    doctor.no_worker(ward)
    page = text_of(Staff().post(PAGE))
    assert badges(page)[[step.name for step in STEPS].index("worker")] == "Fails"
    assert "The first that fails: Worker." in page
    assert "Start the worker" in page


@pytest.mark.parametrize(
    ("permissions", "opened", "pressed"),
    [
        ((SEE, EXAMINE), 200, 200),
        ((SEE,), 200, 403),
        ((EXAMINE,), 403, 403),
        (("tenants.view_partnertenant",), 403, 403),
    ],
)
def test_only_who_may_prove_a_credential_may_press_it(
    ward: Ward, permissions: tuple[str, ...], opened: int, pressed: int
) -> None:
    staff = Staff(*permissions)
    page = staff.get(PAGE)
    assert page.status_code == opened
    assert ("Try everything now" in text_of(page)) == (pressed == 200)
    answer = staff.post(PAGE)
    assert answer.status_code == pressed
    text_of(answer)


def test_the_page_stands_in_the_navigation(ward: Ward) -> None:
    page = text_of(Staff(SEE).get(reverse("admin:consent_applicationregistration_changelist")))
    assert f'href="{PAGE}"' in page
