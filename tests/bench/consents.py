"""Four processes create consents under the documented limit of 50 a second: ``python -m tests.bench.consents``.

Twice: with units that are nothing but the POST, through our client and our shared limit, which measures the limit; and
the whole of ``apply_plan``, with its looks before and after each POST, which measures this machine. The sandbox refuses
what is more than 50 in any second. Prints how many it refused, and the rate that was reached, as a share of our ceiling
(CONSENT_RATE) and of Microsoft's 50. Ends with 1 when something was refused, or the POSTs alone reach less than 95 % of
the ceiling.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import measured_portal
from tests.bench.partners_at_microsoft import Gate, partners_at_microsoft

DOCUMENTED = 50
PROCESSES = 4
LEAST = 0.95


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
            )
            for number, (partner, tenant) in enumerate(customers)
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


def child(run: str, threads: str) -> int:
    """Work a run in this process."""
    import django

    django.setup()
    from portal.runs.executor import Executor
    from portal.runs.models import Run

    register_posts()
    Executor(Run.objects.get(pk=int(run)), concurrency=int(threads)).work()
    return 0


def start(what: str, customers: Sequence[str]) -> Any:
    from consent.customers.plans import make_plan
    from consent.models import ApplicationRegistration
    from consent.runs.apply_plan import start_apply
    from consent.selection import Selection
    from portal.audit.trail import Actor
    from portal.runs import service
    from tenants.models import CustomerTenant

    actor = Actor.command("bench")
    keys = list(CustomerTenant.objects.filter(tenant_id__in=customers).order_by("pk").values_list("pk", flat=True))
    if what == "posts":
        registration = ApplicationRegistration.objects.get()
        scope = {"customers": keys, "registration": registration.pk}
        return service.start(register_posts(), scope=scope, actor=actor)[0]
    plan = make_plan(ApplicationRegistration.objects.get(), Selection(customers=tuple(keys)), actor=actor)
    return start_apply(plan, actor=actor, waves=())[0]


def measure(gate: Gate, what: str, customers: Sequence[tuple[int, str]], threads: int, ceiling: int) -> bool:
    """Let four processes work one run; print both numbers, and tell whether they are as they should be."""
    from portal.runs import service

    before = len(gate.posts())
    run = start(what, [tenant for _, tenant in customers])
    command = [sys.executable, "-m", "tests.bench.consents", "--work", str(run.pk), str(threads)]
    for process in [subprocess.Popen(command) for _ in range(PROCESSES)]:
        if process.wait():
            raise RuntimeError("an executor failed")
    found = gate.posts()[before:]
    times = sorted(at for at, _ in found)
    answers: Mapping[int, int] = Counter(status for _, status in found)
    # Without the first three seconds: the processes start one after the other.
    begun = next(place for place, at in enumerate(times) if at >= times[0] + 3)
    rate = (len(times) - 1 - begun) / (times[-1] - times[begun])
    busiest = max(sum(1 for at in times[place : place + 60] if at < times[place] + 1) for place in range(len(times)))
    run.refresh_from_db()
    worked = (run.finished_at - run.started_at).total_seconds()
    say(f"{what}: {len(customers)} customers, {PROCESSES} processes with {threads} threads, {worked:.1f} s")
    say(f"    results: {dict(service.summary(run).classes)}; answers: {dict(answers)}")
    say(f"    answered with 429: {answers.get(429, 0)}; most in one second: {busiest}")
    say(
        f"    {rate:.1f} a second: {rate / ceiling:.1%} of our ceiling of {ceiling}, "
        f"{rate / DOCUMENTED:.1%} of the documented {DOCUMENTED}"
    )
    return not answers.get(429) and (what == "apply" or rate >= LEAST * ceiling)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1500, help="of each of the two measurements")
    parser.add_argument("--partners", type=int, default=20)
    parser.add_argument("--threads", type=int, default=8, help="of each process")
    parser.add_argument("--rate", type=int, default=45, help="our ceiling, CONSENT_RATE")
    parser.add_argument("--only", choices=["posts", "apply"])
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database, which is emptied; else SQLite")
    parser.add_argument("--work", nargs=2, metavar=("RUN", "THREADS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return child(*options.work)
    good = True
    with tempfile.TemporaryDirectory() as name, partners_at_microsoft(Path(name), options.partners) as (place, gate):
        measured_portal.open_connected_portal(place, Path(name), options.database, CONSENT_RATE=str(options.rate))
        gate.switch(consent_limit=DOCUMENTED, customer_limit=0)
        say(f"{'PostgreSQL' if options.database else 'SQLite'}, {os.cpu_count()} cores")
        wanted = [options.only] if options.only else ["posts", "apply"]
        customers = gate.add_customers(options.customers * len(wanted))
        fill(customers)
        for number, what in enumerate(wanted):
            part = customers[number * options.customers : (number + 1) * options.customers]
            good &= measure(gate, what, part, options.threads, options.rate)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
