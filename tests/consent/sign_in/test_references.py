"""A code that a partner quotes leads to what the partner read, and to what staff answer and do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from consent.invitations import links
from consent.models import ConsentFlow, ConsentLink
from consent.sign_in.references import Step, reference
from consent.words import PROBLEMS, RESULTS, Problem, Result
from tests.support import builders
from tests.support.portal import Browser, Portal
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db
STORED = [one for one in Problem if one not in {Problem.LINK_UNUSABLE, Problem.STILL_WORKING, Problem.MALFORMED}]


def attempt(outcome: str = "refused", **columns: Any) -> ConsentFlow:
    links.issue(builders.partner(name="Harbour Managed"), builders.registration(), actor=builders.ACTOR)
    now = timezone.now()
    given = {
        "claimed_at": None if outcome == "open" else now,
        "finished_at": None if outcome in {"open", "working"} else now,
        "expires_at": now + timedelta(minutes=10),
        **columns,
    }
    return ConsentFlow.objects.create(
        link=ConsentLink.objects.get(),
        public_id="9f3a61c2" + "0" * 24,
        state_hash="0" * 64,
        binder_hash="0" * 64,
        outcome=outcome,
        correlation_id=builders.guid(),
        **given,
    )


def test_the_code_on_a_real_refusal_leads_to_its_words_and_its_correlation_id(portal: Portal) -> None:
    who = Browser()
    page = portal.onboard(who, accept=False).content.decode()
    flow = ConsentFlow.objects.get()
    assert flow.reference in page

    about = reference(f"  {flow.reference[:4].lower()} {flow.reference[4:]} ")

    assert about is not None
    assert about.flow == flow
    assert about.heading in page
    assert about.read in page
    assert (about.step, about.correlation_id) == (Step.AT_MICROSOFT, flow.correlation_id)
    assert flow.reference in about.answer
    assert "choose Accept on Microsoft’s page" in about.answer
    assert about.to_do == "Nothing failed. Ask whether something on the page was unclear."


@pytest.mark.parametrize("code", ["", "9F3A61C", "9F3A61C22", "ZZZZZZZZ", "00000000", "9F3A61C2' OR 1=1"])
def test_a_code_that_nobody_has_leads_nowhere(code: str) -> None:
    attempt("connected")
    assert reference(code) is None


@pytest.mark.parametrize("problem", STORED)
def test_each_refusal_says_what_was_read_what_to_answer_and_what_to_do(problem: Problem) -> None:
    attempt(problem=problem.value, code="x")
    about = reference("9F3A61C2")
    assert about is not None
    words = PROBLEMS[problem]
    assert (about.heading, about.read, about.who) == (str(words.heading), str(words.what), str(words.who_words))
    assert about.to_do
    assert str(words.what) in about.answer
    assert "reference on this page" not in about.answer, "it was sent already"
    assert "Send us" not in about.answer


@pytest.mark.parametrize("result", Result)
def test_each_good_end_says_what_was_read(result: Result) -> None:
    state = "failed" if result is Result.TO_MEND else "passed"
    outcome = "connected" if result is Result.TO_MEND else result.value
    attempt(outcome, checks=[{"check": "admin_agent", "state": state}])
    about = reference("9f3a-61c2")
    assert about is not None
    assert (about.heading, about.step) == (str(RESULTS[result].heading), Step.DONE)
    assert about.read in about.answer


@pytest.mark.parametrize(
    ("columns", "step"),
    [
        ({"outcome": "open"}, Step.AT_MICROSOFT),
        ({"outcome": "open", "expires_at": timezone.now() - timedelta(days=1)}, Step.LEFT),
        ({"outcome": "working"}, Step.CHECKING),
        ({"problem": "wrong_tenant", "code": "id_token_tenant"}, Step.WHO_SIGNED_IN),
        ({"problem": "wrong_tenant", "code": "AADSTS50020"}, Step.AT_MICROSOFT),
        ({"problem": "role_missing", "code": "HTTP403"}, Step.RIGHTS),
        ({"problem": "storage_unavailable", "code": "x"}, Step.KEEPING),
    ],
)
def test_it_says_how_far_the_attempt_came(columns: dict[str, Any], step: Step) -> None:
    attempt(**columns)
    about = reference("9F3A61C2")
    assert about is not None
    assert about.step is step


def test_a_number_of_microsoft_is_said_in_words() -> None:
    attempt(problem="blocked_by_policy", code="AADSTS53003")
    about = reference("9F3A61C2")
    assert about is not None
    assert "Conditional Access" in about.cause


def test_the_page_of_a_code_shows_all_of_it_to_staff() -> None:
    flow = attempt(problem="admin_approval_needed", code="AADSTS90094")
    page = Staff().get(reverse("admin:consent_consentflow_change", args=[flow.pk])).content.decode()
    for text in (
        "A Global Administrator has to accept",
        "An administrator of your tenant",
        "Thank you for the reference 9F3A61C2.",
        "Wait for the partner&#x27;s administrator",
        Step.AT_MICROSOFT.replace("'", "&#x27;"),
        flow.correlation_id,
    ):
        assert text in page
    assert "<h1>Reference 9F3A61C2</h1>" in page
    assert 'data-copy="Thank you for the reference 9F3A61C2.' in page
    assert reverse("admin:tenants_partnertenant_change", args=[flow.link.partner_id]) in page
