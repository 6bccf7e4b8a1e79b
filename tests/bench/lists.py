"""The admin's lists with 10,000 partners of 100 customers each (R-29).

``python -m tests.bench.lists [--partners 10000] [--customers 100] [--database URL]`` fills an empty database, opens
each page twenty times as a member of staff in this process, and exports the customers that are not ready. It prints the
median, the 95th percentile, the processor time of this process, the statements and the growth of memory, then the 95th
percentile of the header's search. It ends with 1 when a page takes 200 ms (p95), a search 100 ms, one of them more than
15 statements (the palette 20), or the export grows in memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench import measured_portal
from tests.bench.checks import say
from tests.bench.partners_at_microsoft import peak_memory

if TYPE_CHECKING:
    from django.db.models import Model

    from tests.support.staff import Staff

MOST_SECONDS = 0.2  # of a page, p95
MOST_STATEMENTS = 15
MOST_OF_THE_PALETTE = 20  # with what every page asks
MOST_OF_A_PARTNER = 40  # one page with all that is known of it, or of a customer; see test_partner_hub
MOST_OF_A_SEARCH = 0.1  # seconds, p95
MOST_GROWTH = 50_000  # kB, of an export
NOT_READY = 12  # one customer in so many
_ROUNDS = 20
_TIMES_SEARCHED = 20
_ROWS_AT_ONCE = 5000


def fill(model: type[Model], rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows quickly; what a row does not name is the model's default."""
    from django.db import connection, transaction

    quote = connection.ops.quote_name
    fields = list(model._meta.concrete_fields)
    plain = model()
    defaults = {field.attname: field.get_db_prep_save(field.pre_save(plain, add=True), connection) for field in fields}
    columns = ", ".join(quote(str(field.column)) for field in fields)
    marks = ", ".join(["%s"] * len(fields))
    statement = f"INSERT INTO {quote(model._meta.db_table)} ({columns}) VALUES ({marks})"  # noqa: S608
    with transaction.atomic(), connection.cursor() as cursor:
        for some in batched(rows, _ROWS_AT_ONCE):
            cursor.executemany(statement, [list((defaults | dict(row)).values()) for row in some])


def guid(kind: int, number: int) -> str:
    return str(uuid.UUID(int=kind << 96 | number * 0x9E3779B97F4A7C15 % (1 << 96)))


def fill_database(partners: int, customers: int) -> None:
    from django.utils import timezone

    from consent.models import CustomerConsent, PartnerConsent
    from portal.runs.models import Run, RunItem
    from portal.search_text import folded
    from tenants.models import CustomerTenant, PartnerTenant
    from tests.support import builders

    registration = builders.registration()
    now = timezone.now()
    run = Run.objects.create(
        kind="token_check", scope={}, scope_hash="bench", actor_kind="command", actor="bench", total=partners
    )

    def partner(number: int) -> Mapping[str, Any]:
        domain = f"partner{number}.example.com"
        return {
            "id": number,
            "name": f"Partner {number}",
            "tenant_id": guid(1, number),
            "domain": domain,
            "search_text": folded(f"Partner {number}", domain),
        }

    def consent(number: int) -> Mapping[str, Any]:
        return {
            "id": number,
            "partner_id": number,
            "registration_id": registration.pk,
            "state": "needs_consent" if number % 20 == 0 else "connected",
            "consented_at": str(now),
            "pinned_oid": guid(2, number),
            "generation": 1,
            "secret_name": f"rt-{number:032x}",
            "secret_version": f"{number:032x}",
            "fingerprint": "0" * 16,
            "stored_at": str(now),
            "mfa": "proven",
        }

    def item(number: int) -> Mapping[str, Any]:
        bad = number % 50 == 0
        return {
            "id": number,
            "run_id": run.pk,
            "key": number,
            "group": number,
            "label": f"Partner {number}",
            "turn": 0,
            "state": "done",
            "failure_class": "needs_consent" if bad else "ok",
            "message": "The partner must consent." if bad else "",
            "owner": "partner" if bad else "",
            "correlation_id": guid(3, number),
            "finished_at": str(now),
        }

    def customer(number: int) -> Mapping[str, Any]:
        tenant_id, domain = guid(4, number), f"customer{number}.example.com"
        return {
            "id": number,
            "partner_id": 1 + number % partners,
            "tenant_id": tenant_id,
            "partner_center_id": tenant_id,
            "company_name": f"Customer {number}",
            "domain": domain,
            "search_text": folded(f"Customer {number}", domain),
            "first_seen_at": str(now),
            "last_seen_at": str(now),
            "readiness": "not_ready" if number % NOT_READY == 0 else "ready",
            "readiness_owner": "partner" if number % NOT_READY == 0 else "",
        }

    def customer_consent(number: int) -> Mapping[str, Any]:
        absent = number % 25 == 0
        return {
            "id": number,
            "customer_id": number,
            "registration_id": registration.pk,
            "state": "absent" if absent else "granted",
            "service_principal_id": "" if absent else guid(5, number),
            "verified_at": str(now),
        }

    def up_to(number: int, one: Any) -> Iterator[Mapping[str, Any]]:
        return map(one, range(1, number + 1))

    for model, number, one in (
        (PartnerTenant, partners, partner),
        (PartnerConsent, partners, consent),
        (RunItem, partners, item),
        (CustomerTenant, partners * customers, customer),
        (CustomerConsent, partners * customers, customer_consent),
    ):
        fill(model, up_to(number, one))
    Run.objects.update(state="done", listed_at=now, finished_at=now)


