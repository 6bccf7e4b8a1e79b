"""Every action of every admin page: its own permission, and a page that asks before anything is changed (S-54)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.contrib import admin

from consent.invitations import links
from consent.models import CustomerConsent
from portal.audit.models import AuditEvent
from portal.incidents.service import report
from portal.microsoft.diagnosis import Owner
from portal.runs.models import Run
from portal.site.admin import PortalModelAdmin
from tests.support import builders
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db
READING = {
    "export_csv",
    "export_xlsx",
    "download",
    "download_json",
    "download_csv",
}  # they change nothing; viewing is enough


def list_actions() -> Iterator[tuple[PortalModelAdmin[Any], str, Callable[..., Any]]]:
    for page in admin.site._registry.values():
        assert isinstance(page, PortalModelAdmin)
        for action in page._get_base_actions():  # type: ignore[attr-defined]
            if action.name not in {"delete_selected", *READING}:
                yield page, action.name, action.func


def page_actions() -> Iterator[tuple[PortalModelAdmin[Any], str, Sequence[str]]]:
    for page in admin.site._registry.values():
        assert isinstance(page, PortalModelAdmin)
        for name in page.actions_detail:
            if name not in READING:
                yield page, name, getattr(page, name).button.permissions


@pytest.mark.req("S-54")
def test_every_action_that_changes_something_has_a_permission_of_its_own() -> None:
    of_lists = [(page, name, getattr(method, "allowed_permissions", ())) for page, name, method in list_actions()]
    actions = [*of_lists, *page_actions()]
    assert len(actions) > 20
    for page, name, needed in actions:
        assert set(needed) - {"view"}, f"{page}: {name} needs no more than to see the list"


def rows_of_every_list() -> None:
    registration = builders.registration()
    builders.grant(registration, "User.Read.All")
    partner = builders.partner()
    builders.consent(partner, registration)
    builders.partner(switch="disabled")
    customer = builders.customer(partner)
    CustomerConsent.objects.create(customer=customer, registration=registration, state="absent")
    links.issue(builders.partner(), registration, actor=builders.ACTOR)
    report("vault", about="vault", name="The vault", owner=Owner.US, words="It is shut.", subject={})


@pytest.mark.req("S-54")
def test_no_list_action_changes_anything_before_its_confirmation() -> None:
    rows_of_every_list()
    staff = Staff()
    before, asked = AuditEvent.objects.count(), set()

    for page, name, _ in list_actions():
        options = page.model._meta
        row = page.model._default_manager.first()
        if row is not None:
            answer = staff.choose(f"{options.app_label}_{options.model_name}", name, row.pk)
            if b'name="_once"' in answer.content:
                asked.add(name)
            else:
                assert answer.status_code == 302, name  # with a sentence why not

    assert AuditEvent.objects.count() == before
    assert not Run.objects.exists()
    assert {"sync_partners", "sync_partners_of", "take_up", "verify_now", "disable_partners"} <= asked


OF_PARTNERS = {
    "sync_partners": "tenants.sync_partnertenant",
    "plan_consent_of_partners": "consent.add_consentplan",
    "invite_in_campaign": "consent.add_campaign",
    "offboard_partners": "consent.offboard_partner",
}
OF_CUSTOMERS = {
    "sync_partners_of": "tenants.sync_partnertenant",
    "plan_consent_of_customers": "consent.add_consentplan",
}


@pytest.mark.req("S-54")
@pytest.mark.parametrize(("model", "actions"), [("partnertenant", OF_PARTNERS), ("customertenant", OF_CUSTOMERS)])
def test_who_may_only_look_is_offered_nothing_and_can_start_nothing(model: str, actions: dict[str, str]) -> None:
    partner = builders.partner()
    builders.consent(partner, builders.registration())
    customer = builders.customer(partner)
    row = customer if model == "customertenant" else partner
    reader = Staff(f"tenants.view_{model}")

    page = reader.get(f"/admin/tenants/{model}/").content.decode()
    for name in actions:
        assert f'value="{name}"' not in page
        answer = reader.choose(f"tenants_{model}", name, row.pk)
        assert b'name="_once"' not in answer.content
    assert not Run.objects.exists()

    for name, permission in actions.items():
        other = Staff(f"tenants.view_{model}", permission)
        offered = other.get(f"/admin/tenants/{model}/").content.decode()
        assert [one for one in actions if f'value="{one}"' in offered] == [
            one for one in actions if actions[one] == permission
        ]
        assert b'name="_once"' in other.choose(f"tenants_{model}", name, row.pk).content, name
