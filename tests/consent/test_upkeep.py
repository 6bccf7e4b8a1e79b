"""What is over is removed, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from consent.models import ConsentFlow
from tests.portal import Browser, Portal


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
