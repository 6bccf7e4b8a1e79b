"""What partners read: complete for each cause, and chosen, never copied, from what Microsoft or a browser sends.

Covers: consent.words.checks, consent.words.failures, consent.words.permissions, consent.words.problems,
consent.words.results.
"""

from __future__ import annotations

import pytest

from consent.permissions import PERMISSION_SETS
from consent.words import (
    CHECK_WORDS,
    PERMISSION_WORDS,
    PROBLEMS,
    Problem,
    Who,
    permission_groups,
    problem_for_callback_error,
)
from consent.words.permissions import RESOURCE_NAMES
from portal.microsoft.clouds import GLOBAL


@pytest.mark.parametrize("problem", Problem)
def test_each_problem_says_what_happened_who_acts_and_at_least_one_next_step(problem: Problem) -> None:
    words = PROBLEMS[problem]
    assert len(str(words.heading)) > 10
    assert len(str(words.what)) > 40
    assert str(words.who_words)
    assert words.steps
    assert all(len(str(step)) > 15 for step in words.steps)
    assert len(set(map(str, words.steps))) == len(words.steps)


@pytest.mark.parametrize("problem", Problem)
def test_the_status_of_a_problem_fits_who_acts(problem: Problem) -> None:
    words = PROBLEMS[problem]
    if words.who is Who.MICROSOFT:
        assert words.status == 503
    elif problem is Problem.INTERRUPTED:
        assert words.status == 503, "it was our fault, although the person goes on"
    elif words.who in {Who.YOU, Who.YOUR_ADMINISTRATOR}:
        assert words.status < 500


@pytest.mark.parametrize("problem", Problem)
def test_a_problem_fits_the_column_that_stores_it(problem: Problem) -> None:
    assert len(problem.value) <= 40
    assert Problem(problem.value) is problem


def test_a_person_who_only_has_to_wait_for_us_is_not_sent_round_in_circles() -> None:
    for problem in (Problem.OUR_FAULT, Problem.CLOCK, Problem.PARTNER_CENTER_REFUSED):
        assert PROBLEMS[problem].who is Who.US
        assert not PROBLEMS[problem].start_again


@pytest.mark.req("S-03")
def test_a_dead_link_is_not_found_and_gives_no_reason_away() -> None:
    words = PROBLEMS[Problem.LINK_UNUSABLE]
    assert words.status == 404
    assert not words.start_again


def test_a_wrong_tenant_is_told_how_to_remove_the_consent() -> None:
    steps = " ".join(map(str, PROBLEMS[Problem.WRONG_TENANT].steps))
    for word in ("Microsoft Entra admin center", "Enterprise applications", "Delete"):
        assert word in steps


@pytest.mark.req("S-23")
@pytest.mark.parametrize(
    ("error", "codes", "subcode", "expected"),
    [
        ("access_denied", [], "cancel", Problem.DECLINED),
        ("access_denied", [65004], "", Problem.DECLINED),
        ("access_denied", [], "", Problem.DECLINED),
        ("consent_required", [65004], "", Problem.DECLINED),
        ("consent_required", [65001], "", Problem.DECLINED),
        ("access_denied", [90094], "", Problem.ADMIN_APPROVAL_NEEDED),
        ("interaction_required", [90094], "", Problem.ADMIN_APPROVAL_NEEDED),
        ("access_denied", [90095], "", Problem.ADMIN_APPROVAL_NEEDED),
        ("access_denied", [90093], "", Problem.ADMIN_APPROVAL_NEEDED),
        ("interaction_required", [50020], "", Problem.WRONG_TENANT),
        ("interaction_required", [16000], "", Problem.WRONG_TENANT),
        ("interaction_required", [51004], "", Problem.WRONG_TENANT),
        ("interaction_required", [90072], "", Problem.WRONG_TENANT),
        ("access_denied", [500208], "", Problem.PERSONAL_OR_GUEST_ACCOUNT),
        ("interaction_required", [50014], "", Problem.PERSONAL_OR_GUEST_ACCOUNT),
        ("interaction_required", [50076], "", Problem.MFA_MISSING),
        ("interaction_required", [50079], "", Problem.MFA_MISSING),
        ("interaction_required", [50072], "", Problem.MFA_MISSING),
        ("access_denied", [53003], "", Problem.BLOCKED_BY_POLICY),
        ("interaction_required", [53000], "", Problem.BLOCKED_BY_POLICY),
        ("access_denied", [530032], "", Problem.BLOCKED_BY_POLICY),
        ("access_denied", [50105], "", Problem.BLOCKED_BY_POLICY),
        ("unauthorized_client", [7000112], "", Problem.BLOCKED_BY_POLICY),
        ("invalid_resource", [650052], "", Problem.PARTNER_CENTER_REFUSED),
        ("invalid_resource", [500011], "", Problem.PARTNER_CENTER_REFUSED),
        ("temporarily_unavailable", [90033], "", Problem.TRY_AGAIN),
        ("temporarily_unavailable", [], "", Problem.TRY_AGAIN),
        ("server_error", [50000], "", Problem.TRY_AGAIN),
        ("server_error", [], "", Problem.TRY_AGAIN),
        ("login_required", [50058], "", Problem.START_AGAIN),
        ("interaction_required", [50089], "", Problem.START_AGAIN),
        ("invalid_request", [900561], "", Problem.START_AGAIN),
        ("interaction_required", [], "", Problem.START_AGAIN),
        ("invalid_scope", [70011], "", Problem.OUR_FAULT),
        ("invalid_request", [50011], "", Problem.OUR_FAULT),
        ("unauthorized_client", [700016], "", Problem.OUR_FAULT),
        ("unsupported_response_type", [700054], "", Problem.OUR_FAULT),
    ],
)
def test_a_known_answer_leads_to_its_page(error: str, codes: list[int], subcode: str, expected: Problem) -> None:
    assert problem_for_callback_error(error, codes, subcode) is expected


