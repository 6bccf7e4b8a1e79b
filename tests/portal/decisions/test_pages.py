"""The pages of requests: who sees what, what is shown before a decision, and what each may press.

Covers: portal.decisions.admin, portal.decisions.asking, portal.decisions.extension, portal.decisions.checks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.checks import run_checks
from django.utils import timezone

from portal.decisions import service
from portal.decisions.asking import what_comes_next
from portal.decisions.models import Decision
from portal.incidents.models import Incident
from portal.site import proof
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.decisions import RENAME, RENAME_ON_THE_SERVER, approve, person
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db
LIST = "/admin/decisions/decision/"
RIGHT = RENAME.permission


def asked(by: Staff, kind: Any = RENAME) -> Decision:
    partner = builders.partner(name="Old name")
    parameters = {"partner": partner.pk, "name": "Northwind"}
    decision, _ = service.ask(
        kind, parameters, why="They changed their name.", actor=person(by.user).actor, account=by.user
    )
    return decision


def page_of(decision: Decision, by: Staff) -> Any:
    return by.get(f"{LIST}{decision.pk}/change/")


def buttons(page: Any) -> list[str]:
    return [button.name for button, _ in page.context["buttons"]]


@pytest.mark.req("S-50")
def test_the_other_person_sees_what_would_happen_and_approves_it_once() -> None:
    anna, bob = Staff(RIGHT), Staff(RIGHT)
    decision = asked(anna)

    page = page_of(decision, bob)
    shown = page.content.decode()
    for words in ("Old name", "Northwind", "They changed their name.", "Nobody remembers the old name.", "staff-0"):
        assert words in shown
    assert buttons(page) == ["approve_request", "refuse_request"]
    confirmation = bob.get(f"{LIST}{decision.pk}/approve/")
    assert "Nobody remembers the old name." in confirmation.content.decode()
    assert PartnerTenant.objects.get().name == "Old name"

    done = bob.confirm(confirmation, answer="I called them.")

    assert PartnerTenant.objects.get().name == "Northwind"
    assert "Approved and done. 1 renamed." in told(done)
    assert buttons(done) == []
    assert "I called them." in done.content.decode()
    assert "already done" in told(bob.confirm(confirmation))


@pytest.mark.req("S-50")
def test_who_asked_is_offered_to_withdraw_and_cannot_approve_by_the_address() -> None:
    anna = Staff(RIGHT)
    decision = asked(anna)
    page = page_of(decision, anna)
    assert buttons(page) == ["withdraw_request", "override_request"]
    assert "You asked for it: another person decides." in page.content.decode()
    answer = anna.confirm(anna.get(f"{LIST}{decision.pk}/approve/"))
    assert "another person decides" in told(answer)
    assert PartnerTenant.objects.get().name == "Old name"
    gone = anna.confirm(anna.get(f"{LIST}{decision.pk}/withdraw/"))
    assert "Withdrawn." in told(gone)


@pytest.mark.req("S-50")
def test_alone_it_needs_the_typed_word_and_two_factors() -> None:
    anna = Staff(RIGHT)
    decision = asked(anna)
    address = f"{LIST}{decision.pk}/emergency/"
    assert "Type emergency to go on" in anna.confirm(anna.get(address), word="yes").content.decode()
    assert "two different factors" in told(anna.confirm(anna.get(address), word="emergency"))
    session, now = anna.session, timezone.now().timestamp()
    session["account_authentication_methods"] = [
        {"method": "password", "at": now},
        {"method": "mfa", "type": "webauthn", "at": now},
    ]
    session.save()
    done = anna.confirm(anna.get(address), word="emergency")
    assert "Approved and done." in told(done)
    assert "in an emergency" in done.content.decode()
    assert Incident.objects.open().get().cause == "decision_overridden"


@pytest.mark.req("S-49")
def test_approving_asks_for_a_fresh_proof(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.support.prove_urls"
    with time_machine.travel(timezone.now(), tick=False) as clock:
        decision, bob = asked(Staff(RIGHT)), Staff(RIGHT)
        confirmation = bob.get(f"{LIST}{decision.pk}/approve/")
        clock.shift(timedelta(seconds=proof.WITHIN + 1))
        assert bob.get(f"{LIST}{decision.pk}/approve/").status_code == 302
        assert bob.confirm(confirmation).status_code == 403
        assert PartnerTenant.objects.get().name == "Old name"


def test_what_would_do_something_else_now_is_shown_with_both_and_not_done() -> None:
    decision, bob = asked(Staff(RIGHT)), Staff(RIGHT)
    PartnerTenant.objects.update(name="Third name")
    shown = page_of(decision, bob).content.decode()
    assert "so it cannot be approved. Ask for it anew." in shown
    assert "Third name → Northwind" in shown
    assert "It would do something else now" in told(bob.confirm(bob.get(f"{LIST}{decision.pk}/approve/")))
    assert Decision.objects.get().state == Decision.State.WAITING
    PartnerTenant.objects.all().delete()
    assert "It cannot be done any more: The partner is gone." in page_of(decision, bob).content.decode()


def test_a_refusal_needs_a_reason_that_the_other_one_reads() -> None:
    anna, bob = Staff(RIGHT), Staff(RIGHT)
    decision = asked(anna)
    page = bob.confirm(bob.get(f"{LIST}{decision.pk}/refuse/"), answer=" ")
    assert Decision.objects.get().state == Decision.State.WAITING
    bob.confirm(page, answer="Call them first.")
    assert "Call them first." in page_of(decision, anna).content.decode()


def test_each_person_sees_what_they_may_decide_about_and_their_own() -> None:
    anna, bob, carol = Staff(RIGHT), Staff(RIGHT), Staff("consent.offboard_partner")
    auditor = Staff("decisions.view_decision")
    decision = asked(anna)
    for staff, sees in ((anna, True), (bob, True), (auditor, True), (carol, False)):
        rows = [row.pk for row in staff.get(LIST).context["cl"].result_list]
        assert (rows == [decision.pk]) is sees
    assert page_of(decision, carol).status_code == 302
    assert carol.get(f"{LIST}{decision.pk}/approve/").status_code == 404
    assert Staff("tenants.view_partnertenant").get(LIST).status_code == 403
    assert buttons(page_of(decision, auditor)) == []
    waits = [[row.pk for row in one.get(LIST, {"waits": "me"}).context["cl"].result_list] for one in (anna, bob)]
    assert waits == [[], [decision.pk]]


def test_without_a_second_account_the_page_says_what_to_do() -> None:
    anna = Staff(RIGHT)
    decision = asked(anna)
    assert "No other account has the right." in page_of(decision, anna).content.decode()
    Staff(RIGHT)
    assert "staff-1" in page_of(decision, anna).content.decode()


def test_what_a_command_does_is_said_after_the_approval() -> None:
    anna = Staff(RIGHT)
    decision = approve(asked(anna, RENAME_ON_THE_SERVER))
    shown = page_of(decision, anna).content.decode()
    assert "does it now, by the same command on the server" in shown


@pytest.mark.req("S-50")
def test_an_installation_of_one_person_is_a_setting_that_the_deploy_check_names(settings: Any) -> None:
    def found() -> list[str]:
        return [one.id for one in run_checks(include_deployment_checks=True) if one.id == "decisions.W001"]

    assert found() == []
    settings.STAFF_SINGLE_PERSON = True
    assert found() == ["decisions.W001"]
    anna = Staff(RIGHT)
    assert "you look at it once more, and confirm it" in what_comes_next()
    decision = asked(anna)
    assert buttons(page_of(decision, anna)) == ["approve_request", "withdraw_request"]
    anna.confirm(anna.get(f"{LIST}{decision.pk}/approve/"))
    assert PartnerTenant.objects.get().name == "Northwind"