def pages(partners: int, customers: int) -> Mapping[str, str]:
    middle = partners * customers // 2
    return {
        "first page": "/admin/",
        "partners": "/admin/tenants/partnertenant/",
        "partners, by state": "/admin/tenants/partnertenant/?state=attention",
        "partners, by name": f"/admin/tenants/partnertenant/?q=Partner+{partners // 2}",
        **{
            f"a partner, {tab}": f"/admin/tenants/partnertenant/{partners // 2}/{tab}/"
            for tab in ("change", "connection", "customers", "gdap", "activity", "audit", "details")
        },
        "tokens": "/admin/consent/partnerconsent/",
        "customers": "/admin/tenants/customertenant/",
        "customers, the last page": "/admin/tenants/customertenant/?p=200",
        "customers, of one partner": f"/admin/tenants/customertenant/?partner__id__exact={partners // 2}",
        "customers, of named ones": f"/admin/tenants/customertenant/?partner__named=Partner+{partners // 200}",
        "customers, partly granted": "/admin/tenants/customertenant/?consent=partial",
        "customers, absent": "/admin/tenants/customertenant/?consent=absent",
        "customers, by readiness": "/admin/tenants/customertenant/?o=7",
        "customers, not ready": "/admin/tenants/customertenant/?readiness=not_ready",
        "customers, by tenant id": f"/admin/tenants/customertenant/?q={guid(4, middle)}",
        "customers, by whole name": f"/admin/tenants/customertenant/?q=Customer+{middle}",
        "palette, a partner": f"/admin/search/?q=Partner+{partners // 2}",
        "palette, nothing": "/admin/search/?q=Nowhere",
        "palette, start of an id": f"/admin/search/?q={guid(4, middle)[:8]}",
        "customers, by domain": f"/admin/tenants/customertenant/?q=customer{middle}.ex",
        "a customer": f"/admin/tenants/customertenant/{middle}/change/",
        "customer consents, absent": "/admin/consent/customerconsent/?state__exact=absent",
        "a run": "/admin/runs/run/1/change/",
        "units of a run": "/admin/runs/runitem/?run__id__exact=1",
        "units of a run, bad ones": "/admin/runs/runitem/?run__id__exact=1&result=needs_consent",
    }


