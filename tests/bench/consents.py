"""What applying plans and reading customers takes, beside the limit of consents: ``python -m tests.bench.consents``.

Several processes work one run against a sandbox that refuses what is more than 50 consents in any second: units that
are nothing but the POST, through our client and our shared limit, which measures the limit; the whole of
``apply_plan``; and ``consent_verify``, which reads customers. Each is printed with its rate, and for a customer the
processor's milliseconds, HTTP calls, statements and hand-overs of all processes together; applying and reading beside
a floor in raw asyncio that makes the same calls. Ends with 1 when something was refused, or the rate of the POSTs or
of applying is below 95 % of our ceiling (CONSENT_RATE), or less than 100 customers a second are read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import measured_portal
from tests.bench.figures import Figure, note
from tests.bench.partners_at_microsoft import Gate, PartnersAtMicrosoft, partners_at_microsoft

type Customer = tuple[int, str]
"""Number of the partner, tenant id of the customer."""
WHAT = ["posts", "apply", "verify"]

DOCUMENTED = 50
LEAST = 0.95  # of our ceiling
LEAST_READ = 100  # customers a second
MOST_CALLS = {"apply": 6, "verify": 3}  # HTTP calls of one customer
MOST_OF_THE_FLOOR = {"apply": 4.0, "verify": 4.0}  # processor, in times of the floor's


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fill(customers: Sequence[tuple[int, str]]) -> None:
    """Store the customers, and what the registration wants in them."""
    from django.utils import timezone

    from consent.models import ApplicationRegistration
    from tenants.models import CustomerTenant
    from tests.support import builders

    registration = ApplicationRegistration.objects.get()
    if not registration.grants.exists():
        builders.grant(registration, "User.Read.All", "Directory.Read.All")
    now = timezone.now()
    CustomerTenant.objects.bulk_create(
        [
            CustomerTenant(
                partner_id=partner,
                tenant_id=tenant,
                partner_center_id=tenant,
                company_name=f"Customer {number}",
                first_seen_at=now,
                last_seen_at=now,
                judged_at=now,
                readiness=CustomerTenant.Readiness.READY,
            )
            for number, (partner, tenant) in enumerate(customers)
        ]
    )


def consent_to(gate: Gate, customers: Sequence[Customer]) -> None:
    """Let these customers hold our consent, at Microsoft and in our rows."""
    from django.utils import timezone

    from consent.customers.consents import wanted_grants
    from consent.models import ApplicationRegistration, CustomerConsent
    from tenants.models import CustomerTenant

    principals = gate.consent([tenant for _, tenant in customers])
    registration = ApplicationRegistration.objects.get()
    wanted, now = wanted_grants(registration), timezone.now()
    CustomerConsent.objects.bulk_create(
        [
            CustomerConsent(
                customer=customer,
                registration=registration,
                state="granted",
                wanted_hash=wanted.digest,
                requested_hash=wanted.digest,
                actual_grants=wanted.to_json(),
                service_principal_id=principals[customer.tenant_id],
                verified_at=now,
            )
            for customer in CustomerTenant.objects.filter(tenant_id__in=principals)
        ]
    )


def register_posts() -> Any:
    """Register the kind whose units are one POST each."""
    from consent import clients
    from consent.models import PartnerConsent
    from portal.microsoft.clouds import GRAPH_APPLICATION_ID
    from portal.microsoft.errors import RemoteError
    from portal.microsoft.identifiers import ApplicationId, CorrelationId, RequestId
    from portal.runs.kinds import Context, Kind, Outcome, Unit
    from portal.runs.registry import kinds
    from tenants.models import CustomerTenant
    from tests.support import builders

    def units(scope: Mapping[str, Any], after: int, limit: int) -> list[Unit]:
        rows = CustomerTenant.objects.filter(pk__in=scope["customers"], pk__gt=after).order_by("pk")[:limit]
        return [Unit(key=row.pk, group=row.partner_id, label=row.company_name) for row in rows]

    def load(keys: Sequence[int], context: Context) -> dict[int, tuple[Any, Any]]:
        customers = list(CustomerTenant.objects.filter(pk__in=keys).select_related("partner"))
        given = PartnerConsent.objects.filter(registration=context.scope["registration"])
        consents = {one.partner_id: one for one in given.select_related("partner", "registration__credential")}
        return {customer.pk: (customer, consents[customer.partner_id]) for customer in customers}

    def work(key: int, subject: Any, context: Context) -> Outcome:
        name = context.correlation_id(key)
        customer, consent = subject
        try:
            clients.customer_clients(consent, customer, CorrelationId(name), by=builders.BY).consents.create(
                customer=customer.tenant,
                application_id=consent.registration.client_id,
                display_name="Example Control Panel",
                resource=ApplicationId(GRAPH_APPLICATION_ID),
                scopes=["User.Read.All", "Directory.Read.All"],
                request_id=RequestId(name),
            )
        except RemoteError as error:
            return Outcome(failure_class="failed", message=str(error), throttled=error.status == 429)
        return Outcome()

    kind = Kind(
        name="bench_posts",
        label="POSTs alone",
        units=units,
        load=load,
        work=work,
        write=lambda done, context: None,
        place=lambda subject: (subject[1].registration.application_id, subject[0].partner.cloud),
        uses_database=True,
    )
    kinds()[kind.name] = kind
    return kind


def start(what: str, customers: Sequence[str]) -> Any:
    """Start a run over these customers."""
    from consent.customers.plans import make_plan
    from consent.models import ApplicationRegistration
    from consent.runs.apply_plan import start_apply
    from consent.runs.verify import CONSENT_VERIFY
    from consent.selection import Selection
    from portal.audit.trail import Actor
    from portal.runs import service
    from tenants.models import CustomerTenant

    actor = Actor.command("bench")
    keys = list(CustomerTenant.objects.filter(tenant_id__in=customers).order_by("pk").values_list("pk", flat=True))
    registration = ApplicationRegistration.objects.get()
    if what == "posts":
        scope = {"customers": keys, "registration": registration.pk}
        return service.start(register_posts(), scope=scope, actor=actor)[0]
    if what == "verify":
        return service.start(CONSENT_VERIFY, scope=Selection(customers=tuple(keys)).to_json(), actor=actor)[0]
    plan = make_plan(registration, Selection(customers=tuple(keys)), actor=actor)
    return start_apply(plan, actor=actor, waves=())[0]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one measurement found, for a customer where it does not say otherwise."""

    rate: float
    """Customers a second; of POSTs without the first seconds, in which the processes start."""
    refused: int
    cpu: float
    """Milliseconds of a processor."""
    calls: float
    statements: float
    handovers: float


