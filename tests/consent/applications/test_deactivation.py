"""A registration is deactivated at Microsoft and read back; where no identity may do it, a person is told how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pytest_django.fixtures import Settings

from consent import clients
from consent.applications.deactivation import activate, deactivate
from consent.containment.service import ResumeRefused, Scope, contain, resume
from consent.models import Containment
from consent.runs import resuming
from portal.audit.models import AuditEvent
from portal.microsoft.errors import RemoteError
from tests.sandbox import scenarios
from tests.sandbox.world import Application, known_id
from tests.support import builders, custody, decisions
from tests.support.certificates import pem, private
from tests.support.commands import run
from tests.support.portal import Portal
from tests.support.staff import Staff, told

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-80")]
ONE = builders.staff("one")
HOW: dict[str, Any] = {
    "may_switch": clients.reads_registration,
    "switch": clients.switch_registration,
    "clouds": clients.cloud,
    "actor": ONE,
}


@pytest.fixture
def identity(portal: Portal, settings: Settings, tmp_path: Path) -> Application:
    """The reader, which may also change applications in the home tenant."""
    text, world = pem(), portal.sandbox.world
    made = Application(
        app_id=known_id("application", "reader"),
        name="Reader",
        home_tenant=scenarios.vendor_tenant(),
        multi_tenant=False,
        certificates=[x509.load_pem_x509_certificate(text.encode()).public_bytes(serialization.Encoding.DER)],
        roles={"Application.ReadWrite.All"},
    )
    world.applications[made.app_id] = made
    world.tenants[scenarios.vendor_tenant()].add_principal(made.app_id, "Reader")
    file = str(private(tmp_path / "reader.pem", text))
    settings.READERS = {scenarios.vendor_tenant(): (made.app_id, file)}
    return made


def stop(portal: Portal) -> Containment:
    return contain(Scope(registration=portal.registration), reason="a stranger", actor=ONE)


def works(portal: Portal) -> bool:
    return portal.sandbox.world.applications[portal.registration.application_id].works


def test_it_is_deactivated_read_back_and_activated_before_it_is_resumed(portal: Portal, identity: Application) -> None:
    portal.connect()
    stored = custody.rotated_token  # a stranger who has credential and refresh token, outside the portal
    assert stored(portal, portal.consent())
    one = stop(portal)

    (switched,) = deactivate(one, **HOW)

    assert (switched.done, works(portal)) == (True, False)
    assert "a read shows it" in switched.words
    with pytest.raises(RemoteError):
        stored(portal, portal.consent())
    events = AuditEvent.objects.filter(action="containment.registration_switched").order_by("sequence")
    assert [event.outcome for event in events] == ["intent", "done"]
    with pytest.raises(ResumeRefused, match="Two persons decide"):
        activate(one, **HOW)
    assert not works(portal)
    resume(one, approved=decisions.approval())
    assert "waits until its registration is activated" in resuming.advance(one)
    (switched,) = activate(one, **HOW)
    assert (switched.done, works(portal), one.deactivated) == (True, True, [])
    assert "wave 1" in resuming.advance(one)


def test_an_identity_that_only_reads_leaves_it_to_a_person(portal: Portal, identity: Application) -> None:
    identity.roles.clear()
    identity.roles.add("Application.Read.All")
    one = stop(portal)

    (switched,) = deactivate(one, **HOW)

    assert (switched.done, works(portal), one.deactivated) == (False, True, [])
    assert f"applications(appId='{portal.registration.application_id}')" in switched.words
    assert '{"isDisabled": true}' in switched.words
    assert AuditEvent.objects.filter(action="containment.registration_switched", outcome="failed").exists()


def test_a_portal_without_such_an_identity_says_how_and_calls_nothing(portal: Portal) -> None:
    calls = len(portal.sandbox.world.ledger)

    said = run("contain", "--registration", portal.registration.pk, "--reason", "a stranger")

    assert said.code == 0
    assert "no identity for it" in said.out
    assert "Entra admin center" in said.out
    assert len(portal.sandbox.world.ledger) == calls


def test_the_command_deactivates_unless_it_is_told_not_to(portal: Portal, identity: Application) -> None:
    run("contain", "--registration", portal.registration.pk, "--reason", "a stranger", "--keep-registration")
    assert works(portal)

    run("contain", "--registration", portal.registration.pk, "--reason", "a stranger")

    assert not works(portal)
    assert Containment.objects.get().deactivated == [portal.registration.pk]


def test_a_stop_of_one_partner_leaves_the_registration_to_the_others(portal: Portal, identity: Application) -> None:
    run("contain", "--partner", portal.partner.tenant_id, "--reason", "asked for")

    assert works(portal)


def test_the_page_does_it_after_a_confirmation(portal: Portal, identity: Application) -> None:
    one, who = stop(portal), Staff()
    address = f"/admin/consent/containment/{one.pk}/"

    said = told(who.confirm(who.get(f"{address}deactivate/")))

    assert "a read shows it" in said
    assert not works(portal)
    assert "Deactivated by us: Example Control Panel" in who.get(f"{address}change/").content.decode()
    assert "Two persons decide" in told(who.confirm(who.get(f"{address}activate/")))
    resume(one, approved=decisions.approval())
    assert "Press Activate at Microsoft" in who.get(f"{address}change/").content.decode()
    assert "a read shows it" in told(who.confirm(who.get(f"{address}activate/")))
    assert works(portal)