def measure(staff: Staff, name: str, path: str) -> bool:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    took, worked = [], []
    for _ in range(_ROUNDS):
        began, worked_before = time.perf_counter(), time.process_time()
        with CaptureQueriesContext(connection) as queries:
            answer = staff.get(path)
            if answer.status_code != 200:
                raise RuntimeError(f"{path}: {answer.status_code} {answer.headers.get('Location', '')}")
        took.append(time.perf_counter() - began)
        worked.append(time.process_time() - worked_before)
    seconds = sorted(took)[int(0.95 * len(took))]
    most = MOST_OF_THE_PALETTE if name.startswith("palette") else MOST_STATEMENTS
    most = MOST_OF_A_PARTNER if name.startswith(("a partner", "a customer")) else most
    holds = seconds < MOST_SECONDS and len(queries) <= most
    say(
        f"{name:<28}{1000 * statistics.median(took):>6.0f} ms{1000 * seconds:>6.0f} ms (p95)"
        f"{1000 * statistics.median(worked):>6.0f} ms of processor{len(queries):>5} statements"
        f"{'' if holds else '  FAILS'}"
    )
    if not holds:
        for query in sorted(queries, key=lambda one: -float(one["time"]))[:3]:
            say(f"    {query['time']} s {query['sql'][:300]}")
    return holds


def searches(partners: int, customers: int) -> Mapping[str, str]:
    middle = partners * customers // 2
    return {
        "a partner": f"Partner {partners // 2}",
        "a customer": f"Customer {middle}",
        "inside a name": f"ustomer {middle}",
        "a domain": f"customer{middle}.ex",
        "what all have": "example",
        "two words that all have": "com example",
        "what many have": f"er {middle // 1000}",
        "what nothing has": "Nowhere",
        "two characters": "zz",
        "a tenant id": guid(4, middle),
        "its start": guid(4, middle)[:8],
        "a number": "1",
        "a run": "run 1",
    }


def measure_search(staff: Staff, name: str, text: str) -> bool:
    """Ask the search of the header itself, without the page around it."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from portal.site.search import search

    took, found = [], 0
    for _ in range(_TIMES_SEARCHED):
        began = time.perf_counter()
        with CaptureQueriesContext(connection) as queries:
            found = sum(len(group.found) for group in search(text, staff.user))
        took.append(time.perf_counter() - began)
    seconds = sorted(took)[int(0.95 * len(took))]
    holds = seconds < MOST_OF_A_SEARCH and len(queries) <= MOST_STATEMENTS
    say(
        f"{f'search, {name}':<34}{1000 * seconds:>6.0f} ms (p95){len(queries):>4} statements, {found} found"
        f"{'' if holds else '  FAILS'}"
    )
    return holds


def export(staff: Staff, rows: int) -> bool:
    before = peak_memory()
    began = time.perf_counter()
    address = "/admin/tenants/customertenant/?readiness=not_ready"
    form = {"action": "export_csv", "_selected_action": ["1"], "select_across": "1", "index": "0"}
    answer = staff.post(address, form, headers=staff._here(address))
    if not answer.streaming:
        raise RuntimeError(f"no stream: {answer.status_code}")
    first, size = 0.0, 0
    for chunk in answer:
        first = first or time.perf_counter() - began
        size += len(chunk)
    seconds, growth = time.perf_counter() - began, peak_memory() - before
    holds = growth < MOST_GROWTH
    say(
        f"{'export of who is not ready':<28}{seconds:>8.1f} s, the first bytes after {first:.2f} s, {rows:,} rows, "
        f"{size / 1e6:.0f} MB; memory grew by {growth / 1024:.0f} MB{'' if holds else '  FAILS'}"
    )
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partners", type=int, default=10_000)
    parser.add_argument("--customers", type=int, default=100, help="of each partner")
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database, which is emptied; else SQLite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vault = {"VAULT_URL": str(folder / "vault"), "VAULT_KEY_FILE": str(folder / "key")}
        measured_portal.open_portal(folder, options.database, SERVE_STATIC_FROM_SOURCE="true", **vault)
        began = time.perf_counter()
        fill_database(options.partners, options.customers)
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        rows = options.partners * options.customers
        say(
            f"{options.partners:,} partners, {rows:,} customers with consents, "
            f"{'PostgreSQL' if options.database else 'SQLite'}, filled in {time.perf_counter() - began:.0f} s"
        )
        from tests.support.staff import Staff

        staff = Staff()
        held = [measure(staff, *page) for page in pages(options.partners, options.customers).items()]
        held.append(export(staff, rows // NOT_READY))
        held += [measure_search(staff, *one) for one in searches(options.partners, options.customers).items()]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