def measure(
    gate: Gate, what: str, customers: Sequence[Customer], processes: int, threads: int, profile: str = ""
) -> Found:
    """Let several processes work one run, print what it took, and return it."""
    from portal.runs import summaries

    gate.calls()
    run = start(what, [tenant for _, tenant in customers])
    working = [measured_portal.started("counted", run.pk, threads, profile) for _ in range(processes)]
    facts = [measured_portal.facts_of(one) for one in working]
    times = sorted(at for at, _ in gate.posts())
    answered = gate.calls()
    run.refresh_from_db()
    number = len(customers)
    rate = number / (run.finished_at - run.started_at).total_seconds() if what == "verify" else _rate_of(times)
    classes = dict(summaries.summary(run).classes)
    result = Found(
        rate=rate,
        refused=sum(count for name, count in answered.items() if name.endswith(" 429")),
        cpu=1000 * sum(one["cpu"] for one in facts) / number,
        calls=sum(answered.values()) / number,
        statements=sum(sum(one["statements"].values()) for one in facts) / number,
        handovers=sum(one["handovers"] for one in facts) / number,
    )
    say(f"{what}: {number} customers, {processes} processes with {threads} threads, {facts[0]['seconds']:.1f} s")
    say(f"    results: {classes}; refused with 429: {result.refused}; {dict(sorted(answered.items()))}")
    if what != "verify":
        say(f"    most POSTs in one second: {_busiest(times)}")
    say(
        f"    {result.rate:.1f} a second; for a customer {result.cpu:.1f} ms of a processor, {result.calls:.2f} calls, "
        f"{result.statements:.1f} statements, {result.handovers:.0f} hand-overs"
    )
    if set(classes) != {"ok"}:
        raise RuntimeError(f"not all went well: {classes}")
    return result


