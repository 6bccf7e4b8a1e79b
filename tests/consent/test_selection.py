"""What was chosen: kept as JSON by runs and plans, read again, and said in words."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from consent.models import CustomerConsent, PartnerConsent
from consent.selection import EVERYTHING, Selection
from tests.support import builders

# As rows keep them since the first version: a name must not get another meaning, or an old run chooses others.
STORED: list[dict[str, Any]] = [
    {},
    {"partner": ["aaaaaaaa-0000-4000-8000-000000000001"], "tag": ["gold"], "cloud": "usgov", "state": ["attention"]},
    {"registration": 3, "age": 24.0, "due": True},
    {"hour": 0},
    {"week_hour": 0},
    {"customer": ["aaaaaaaa-0000-4000-8000-000000000002"]},
    {"customers": [1, 2], "registration": 1},
    {"consents": [7]},
    {"partner": ["aaaaaaaa-0000-4000-8000-000000000001"], "offboarding": 4},
    {"undo": 12, "customers": [1]},
]


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: "-".join(stored) or "everything")
def test_what_rows_keep_is_read_and_written_the_same(stored: dict[str, Any]) -> None:
    """The same JSON: its hash tells whether a run of this selection is already open."""
    assert Selection.from_json(stored).to_json() == stored


def test_a_name_that_is_unknown_is_refused_because_ignoring_it_would_choose_more() -> None:
    with pytest.raises(TypeError, match="costumers"):
        Selection.from_json({"costumers": [1]})


@pytest.mark.django_db
def test_none_chooses_all_and_an_empty_list_nothing() -> None:
    registration = builders.registration()
    partner = builders.partner()
    consent = builders.consent(partner, registration)
    customer = builders.customer(partner)
    row = CustomerConsent.objects.create(customer=customer, registration=registration)

    assert list(EVERYTHING.partners()) == [partner]
    assert list(EVERYTHING.partner_consents()) == [consent]
    assert list(EVERYTHING.customer_consents()) == [row]
    for name in ("partner", "tag", "state"):
        assert not Selection.from_json({name: []}).partners().exists(), name
    for name in ("partner", "customer", "customers", "consents", "state"):
        assert not Selection.from_json({name: []}).customer_consents().exists(), name


@pytest.mark.django_db
def test_a_consent_is_left_out_by_its_own_age_and_a_partner_by_those_of_the_registration() -> None:
    partner, fresh = builders.partner(), builders.registration()
    stale = builders.registration(name="Other")
    builders.consent(partner, fresh)
    old = builders.consent(partner, stale)
    PartnerConsent.objects.exclude(pk=old.pk).update(last_try_at=timezone.now())

    assert list(Selection(age=1.0).partner_consents()) == [old]
    assert not Selection(age=1.0).partners().exists()
    assert list(Selection(age=1.0, registration=stale.pk).partners()) == [partner]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (EVERYTHING, []),
        (Selection(tag=("gold", "silver"), cloud="usgov"), ["tag gold, silver", "cloud usgov"]),
        (Selection(customer=tuple("abcdefg")), ["customer a, b, c, d, e and 2 more"]),
        (Selection(customers=(1,), undo=12), ["1 chosen customer", "what plan 12 changed"]),
        (Selection(consents=(1, 2), age=24.0), ["not tried for 24 hours", "2 chosen consents"]),
        (Selection(due=True, week_hour=5), ["what is due", "week hour 5"]),
    ],
    ids=str,
)
def test_a_selection_is_said_in_words(chosen: Selection, words: list[str]) -> None:
    assert chosen.words() == words
