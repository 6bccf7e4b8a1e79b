"""The token check in bulk: real redemptions by many threads, renewals on the way, and nobody blamed for a limit."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consent import clients
from consent.models import PartnerConsent
from consent.runs.token_check import TOKEN_CHECK
from consent.states import count_by_state
from consent.vault.base import SecretName, SecretVersion
from portal.audit.models import AuditEvent
from portal.audit.walking import first_broken_sequence
from portal.incidents.models import Incident
from portal.microsoft.errors import Unreachable
from portal.runs import registry, service
from portal.runs.executor import Executor
from portal.runs.kinds import Outcome
from portal.runs.listening import Ending, Listener
from portal.runs.models import RunItem
from portal.runs.results import digest_of
from tenants.models import PartnerTenant
from tests.sandbox.world import Fault, Refusal
from tests.support import builders
from tests.support.connected import connect
from tests.support.custody import all_versions, enabled_versions, redemptions
from tests.support.portal import Portal
from tests.support.token_checks import check
from tests.support.work import classes

STATE = ("pk", "state", "mfa", "last_problem", "first_denied_at")


def states() -> list[Any]:
    return list(PartnerConsent.objects.order_by("pk").values_list(*STATE))


@pytest.mark.req("R-45")
@pytest.mark.req("R-29")
def test_a_healthy_partner_costs_one_redemption_one_call_and_hardly_a_query(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.runs.ledger._FLUSH_SECONDS", 5.0)  # batches as large as they get
    connect(portal, 60)
    calls, written = len(portal.sandbox.world.ledger), AuditEvent.objects.count()

    with CaptureQueriesContext(connection) as queries:
        run, ending = check()

    assert (ending, classes(run)) == (Ending.DONE, {"ok": 60})
    services = Counter((line["service"], line["operation"]) for line in list(portal.sandbox.world.ledger)[calls:])
    assert sum(number for (name, _), number in services.items() if name == "partner_center") == 60
    assert len(redemptions(portal)) == 60
    assert len(queries) <= 130  # savepoints of the test included: a few dozen to begin and end, and batches
    [entry] = AuditEvent.objects.exclude(action="run.started").filter(sequence__gt=written)
    assert (entry.action, entry.details["classes"]) == ("run.finished", {"ok": 60}), "one entry for all that is well"
    assert entry.details["digest"] == digest_of(run.pk)
    assert first_broken_sequence() is None


@pytest.mark.req("S-18")
@pytest.mark.req("R-45")
def test_how_the_account_signed_in_is_noted_at_each_check_and_decides_nothing(portal: Portal) -> None:
    consents = connect(portal, 3)
    methods = {0: ["pwd", "mfa"], 1: ["fido", "mfa", "<b>", 7], 2: []}
    for index, token in enumerate(portal.sandbox.world.refresh_tokens.values()):
        token.amr = methods[index]  # type: ignore[assignment]

    check()

    seen = PartnerConsent.objects.order_by("pk").values_list("amr", "mfa")
    # The last one's token names no method, and Partner Center does not call it compliant.
    assert list(seen) == [(["pwd", "mfa"], "proven"), (["fido", "mfa"], "proven"), ([], "missing")]
    assert [consent.pk for consent in consents] == list(
        PartnerConsent.objects.order_by("pk").values_list("pk", flat=True)
    )


@pytest.mark.req("R-02")
@pytest.mark.req("R-11")
def test_tokens_that_are_due_are_renewed_on_the_way(portal: Portal) -> None:
    consents = connect(portal, 20, due=True)

    run, _ = check()

    assert classes(run) == {"ok": 20}
    for consent in consents:
        older = consent.secret_version
        consent.refresh_from_db()
        assert (consent.generation, consent.lease_owner, consent.lease_until) == (2, "", None)
        assert consent.replaced_version == ""
        assert enabled_versions(portal, consent) == [consent.secret_version] != [older]
        clients.tokens()._custody.look_up(consent)
    saved = AuditEvent.objects.filter(action__in=["token.stored", "tokens.stored"], details__mfa__isnull=True)
    generations = [one.details.get("generations", {"": one.details.get("generation")}) for one in saved]
    assert [number for some in generations for number in some.values()] == [2] * 20
    assert first_broken_sequence() is None


@pytest.mark.req("R-12")
def test_a_partner_disabled_meanwhile_keeps_its_pointer_and_the_new_version_is_off(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    [consent] = connect(portal, 1, due=True)
    before = PartnerConsent.objects.get(pk=consent.pk)
    write = TOKEN_CHECK.write

    def disabled_first(*arguments: Any) -> None:
        PartnerTenant.objects.update(switch="disabled")
        write(*arguments)

    monkeypatch.setitem(registry.kinds(), "token_check", replace(TOKEN_CHECK, write=disabled_first))
    check()

    consent.refresh_from_db()
    assert (consent.generation, consent.secret_version, consent.lease_owner) == (1, before.secret_version, "")
    assert len(all_versions(portal, consent.secret_name)) == 2
    assert enabled_versions(portal, consent) == [before.secret_version]
    assert PartnerTenant.objects.get(pk=consent.partner_id).switch == "disabled"


@pytest.mark.req("R-03")
def test_a_renewal_that_somebody_else_holds_is_left_to_them(portal: Portal) -> None:
    [consent] = connect(portal, 1, due=True)
    with clients.tokens()._custody.lease(consent):
        run, _ = check()
    consent.refresh_from_db()
    assert classes(run) == {"ok": 1}
    assert consent.generation == 1


@pytest.mark.req("R-02")
@pytest.mark.django_db(transaction=True)
def test_what_a_crash_left_in_the_vault_is_adopted(portal: Portal) -> None:
    [consent] = connect(portal, 1, due=True)
    row = PartnerConsent.objects.get(pk=consent.pk)
    stored = clients.vault().read(SecretName(row.secret_name), SecretVersion(row.secret_version))
    tags = {"record": f"consent-{row.pk}", "generation": "2"}
    clients.vault().write(SecretName(row.secret_name), stored.value, tags=tags, expires_at=None)

    run, _ = check()

    consent.refresh_from_db()
    assert (classes(run), consent.generation, consent.lease_owner) == ({"ok": 1}, 3, "")
    assert enabled_versions(portal, consent) == [consent.secret_version]
    assert AuditEvent.objects.filter(action="token.rolled_forward").count() == 1


@pytest.mark.req("S-51")
def test_a_swapped_token_stops_its_partner_and_nobody_else(portal: Portal) -> None:
    first, *_ = connect(portal, 5)
    PartnerConsent.objects.filter(pk=first.pk).update(fingerprint="0" * 16)
    run, _ = check()
    first.refresh_from_db()
    assert (first.state, classes(run)) == ("stopped", {"ok": 4, "identity_mismatch": 1})
    assert AuditEvent.objects.filter(action="token.identity_mismatch").count() == 1


@pytest.mark.req("R-14")
def test_our_expired_secret_stops_within_five_partners_and_makes_one_incident(portal: Portal) -> None:
    connect(portal, 80)
    portal.sandbox.world.refusals.append(Refusal(code=7000222, times=10_000))
    before, calls = states(), len(redemptions(portal))

    run, ending = check(concurrency=64)

    assert (ending, run.state) == (Ending.STOPPED, "stopped")
    assert len(redemptions(portal)) - calls == 5
    assert states() == before
    incident = Incident.objects.get()
    assert (incident.cause, incident.about, incident.times) == ("run_stopped", "token_check", 1)
    assert f"resume run {run.pk}" in incident.words

    portal.sandbox.world.refusals.clear()
    service.resume(run, actor=builders.ACTOR)
    assert Executor(run).work() is Ending.DONE
    assert classes(run) == {"ok": 80}
    assert Incident.objects.get().settled_at is not None


@pytest.mark.req("R-14")
def test_a_vault_that_is_down_stops_the_run_and_nobody_is_asked(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(portal, 12)
    before = states()

    def down(*arguments: Any) -> None:
        raise Unreachable("vault", "read token")

    monkeypatch.setattr(type(clients.vault()), "read", down)
    _, ending = check()
    assert ending is Ending.STOPPED
    assert redemptions(portal) == []
    assert states() == before


@pytest.mark.req("R-16")
@pytest.mark.req("R-22")
def test_throttled_partners_come_again_and_none_is_marked_broken(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 from Partner Center for some calls, and 50196 from the sign-in service for one partner."""
    monkeypatch.setattr("consent.microsoft.entra.DEFAULT_RETRY_AFTER_SECONDS", 2.0)  # a minute, in real life
    consents = connect(portal, 40)
    world = portal.sandbox.world
    world.faults.append(Fault(service="partnercenter", status=429, headers={"Retry-After": "1"}, times=4, skip=5))
    looping = PartnerTenant.objects.get(pk=consents[7].partner_id)
    world.refusals.append(Refusal(code=50196, tenant_id=looping.tenant_id, times=1))

    shown: list[str] = []

    class Hears(Listener):
        def finished(self, item: RunItem, outcome: Outcome) -> None:
            shown.append(outcome.failure_class)

    run, ending = check(listener=Hears())

    assert ending is Ending.DONE
    assert not world.faults  # all of them happened
    assert not world.refusals
    assert set(shown) <= {"ok", "throttled"}
    assert classes(run).get("ok", 0) >= 39
    assert set(PartnerConsent.objects.values_list("state", flat=True)) == {"connected"}
    assert set(count_by_state()) <= {"connected", "new"}


