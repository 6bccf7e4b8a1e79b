"""Two persons: one asks, another one decides about exactly that, and it is done once (S-50).

Covers: portal.decisions.models, portal.decisions.doing, portal.decisions.records, portal.decisions.kinds.
"""

from __future__ import annotations

import ast
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.audit.trail import Actor
from portal.decisions import doing, service
from portal.decisions.kinds import CannotBeDone, Result
from portal.decisions.models import Decision
from portal.decisions.records import DecisionRefused
from portal.incidents.models import Incident
from portal.rights import Forbidden
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.decisions import RENAME, RENAME_ON_THE_SERVER, Broken, account, approve, person
from tests.support.source import ROOT, module_name, modules

pytestmark = pytest.mark.django_db
State = Decision.State
RIGHT = RENAME.permission


def asked(new_name: str = "Northwind", kind: Any = RENAME) -> Decision:
    """Let Anna ask for a new name of a partner."""
    partner = builders.partner(name="Old name")
    anna = account("anna", RIGHT)
    decision, new = service.ask(
        kind,
        {"partner": partner.pk, "name": new_name},
        why="They changed their name.",
        actor=person(anna).actor,
        account=anna,
    )
    assert new
    return decision


def name_of(decision: Decision) -> str:
    return PartnerTenant.objects.get(pk=decision.parameters["partner"]).name


def events(decision: Decision) -> list[str]:
    found = AuditEvent.objects.about(decision=decision.pk).order_by("sequence")
    return [f"{one.action}:{one.outcome}" for one in found]


def refused(decision: Decision, by: Any, **proof: Any) -> str:
    """Let somebody try to approve, and return what they are told."""
    with pytest.raises(DecisionRefused) as reason:
        service.approve(decision, person=person(by, **proof))
    assert name_of(decision) == "Old name"
    return str(reason.value)


@pytest.mark.req("S-50")
def test_another_person_approves_and_it_is_done_in_the_name_of_the_first() -> None:
    decision = asked()
    assert (decision.what.startswith("Rename"), decision.whom) == (True, "Old name")
    assert decision.expires_at - decision.requested_at == timedelta(hours=24)
    assert Incident.objects.open().get().cause == "decision_waits"

    done = service.approve(decision, person=person(account("bob", RIGHT)), answer="I called them.")

    assert name_of(decision) == "Northwind"
    assert (done.state, done.way, done.decided_by, done.outcome) == (State.DONE, "second", "bob", "1 renamed.")
    assert done.outcome_subject == {"partner": decision.parameters["partner"]}
    assert events(decision) == ["decision.asked:done", "decision.approved:done", "decision.done:done"]
    by = {one.action: one for one in AuditEvent.objects.about(decision=decision.pk)}
    actors = {name.partition(".")[2]: one.actor for name, one in by.items()}
    assert actors == {"asked": "anna", "approved": "bob", "done": "anna"}
    assert by["decision.done"].details["approved_by"] == "bob"
    assert by["decision.done"].subject["partner"] == decision.parameters["partner"]
    assert not Incident.objects.open().exists()


@pytest.mark.req("S-50")
def test_what_people_write_stands_in_the_row_and_not_in_the_trail() -> None:
    decision = asked()
    service.refuse(decision, person=person(account("bob", RIGHT)), answer="I do not believe it.")
    written = str(list(AuditEvent.objects.values_list("details", "subject")))
    assert "changed their name" not in written
    assert "believe" not in written
    decision.refresh_from_db()
    assert (decision.why, decision.answer) == ("They changed their name.", "I do not believe it.")


@pytest.mark.req("S-50")
def test_only_a_kind_that_says_so_is_approved_on_the_server_and_by_a_command_only() -> None:
    decision = asked()
    with pytest.raises(DecisionRefused, match="in the admin only"):
        service.approve_on_server(decision, actor=builders.ACTOR)
    with pytest.raises(Forbidden):
        service.approve_on_server(decision, actor=Actor.staff("bob", None, may=RIGHT.__eq__))
    assert name_of(decision) == "Old name"


