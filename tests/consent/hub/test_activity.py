"""What touched a partner: its checks and syncs, the plans of its customers, its invitations."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consent.hub.activity import activity_of
from consent.models import Campaign
from portal.runs.models import Run
from tests.support import builders

pytestmark = pytest.mark.django_db


def unit(kind: str, key: int, group: int) -> None:
    now = timezone.now()
    run = Run.objects.create(
        kind=kind, scope_hash=builders.guid(), actor_kind="staff", actor="anna", state="done", finished_at=now
    )
    run.items.create(
        key=key, group=group, label="x", turn=0, state="done", failure_class="ok", finished_at=now,
        correlation_id=builders.guid(),
    )  # fmt: skip


def test_only_what_touched_this_partner_is_listed_the_newest_first() -> None:
    registration = builders.registration()
    partner, other = builders.partner(), builders.partner()
    mine = builders.consent(partner, registration)
    unit("token_check", mine.pk, partner.pk)
    unit("token_check", mine.pk + 1000, other.pk)
    unit("customer_sync", partner.pk, partner.pk)
    unit("customer_sync", other.pk, other.pk)
    plan = registration.plans.create(purpose="remove", created_by="anna")
    plan.items.create(customer=builders.customer(partner), action="remove", result="failed")
    plan.items.create(customer=builders.customer(partner), action="remove")
    plan.items.create(customer=builders.customer(other), action="remove")
    registration.plans.create(purpose="remove", created_by="ben").items.create(
        customer=builders.customer(other), action="remove"
    )
    campaign = Campaign.objects.create(name="Spring", registration=registration)
    for one in (partner, other):
        campaign.partners.create(partner=one)
    with CaptureQueriesContext(connection) as queries:
        found = activity_of(partner)
        assert [one.run.kind for one in found.units] == ["customer_sync", "token_check"]
    assert [(one.plan, one.number, one.failed) for one in found.plans] == [(plan, 2, 1)]
    assert [(one.campaign.name, one.progress) for one in found.campaigns] == [("Spring", "invited")]
    assert len(queries) == 5
