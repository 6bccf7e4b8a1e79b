"""Each service asks for a right before it does anything (S-48); which role has it says docs/roles.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from pytest_django.fixtures import Settings

from portal.audit.trail import SYSTEM, Actor
from portal.rights import SERVER
from portal.runs.models import Run
from portal.runs.service import actor_of_run
from portal.staff.roles import RIGHTS, rights_of
from tests.support import builders
from tests.support.services import ASK_NOTHING, lets_in, services
from tests.support.source import ROOT, module_name, modules

pytestmark = pytest.mark.django_db
SERVICES = services()


@pytest.fixture(autouse=True)
def _a_vault_of_its_own(settings: Settings, tmp_path: Path) -> None:
    settings.VAULT_URL, settings.VAULT_KEY_FILE = str(tmp_path / "vault"), str(tmp_path / "vault-key")


def test_the_services_are_found() -> None:
    assert len(SERVICES) > 80
    assert {"consent.partners.disable", "portal.runs.service.start", "portal.staff.roles.grant"} <= set(SERVICES)
    assert set(ASK_NOTHING) - set(SERVICES) == set(), "not there any more"


@pytest.mark.req("S-48")
@pytest.mark.parametrize("name", sorted(set(SERVICES) - set(ASK_NOTHING)))
def test_a_service_refuses_whoever_has_no_right_before_it_looks_at_anything(name: str) -> None:
    assert not lets_in(name, SERVICES[name], Actor.staff("somebody", None))


@pytest.mark.parametrize("name", sorted(set(SERVICES) - set(ASK_NOTHING)))
def test_a_command_may_do_everything(name: str) -> None:
    assert lets_in(name, SERVICES[name], Actor.command("test"))


@pytest.mark.req("S-48")
def test_the_portal_a_link_and_what_a_run_keeps_of_its_actor_have_no_right() -> None:
    run = Run(actor_kind="command", actor=builders.ACTOR.name)
    actors = [SYSTEM, Actor.link(1, None), Actor.visitor(None), actor_of_run(run)]
    assert [actor for actor in actors for right in [*RIGHTS, SERVER] if actor.may(right)] == []


def test_each_right_that_is_asked_for_is_a_permission_that_a_role_has() -> None:
    known = {
        f"{one.content_type.app_label}.{one.codename}" for one in Permission.objects.select_related("content_type")
    }
    asked = set()
    for path in modules():
        if module_name(path) != "portal.staff.roles":
            asked |= {text for text in strings(path.read_text()) if text in known}
    assert asked - set(RIGHTS) - {"portal.limited"} == set(), "no role has it"
    assert set(RIGHTS) - known == set(), "there is no such permission"


def strings(text: str) -> set[str]:
    nodes = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return {value for value in nodes if isinstance(value, str) and re.fullmatch(r"[a-z_]+\.[a-z_]+", value)}


@pytest.mark.req("S-48")
def test_nothing_asks_a_role_for_what_only_the_server_does() -> None:
    assert SERVER not in rights_of(*(role for roles in RIGHTS.values() for role in roles))
    assert (ROOT / "docs/roles.md").exists()