@pytest.mark.req("S-50")
def test_who_asked_cannot_approve_not_even_as_superuser() -> None:
    decision = asked()
    assert decision.requester is not None
    decision.requester.is_superuser = True
    decision.requester.save()
    assert refused(decision, decision.requester) == "You asked for it: another person decides."
    assert events(decision)[-1] == "decision.approved:refused"
    last = AuditEvent.objects.about(decision=decision.pk).latest("sequence")
    assert (last.actor, last.details["reason"]) == ("anna", "own")


@pytest.mark.req("S-50")
def test_a_new_name_of_the_account_makes_no_other_person() -> None:
    decision = asked()
    anna = decision.requester
    assert anna is not None
    anna.username = "anna-maria"
    anna.save()
    assert refused(decision, anna) == "You asked for it: another person decides."


@pytest.mark.req("S-50")
def test_who_lacks_the_right_or_is_switched_off_cannot_approve() -> None:
    decision = asked()
    reader, former = account("reader", "tenants.view_partnertenant"), account("former", RIGHT)
    type(former).objects.filter(pk=former.pk).update(is_active=False)  # the session's copy does not know it yet
    for one in (reader, former):
        assert refused(decision, one) == "You have not the right to decide about this."


@pytest.mark.req("S-50")
def test_what_was_asked_by_somebody_who_lost_the_right_is_not_done() -> None:
    decision = asked()
    assert decision.requester is not None
    decision.requester.user_permissions.clear()
    assert "anna, who asked for it, has not the right to any more" in refused(decision, account("bob", RIGHT))


@pytest.mark.req("S-49")
@pytest.mark.parametrize("proven", [None, 301.0, -5.0])
def test_without_a_fresh_proof_nothing_is_approved_or_refused(proven: float | None) -> None:
    decision, bob = asked(), account("bob", RIGHT)
    assert "Prove first that it is you" in refused(decision, bob, proven=proven)
    with pytest.raises(DecisionRefused, match="Prove first"):
        service.refuse(decision, person=person(bob, proven=proven), answer="No.")
    decision.refresh_from_db()
    assert decision.state == State.WAITING


@pytest.mark.req("S-50")
def test_what_would_do_something_else_now_is_refused_with_the_difference() -> None:
    decision, bob = asked(), account("bob", RIGHT)
    PartnerTenant.objects.filter(pk=decision.parameters["partner"]).update(name="Third name")
    with pytest.raises(DecisionRefused) as reason:
        service.approve(decision, person=person(bob))
    assert "Name: before Old name → Northwind, now Third name → Northwind" in str(reason.value)
    assert [one.label for one in service.look(decision).differences] == ["Name", "For whom"]
    PartnerTenant.objects.filter(pk=decision.parameters["partner"]).delete()
    with pytest.raises(DecisionRefused, match=r"^The partner is gone\.$"):
        service.approve(decision, person=person(bob))


@pytest.mark.req("S-50")
@pytest.mark.parametrize("column", ["parameters", "requester", "requested_by", "expires_at", "digest", "preview"])
def test_a_row_that_was_changed_past_the_portal_approves_nothing_and_is_an_incident(column: str) -> None:
    decision, bob = asked(), account("bob", RIGHT)
    carol = account("carol", RIGHT)
    changed: dict[str, Any] = {
        "parameters": {**decision.parameters, "name": "Mallory"},
        "requester": carol,
        "requested_by": "carol",
        "expires_at": timezone.now() + timedelta(days=900),
        "digest": "0" * 64,
        "preview": {**decision.preview, "changes": []},
    }
    Decision.objects.filter(pk=decision.pk).update(**{column: changed[column]})
    assert "changed in the database" in refused(decision, bob)
    assert Incident.objects.open().filter(cause="decision_changed").exists()


@pytest.mark.req("S-50")
def test_an_approval_that_only_stands_in_the_row_is_none() -> None:
    decision = asked(kind=RENAME_ON_THE_SERVER)
    Decision.objects.filter(pk=decision.pk).update(
        state=State.APPROVED, way="second", decided_by="bob", decided_at=timezone.now(), decision_seal="0" * 64
    )
    with pytest.raises(DecisionRefused, match="changed in the database"):
        doing.take(RENAME_ON_THE_SERVER, decision.parameters)


