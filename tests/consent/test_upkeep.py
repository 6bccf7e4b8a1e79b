"""What is over is removed, and nothing else.

Covers: consent.tokens.pruning.
"""

from __future__ import annotations

import io
import threading
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
import time_machine
from dj_queue.models import FailedExecution, Job
from django.conf import settings
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from consent import jobs as consent_jobs
from consent.models import (
    Campaign,
    CampaignPartner,
    ConsentFlow,
    ConsentLink,
    ConsentPlan,
    ConsentPlanItem,
    PartnerConsent,
)
from portal.audit.models import AuditEvent
from portal.audit.trail import record
from portal.audit.walking import last_walk
from portal.incidents import service
from portal.incidents.models import Incident
from portal.microsoft.diagnosis import Owner
from portal.runs import schedule
from tests.support import builders, custody
from tests.support.portal import Browser, Portal


@pytest.mark.req("S-10")
def test_unfinished_flows_go_and_finished_ones_stay_for_ninety_days(portal: Portal) -> None:
    portal.onboard()
    portal.press_continue(Browser(), portal.link())
    running = portal.press_continue(Browser(), portal.link())
    assert running
    flows = {flow.outcome: flow for flow in ConsentFlow.objects.all()}
    ConsentFlow.objects.filter(pk=flows["open"].pk).update(expires_at=timezone.now() - timedelta(seconds=1))

    call_command("clean_up")

    assert ConsentFlow.objects.filter(outcome="open").count() == 1
    assert ConsentFlow.objects.filter(outcome="connected").count() == 1
    ConsentFlow.objects.filter(outcome="connected").update(expires_at=timezone.now() - timedelta(days=91))
    call_command("clean_up")
    assert not ConsentFlow.objects.filter(outcome="connected").exists()


def ago(days: float) -> datetime:
    return timezone.now() - timedelta(days=days)


def swept() -> str:
    out = io.StringIO()
    call_command("clean_up", stdout=out)
    return out.getvalue()


def test_links_go_a_year_after_their_end_and_those_of_a_campaign_stay(portal: Portal) -> None:
    closed, expired, invited, young, working = (
        ConsentLink.objects.create(
            partner=portal.partner,
            registration=portal.registration,
            token_hash=f"{number:064x}",
            expires_at=timezone.now() + timedelta(days=14),
        )
        for number in range(5)
    )
    campaign = Campaign.objects.create(name="All", registration=portal.registration)
    CampaignPartner.objects.create(campaign=campaign, partner=portal.partner, link=invited)
    for link in (closed, invited):
        ConsentLink.objects.filter(pk=link.pk).update(closed_at=ago(366))
    ConsentLink.objects.filter(pk=expired.pk).update(created_at=ago(500), expires_at=ago(366))
    ConsentLink.objects.filter(pk=young.pk).update(revoked_at=ago(364))
    assert "2 old links removed" in swept()
    assert set(ConsentLink.objects.all()) == {invited, young, working}


def test_plans_go_with_their_lines_and_what_is_being_applied_stays(portal: Portal) -> None:
    customers = [builders.customer(portal.partner) for _ in range(3)]

    def plan(state: str, days: float) -> ConsentPlan:
        applied_at = None if state == "shown" else ago(days)
        made = ConsentPlan.objects.create(
            registration=portal.registration, purpose="remove", state=state, applied_at=applied_at
        )
        ConsentPlan.objects.filter(pk=made.pk).update(created_at=ago(days))
        for customer in customers:
            ConsentPlanItem.objects.create(plan=made, customer=customer, action="remove")
        return made

    for state, days in (("shown", 91), ("done", 731), ("stopped", 731)):
        plan(state, days)
    kept = [plan("shown", 89), plan("done", 729), plan("applying", 800)]
    assert "3 old plans removed" in swept()
    assert set(ConsentPlan.objects.all()) == set(kept)
    assert ConsentPlanItem.objects.count() == 9


def test_settled_incidents_go_after_a_year_and_open_ones_never(db: None) -> None:
    for cause in ("old", "young", "open"):
        service.report(cause, owner=Owner.US, words="Look.")
    Incident.objects.filter(cause="old").update(settled_at=ago(366))
    Incident.objects.filter(cause="young").update(settled_at=ago(364))
    Incident.objects.filter(cause="open").update(first_seen_at=ago(900))
    assert "1 old incident removed" in swept()
    assert not Incident.objects.filter(cause="old").exists()
    assert Incident.objects.filter(cause__in=["young", "open"]).count() == 2


def test_sessions_that_expired_go_and_who_is_signed_in_stays_so(db: None, client: Browser, admin_user: Any) -> None:
    store = import_module(settings.SESSION_ENGINE).SessionStore
    rows = store.get_model_class().objects
    client.force_login(admin_user)
    over = store()
    over["seen"] = True
    over.set_expiry(-60)
    over.save()
    assert rows.count() == 2
    swept()
    assert rows.count() == 1
    assert client.get(reverse("admin:index")).status_code == 200


def test_messages_that_died_with_a_worker_go_after_a_week(db: None) -> None:
    dead = [Job.objects.create(task_path="x", backend_alias="default") for _ in range(2)]
    for job, days in zip(dead, (8, 6), strict=True):
        FailedExecution.objects.create(job=job, exception_class="ProcessPrunedError", message="")
        FailedExecution.objects.filter(job=job).update(created_at=ago(days))
    waiting = Job.objects.create(task_path="x", backend_alias="default")
    Job.objects.update(created_at=ago(30))
    assert "1 dead message removed" in swept()
    assert set(Job.objects.all()) == {dead[1], waiting}


@pytest.mark.req("S-57")
def test_the_daily_check_of_the_trail_reads_the_new_entries_and_stops_when_it_is_asked(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept()
    first = last_walk()
    assert first.sequence
    for _ in range(5):
        record("test.done", actor=builders.ACTOR, subject={})
    ends = threading.Event()
    monkeypatch.setattr("portal.runs.ending._process_ends", ends)
    ends.set()
    with pytest.raises(schedule.StopAsked):
        consent_jobs._clean_up([])
    assert last_walk() == first
    ends.clear()
    consent_jobs._clean_up([])
    assert last_walk().sequence > first.sequence + 5


@pytest.mark.req("S-42")
def test_the_embedded_vault_forgets_old_versions_but_none_that_a_row_names(portal: Portal) -> None:
    portal.connect()
    for _ in range(3):
        custody.make_due(portal.consent())
        custody.ask(portal.consent(), fresh=True)
    consent = portal.consent()
    first, second, third, current = custody.all_versions(portal, consent.secret_name)
    assert current == consent.secret_version
    PartnerConsent.objects.update(replaced_version=second)

    assert "old version" not in consent_jobs._clean_up([])
    with time_machine.travel(timezone.now() + timedelta(days=31)):
        words = consent_jobs._clean_up([])

    assert "2 old versions removed" in words
    assert AuditEvent.objects.filter(action="upkeep.done").latest("sequence").details["old_versions"] == 2
    assert custody.all_versions(portal, consent.secret_name) == [second, current]
    custody.ask(portal.consent(), fresh=True)
    assert not {first, third} & {portal.consent().secret_version}


def test_nothing_to_remove_is_said(db: None) -> None:
    swept()
    assert swept() == "Nothing to remove; 0 unapproved accounts switched off.\n"