@pytest.mark.req("R-31")
def test_a_thread_works_for_others_while_a_throttled_partner_waits(portal: Portal) -> None:
    consents = connect(portal, 12)
    slow = PartnerTenant.objects.get(pk=consents[2].partner_id)
    headers = {"Retry-After": "3"}
    portal.sandbox.world.faults.append(
        Fault(service="partnercenter", tenant=slow.tenant_id, status=429, headers=headers)
    )

    shown: list[tuple[int, float]] = []

    class Hears(Listener):
        def finished(self, item: RunItem, outcome: Outcome) -> None:
            shown.append((item.group, time.monotonic()))

    began = time.monotonic()
    run, _ = check(concurrency=1, listener=Hears())

    assert classes(run) == {"ok": 12}
    assert portal.sandbox.world.faults == []
    last, at = shown[-1]
    assert last == slow.pk
    assert at - began >= 3


@pytest.mark.req("R-31")
def test_a_partner_that_must_wait_for_long_does_not_hold_the_run(portal: Portal) -> None:
    consents = connect(portal, 6)
    slow = PartnerTenant.objects.get(pk=consents[2].partner_id)
    headers = {"Retry-After": "86400"}
    portal.sandbox.world.faults.append(
        Fault(service="partnercenter", tenant=slow.tenant_id, status=429, headers=headers, times=10)
    )
    began = time.monotonic()

    run, ending = check()

    assert time.monotonic() - began < 30
    assert (ending, classes(run)) == (Ending.DONE, {"ok": 5, "throttled": 1})
    row = PartnerConsent.objects.get(pk=consents[2].pk)
    assert (row.state, row.last_class) == ("connected", "throttled")
    assert row.next_try_at is not None
    assert row.next_try_at > timezone.now() + timedelta(minutes=5)


@pytest.mark.req("R-47")
def test_the_id_of_a_failed_unit_is_found_in_run_trail_and_at_microsoft(portal: Portal) -> None:
    consents = connect(portal, 4)
    failing = consents[2].partner
    portal.sandbox.world.refusals.append(Refusal(code=700082, times=9, tenant_id=failing.tenant_id))
    before = len(portal.sandbox.world.ledger)

    run, _ = check(4)

    item = run.items.exclude(failure_class="ok").get()
    assert item.label.startswith(failing.name)
    ids = dict(run.items.values_list("key", "correlation_id"))
    assert len(set(ids.values())) == 4
    lines = list(portal.sandbox.world.ledger)[before:]

    def at_microsoft(correlation_id: str) -> list[tuple[str, str, int]]:
        found = [line for line in lines if line.get("correlation") == correlation_id]
        return [(line["service"], line["tenant"], line["status"]) for line in found]

    assert at_microsoft(item.correlation_id) == [("entra", failing.tenant_id, 700082)]
    assert [name for name, *_ in at_microsoft(ids[consents[0].pk])] == ["entra", "partner_center"]
    event = AuditEvent.objects.get(action="token.checked")
    assert (event.correlation_id, event.subject["partner"]) == (item.correlation_id, failing.pk)
