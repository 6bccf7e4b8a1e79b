"""Each list of the admin with each of its filters, orders and searches; the tabs of a hub; the search of the header."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from portal.runs.models import Run
from portal.site.change_list import MOST_LISTED
from portal.site.search import search
from tests.bench.many_rows import guid
from tests.bench.partners_at_microsoft import peak_memory
from tests.support.staff import Staff, asked

MOST_SECONDS = 0.2  # of a page, p95
MOST_OF_THE_OVERVIEW = 0.15
MOST_OF_A_SEARCH = 0.1
MOST_STATEMENTS = 15
MOST_OF_A_HUB = 40  # one page with all that is known of a partner or a customer; see test_partner_hub
MOST_OF_THE_PALETTE = 20  # with what every page asks
MOST_GROWTH = 50_000  # kB, of an export
TOLERANCE = 1.1
HUB = "a partner, "
_QUICK = 0.5  # a page that takes this share of its goal each time is not asked as often as the others
_FEW, _ROUNDS = 4, 20
_TABS = ("change", "connection", "customers", "gdap", "activity", "audit", "details")
_WORDS = {  # what is typed into the search of a list: what all have, what some have, what one has, what none has
    "all": "example",
    "some": "er 77",
    "one": "er4242.ex",
    "none": "nowhere",
}


@dataclass(frozen=True, slots=True)
class Page:
    """What is asked, and what it may take.

    Attributes:
        ask: asks it once.
        seconds: p95 that it may take.
        statements: how many it may ask.
    """

    name: str
    ask: Callable[[], object]
    seconds: float
    statements: int


@dataclass(frozen=True, slots=True)
class Measured:
    """How long it took: ``wall`` by the clock, ``busy`` of a processor, here and in the database; in seconds, p95."""

    page: Page
    wall: float
    busy: float
    statements: int
    slowest: str

    @property
    def seconds(self) -> float:
        """What is held against the goal: on a machine that others use, the clock measures them as well."""
        return min(self.wall, self.busy)

    @property
    def holds(self) -> bool:
        return self.seconds <= TOLERANCE * self.page.seconds and self.statements <= self.page.statements


def _busy(backend: int) -> float:
    """Return the seconds of a processor that this process and its PostgreSQL backend on this machine have used."""
    try:
        told = Path(f"/proc/{backend}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # none, or on another machine
        return time.process_time()
    return time.process_time() + (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def _backend() -> int:
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def measure(page: Page, rounds: int = _ROUNDS, *, warm: bool = True) -> Measured:
    """Ask a page so often, and once more before when its time is to be that of a page that was asked before."""
    backend = _backend()
    walls, busies = [], []
    statements: list[Mapping[str, Any]] = []
    if warm:
        page.ask()  # what is read from the disk the first time
    for number in range(rounds):
        began, before = time.perf_counter(), _busy(backend)
        with CaptureQueriesContext(connection) as queries:
            page.ask()
        walls.append(time.perf_counter() - began)
        busies.append(_busy(backend) - before)
        statements = asked(queries)
        if number + 1 == _FEW and max(busies) < _QUICK * page.seconds:
            break
    slowest = sorted(statements, key=lambda one: -float(one["time"]))[:2]
    return Measured(
        page,
        sorted(walls)[int(0.95 * len(walls))],
        statistics.median(busies) if len(busies) <= _FEW else sorted(busies)[int(0.95 * len(busies))],
        len(statements),
        "\n".join(f"      {one['time']} s {one['sql'][:2000]}" for one in slowest),
    )


def _of_path(staff: Staff, name: str, path: str, seconds: float = MOST_SECONDS, most: int = MOST_STATEMENTS) -> Page:
    def ask() -> Any:
        answer = staff.get(path)
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.headers.get('Location', '')}")
        return answer

    return Page(name, ask, seconds, most)


def _choices(changes: Any) -> Iterator[tuple[str, str]]:
    """Return the filters that a list offers, each with its query; of many related rows none is offered."""
    for one in changes.filter_specs:
        for choice in one.choices(changes):
            if not choice.get("selected") and choice.get("query_string", "?") != "?":
                yield f"{one.title}: {choice['display']}", choice["query_string"]


def _orders(changes: Any) -> Iterator[tuple[str, str]]:
    """Return the columns that a list can be ordered by, both ways."""
    for number, name in enumerate(changes.list_display):
        if name != "action_checkbox" and changes.get_ordering_field(name):
            yield f"ordered by {name}", f"?o={number}"
            yield f"ordered by {name}, the last first", f"?o=-{number}"


def list_pages(staff: Staff) -> Iterator[Page]:
    """Return each list, its last page, and each filter, order and search alone."""
    reverse("admin:index")  # loading the URLs registers the lists, and takes out models without pages
    last = f"?p={MOST_LISTED // 50}"
    for model in sorted(admin.site._registry, key=lambda one: one._meta.label_lower):
        name, path = model._meta.label_lower, reverse(f"admin:{model._meta.label_lower.replace('.', '_')}_changelist")
        answer: Any = staff.get(path)
        changes = answer.context_data["cl"]
        wanted = [("", ""), ("the last page", last), *_choices(changes), *_orders(changes)]
        wanted += [(f"search, what {how} have", f"?q={word}") for how, word in _WORDS.items() if changes.search_fields]
        for what, query in wanted:
            yield _of_path(staff, f"{name}, {what}" if what else name, path + query.replace(" ", "+"))


def other_pages(staff: Staff, partners: int, customers: int) -> Iterator[Page]:
    """Return the overview, the tabs of a partner, pages of single rows, and lists with several filters."""
    middle, partner = partners * customers // 2, partners // 2
    run = Run.objects.earliest("pk").pk  # a database that others used before does not begin with 1
    of_customers = "/admin/tenants/customertenant/"
    yield _of_path(staff, "the overview", "/admin/", MOST_OF_THE_OVERVIEW)
    for tab in _TABS:
        path = f"/admin/tenants/partnertenant/{partner}/{tab}/"
        yield _of_path(staff, f"{HUB}{tab}", path, most=MOST_OF_A_HUB)
    hub = f"/admin/tenants/partnertenant/{partner}/customers/"
    for query in (
        "who=partner",
        "consent=none",
        "consent=absent",
        "evidence=never",
        "q=example",
        "readiness__exact=ready",
    ):
        yield _of_path(staff, f"{HUB}customers, {query}", f"{hub}?missing_since__isempty=1&{query}", most=MOST_OF_A_HUB)
    yield _of_path(staff, "a customer", f"{of_customers}{middle}/change/", most=MOST_OF_A_HUB)
    yield _of_path(staff, "a run", f"/admin/runs/run/{run}/change/", most=MOST_STATEMENTS + 1)
    for name, path in {
        "customers, of one partner": f"{of_customers}?partner__id__exact={partner}",
        "customers, of named ones": f"{of_customers}?partner__named=Partner+{max(partners // 200, 1)}",
        "customers, by tenant id": f"{of_customers}?q={guid(4, middle)}",
        **{
            f"customers that are listed, {query}": f"{of_customers}?missing_since__isempty=1&{query}"
            for query in ("who=partner", "who=customer", "consent=none", "readiness__exact=ready", "p=200")
        },
        "consents of listed customers, absent": "/admin/consent/customerconsent/?customer__missing_since__isempty=1"
        "&state__exact=absent",
        "consents of listed customers, granted": "/admin/consent/customerconsent/?customer__missing_since__isempty=1"
        "&state__exact=granted",
        "units of a run": f"/admin/runs/runitem/?run__id__exact={run}",
        "units of a run, bad ones": f"/admin/runs/runitem/?run__id__exact={run}&result=needs_consent",
        "customers of a plan": "/admin/consent/consentplanitem/?plan__id__exact=1",
    }.items():
        yield _of_path(staff, name, path)
    for name, text in {
        "a partner": f"Partner+{partner}",
        "nothing": "Nowhere",
        "start of an id": guid(4, middle)[:8],
    }.items():
        yield _of_path(staff, f"palette, {name}", f"/admin/search/?q={text}", most=MOST_OF_THE_PALETTE)


def searches(staff: Staff, partners: int, customers: int) -> Iterator[Page]:
    """Return what is asked of the header's search itself, without the page around it."""
    middle = partners * customers // 2
    for name, text in {
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
    }.items():

        def ask(text: str = text) -> object:
            return search(text, staff.user)

        yield Page(f"search, {name}", ask, MOST_OF_A_SEARCH, MOST_STATEMENTS)


def everything(staff: Staff, partners: int, customers: int) -> Iterable[Page]:
    yield from other_pages(staff, partners, customers)
    yield from list_pages(staff)
    yield from searches(staff, partners, customers)


def export(staff: Staff) -> tuple[int, float, float, int]:
    """Export the customers that are not ready; return bytes, seconds, those before the first byte, growth in kB."""
    staff = Staff.of(staff.user)  # an export of everything asks for a sign-in of the last minutes
    before, began = peak_memory(), time.perf_counter()
    address = "/admin/tenants/customertenant/?readiness=not_ready"
    form = {"action": "export_csv", "_selected_action": ["1"], "select_across": "1", "index": "0"}
    answer = staff.post(address, form, headers=staff._here(address))
    if not answer.streaming:
        raise RuntimeError(f"no stream: {answer.status_code}")
    first, size = 0.0, 0
    for chunk in answer:
        first = first or time.perf_counter() - began
        size += len(chunk)
    return size, time.perf_counter() - began, first, peak_memory() - before
