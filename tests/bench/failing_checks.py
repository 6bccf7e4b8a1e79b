"""Bulk checks that meet failures: throttled in three ways, and killed at two fifths (R-16, R-22, R-26).

``python -m tests.bench.failing_checks [--partners 1000] [--latency 0.05] [--database URL] [--only WORD]``. Every case
prints what the limit allows, what it took, and whether any partner's state was touched. Ends with 1 when something does
not hold.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import measured_portal
from tests.bench.checks import say
from tests.bench.figures import Figure, note
from tests.bench.partners_at_microsoft import Gate, PartnersAtMicrosoft, partners_at_microsoft

MOST_RATIO = 1.15
MOST_REPEATED = 0.01
CALL_LIMIT = 100  # calls a second that the sandbox allows, half of what the portal tries by default
WAIT = 5  # seconds that a throttled partner is asked to wait
LOOP_SECONDS = 60.0  # the portal's own wait after AADSTS50196, which names none


def states() -> list[Any]:
    from consent.models import PartnerConsent

    columns = ("pk", "state", "mfa", "last_problem", "first_denied_at")
    return list(PartnerConsent.objects.order_by("pk").values_list(*columns))


def judged(name: str, allowed: float, facts: dict[str, Any], before: list[Any]) -> bool:
    ratio = facts["seconds"] / allowed
    untouched = states() == before
    all_good = set(facts["classes"]) == {"ok"}
    say(
        f"{name:<44} allows {allowed:6.1f} s, took {facts['seconds']:6.1f} s, ratio {ratio:.2f}; "
        f"{facts['throttled']} refusals; {'no state touched' if untouched else 'STATES WERE TOUCHED'}; "
        f"{facts['classes']}"
    )
    note(Figure(name=f"bulk check, {name}: times what the limit allows", value=ratio, goal=MOST_RATIO))
    return ratio <= MOST_RATIO and untouched and all_good


def application(place: PartnersAtMicrosoft, gate: Gate, options: argparse.Namespace) -> bool:
    """429 for the whole application, at half of the portal's own ceiling."""
    os.environ["CALL_RATE"] = "200"
    gate.switch(profile_limit=CALL_LIMIT)
    before = states()
    facts = measured_portal.check_all(options.in_flight)
    gate.switch(profile_limit=0)
    os.environ["CALL_RATE"] = "10000"
    return judged("429 of the application, Retry-After 1 s", len(place.partners) / CALL_LIMIT, facts, before)


def partners(place: PartnersAtMicrosoft, gate: Gate, options: argparse.Namespace) -> bool:
    """429 for one partner in twenty."""
    alone = measured_portal.check_all(options.in_flight)["seconds"]
    body = '{"statusCode":429,"message":"Rate limit is exceeded."}'
    for each in place.partners[::20]:
        gate.fault(
            service="partnercenter",
            path="/profiles/",
            tenant=each.tenant_id,
            status=429,
            body=body,
            headers={"Retry-After": str(WAIT)},
        )
    before = states()
    facts = measured_portal.check_all(options.in_flight)
    gate.clear_faults()
    return judged(f"429 of one partner in twenty, {WAIT} s each", alone + WAIT, facts, before)


def loops(place: PartnersAtMicrosoft, gate: Gate, options: argparse.Namespace) -> bool:
    """AADSTS50196, the sign-in service's word for "too fast", for one partner in fifty."""
    alone = measured_portal.check_all(options.in_flight)["seconds"]
    gate.refuse(50196, [each.tenant_id for each in place.partners[::50]])
    before = states()
    facts = measured_portal.check_all(options.in_flight)
    return judged("AADSTS50196 for one partner in fifty", alone + LOOP_SECONDS, facts, before)


def killed(place: PartnersAtMicrosoft, gate: Gate, options: argparse.Namespace) -> bool:
    """Kill -9 at two fifths, and go on in a new process."""
    run = measured_portal.new_run(options.in_flight)
    gate.calls_of_partners()
    gate.counters()
    first = measured_portal.started("ours", run.pk, options.in_flight)
    measured_portal.wait_until_done(run.pk, 0.4)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    measured_portal.facts_of(measured_portal.started("ours", run.pk, options.in_flight))
    run.refresh_from_db()
    redemptions, answered = gate.calls_of_partners(), gate.counters()
    number = len(place.partners)
    calls = sum(answered.values())
    results = run.items.filter(state="done", failure_class="ok").count()
    repeated = sum(count - 1 for count in redemptions.values())
    share = max(calls - 3 * number, 0) / (3 * number)
    say(
        f"{'killed at two fifths, gone on':<44} {results} of {number} have one result, {len(redemptions)} redeemed; "
        f"{repeated} redeemed twice, {100 * share:.2f} % of the calls were made again"
    )
    return results == number == len(redemptions) and share < MOST_REPEATED


def two(place: PartnersAtMicrosoft, gate: Gate, options: argparse.Namespace) -> bool:
    """Two executors in two processes on one run."""
    gate.calls_of_partners()
    facts = measured_portal.check_together(options.in_flight // 2, 2)
    redemptions = gate.calls_of_partners()
    twice = sum(1 for count in redemptions.values() if count != 1)
    say(f"{'two executors':<44} {len(redemptions)} partners redeemed, {twice} of them twice; {facts['classes']}")
    return twice == 0 and len(redemptions) == len(place.partners)


CASES: list[Callable[[PartnersAtMicrosoft, Gate, argparse.Namespace], bool]] = [
    application,
    partners,
    loops,
    killed,
    two,
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partners", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds of each call")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database, which is emptied; else SQLite")
    parser.add_argument("--only", choices=[case.__name__ for case in CASES], help="one case")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, partners_at_microsoft(Path(name), options.partners) as (place, gate):
        measured_portal.open_connected_portal(place, Path(name), options.database)
        gate.switch(latency=options.latency)
        say(
            f"{options.partners} partners, {'PostgreSQL' if options.database else 'SQLite'}, "
            f"{options.in_flight} in flight, {1000 * options.latency:.0f} ms for each call"
        )
        chosen = [case for case in CASES if options.only in {None, case.__name__}]
        held = [case(place, gate, options) for case in chosen]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
