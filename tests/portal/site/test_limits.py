"""Limits per address and link, on the real pages (S-63). Time stands still in each test unless it is moved."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from consent.limits import CALLBACK, LANDING, START, too_many_open_flows
from consent.models import ConsentFlow
from portal.models import RequestCount
from portal.site import limits
from portal.site.limits import EXPORT, LOGIN, Rule, limiter
from tests.support.portal import Browser, Portal
from tests.support.source import ROOT, variables

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-63")]

ONE, OTHER = "192.0.2.1", "192.0.2.2"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
RULE = Rule(name="test", per_address=5, per_link=3, link="token")


@pytest.fixture(autouse=True)
def clock(settings: Settings) -> Iterator[time_machine.Traveller]:
    """The limits as shipped, a process that remembers nothing, and a clock at the start of all windows."""
    settings.REQUEST_LIMIT_FACTOR = 1
    start = (int(time.time()) // LOGIN.window + 1) * LOGIN.window
    with time_machine.travel(datetime.fromtimestamp(start, UTC), tick=False) as traveller:
        forget()
        yield traveller
    forget()


def forget() -> None:
    """Be a fresh process."""
    limiter.forget()
    too_many_open_flows.forget()


def unknown_link() -> str:
    return f"/consent/{secrets.token_urlsafe(32)}/"


def ask(path: str, address: str = ONE, times: int = 1, **more: Any) -> list[int]:
    """Open a page that often and return how it was answered."""
    who = Browser()
    return [who.get(path, REMOTE_ADDR=address, **more).status_code for _ in range(times)]


def count(address: str = ONE, link: str = "", rule: Rule = RULE, times: int = 1) -> list[bool]:
    """Count that often and return which passed."""
    return [limiter.seconds_to_wait(rule, address, link) == 0 for _ in range(times)]


def failing_table() -> AbstractContextManager[None]:
    """Let every statement about the limits fail, as on a full disk or a database that is locked for too long."""

    def refuse(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if RequestCount._meta.db_table in sql:
            raise OperationalError("database or disk is full")
        return execute(sql, *rest)

    return connection.execute_wrapper(refuse)


# --- each page has its limit ----------------------------------------------------------------------------------------


def test_a_landing_page_is_refused_beyond_its_limit_for_one_link() -> None:
    path = unknown_link()
    assert Counter(ask(path, times=LANDING.per_link + 3)) == {404: LANDING.per_link, 429: 3}


def test_landing_pages_are_refused_beyond_the_limit_of_the_address_whatever_the_link() -> None:
    answers = [ask(unknown_link())[0] for _ in range(LANDING.per_address + 3)]
    assert Counter(answers) == {404: LANDING.per_address, 429: 3}


def test_a_start_is_counted_even_without_the_token_of_the_form() -> None:
    path, who = unknown_link() + "start", Browser()
    answers = [who.post(path, REMOTE_ADDR=ONE).status_code for _ in range(START.per_link + 2)]
    assert Counter(answers) == {403: START.per_link, 429: 2}
    assert ask(path[:-5]) == [404], "the landing page has an allowance of its own"


def test_starts_of_one_link_are_refused_beyond_the_limit(portal: Portal) -> None:
    path, who = portal.link(), Browser()
    for _ in range(START.per_link):
        portal.press_continue(who, path)
    with pytest.raises(AssertionError, match="One moment, please"):
        portal.press_continue(who, path)
    assert ConsentFlow.objects.count() == START.per_link


def test_both_callbacks_share_one_limit_and_no_query_or_body_avoids_it() -> None:
    who = Browser()
    answers = []
    for number in range(0, CALLBACK.per_address + 4, 2):
        answers.append(who.post("/consent/callback/global", {"state": str(number)}, REMOTE_ADDR=ONE))
        answers.append(who.get(f"/consent/admin-consent/china?state={number}", REMOTE_ADDR=ONE))
    assert Counter(answer.status_code for answer in answers) == {400: CALLBACK.per_address, 429: 4}
    assert who.post("/consent/callback/usgov", REMOTE_ADDR=OTHER).status_code == 400


def test_a_thousand_wrong_passwords_are_refused_and_the_real_person_gets_in_from_elsewhere() -> None:
    User.objects.create_superuser("anna", "anna@vendor.example", "correct horse battery")
    guesser, anna = Browser(), Browser()
    answers = [
        guesser.post("/admin/login/", {"username": "anna", "password": str(n)}, REMOTE_ADDR=ONE) for n in range(1000)
    ]
    refused = answers[LOGIN.per_address :]
    assert {answer.status_code for answer in refused} == {429}
    assert 429 not in {answer.status_code for answer in answers[: LOGIN.per_address]}
    assert refused[0].content == b"Too many requests from your network. Wait five minutes, then try again.\n"
    assert refused[0]["Content-Type"].startswith("text/plain")
    assert 0 < int(refused[0]["Retry-After"]) <= LOGIN.window
    assert guesser.get("/admin/login/", REMOTE_ADDR=ONE).status_code == 200, "only trying is counted"
    page = anna.get("/admin/login/", REMOTE_ADDR=OTHER)
    form = {"username": "anna", "password": "correct horse battery", "csrfmiddlewaretoken": page.context["csrf_token"]}
    sent = anna.post(
        "/admin/login/", form, REMOTE_ADDR=OTHER, headers={"referer": "https://portal.localhost/admin/login/"}
    )
    assert sent.status_code != 429


@pytest.mark.parametrize("action", [["export_csv"], ["export_xlsx"], ["export_csv", ""], ["", "export_csv"]])
def test_exports_are_refused_beyond_the_limit_and_other_actions_are_not(action: list[str]) -> None:
    who = Browser()
    who.force_login(User.objects.create_superuser("anna", "anna@vendor.example", "correct horse battery"))
    path = "/admin/tenants/partnertenant/"
    answers = [who.post(path, {"action": action}, REMOTE_ADDR=ONE).status_code for _ in range(EXPORT.per_address + 2)]
    assert answers[-2:] == [429, 429]
    assert 429 not in answers[:-2]
    assert who.post(path, {"action": ["other"]}, REMOTE_ADDR=ONE).status_code != 429
    assert who.get(path, REMOTE_ADDR=ONE).status_code == 200
    assert who.post(path, {"action": action}, REMOTE_ADDR=OTHER).status_code != 429


# --- what a refusal looks like --------------------------------------------------------------------------------------


def test_a_refusal_is_one_fixed_page_that_says_when_to_come_back(clock: time_machine.Traveller) -> None:
    pages = []
    for address, path in ((ONE, unknown_link()), (OTHER, unknown_link())):
        ask(path, address, LANDING.per_link)
        clock.shift(7)
        pages.append(Browser().get(path, REMOTE_ADDR=address))
    assert [page.status_code for page in pages] == [429, 429]
    assert pages[0].content == pages[1].content
    assert [page["Retry-After"] for page in pages] == ["53", "46"]
    assert b"One moment, please" in pages[0].content
    assert "no-store" in pages[0]["Cache-Control"]
    assert "default-src 'none'" in pages[0]["Content-Security-Policy"]
    assert pages[0]["X-Frame-Options"] == "DENY"
    assert not pages[0].cookies


def test_whoever_waits_as_told_gets_through(clock: time_machine.Traveller) -> None:
    path = unknown_link()
    ask(path, times=LANDING.per_link)
    refused = Browser().get(path, REMOTE_ADDR=ONE)
    clock.shift(int(refused["Retry-After"]) - 1)
    assert ask(path) == [429]
    clock.shift(1)
    assert ask(path) == [404]


def test_the_factor_multiplies_every_limit(settings: Settings) -> None:
    settings.REQUEST_LIMIT_FACTOR = 3
    assert count(times=17).count(True) == 3 * RULE.per_address
    assert count(OTHER, "link", times=17).count(True) == 3 * RULE.per_link


# --- whose allowance it is ------------------------------------------------------------------------------------------


def test_one_address_cannot_use_up_the_allowance_of_another() -> None:
    assert count(ONE, times=10) == [True] * 5 + [False] * 5
    assert count(OTHER, times=5) == [True] * 5


def test_nobody_can_use_up_a_link_for_its_partner(portal: Portal) -> None:
    path = portal.link()
    token = path.split("/")[2]
    for number in range(100):
        limiter.seconds_to_wait(START, f"198.51.100.{number}", token)
        for _ in range(LANDING.per_link + 1):
            limiter.seconds_to_wait(LANDING, f"198.51.100.{number}", token)
    assert portal.press_continue(Browser(), path).startswith(portal.sandbox.clouds["global"].sign_in)


def test_the_limit_of_a_link_does_not_close_the_other_links_of_the_address() -> None:
    assert count(ONE, "first", times=4) == [True, True, True, False]
    assert count(ONE, "second", times=2) == [True, True]


@pytest.mark.req("S-29")
def test_a_forged_header_changes_nothing() -> None:
    path = unknown_link()
    answers = [
        ask(path, headers={"x-forwarded-for": f"198.51.100.{number}", "forwarded": f"for=198.51.100.{number}"})[0]
        for number in range(LANDING.per_link + 2)
    ]
    assert answers[-2:] == [429, 429]


@pytest.mark.req("S-29")
def test_behind_a_proxy_only_its_own_entry_counts(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = 1
    path = unknown_link()
    answers = [
        ask(path, headers={"x-forwarded-for": f"198.51.100.{number}, {ONE}"})[0]
        for number in range(LANDING.per_link + 2)
    ]
    assert answers[-2:] == [429, 429]
    assert ask(path, headers={"x-forwarded-for": f"{ONE}, {OTHER}"}) == [404], "another person behind the same proxy"


def test_requests_without_a_readable_address_share_one_allowance() -> None:
    path = unknown_link()
    answers = [ask(path, f"rubbish {number}")[0] for number in range(LANDING.per_link + 1)]
    assert answers[-1] == 429
    assert ask(path) == [404]


def test_an_ipv6_customer_has_one_allowance_for_the_whole_network() -> None:
    answers = [count(f"2001:db8:1:2::{number:x}")[0] for number in range(1, 8)]
    assert answers == [True] * 5 + [False] * 2
    assert count("2001:db8:1:2:ffff:ffff:ffff:ffff") == [False]
    assert count("2001:db8:1:3::1") == [True]
    path = unknown_link()
    mapped = [ask(path, f"::ffff:{ONE}")[0] for _ in range(LANDING.per_link)] + ask(path)
    assert mapped[-1] == 429, "a mapped IPv4 address is that IPv4 address"


# --- a crowd slows down and stops nobody ----------------------------------------------------------------------------


@pytest.fixture
def crowd(portal: Portal, settings: Settings) -> str:
    """Two open flows where two are many; the path of a link."""
    settings.OPEN_FLOW_LIMIT = 2
    path = portal.link()
    assert [start(path, f"198.51.100.{number}") for number in range(2)] == [303, 303]
    return path


def start(path: str, address: str) -> int:
    who = Browser()
    token = who.get(path, REMOTE_ADDR=address).context["csrf_token"]
    response = who.post(
        f"{path}start",
        {"csrfmiddlewaretoken": token},
        REMOTE_ADDR=address,
        headers={"referer": f"https://portal.localhost{path}"},
    )
    assert response.status_code == 303 or 0 < int(response["Retry-After"]) <= 60
    return int(response.status_code)


def test_in_a_crowd_each_address_starts_once_a_minute(crowd: str, clock: time_machine.Traveller) -> None:
    assert [start(crowd, ONE) for _ in range(3)] == [303, 429, 429]
    assert start(crowd, OTHER) == 303, "a person with a fresh address always gets through"
    clock.shift(60)
    assert [start(crowd, ONE) for _ in range(2)] == [303, 429]


@pytest.mark.parametrize("over", [{"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, {"outcome": "working"}])
def test_flows_that_are_over_make_no_crowd(crowd: str, over: dict[str, Any]) -> None:
    ConsentFlow.objects.update(
        **over, **({"claimed_at": datetime(2020, 1, 1, tzinfo=UTC)} if "outcome" in over else {})
    )
    assert [start(crowd, ONE) for _ in range(2)] == [303, 303]


def test_whether_it_is_crowded_is_asked_once_in_a_while_and_never_for_a_first_start(crowd: str) -> None:
    def questions() -> int:
        return sum("consent_consentflow" in query["sql"] and "COUNT(" in query["sql"] for query in queries)

    with CaptureQueriesContext(connection) as queries:
        start(crowd, ONE)
        assert questions() == 0
        for _ in range(4):
            start(crowd, ONE)
        assert questions() == 1


def test_a_crowd_that_cannot_be_counted_refuses_nobody(portal: Portal, settings: Settings) -> None:
    def fail() -> bool:
        raise OperationalError("server closed the connection")

    rule = Rule(name="test", per_address=5, crowded=fail)
    assert count(rule=rule, times=6) == [True] * 5 + [False]


# --- what it costs --------------------------------------------------------------------------------------------------


@pytest.mark.req("R-48")
def test_a_request_costs_one_query_and_a_refusal_none(portal: Portal) -> None:
    path, who = portal.link(), Browser()
    with CaptureQueriesContext(connection) as queries:
        assert who.get(path, REMOTE_ADDR=ONE).status_code == 200
    assert sum(RequestCount._meta.db_table in query["sql"] for query in queries) == 1
    ask(path, times=LANDING.per_link)
    with CaptureQueriesContext(connection) as queries:
        assert ask(path, times=20) == [429] * 20
    assert len(queries) == 0


@pytest.mark.req("R-48")
@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("post", f"/consent/{'A' * 43}/start", START),
        ("post", "/consent/callback/global", CALLBACK),
        ("get", "/consent/admin-consent/global", CALLBACK),
        ("post", "/admin/login/", LOGIN),
    ],
)
def test_no_page_reads_the_database_to_refuse(method: str, path: str, rule: Rule) -> None:
    who = Browser()
    ask_once = getattr(who, method)
    for _ in range(rule.per_address):
        ask_once(path, REMOTE_ADDR=ONE)
    with CaptureQueriesContext(connection) as queries:
        assert ask_once(path, REMOTE_ADDR=ONE).status_code == 429
    assert len(queries) == 0


@pytest.mark.req("R-48")
def test_a_restarted_process_asks_the_table_once_and_refuses_from_memory_then() -> None:
    path = unknown_link()
    ask(path, times=LANDING.per_link)
    forget()
    with CaptureQueriesContext(connection) as queries:
        assert ask(path, times=20) == [429] * 20
    assert len(queries) == 1


def test_pages_without_a_rule_cost_nothing() -> None:
    who = Browser()
    who.force_login(User.objects.create_superuser("anna", "anna@vendor.example", "correct horse battery"))
    who.get("/admin/", REMOTE_ADDR=ONE)
    assert RequestCount.objects.count() == 0


# --- the table ------------------------------------------------------------------------------------------------------


def test_rows_of_past_windows_go_and_the_others_stay(clock: time_machine.Traveller) -> None:
    count(rule=LOGIN)
    for number in range(50):
        count(f"198.51.100.{number}")
    assert RequestCount.objects.count() == 51
    clock.shift(61)
    count(OTHER)
    assert RequestCount.objects.count() == 2, "the login of this window, and this request"


def test_a_flood_from_many_addresses_leaves_the_table_bounded(
    monkeypatch: pytest.MonkeyPatch, clock: time_machine.Traveller
) -> None:
    monkeypatch.setattr(limits, "MAX_ROWS", 100)
    rule = Rule(name="test", per_address=2, window=3600)  # no window ends here, so nothing can be removed
    for second in range(3 * limits.SWEEP_SECONDS):
        for number in range(5):
            assert count(f"2001:db8:{second:x}:{number:x}::1", rule=rule) == [True]
        clock.shift(1)
    most = 5 * (limits.SWEEP_SECONDS + 2)  # what comes in between two looks at the table
    assert RequestCount.objects.count() <= most
    assert count(ONE, rule=rule, times=4) == [True, True, False, False], "memory goes on counting"


def test_the_memory_of_a_process_is_bounded(monkeypatch: pytest.MonkeyPatch, clock: time_machine.Traveller) -> None:
    monkeypatch.setattr(limits, "MAX_REMEMBERED", 40)
    count(ONE, times=6)
    for number in range(100):
        count(f"198.51.100.{number}")
        assert len(limiter._seen) <= 41
    assert count(ONE) == [False], "what memory dropped, the table still knows"


def test_the_table_names_no_address_and_no_link(settings: Settings, clock: time_machine.Traveller) -> None:
    count(ONE, "link")
    first = set(RequestCount.objects.values_list("key", flat=True))
    assert all(len(key) == 32 and int(key, 16) for key in first)
    forget()
    settings.SECRET_KEY = secrets.token_urlsafe(48)
    count(ONE, "link")
    second = set(RequestCount.objects.values_list("key", flat=True)) - first
    assert len(second) == 2, "without the key nobody can tell which address it is"
    clock.shift(60)
    count(ONE, "link")
    assert not set(RequestCount.objects.values_list("key", flat=True)) & (first | second), "nor that it came again"


# --- a database that fails ------------------------------------------------------------------------------------------


@pytest.mark.req("R-37")
def test_a_failing_table_locks_nobody_out_and_fails_no_page(
    portal: Portal, caplog: pytest.LogCaptureFixture, clock: time_machine.Traveller
) -> None:
    path = portal.link()
    with failing_table():
        assert ask(path, times=LANDING.per_link + 2) == [200] * LANDING.per_link + [429] * 2
        assert ask(path, OTHER) == [200]
    assert caplog.text.count("counted by this process alone: OperationalError") == 1, "one line, not one a request"
    assert RequestCount.objects.count() == 0
    clock.shift(limits.ALONE_SECONDS)
    assert ask(path, OTHER) == [200]
    assert RequestCount.objects.count() == 2


def test_a_sweep_that_fails_locks_nobody_out(clock: time_machine.Traveller) -> None:
    count(ONE)
    clock.shift(61)

    def refuse(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("DELETE"):
            raise OperationalError("database is locked")
        return execute(sql, *rest)

    with connection.execute_wrapper(refuse):
        assert count(ONE, times=6) == [True] * 5 + [False]


@pytest.mark.req("R-36")
@pytest.mark.django_db(transaction=True)
def test_a_connection_that_broke_is_replaced_before_the_page_needs_it(portal: Portal) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("a connection to a file does not break")
    path = portal.link()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    end = threading.Thread(target=_end_backend, args=[backend])
    end.start()
    end.join()
    assert ask(path) == [200]


def _end_backend(number: int) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [number])
    connections.close_all()


# --- several processes ----------------------------------------------------------------------------------------------

CHILD = """
import sys, time_machine, django
from datetime import UTC, datetime
django.setup()
from django.test import Client
from portal.models import SpentForm
with time_machine.travel(datetime.fromtimestamp(float(sys.argv[1]), UTC), tick=False):
    who = Client(headers={"host": "portal.localhost"})
    answers = [who.get(sys.argv[2], secure=True, REMOTE_ADDR=sys.argv[3]).status_code for _ in range(int(sys.argv[4]))]
    print(answers.count(404), answers.count(429), SpentForm.objects.spend("test", seconds=600))
