"""What staff ask for on pages: said before, done by the workers, found again when it is asked for twice."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from consent.models import ApplicationRegistration, CustomerConsent, PartnerConsent
from consent.runs import on_request
from consent.runs.on_request import NothingToDo
from portal.audit.models import AuditEvent
from portal.runs import service
from portal.runs.executor import Executor
from portal.runs.models import Run
from tenants.models import CustomerTenant, PartnerTenant
from tests.support import builders, fleet
from tests.support.connected import connect
from tests.support.custody import redemptions
from tests.support.portal import Portal
from tests.support.work import classes

ALL = PartnerConsent.objects.all


def one(consent: PartnerConsent) -> PartnerConsent:
    return PartnerConsent.objects.get(pk=consent.pk)


def test_one_token_is_redeemed_and_no_other_and_the_trail_names_who_asked(portal: Portal) -> None:
    first, second = connect(portal, 2)
    started = on_request.check_tokens(ALL().filter(pk=first.pk), actor=builders.ACTOR)
    assert (started.new, started.number) == (True, 1)
    assert redemptions(portal) == []  # asking calls nothing

    Executor(started.run).work()

    started.run.refresh_from_db()
    assert classes(started.run) == {"ok": 1}
    assert one(first).last_success_at is not None
    assert one(second).last_success_at is None
    event = AuditEvent.objects.get(action="run.started")
    assert event.actor == builders.ACTOR.name
    assert event.details["scope"] == {"tokens": [first.pk]}


def test_a_second_press_finds_the_run_that_goes_on_and_wakes_one_that_waits(portal: Portal) -> None:
    connect(portal, 1)
    first = on_request.check_tokens(ALL(), actor=builders.ACTOR)
    again = on_request.check_tokens(ALL(), actor=builders.ACTOR)
    assert (again.run, again.new) == (first.run, False)
    service.pause(first.run, actor=builders.ACTOR)
    woken = on_request.check_tokens(ALL(), actor=builders.ACTOR)
    assert (woken.run, woken.run.state) == (first.run, Run.State.OPEN)


def test_a_renewal_keeps_the_rotated_token_of_a_young_one_which_a_check_does_not(portal: Portal) -> None:
    [consent] = connect(portal, 1)
    Executor(on_request.check_tokens(ALL(), actor=builders.ACTOR).run).work()
    assert one(consent).generation == 1
    Executor(on_request.check_tokens(ALL(), actor=builders.ACTOR, renew=True).run).work()
    assert one(consent).generation == 2
    assert one(consent).lease_owner == ""


def test_a_renewal_that_microsoft_refuses_leaves_the_token_as_it_was(portal: Portal) -> None:
    [consent] = connect(portal, 1)
    before = one(consent)
    fleet.revoke(portal, consent.partner)
    Executor(on_request.check_tokens(ALL(), actor=builders.ACTOR, renew=True).run).work()
    after = one(consent)
    assert (after.generation, after.secret_version, after.lease_owner) == (1, before.secret_version, "")


def test_the_preview_names_tenants_and_counts_by_state_and_says_what_is_left_out(db: None) -> None:
    registration = builders.registration()
    retired = builders.registration(name="Old", state="retired")
    for number in range(25):
        builders.consent(builders.partner(name=f"Partner {number:02}"), registration, last_class="ok")
    builders.consent(builders.partner(name="Alder"), registration, state="needs_consent", last_problem="needs_consent")
    builders.consent(builders.partner(switch="disabled"), registration)
    builders.consent(builders.partner(), registration, state="disconnected")
    builders.consent(builders.partner(), retired)
    with CaptureQueriesContext(connection) as queries:
        preview = on_request.preview_check(ALL())
    assert len(queries) == 4
    assert (preview.number, len(preview.names), preview.more) == (26, 20, 6)
    assert preview.names[:2] == ["Alder (Example Control Panel)", "Partner 00 (Example Control Panel)"]
    assert preview.by_state == {"Connected": 25, "Needs consent again": 1}
    assert preview.left_out == {
        "disabled or offboarded: no token may be used": 1,
        "disconnected by us": 1,
        "the application is retired": 1,
    }


def test_what_cannot_be_used_is_not_begun_and_the_reason_is_said(db: None) -> None:
    registration = builders.registration()
    builders.consent(builders.partner(switch="disabled"), registration)
    with pytest.raises(NothingToDo, match="disabled or offboarded"):
        on_request.check_tokens(ALL(), actor=builders.ACTOR)
    with pytest.raises(NothingToDo, match="disabled or offboarded"):
        on_request.synchronise(PartnerTenant.objects.all(), actor=builders.ACTOR)
    builders.partner()
    with pytest.raises(NothingToDo, match="no usable token"):
        on_request.synchronise(PartnerTenant.objects.filter(switch="on"), actor=builders.ACTOR)
    assert not Run.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_partners_are_synchronised_as_far_as_they_have_a_token(portal: Portal) -> None:
    portal.connect()
    builders.partner(name="Without token")
    preview = on_request.preview_synchronise(PartnerTenant.objects.all())
    assert (preview.names, preview.by_state) == (["Northwind Cloud"], {"Connected": 1})
    assert preview.left_out == {"no usable token": 1}
    started = on_request.synchronise(PartnerTenant.objects.all(), actor=builders.ACTOR)
    Executor(started.run).work()
    assert CustomerTenant.objects.filter(partner=portal.partner).exists()


@pytest.mark.django_db(transaction=True)
def test_a_customer_that_was_never_looked_at_is_read(portal: Portal) -> None:
    portal.connect()
    Executor(on_request.synchronise(PartnerTenant.objects.all(), actor=builders.ACTOR).run).work()
    customer = CustomerTenant.objects.select_related("partner").order_by("pk")[0]
    assert not CustomerConsent.objects.exists()
    started = on_request.read_again(customer, actor=builders.ACTOR)
    Executor(started.run).work()
    [row] = CustomerConsent.objects.all()
    assert (row.customer, row.tried_at is not None) == (customer, True)


def test_without_an_application_there_is_nothing_to_read(portal: Portal) -> None:
    customer = builders.customer(portal.partner)
    with pytest.raises(NothingToDo, match="no usable token"):
        on_request.read_again(customer, actor=builders.ACTOR)
    builders.customer_consent(customer, portal.registration)
    PartnerTenant.objects.update(switch="disabled")
    with pytest.raises(NothingToDo, match="disabled or offboarded"):
        on_request.read_again(customer, actor=builders.ACTOR)
    assert ApplicationRegistration.objects.count() == 1
