"""Worker processes that are killed or stopped from outside in the middle of a renewal (R-01 to R-04, R-42).

``CRASH_ROUNDS`` repeats each kill point; ``python -m tests.bench.crashes`` prints the table of twenty rounds.

Covers: consent.tokens.saving.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import PartnerConsent
from consent.runs.customer_sync import CUSTOMER_SYNC
from consent.runs.token_check import TOKEN_CHECK
from consent.tokens.custody import INTERRUPTED, LEASE, TokenUnavailable
from consent.tokens.reconcile import Reconciler
from consent.tokens.saving import Renewals
from consent.vault.base import SecretName, SecretVersion
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.runs import registry, service
from portal.runs.executor import Executor
from portal.runs.kinds import Context, Kind
from portal.runs.listening import Ending
from portal.runs.models import Run
from tests.conftest import make_portal, use_azure_vault, use_local_vault, use_sandbox
from tests.leaks.sinks import Canaries, Sinks
from tests.sandbox.scenarios import vault_application_id
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault
from tests.support import builders
from tests.support.crashes import KILL_POINTS, Stage
from tests.support.custody import (
    ask,
    enabled_versions,
    make_due,
    redemptions,
    rotated_token,
    watch_vault,
    write_version,
)
from tests.support.portal import Portal
from tests.support.work import classes
from tests.support.workers import Worker, Workers, forking

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "1"))
OF_A_TEST = (
    "VAULT_URL",
    "VAULT_KEY_FILE",
    "VAULT_IDENTITY",
    "VAULT_TENANT_ID",
    "VAULT_CLIENT_ID",
    "VAULT_CREDENTIAL_FILE",
    "TOKEN_SAVE_AFTER_HOURS",
)
REPAIRS = {
    "K1": [],
    "K2": [],
    "K3": [("newer_version", "repaired")],
    "K4": [("newer_version", "repaired")],
    "K5": [("old_version_enabled", "repaired")],
}
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]


@dataclass(slots=True, kw_only=True)
class Site:
    """A portal with its workers. ``strict``: the sign-in service kills a refresh token at its first use."""

    portal: Portal
    workers: Workers
    vault: str
    strict: bool
    folder: Path
    logged: int
    """How much the workers of other tests have logged."""

    def start(self, **order: object) -> Worker:
        settings = {name: getattr(django_settings, name) for name in OF_A_TEST}
        return self.workers.start(self.portal.consent().pk, settings, **order)

    def pass_the_lease(self) -> None:
        """Let the time pass after which somebody else may take over."""
        PartnerConsent.objects.exclude(lease_owner="").update(lease_until=timezone.now() - LEASE)

    def restart(self) -> str:
        """Let a new process renew, once the dead one's lease is over; return what the caller got."""
        self.pass_the_lease()
        make_due(self.portal.consent())
        return self.start().answers()[0]


@pytest.fixture(scope="module")
def workers(
    django_db_setup: None, running_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workers]:
    """One process that forks workers for all tests here; only the settings of ``OF_A_TEST`` differ between them."""
    database = connection.settings_dict
    url = f"sqlite:///{database['NAME']}"
    if connection.vendor != "sqlite":
        place = f"{database['HOST']}:{database['PORT']}/{database['NAME']}"
        url = f"postgres://{database['USER']}:{database['PASSWORD']}@{place}"
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "DATABASE_URL": url,
        "TEST_ENDPOINTS": str(running_sandbox.port),
        "TEST_CA_FILE": str(running_sandbox.ca_file),
        "LOG_LEVEL": "DEBUG",
    }
    with forking(environment, tmp_path_factory.mktemp("workers")) as workers:
        yield workers


@pytest.fixture(
    params=[
        ("local", False),
        ("local", True),
        pytest.param(("azure", False), marks=pytest.mark.release),
        pytest.param(("azure", True), marks=pytest.mark.slow),
    ],
    ids=["local-lenient", "local-strict", "azure-lenient", "azure-strict"],
)
def site(
    request: pytest.FixtureRequest, settings: Settings, sandbox: Sandbox, workers: Workers, tmp_path: Path
) -> Iterator[Site]:
    """A connected partner, with both vaults and both rotation switches, and processes that work for it."""
    vault, strict = request.param
    use_sandbox(settings, sandbox)
    if vault == "local":
        use_local_vault(settings, tmp_path)
    else:
        use_azure_vault(settings, sandbox, tmp_path)
        sandbox.world.vault_rights[vault_application_id()] = {"get", "set", "list"}
    settings.TOKEN_SAVE_AFTER_HOURS = 0 if strict else 24
    portal = make_portal(sandbox)
    portal.onboard()
    sandbox.world.switches["rotation"] = "strict" if strict else "lenient"
    yield Site(portal=portal, workers=workers, vault=vault, strict=strict, folder=tmp_path, logged=len(workers.log))
    sandbox.world.faults.clear()
    sandbox.faults.release()


