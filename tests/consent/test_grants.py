"""Grants as one value: they are compared by resource, and neither order nor the case of a name makes a difference."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consent.grants import Grants


@pytest.mark.parametrize(
    ("these", "those", "left"),
    [
        ({"a": ["X"]}, {"a": ["x"]}, {}),
        ({"a": ["x", "y"]}, {"a": ["y"]}, {"a": ["x"]}),
        ({"a": ["x"]}, {"b": ["x"]}, {"a": ["x"]}),
        ({}, {"a": ["x"]}, {}),
    ],
)
def test_what_only_one_holds_is_found_by_resource_and_without_regard_to_case(these: Any, those: Any, left: Any) -> None:
    assert (Grants(these) - Grants(those)).to_json() == left
    assert (Grants(these) - those).to_json() == left, "what a row keeps will do"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"b": ["X", "y"], "a": ["z"]}, {"a": ["Z"], "b": ["Y", "x"]}),
        ({"a": ["x"], "b": []}, {"a": ["x"]}),
        ({"a": []}, {}),
    ],
)
def test_equality_and_hash_do_not_depend_on_order_case_or_a_resource_without_a_name(one: Any, other: Any) -> None:
    assert Grants(one) == Grants(other) == one
    assert Grants(one).digest == Grants(other).digest
    assert len({Grants(one), Grants(other)}) == 1


def test_other_grants_are_not_equal() -> None:
    some = Grants({"a": ["x"]})
    assert some != Grants({"a": ["x", "y"]})
    assert some != Grants({"b": ["x"]})
    assert some != ["a"]
    assert some.digest != Grants({"a": ["x", "y"]}).digest


def test_the_hash_is_the_one_that_rows_hold_since_the_first_version() -> None:
    assert Grants({"a": ["User.Read.All", "B"]}).digest == (
        "f7dbedba3cfdaa60b094d3166e84c40f82f206d8283e0dd3b8d67bd386d16998"
    )


def test_a_value_stays_what_it_was() -> None:
    given = {"a": ["x"]}
    some = Grants(given)
    given["a"].append("y")
    some.to_json()["a"].append("z")
    assert some == {"a": ["x"]}
    with pytest.raises(TypeError):
        some.given["b"] = ["x"]  # type: ignore[index]


def test_rows_and_people_get_the_names_as_they_were_given() -> None:
    some = Grants({"b": ["User.Read.All", "A"], "a": ["z"], "c": []})
    assert json.dumps(some.to_json()) == '{"b": ["User.Read.All", "A"], "a": ["z"]}'
    assert some.lines() == ["b: User.Read.All, A", "a: z"]
    assert some.words() == "User.Read.All, A, z"
    assert not Grants({"c": []})