@pytest.mark.req("S-50")
def test_after_a_day_it_expires_and_cannot_be_approved() -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        decision, bob = asked(), account("bob", RIGHT)
        clock.shift(timedelta(hours=24))
        assert "Its time is over" in refused(decision, bob)
        assert service.tidy() == "1 expired, 0 cut off, 0 removed"
        decision.refresh_from_db()
        assert decision.state == State.EXPIRED
        assert events(decision)[-1] == "decision.expired:done"
        assert not Incident.objects.open().exists()
        clock.shift(service.KEPT_FOR + timedelta(days=1))
        assert service.tidy() == "0 expired, 0 cut off, 1 removed"


@pytest.mark.req("S-50")
def test_it_is_decided_once_and_done_once() -> None:
    decision = asked(kind=RENAME_ON_THE_SERVER)
    approved = service.approve(decision, person=person(account("bob", RIGHT)))
    assert approved.state == State.APPROVED  # a command on the server does it
    with pytest.raises(DecisionRefused, match="Nothing waits"):
        service.approve(decision, person=person(account("carol", RIGHT)))
    taken = doing.take(RENAME_ON_THE_SERVER, decision.parameters)
    assert taken is not None
    assert taken.noted() == {"decision": decision.pk, "approved_by": "bob", "way": "second"}
    assert taken.actor.name == "anna"
    assert doing.take(RENAME_ON_THE_SERVER, decision.parameters) is None
    with pytest.raises(DecisionRefused, match="begun before"):
        doing.begin(approved)
    with doing.carried_out(taken) as deed:
        deed.result = Result(words="Done.")
    decision.refresh_from_db()
    assert (decision.state, decision.outcome) == (State.DONE, "Done.")
    assert doing.take(RENAME_ON_THE_SERVER, decision.parameters) is None


@pytest.mark.req("S-50")
def test_what_was_approved_holds_for_nothing_else() -> None:
    decision = asked(kind=RENAME_ON_THE_SERVER)
    service.approve(decision, person=person(account("bob", RIGHT)))
    assert doing.take(RENAME_ON_THE_SERVER, {**decision.parameters, "name": "Other"}) is None
    PartnerTenant.objects.filter(pk=decision.parameters["partner"]).update(name="Third name")
    assert doing.take(RENAME_ON_THE_SERVER, decision.parameters) is None


@pytest.mark.parametrize(
    ("name", "said"), [("broken", "Broken; the log says where."), ("refused", "This name is taken.")]
)
def test_a_deed_that_fails_is_written_down_and_not_repeated(name: str, said: str) -> None:
    done = approve(asked(name))
    assert (done.state, done.outcome, name_of(done)) == (State.FAILED, said, "Old name")
    assert events(done)[-1] == "decision.done:failed"


def test_what_goes_on_where_it_stopped_may_be_done_again_until_it_expires() -> None:
    decision = approve(asked(kind=RENAME_ON_THE_SERVER))
    for _ in range(2):
        taken = doing.take(RENAME_ON_THE_SERVER, decision.parameters)
        assert taken is not None
        with pytest.raises(Broken), doing.carried_out(taken):
            raise Broken
    decision.refresh_from_db()
    assert (decision.state, decision.started_at) == (State.APPROVED, None)


def test_what_was_cut_off_is_said_to_be_unknown() -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        decision = approve(asked(kind=RENAME_ON_THE_SERVER))
        doing.take(RENAME_ON_THE_SERVER, decision.parameters)
        assert service.tidy() == "0 expired, 0 cut off, 0 removed"
        clock.shift(timedelta(hours=2))
        assert service.tidy() == "0 expired, 1 cut off, 0 removed"
    decision.refresh_from_db()
    assert decision.state == State.FAILED
    assert "nobody knows how far it came" in decision.outcome