"""


def process(settings: Settings, path: str, times: int) -> subprocess.Popen[str]:
    """Begin another portal process over this test's database, which opens the page that often."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        address = f"sqlite:///{database['NAME']}"
    else:
        login = f"{database['USER']}:{database['PASSWORD']}" if database["PASSWORD"] else database["USER"]
        address = f"postgres://{login}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= dict.fromkeys(variables(), "") | {
        "SECRET_KEY": settings.SECRET_KEY,
        "INTEGRITY_KEY": settings.INTEGRITY_KEY,
        "PUBLIC_BASE_URL": settings.PUBLIC_BASE_URL,
        "DATABASE_URL": address,
        "VAULT_URL": settings.VAULT_URL,
        "SERVE_STATIC_FROM_SOURCE": "true",
        "DJANGO_SETTINGS_MODULE": "portal.settings",
    }
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(time.time()), path, ONE, str(times)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.django_db(transaction=True)
def test_processes_count_together_and_a_restart_forgets_nothing(settings: Settings) -> None:
    path = unknown_link()
    with ExitStack() as ends:
        both = [ends.enter_context(process(settings, path, LANDING.per_link)) for _ in range(2)]
        told = [one.communicate(timeout=60)[0].split() for one in both]
    assert sum(int(passed) for passed, _, _ in told) == LANDING.per_link
    assert sum(int(refused) for _, refused, _ in told) == LANDING.per_link
    assert sorted(first for _, _, first in told) == ["False", "True"], "a form that works once works once for all"
    with process(settings, path, 2) as restarted:
        assert restarted.communicate(timeout=60)[0].split() == ["0", "2", "False"]


@pytest.mark.django_db(transaction=True)
def test_requests_at_the_same_moment_get_exactly_the_allowance() -> None:
    rule = Rule(name="test", per_address=20, per_link=20, link="token")
    barrier = threading.Barrier(40)

    def work(number: int) -> bool:
        # Threads of two processes: a limiter with a memory of its own for each half.
        try:
            barrier.wait(30)
            return processes[number % 2].seconds_to_wait(rule, ONE, "link") == 0
        finally:
            connections.close_all()

    processes = [limits.Limiter(), limits.Limiter()]
    with ThreadPoolExecutor(40) as pool:
        assert list(pool.map(work, range(40))).count(True) == 20