def note(site: Site, point: str, outcome: str) -> None:
    """Add one line to the table that ``tests.bench.crashes`` prints."""
    if table := os.environ.get("CRASH_TABLE"):
        line = {
            "vault": site.vault,
            "strict": site.strict,
            "point": f"{point} {KILL_POINTS[point]}",
            "outcome": outcome,
        }
        with Path(table).open("a") as file:
            file.write(json.dumps(line) + "\n")


@pytest.mark.req("R-01")
@pytest.mark.req("R-02")
@pytest.mark.req("S-30")
@pytest.mark.req("S-32")
@pytest.mark.req("S-37")
@pytest.mark.req("S-42")
def test_a_worker_killed_at_any_point_of_a_renewal_loses_no_token_and_leaves_one_current(site: Site) -> None:
    for point in KILL_POINTS:
        for _ in range(ROUNDS):
            crash_and_restart(site, point)
    assert_no_token_leaked(site)


def crash_and_restart(site: Site, point: str) -> None:
    portal = site.portal
    make_due(portal.consent())
    stage = Stage(portal, site.start)
    stage.bring_to(point).kill()
    stage.close()

    left = portal.consent()
    assert left.generation == stage.before.generation + (point == "K5")
    assert len(enabled_versions(portal, left)) == (1 if point in {"K1", "K2"} else 2)
    audited = Counter(AuditEvent.objects.values_list("action", flat=True))

    answer = site.restart()

    after = portal.consent()
    new = dict(Counter(AuditEvent.objects.values_list("action", flat=True)) - audited)
    assert enabled_versions(portal, after) == [after.secret_version]
    if site.strict and point in {"K1", "K2"}:  # the one window in which a token can be lost
        outcome = "needs consent: interrupted while saving"
        assert answer == "TokenUnavailable"
        assert (after.state, after.last_code, after.generation) == ("needs_consent", INTERRUPTED, left.generation)
        assert new == {"token.lost": 1}
        assert [one.cause for one in Incident.objects.open()] == ["interrupted_while_saving"]
        calls = len(redemptions(portal))
        assert site.restart() == "TokenUnavailable"
        assert len(redemptions(portal)) == calls  # no loop
        portal.onboard()
    elif point in {"K3", "K4"}:
        outcome = "rolled forward, then renewed"
        assert (answer, after.generation) == ("ok", left.generation + 2)
        assert new == {"token.rolled_forward": 1, "token.stored": 1}
    else:
        outcome = "renewed"
        assert (answer, after.generation) == ("ok", left.generation + 1)
        assert new == {"token.stored": 1}
    after = portal.consent()
    assert (after.state, after.renewal_started_at, after.replaced_version) == ("connected", None, "")
    assert not Incident.objects.open().exists()
    assert ask(after, fresh=True)
    note(site, point, outcome)


@pytest.mark.req("R-02")
@pytest.mark.req("R-41")
def test_after_a_crash_at_any_point_reconcile_repairs_what_it_should_and_then_nothing(site: Site) -> None:
    for point, expected in REPAIRS.items():
        make_due(site.portal.consent())
        stage = Stage(site.portal, site.start)
        stage.bring_to(point).kill()
        stage.close()
        site.pass_the_lease()

        assert reconcile() == expected
        assert reconcile() == []

        after = site.portal.consent()
        assert enabled_versions(site.portal, after) == [after.secret_version]
        if site.strict and point in {"K1", "K2"}:
            assert site.restart() == "TokenUnavailable"
            site.portal.onboard()
        else:
            assert site.restart() == "ok"


def reconcile() -> list[tuple[str, str]]:
    """Compare database and vault as the daily command does; return what it found and what came of it."""
    reconciler = Reconciler(vault=clients.vault(), inventory=clients.inventory(), actor=builders.ACTOR)
    return [(each.kind.value, each.outcome) for each in reconciler.run().differences]


def assert_no_token_leaked(site: Site) -> None:
    """Search what the workers logged at DEBUG, the database and all files for every token that passed."""
    canaries = Canaries()
    canaries.add("refresh token", *site.portal.sandbox.world.refresh_tokens)
    canaries.add("client secret", site.portal.client_secret)
    sinks = Sinks(files=site.folder, apart_from={"vault-key", "vault-credential"}).contents()
    log = site.workers.log[site.logged :]
    assert " DEBUG " in log
    assert canaries.found_in(sinks | {"log of the workers": log.encode()}) == []