def _rate_of(times: Sequence[float]) -> float:
    """Return how many came a second, without the first three seconds: the processes start one after the other."""
    begun = next(place for place, at in enumerate(times) if at >= min(times[0] + 3, times[len(times) // 2]))
    return (len(times) - 1 - begun) / (times[-1] - times[begun])


def _busiest(times: Sequence[float]) -> int:
    return max(sum(1 for at in times[place : place + 60] if at < times[place] + 1) for place in range(len(times)))


def floor(
    folder: Path, place: PartnersAtMicrosoft, what: str, customers: Sequence[Customer], in_flight: int, rate: float
) -> Found:
    """Make the same calls in raw asyncio, print what they took, and return it."""
    file, chosen = folder / "partners", folder / "customers"
    place.save(file)
    chosen.write_text(json.dumps(customers))
    facts = measured_portal.facts_of(measured_portal.started("floor_consents", file, chosen, what, in_flight, rate))
    number = len(customers)
    found = Found(
        rate=number / facts["seconds"],
        refused=0,
        cpu=1000 * facts["cpu"] / number,
        calls=0.0,
        statements=0.0,
        handovers=0.0,
    )
    say(f"floor of {what}: {found.rate:.1f} a second; for a customer {found.cpu:.1f} ms of a processor")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=2000, help="of each measurement")
    parser.add_argument("--partners", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=16, help="of each process")
    parser.add_argument("--rate", type=int, default=45, help="our ceiling, CONSENT_RATE")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds of each call")
    parser.add_argument("--only", choices=WHAT)
    parser.add_argument("--no-floor", action="store_true")
    parser.add_argument("--profile", default="", help="file for cProfile, of one process with one thread")
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database, which is emptied; else SQLite")
    options = parser.parse_args()
    if options.profile:
        options.processes = options.threads = 1
    missed = []
    with tempfile.TemporaryDirectory() as name, partners_at_microsoft(Path(name), options.partners) as (place, gate):
        folder = Path(name)
        measured_portal.open_connected_portal(place, folder, options.database, CONSENT_RATE=str(options.rate))
        gate.switch(consent_limit=DOCUMENTED, customer_limit=0, latency=options.latency)
        say(f"{'PostgreSQL' if options.database else 'SQLite'}, {os.cpu_count()} cores")
        for what in [options.only] if options.only else WHAT:
            customers = gate.add_customers(options.customers, f"{what}-")
            fill(customers)
            if what == "verify":
                consent_to(gate, customers)
            found = measure(gate, what, customers, options.processes, options.threads, options.profile)
            goal = LEAST_READ if what == "verify" else LEAST * options.rate
            say(f"    {found.rate / goal:.1%} of the goal, {goal:.1f} a second")
            note(Figure(name=f"{what}: customers a second", value=found.rate, goal=goal, is_least=True))
            note(Figure(name=f"{what}: refusals (429)", value=found.refused, goal=0))
            if what in MOST_CALLS:
                note(Figure(name=f"{what}: calls of a customer", value=found.calls, goal=MOST_CALLS[what]))
            if found.refused or found.rate < goal:
                missed.append(what)
            if what != "posts" and not options.no_floor:
                again = customers if what == "verify" else gate.add_customers(options.customers, "floor-")
                rate = 0 if what == "verify" else options.rate
                below = floor(folder, place, what, again, options.processes * options.threads, rate)
                times = found.cpu / below.cpu
                say(f"    {times:.2f} times the floor's processor")
                note(Figure(name=f"{what}: processor against the floor", value=times, goal=MOST_OF_THE_FLOOR[what]))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
