"""That items are done is written for many together; until then each stands as sent, whatever happens to the process."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consent.customers.applying import GRANTS_LOST, Applied
from consent.customers.finishing import finish
from consent.models import ChangedBy, ConsentObservation, ConsentPlanItem, CustomerConsent
from consent.runs.apply_plan import APPLY_PLAN, start_apply
from portal.incidents.models import Incident
from portal.incidents.service import report
from portal.microsoft.diagnosis import Owner
from portal.runs import listing
from portal.runs.kinds import Context
from portal.runs.models import Run
from tests.support import builders
from tests.support.plans import first_customers, plan_for, requests, the_consent, the_item, work
from tests.support.portal import Portal

pytestmark = pytest.mark.django_db


def worked(run: Run) -> list[Applied]:
    """Work all units of a run, and write nothing of what came of them."""
    names = {item.key: item.correlation_id for item in run.items.all()}
    context = Context(
        run_id=run.pk,
        actor=builders.ACTOR,
        scope=run.scope,
        options=run.options,
        correlation_id=names.__getitem__,
        halted=lambda: False,
    )
    found = []
    for key, task in APPLY_PLAN.load(list(names), context).items():
        found.append(APPLY_PLAN.work(key, task, context).result)
    return found


def begun(portal: Portal, customers: int) -> Run:
    first_customers(portal, customers)
    run, _ = start_apply(plan_for(portal), actor=builders.ACTOR)
    listing.list_units(run, APPLY_PLAN)
    return run


@pytest.mark.req("R-20")
def test_what_was_done_and_not_written_stands_as_sent_and_the_next_process_finds_it_done(portal: Portal) -> None:
    run = begun(portal, 1)

    (applied,) = worked(run)

    assert applied.reading is not None
    assert (the_item().phase, the_item().result) == ("posting", "")
    assert (the_consent().state, the_consent().request_open) == ("unknown", True)
    assert not ConsentObservation.objects.exists()

    work(run)

    assert requests(portal) == ["POST"]
    assert (the_item().result, the_consent().state) == ("done", "granted")
    assert ConsentObservation.objects.get().changed_by == ChangedBy.US


def test_many_items_are_written_by_few_statements(portal: Portal) -> None:
    done = worked(begun(portal, 3))
    with CaptureQueriesContext(connection) as one:
        finish(done[:1], actor=builders.ACTOR)
    with CaptureQueriesContext(connection) as two:
        finish(done[1:], actor=builders.ACTOR)

    assert len(two) == len(one)
    assert set(ConsentPlanItem.objects.values_list("result", "owner", "message")) == {("done", "", "")}
    assert set(CustomerConsent.objects.values_list("state", flat=True)) == {"granted"}
    with CaptureQueriesContext(connection) as none:
        assert finish([], actor=builders.ACTOR) == []
    assert not none.captured_queries


def test_the_rows_come_back_as_they_are_now_with_what_was_read(portal: Portal) -> None:
    (applied,) = worked(begun(portal, 1))

    (written,) = finish([applied], actor=builders.ACTOR)

    assert written.consent == the_consent()
    assert written.consent is not None
    assert (written.consent.state, written.reading) == ("granted", None)
    assert written.seen == ConsentObservation.objects.get()


def test_a_later_read_that_was_written_before_is_not_replaced(portal: Portal) -> None:
    (applied,) = worked(begun(portal, 1))
    assert applied.reading is not None
    finish([replace(applied, reading=replace(applied.reading, read_at=timezone.now()))], actor=builders.ACTOR)
    older = replace(applied.reading, read_at=timezone.now() - timedelta(minutes=1), reason="older")

    (written,) = finish([replace(applied, reading=older)], actor=builders.ACTOR)

    assert written.seen is None
    assert (written.consent, the_consent().reason) == (the_consent(), "")
    assert ConsentObservation.objects.count() == 1


def test_grants_that_are_there_again_settle_their_incident(portal: Portal) -> None:
    (applied,) = worked(begun(portal, 1))
    about = f"customer:{applied.item.customer_id}"
    report(GRANTS_LOST, about=about, name="a customer", owner=Owner.US, words="Removed, and not put back.")

    finish([applied], actor=builders.ACTOR)

    assert not Incident.objects.open().exists()
