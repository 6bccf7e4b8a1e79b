"""A fresh proof of who acts, before what does great harm in wrong hands (S-49).

Covers: portal.site.receivers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import RequestFactory
from django.utils import timezone

from consent.models import ApplicationCredential
from portal.audit.models import AuditEvent
from portal.site import proof
from portal.site.admin import PortalModelAdmin
from portal.site.extension_points import dangerous
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.staff import Staff, told

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-49")]


@pytest.fixture
def clock(settings: Any) -> Iterator[Any]:
    """A clock that stands still, and the page that takes a proof."""
    settings.ROOT_URLCONF = "tests.support.prove_urls"
    with time_machine.travel(timezone.now(), tick=False) as travelling:
        yield travelling


def too_late(clock: Any) -> None:
    clock.shift(timedelta(seconds=proof.WITHIN + 60))


# --- which actions ask --------------------------------------------------------------------------------------------


class Recorder:
    """An account that may do everything, and remembers what it was asked for."""

    is_active = is_staff = True
    pk = 0

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def has_perm(self, name: str, row: Any = None) -> bool:
        self.asked.add(name)
        return True


def needed(page: PortalModelAdmin[Any], words: Any) -> set[str]:
    request: Any = RequestFactory().get("/")
    request.user = Recorder()
    for word in words:
        getattr(page, f"has_{word}_permission")(request)
    asked: set[str] = request.user.asked
    return asked


def actions() -> Iterator[tuple[str, set[str], bool]]:
    """Yield each action of each list and page: its name, the permissions it needs, whether it asks for a proof."""
    for page in admin.site._registry.values():
        assert isinstance(page, PortalModelAdmin)
        for action in page._get_base_actions():  # type: ignore[attr-defined]
            if action.name != "delete_selected":
                method: Callable[..., Any] = action.func
                words = getattr(method, "allowed_permissions", ())
                yield f"{page}.{action.name}", needed(page, words), getattr(method, "fresh", False)
        for name in page.actions_detail:
            button = getattr(page, name).button
            yield f"{page}.{name}", needed(page, button.permissions), button.fresh


def test_each_action_with_a_dangerous_permission_asks_for_a_proof() -> None:
    found = list(actions())
    assert len(found) > 40
    assert [name for name, permissions, asks in found if permissions & dangerous() and not asks] == []
    asking = {name.partition(".")[2].rpartition(".")[2] for name, _, asks in found if asks}
    assert asking >= {
        "offboard_partners", "finish", "remove_consents", "approve", "promote", "roll_back", "retire_this", "retire",
        "change_wanted_grants", "change_set", "disable_partners", "disconnect_partners",
    }  # fmt: skip


def test_the_dangerous_permissions_exist() -> None:
    known = {
        f"{one.content_type.app_label}.{one.codename}" for one in Permission.objects.select_related("content_type")
    }
    assert len(dangerous()) > 10
    assert dangerous() - known == set()


# --- what a proof is ----------------------------------------------------------------------------------------------


def test_a_sign_in_is_a_proof_for_five_minutes_and_one_from_the_future_is_none(clock: Any) -> None:
    request: Any = RequestFactory().get("/")
    request.session = Staff().session
    assert proof.is_fresh(request)
    clock.shift(timedelta(seconds=proof.WITHIN - 1))  # whole seconds are kept
    assert proof.is_fresh(request)
    clock.shift(timedelta(seconds=2))
    assert not proof.is_fresh(request)
    assert 300 < (proof.age(request) or 0) < 303
    assert proof.is_fresh(request, within=400)
    proof.note(request)
    clock.shift(timedelta(seconds=-60))
    assert not proof.is_fresh(request)
    del request.session[proof.KEY]
    assert (proof.age(request), proof.is_fresh(request)) == (None, False)


def test_factors_are_those_of_the_last_minutes_and_what_replaces_one_is_none(clock: Any) -> None:
    request: Any = RequestFactory().get("/")
    request.session = {}
    assert proof.factors(request) == frozenset()
    now = timezone.now().timestamp()
    request.session["account_authentication_methods"] = [
        {"method": "password", "at": now},
        {"method": "mfa", "type": "totp", "at": now - 10},
        {"method": "mfa", "type": "webauthn", "at": now - 301},
        {"method": "password_reset", "at": now},
    ]
    assert proof.factors(request) == {"password", "mfa totp"}


# --- what happens without one -------------------------------------------------------------------------------------


def test_what_is_sent_too_late_is_not_done_and_is_sent_again_after_the_proof(clock: Any) -> None:
    partner, staff = builders.partner(), Staff()
    asked = staff.choose("tenants_partnertenant", "disable_partners", partner.pk)
    too_late(clock)

    refused = staff.confirm(asked)

    assert refused.status_code == 403
    assert "Nothing was done." in refused.content.decode()
    assert PartnerTenant.objects.get().is_active
    [link] = re.findall(r'class="button" href="([^"]+)"', refused.content.decode())
    again = staff.get(link, follow=True)
    assert again.request["PATH_INFO"] == "/admin/go-on/"
    [address] = re.findall(r'<form method="post" action="([^"]+)"', again.content.decode())
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', again.content.decode()):
        fields.setdefault(name, []).append(value)
    assert fields["_selected_action"] == [str(partner.pk)]
    done = staff.post(address, fields, follow=True, headers={"referer": f"https://portal.localhost{address}"})
    assert "1 disabled." in told(done)
    assert not PartnerTenant.objects.get().is_active
    assert "already done" in told(staff.post(address, fields, follow=True))
    assert "Nothing waits to be sent again" in told(staff.get("/admin/go-on/", follow=True))


def test_a_page_that_is_asked_for_too_late_comes_back_after_the_proof(clock: Any) -> None:
    registration, staff = builders.registration(), Staff()
    address = f"/admin/consent/applicationregistration/{registration.pk}/wanted/"
    too_late(clock)
    sent = staff.get(address)
    assert sent["Location"] == proof.prove_address(address)
    assert staff.get(address, follow=True).request["PATH_INFO"] == address
    assert b"Change wanted grants" in staff.get(address, follow=True).content


def test_who_may_not_do_it_is_asked_for_no_proof(clock: Any) -> None:
    registration, reader = builders.registration(), Staff("consent.view_applicationregistration")
    too_late(clock)
    assert reader.get(f"/admin/consent/applicationregistration/{registration.pk}/wanted/").status_code == 403
    assert reader.get(f"/admin/consent/applicationregistration/{registration.pk}/change/").status_code == 200
    assert reader.post(f"/admin/consent/applicationregistration/{registration.pk}/change/", {}).status_code == 403


def test_roles_and_accounts_are_changed_only_with_a_proof(clock: Any) -> None:
    staff = Staff()
    too_late(clock)
    assert staff.get(f"/admin/auth/user/{staff.user.pk}/change/").status_code == 200  # looking asks for nothing
    assert staff.post(f"/admin/auth/user/{staff.user.pk}/roles/").status_code == 403
    secret = {"password1": "canary-word-77", "password2": "canary-word-77"}
    for path in (f"/admin/auth/user/{staff.user.pk}/change/", f"/admin/auth/user/{staff.user.pk}/password/"):
        refused = staff.post(path, secret)
        assert refused.status_code == 403
        assert "was not kept" in refused.content.decode()
    assert "canary-word-77" not in str(dict(staff.session))


def test_a_key_that_is_sent_too_late_is_neither_added_nor_kept(clock: Any) -> None:
    registration, staff = builders.registration(credential=None, state="draft"), Staff()
    address = f"/admin/consent/applicationcredential/new/{registration.pk}/upload/"
    too_late(clock)
    refused = staff.post(address, {"password": "canary-secret-88"})
    assert refused.status_code == 403
    assert "canary-secret-88" not in refused.content.decode() + str(dict(staff.session))
    assert not ApplicationCredential.objects.exists()


def test_a_file_of_everything_and_of_the_trail_asks_and_one_of_some_rows_does_not(clock: Any) -> None:
    staff, partner = Staff(), builders.partner()
    too_late(clock)
    chosen = {"action": "export_csv", "_selected_action": [partner.pk], "index": 0}
    assert staff.post("/admin/tenants/partnertenant/", chosen).status_code == 200
    assert staff.post("/admin/tenants/partnertenant/", chosen | {"select_across": "1"}).status_code == 403
    event = AuditEvent.objects.latest("sequence")
    assert event.action == "list.exported"
    of_trail = {"action": "export_csv", "_selected_action": [event.pk], "index": 0}
    assert staff.post("/admin/audit/auditevent/", of_trail).status_code == 403
    assert AuditEvent.objects.count() == 1


def test_what_was_kept_is_forgotten_after_an_hour(clock: Any) -> None:
    partner, staff = builders.partner(), Staff()
    too_late(clock)
    assert staff.choose("tenants_partnertenant", "offboard_partners", partner.pk).status_code == 403
    assert staff.session["kept_form"]["fields"]["action"] == ["offboard_partners"]
    clock.shift(timedelta(minutes=20))
    assert staff.get("/admin/").status_code == 200  # the session lives
    clock.shift(timedelta(minutes=25))
    assert staff.get("/admin/").status_code == 200
    clock.shift(timedelta(minutes=25))
    assert "Nothing waits to be sent again" in told(staff.get("/admin/go-on/", follow=True))
    assert PartnerTenant.objects.get().offboarding_since is None
