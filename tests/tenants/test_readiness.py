"""May consent be pushed to this customer? The exact reason, and who must act."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tenants.gdap import AccessAssignment, Relationship
from tenants.readiness import CONSENT_ROLES, READY, judge

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GLOBAL, APPLICATION, CLOUD_APPLICATION = CONSENT_ROLES
READERS = "88d8e3e3-8f55-4a1e-953a-9b9898b8876b"


def relationship(status: str = "active", *, ends_in: timedelta | None = timedelta(days=30)) -> Relationship:
    return Relationship(
        relationship_id="one",
        display_name="One",
        customer_tenant_id=None,
        status=status,
        roles=frozenset(CONSENT_ROLES),
        activated_at=NOW - timedelta(days=1),
        ends_at=None if ends_in is None else NOW + ends_in,
    )


def assignment(*roles: str, status: str = "active") -> AccessAssignment:
    return AccessAssignment(
        assignment_id="a", status=status, group_id="g", roles=frozenset(roles), created_at=NOW - timedelta(days=1)
    )


@pytest.mark.parametrize("role", [GLOBAL, APPLICATION, CLOUD_APPLICATION])
@pytest.mark.parametrize("status", ["active", "expiring"])
def test_an_active_assignment_of_an_accepted_role_is_ready(role: str, status: str) -> None:
    assert judge([(relationship(status), [assignment(role)])], now=NOW, own_groups=frozenset({"g"})) == READY


def test_a_relationship_without_an_end_is_ready() -> None:
    assert judge([(relationship(ends_in=None), [assignment(GLOBAL)])], now=NOW).ready


@pytest.mark.parametrize(
    ("known", "words", "owner"),
    [
        ([], "No active GDAP", "partner"),
        ([(relationship("approvalPending"), [])], "waits for the customer's approval", "customer"),
        ([(relationship("approvalPending"), []), (relationship("expired"), [])], "waits for the customer", "customer"),
        ([(relationship("expired"), [assignment(GLOBAL)])], "No active GDAP", "partner"),
        ([(relationship("terminated"), [assignment(GLOBAL)])], "No active GDAP", "partner"),
        ([(relationship("created"), [assignment(GLOBAL)])], "No active GDAP", "partner"),
        ([(relationship(ends_in=timedelta(seconds=-1)), [assignment(GLOBAL)])], "No active GDAP", "partner"),
        ([(relationship(), [])], "no security group is assigned", "partner"),
        ([(relationship(), [assignment(GLOBAL, status="pending")])], "no security group is assigned", "partner"),
        ([(relationship(), [assignment(READERS)])], "Application Administrator", "partner"),
        ([(relationship(), [assignment()])], "holds one of the roles", "partner"),
    ],
)
def test_every_other_case_names_its_reason_and_who_must_act(
    known: list[tuple[Relationship, list[AccessAssignment]]], words: str, owner: str
) -> None:
    verdict = judge(known, now=NOW)

    assert not verdict.ready
    assert words in verdict.reason
    assert verdict.owner == owner


def test_one_good_relationship_among_dead_ones_is_enough() -> None:
    known = [
        (relationship("expired"), [assignment(GLOBAL)]),
        (relationship(), [assignment(READERS), assignment(CLOUD_APPLICATION)]),
        (relationship("approvalPending"), []),
    ]
    assert judge(known, now=NOW, own_groups=frozenset({"g"})) == READY


def test_an_assignment_of_a_dead_relationship_does_not_help_a_live_one() -> None:
    known = [(relationship("terminated"), [assignment(GLOBAL)]), (relationship(), [assignment(READERS)])]
    assert not judge(known, now=NOW).ready


def test_a_service_account_outside_the_group_and_a_fresh_assignment_are_told_apart() -> None:
    fresh = AccessAssignment(
        assignment_id="a",
        status="active",
        group_id="g",
        roles=frozenset([GLOBAL]),
        created_at=NOW - timedelta(minutes=14),
    )

    outside = judge([(relationship(), [assignment(GLOBAL)])], now=NOW, own_groups=frozenset({"other"}))
    young = judge([(relationship(), [fresh])], now=NOW, own_groups=frozenset({"g"}))

    assert (outside.ready, outside.owner) == (False, "partner")
    assert "service account is in none" in outside.reason
    assert (young.ready, young.owner) == (False, "nobody")
    assert "15 minutes" in young.reason


def test_groups_that_cannot_be_read_are_said_to_be_unverified_with_the_permission_that_would_show_them() -> None:
    verdict = judge([(relationship(), [assignment(GLOBAL)])], now=NOW)

    assert verdict.ready
    assert "could not be verified" in verdict.unverified
    assert "Directory.Read.All" in verdict.unverified


def test_the_accepted_roles_are_a_choice_of_the_deployment() -> None:
    known = [(relationship(), [assignment(APPLICATION)])]

    assert not judge(known, now=NOW, accepted=[CLOUD_APPLICATION]).ready
    assert judge(known, now=NOW, accepted=[APPLICATION]).ready