@pytest.mark.req("R-03")
def test_a_worker_that_was_stopped_past_its_lease_cannot_overwrite_a_newer_token(site: Site) -> None:
    portal = site.portal
    make_due(portal.consent())
    stage = Stage(portal, site.start)
    late = stage.bring_to("K1")
    late.freeze()
    site.pass_the_lease()

    first = site.start().answers()  # takes over while the other is stopped
    middle = portal.consent()
    stage.close()
    late.go_on()

    assert late.answers() == ["ok"]
    after = portal.consent()
    assert enabled_versions(portal, after) == [after.secret_version]
    assert after.state == "connected"
    assert not Incident.objects.open().exists()
    if site.strict:  # the late one has the only token that is worth anything
        assert first == ["TokenUnavailable"]
        assert middle.last_code == INTERRUPTED
        assert after.generation == stage.before.generation + 1
    else:
        assert first == ["ok"]
        assert (after.generation, after.secret_version) == (middle.generation, middle.secret_version)
    assert ask(after, fresh=True)


@pytest.mark.req("R-03")
def test_workers_that_renew_at_random_moments_only_ever_go_forward(site: Site) -> None:
    portal = site.portal
    portal.sandbox.world.faults.append(
        Fault(service="login", path="token", tenant=portal.partner.tenant_id, delay=0.05, times=6, skip=3)
    )
    make_due(portal.consent())

    crowd = [site.start(times=4, audience=audience) for audience in ("partner_center", "graph") * 2]
    answers = [answer for worker in crowd for answer in worker.answers()]

    assert set(answers) == {"ok"}
    stored = AuditEvent.objects.filter(action="token.stored", outcome="done").order_by("sequence")
    generations = [event.details["generation"] for event in stored]
    assert generations == list(range(1, len(generations) + 1))
    assert len(generations) == (17 if site.strict else 2)
    after = portal.consent()
    assert after.generation == generations[-1]
    assert enabled_versions(portal, after) == [after.secret_version]


@pytest.mark.req("R-04")
def test_two_processes_with_32_threads_redeem_at_most_once_each(site: Site) -> None:
    portal = site.portal
    make_due(portal.consent())
    before = len(redemptions(portal))
    portal.sandbox.world.faults.append(
        Fault(service="login", path="token", tenant=portal.partner.tenant_id, delay=0.3, times=2)
    )

    both = [site.start(threads=32, fresh=False) for _ in range(2)]
    answers = [answer for worker in both for answer in worker.answers()]

    assert answers == ["ok"] * 64
    redeemed = redemptions(portal)[before:]
    assert len(redeemed) <= 2
    assert {line["status"] for line in redeemed} == {200}
    after = portal.consent()
    assert enabled_versions(portal, after) == [after.secret_version]
    assert after.generation == (3 if site.strict else 2)


@pytest.mark.req("R-04")
def test_when_the_holder_dies_exactly_one_successor_renews(site: Site) -> None:
    portal = site.portal
    make_due(portal.consent())
    stage = Stage(portal, site.start)
    stage.bring_to("K3").kill()
    stage.close()
    before = len(redemptions(portal))
    waiting = site.start(threads=8, fresh=False)
    site.pass_the_lease()

    assert waiting.answers() == ["ok"] * 8
    assert len(redemptions(portal)) == before + 1
    after = portal.consent()
    assert (after.state, after.lease_owner) == ("connected", "" if site.strict else after.lease_owner)


@pytest.mark.req("R-42")
def test_a_worker_whose_clock_is_wrong_renews_and_leases_by_the_databases_time(site: Site) -> None:
    portal = site.portal
    for generation, minutes in enumerate((-10, -4, 4, 10), start=2):
        make_due(portal.consent())
        stage = Stage(portal, lambda shift=60 * minutes: site.start(shift=shift))  # type: ignore[misc]
        worker = stage.bring_to("K1")

        lease = portal.consent().lease_until
        assert lease is not None
        assert LEASE.total_seconds() - 20 < (lease - timezone.now()).total_seconds() <= LEASE.total_seconds()
        stage.close()

        assert worker.answers() == ["ok"]
        after = portal.consent()
        assert (after.state, after.generation) == ("connected", generation)
        assert after.stored_at is not None
        assert abs((timezone.now() - after.stored_at).total_seconds()) < 20
        assert enabled_versions(portal, after) == [after.secret_version]


# --- renewed by another process while bulk work has the row -------------------------------------------------------