def test_who_asked_withdraws_and_nobody_else_does() -> None:
    decision, bob = asked(), account("bob", RIGHT)
    with pytest.raises(DecisionRefused, match="Only the person who asked"):
        service.withdraw(decision, person=person(bob))
    assert decision.requester is not None
    gone = service.withdraw(decision, person=person(decision.requester, proven=None))
    assert gone.state == State.WITHDRAWN
    assert events(decision)[-1] == "decision.withdrawn:done"
    assert "Nothing waits" in refused(decision, bob)


def test_what_was_approved_for_a_command_can_still_be_stopped() -> None:
    decision = approve(asked(kind=RENAME_ON_THE_SERVER))
    stopped = service.refuse(decision, person=person(account("bob", RIGHT)), answer="Wait.")
    assert stopped.state == State.REFUSED
    assert doing.take(RENAME_ON_THE_SERVER, decision.parameters) is None


def test_the_same_is_asked_for_once_and_a_reason_is_needed() -> None:
    decision = asked()
    bob = account("bob", RIGHT)
    again, new = service.ask(RENAME, decision.parameters, why="Me too.", actor=person(bob).actor, account=bob)
    assert (again.pk, new) == (decision.pk, False)
    with pytest.raises(DecisionRefused, match="Say why"):
        service.ask(RENAME, decision.parameters, why="  ", actor=builders.ACTOR)
    reader = account("reader", "tenants.view_partnertenant")
    with pytest.raises(DecisionRefused, match="not the right to ask"):
        service.ask(RENAME, decision.parameters, why="x", actor=person(reader).actor, account=reader)
    with pytest.raises(CannotBeDone):
        service.ask(RENAME, {"partner": 0, "name": "x"}, why="x", actor=builders.ACTOR)


@pytest.mark.req("S-50")
def test_in_an_emergency_one_person_needs_two_factors_and_everybody_is_told() -> None:
    decision = asked()
    anna = decision.requester
    assert anna is not None
    two = ("password", "mfa webauthn")
    for given, said in (
        ({"word": "emergency", "person": person(anna, factors=("password",))}, "two different factors"),
        ({"word": "yes", "person": person(anna, factors=two)}, "Type emergency"),
        ({"word": "emergency", "person": person(anna, factors=two, proven=400)}, "Prove first"),
    ):
        with pytest.raises(DecisionRefused, match=said):
            service.override(decision, **given)  # type: ignore[arg-type]
    assert name_of(decision) == "Old name"
    done = service.override(decision, person=person(anna, factors=two), word="Emergency")
    assert (done.state, done.way, name_of(decision)) == (State.DONE, "emergency", "Northwind")
    assert Incident.objects.open().get().cause == "decision_overridden"
    last = AuditEvent.objects.about(decision=decision.pk).latest("sequence")
    assert (last.details["way"], last.details["approved_by"]) == ("emergency", "")


@pytest.mark.req("S-50")
def test_a_command_goes_on_in_an_emergency_with_an_incident() -> None:
    partner = builders.partner(name="Old name")
    parameters = {"partner": partner.pk, "name": "Northwind"}
    taken = service.in_emergency(RENAME_ON_THE_SERVER, parameters, why="It burns.", actor=builders.ACTOR)
    assert (taken.way, taken.approved_by, taken.actor) == ("emergency", "", builders.ACTOR)
    assert Incident.objects.open().get().cause == "decision_overridden"


@pytest.mark.req("S-50")
def test_one_person_alone_confirms_where_the_setting_says_so(settings: Any) -> None:
    settings.STAFF_SINGLE_PERSON = True
    decision = asked()
    assert decision.requester is not None
    with pytest.raises(DecisionRefused, match="Prove first"):
        service.approve(decision, person=person(decision.requester, proven=None))
    done = service.approve(decision, person=person(decision.requester))
    assert (done.state, done.way) == (State.DONE, "single")


@pytest.mark.req("S-50")
def test_only_the_service_makes_an_approval() -> None:
    made = [
        module_name(path)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Approval"
    ]
    assert made == ["portal.decisions.doing"]
    assert (ROOT / "portal/decisions/doing.py").exists()
