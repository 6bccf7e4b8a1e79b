"""What is done with a partner leaves its entry in the audit trail: one, by its actor, with its outcome (S-55)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from consent import partners
from consent.invitations import links
from portal.audit import walking
from portal.audit.models import AuditEvent
from tenants.models import PartnerTenant
from tests.support import builders, custody, decisions
from tests.support.commands import run
from tests.support.portal import Portal

type Lines = list[tuple[str, str, str]]


@pytest.fixture
def new_entries() -> Callable[[], Lines]:
    """Return a function that gives the entries since its last call, each as action, outcome and kind of actor."""
    seen = 0

    def entries() -> Lines:
        nonlocal seen
        rows = list(AuditEvent.objects.order_by("sequence").values_list("action", "outcome", "actor_kind"))
        new, seen = rows[seen:], len(rows)
        return new

    return entries


@pytest.mark.req("S-55")
def test_each_thing_that_is_done_leaves_one_entry(portal: Portal, new_entries: Callable[[], Lines]) -> None:
    new_entries()
    partner = portal.partner

    portal.onboard(accept=False)
    assert new_entries() == [
        ("link.issued", "done", "command"),
        ("flow.started", "done", "link"),
        ("flow.refused", "refused", "link"),
    ]
    portal.onboard()
    assert new_entries() == [
        ("link.issued", "done", "command"),
        ("flow.started", "done", "link"),
        ("token.stored", "done", "link"),
    ]
    custody.make_due(portal.consent())
    custody.ask(portal.consent(), fresh=True)
    assert new_entries() == [("token.stored", "done", "system")]
    assert run("get_access_token", partner.tenant_id, "graph").code == 0
    assert new_entries() == [("token.handed_out", "done", "command")]
    assert run("check_tokens").code == 0
    assert new_entries() == [
        ("run.started", "done", "command"),
        ("run.finished", "done", "command"),
    ]
    link, _ = links.issue(partner, portal.registration, actor=builders.ACTOR)
    links.extend(link, lifetime=timedelta(days=30), actor=builders.ACTOR)
    links.revoke(link, actor=builders.ACTOR)
    assert [action for action, *_ in new_entries()] == ["link.issued", "link.extended", "link.revoked"]
    partners.disable(PartnerTenant.objects.get(), actor=builders.ACTOR)
    partners.enable(PartnerTenant.objects.get(), actor=builders.ACTOR)
    partners.disable(PartnerTenant.objects.get(), actor=builders.ACTOR)
    assert [action for action, *_ in new_entries()] == ["partner.disabled", "partner.enabled", "partner.disabled"]
    assert run("erase_tokens", partner.tenant_id, "--why", "It is meant.").code == 1
    decisions.approve()
    assert new_entries() == [("decision.asked", "done", "command"), ("decision.approved", "done", "staff")]
    assert run("erase_tokens", partner.tenant_id).code == 0
    assert new_entries() == [("partner.tokens_erased", "done", "command"), ("decision.done", "done", "command")]
    assert walking.first_broken_sequence() is None