def bulk(kind: Kind) -> Run:
    run, _ = service.start(kind, scope={}, actor=builders.ACTOR, concurrency=2)
    assert Executor(run).work() is Ending.DONE
    return run


@pytest.mark.req("R-02")
@pytest.mark.parametrize("site", [("local", False), ("azure", False)], indirect=True, ids=["local", "azure"])
@pytest.mark.parametrize("kind", [TOKEN_CHECK, CUSTOMER_SYNC], ids=lambda kind: kind.name)
def test_bulk_work_that_read_the_row_before_another_process_renewed_reads_it_again(
    site: Site, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(keys: Sequence[int], context: Context) -> dict[int, Any]:
        subjects = dict(kind.load(keys, context))
        make_due(site.portal.consent())
        assert site.start().answers() == ["ok"]
        return subjects

    monkeypatch.setitem(registry.kinds(), kind.name, replace(kind, load=load))

    run = bulk(kind)

    assert classes(run) == {"ok": 1}
    after = site.portal.consent()
    assert (after.generation, after.state) == (2, "connected")
    assert enabled_versions(site.portal, after) == [after.secret_version]
    assert not Incident.objects.open().exists()


@pytest.mark.req("R-02")
@pytest.mark.req("R-03")
def test_a_check_that_took_the_lease_after_another_process_renewed_renews_the_newer_token(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows were read, another process renewed, and then this one took the leases."""
    lease_all = Renewals.lease_all

    def renewed_first(custody: Renewals, consents: Sequence[PartnerConsent]) -> str:
        assert site.start().answers() == ["ok"]
        return lease_all(custody, consents)

    monkeypatch.setattr(Renewals, "lease_all", renewed_first)
    make_due(site.portal.consent())

    run = bulk(TOKEN_CHECK)

    assert classes(run) == {"ok": 1}
    after = site.portal.consent()
    assert (after.generation, after.state, after.lease_owner, after.renewal_started_at) == (3, "connected", "", None)
    assert enabled_versions(site.portal, after) == [after.secret_version]
    assert not Incident.objects.open().exists()


@pytest.mark.req("R-02")
@pytest.mark.parametrize("site", [("local", True)], indirect=True, ids=["local-strict"])
@pytest.mark.parametrize("in_bulk", [False, True], ids=["single", "batch"])
def test_a_renewal_after_a_version_was_adopted_is_noted_like_any_other(
    site: Site, monkeypatch: pytest.MonkeyPatch, in_bulk: bool
) -> None:
    """Adopting ends the older renewal and its note; if this one is cut off, the next has to know of it."""
    before = site.portal.consent()
    write_version(before, rotated_token(site.portal, before), 2)
    make_due(before)
    watched, notes = watch_vault(monkeypatch), []

    def look(operation: str) -> None:
        if operation == "write":  # the token was redeemed, and the new one is not kept yet
            notes.append(site.portal.consent().renewal_started_at)

    watched.before = look

    assert classes(bulk(TOKEN_CHECK)) == {"ok": 1} if in_bulk else ask(before, fresh=True)

    after = site.portal.consent()
    assert len(notes) == 1
    assert notes[0] is not None
    assert (after.generation, after.renewal_started_at) == (3, None)


@pytest.mark.req("R-01")
@pytest.mark.parametrize("site", [("local", True)], indirect=True, ids=["local-strict"])
@pytest.mark.parametrize("in_bulk", [False, True], ids=["single", "batch"])
def test_a_token_that_was_lost_before_is_not_redeemed_and_leaves_no_note(site: Site, in_bulk: bool) -> None:
    before, asked = site.portal.consent(), len(redemptions(site.portal))
    PartnerConsent.objects.filter(pk=before.pk).update(state="needs_consent", last_code=INTERRUPTED)
    make_due(before)

    if in_bulk:
        assert classes(bulk(TOKEN_CHECK)) == {"skipped": 1}
    else:
        with pytest.raises(TokenUnavailable, match="must consent again"):
            ask(before, fresh=True)

    assert len(redemptions(site.portal)) == asked
    assert site.portal.consent().renewal_started_at is None


@pytest.mark.parametrize("site", [("local", False)], indirect=True, ids=["local"])
def test_a_version_that_somebody_switched_off_is_still_reported(site: Site) -> None:
    consent = site.portal.consent()
    clients.vault().disable(SecretName(consent.secret_name), SecretVersion(consent.secret_version))

    run, _ = service.start(TOKEN_CHECK, scope={}, actor=builders.ACTOR, concurrency=2)
    assert Executor(run).work() is Ending.STOPPED

    assert site.portal.consent().state == "connected"