@pytest.mark.req("S-23")
@pytest.mark.parametrize(
    ("error", "codes", "subcode"),
    [
        ("", [], ""),
        ("brand_new_error", [99999999], "brand_new"),
        ("<script>alert(1)</script>", [], ""),
        ("Access_Denied", [], "CANCEL"),
        ("x" * 100_000, [-1, 0], "\u202e"),
    ],
)
def test_anything_unknown_leads_to_one_general_page(error: str, codes: list[int], subcode: str) -> None:
    assert problem_for_callback_error(error, codes, subcode) is Problem.START_AGAIN


def test_the_first_known_number_decides_and_companions_do_not_hide_it() -> None:
    assert problem_for_callback_error("access_denied", [70002, 53003], "") is Problem.BLOCKED_BY_POLICY
    assert problem_for_callback_error("access_denied", [50076, 53003], "") is Problem.MFA_MISSING


@pytest.mark.req("S-05")
@pytest.mark.parametrize("chosen", PERMISSION_SETS)
def test_the_page_lists_each_permission_that_the_request_asks_for(chosen: str) -> None:
    listed = {
        (line.name, str(line.title))
        for group in permission_groups(PERMISSION_SETS[chosen].resources())
        for line in group.permissions
    }
    asked = {scope.rsplit("/", 1)[-1] for scope in PERMISSION_SETS[chosen].authorize_scopes(GLOBAL)}
    assert {name for name, title in listed} == asked
    assert "Another permission" not in {title for name, title in listed}


def test_each_permission_has_words_of_its_own() -> None:
    for key, words in PERMISSION_WORDS.items():
        resource, _, scope = key.partition("/")
        assert resource in RESOURCE_NAMES
        assert scope not in str(words.title)
        assert str(words.why).endswith(".")
    assert len({str(words.title) for words in PERMISSION_WORDS.values()}) == len(PERMISSION_WORDS)


def test_a_permission_without_words_is_shown_by_its_raw_name() -> None:
    resource = "00000000-0000-0000-0000-0000000000aa"
    [group, _] = permission_groups({resource: ["Everything.Delete.All"]})
    assert group.resource == resource
    assert [line.name for line in group.permissions] == ["Everything.Delete.All"]
    assert "ask us" in str(group.permissions[0].why)


@pytest.mark.req("S-18")
@pytest.mark.parametrize("check", CHECK_WORDS)
def test_each_check_has_its_own_sentence_for_each_state(check: str) -> None:
    assert set(CHECK_WORDS[check]) == {"passed", "failed", "unverified"}
    assert len({str(words["detail"]) for words in CHECK_WORDS[check].values()}) == 3
    assert len({str(words["label"]) for words in CHECK_WORDS[check].values()}) == 1
