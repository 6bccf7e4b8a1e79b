"""Limits: shared by all processes, obeyed without a query per call, lowered by a 429 and raised again (R-22, R-31).

Covers: portal.runs.buckets, portal.runs.limits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import responses
from django.db import connection
from django.db.models import F

from portal.microsoft.errors import Throttled
from portal.microsoft.http import GuardedSession, time_budget
from portal.runs import buckets, limits
from portal.runs.models import RateBucket
from portal.runs.pacing import Halted, Pacer, Place, Rule

HOST = "api.partnercenter.microsoft.com"


@pytest.mark.req("R-22")
@pytest.mark.django_db
def test_a_second_process_gets_the_times_after_those_of_the_first() -> None:
    first = buckets.take("consents", 50, 25)
    second = buckets.take("consents", 50, 10)
    third = buckets.take("consents", 50, 1)
    assert first.delay < 0.05
    assert second.delay == pytest.approx(0.5, abs=0.05)
    assert third.delay == pytest.approx(0.7, abs=0.05)


@pytest.mark.req("R-22")
@pytest.mark.django_db
def test_a_limit_that_nobody_used_for_a_while_gives_no_burst() -> None:
    buckets.take("consents", 50, 1)
    RateBucket.objects.update(next_free=0.0)
    grant = buckets.take("consents", 50, 25)
    assert grant.delay < 0.05
    assert buckets.take("consents", 50, 1).delay == pytest.approx(0.5, abs=0.05)


@pytest.mark.req("R-22")
@pytest.mark.django_db(transaction=True)
def test_eight_processes_at_once_never_get_the_same_time() -> None:
    """Threads with connections of their own stand for processes; the row is what they share."""
    starts: list[float] = []

    def ask() -> None:
        try:
            for _ in range(10):
                before = time.time()
                grant = buckets.take("shared", 200, 5)
                starts.append(before + grant.delay)
        finally:
            connection.close()

    began = time.time()
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 80 grants of 25 ms each: the last one begins two seconds after the first, whoever asked.
    assert max(starts) - began == pytest.approx(79 * 0.025, abs=0.6)
    assert len({round(start / 0.025) for start in starts}) > 60


@pytest.mark.req("R-22")
@pytest.mark.django_db
def test_a_complaint_lowers_the_rate_for_everybody_and_it_comes_back_step_by_step() -> None:
    buckets.take("graph", 100, 1)
    buckets.complain("graph", 3.0, 80.0)
    buckets.complain("graph", 3.0, 20.0)  # of the same moment: one complaint
    held = buckets.take("graph", 100, 1)
    assert held.rate == pytest.approx(76)  # a little less than what the service took
    assert held.delay == pytest.approx(3.0, abs=0.2)

    for expected in (79.8, 83.79, 87.98, 92.38, 97.0, 100, 100):
        RateBucket.objects.update(changed_at=0.0)
        assert buckets.take("graph", 100, 1).rate == pytest.approx(expected, abs=0.01)
    for _ in range(20):
        RateBucket.objects.update(refused_at=0.0, good_rate=0.0)
        buckets.complain("graph", 0.0, 0.0)
    assert RateBucket.objects.get().rate == pytest.approx(10)


@pytest.mark.req("R-22")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("taken", "rate", "first_try"),
    [
        (60.0, 57.0, 59.85),
        (10.0, 40.0, 42.0),  # little was taken in a moment: no limit yet, so not lower than two fifths
        (130.0, 95.0, 99.75),  # answers to what was sent before
    ],
)
def test_what_the_service_took_says_how_fast_it_goes_on(taken: float, rate: float, first_try: float) -> None:
    buckets.take("graph", 100, 1)
    buckets.complain("graph", 0.0, taken)
    assert RateBucket.objects.get().rate == pytest.approx(rate)
    RateBucket.objects.update(changed_at=0.0)
    assert buckets.take("graph", 100, 1).rate == pytest.approx(first_try)


@pytest.mark.req("R-22")
@pytest.mark.django_db
def test_a_higher_rate_that_is_refused_is_taken_back_and_tried_less_often() -> None:
    buckets.take("graph", 100, 1)
    buckets.complain("graph", 0.0, 70 / 0.95)
    RateBucket.objects.update(refused_rate=100.0)  # as when something faster was refused before
    tried = []
    for _ in range(4):
        RateBucket.objects.update(changed_at=0.0)
        tried.append(buckets.take("graph", 100, 1).rate)
        RateBucket.objects.update(refused_at=0.0)
        buckets.complain("graph", 0.0, 60.0)
        row = RateBucket.objects.get()
        assert [row.rate, row.good_rate] == pytest.approx([70, 70])
    assert tried == pytest.approx([85, 77.5, 73.75, 73.5])
    assert row.patience == 120
    # The rate that was good is refused as well: the limit is another one now.
    RateBucket.objects.update(refused_at=0.0)
    buckets.complain("graph", 0.0, 50.0)
    row.refresh_from_db()
    assert [row.rate, row.good_rate, row.patience] == pytest.approx([47.5, 0, 20])


def let_pass(seconds: float) -> None:
    """Let so much time go by, as the rows see it."""
    moments = ("next_free", "refused_at", "changed_at")
    RateBucket.objects.update(**{name: F(name) - seconds for name in moments})


@pytest.mark.req("R-22")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("hold", "every", "refused_tries"),
    [
        pytest.param(0.0, 5.0, 0, id="while calls go on"),
        pytest.param(0.0, 0.0, 0, id="while nobody calls"),
        pytest.param(0.0, 5.0, 4, id="after higher rates were refused again and again"),
        pytest.param(200.0, 5.0, 0, id="after the wait that the service asked for"),
    ],
)
def test_after_two_quiet_minutes_a_lowered_rate_is_the_nominal_one_again(
    hold: float, every: float, refused_tries: int
) -> None:
    """It took 16 minutes of calls from a tenth of the rate."""
    buckets.take("consents", 45, 1)
    for _ in range(5):
        buckets.complain("consents", hold, 0.0)
        let_pass(2)
    for _ in range(refused_tries):
        RateBucket.objects.update(changed_at=0.0)
        buckets.take("consents", 45, 1)
        buckets.complain("consents", hold, 1.0)
        let_pass(2)
    buckets.complain("consents", hold, 0.0)
    assert RateBucket.objects.get().rate == pytest.approx(4.5)
    let_pass(hold)
    passed = 0.0
    while every and passed + every < 120:
        let_pass(every)
        passed += every
        assert buckets.take("consents", 45, 1).rate < 45, passed
    let_pass(120.5 - passed)
    assert buckets.take("consents", 45, 1).rate == 45
    buckets.complain("consents", 0.0, 5.0)  # it is not over: back at once to what was good
    assert RateBucket.objects.get().rate < 10


@pytest.mark.django_db
def test_a_changed_setting_counts_at_once() -> None:
    buckets.take("sign_in", 200, 1)
    assert buckets.take("sign_in", 50, 1).rate == pytest.approx(50)


# --- the pacer ----------------------------------------------------------------------------------------------------


def pacer(
    rate: float = 100.0,
    *,
    per_group: float = 1000.0,
    saved_seconds: float = 0.1,
    alive: Callable[[], bool] = lambda: True,
) -> Pacer:
    return Pacer(
        rule_of=lambda netloc, path: Rule(netloc, rate, per_application=False, saved_seconds=saved_seconds),
        per_group=per_group,
        run_rule=None,
        alive=alive,
        request_refill=lambda: None,
        inline=True,
    )


def calls(one: Pacer, number: int, group: int = 1, service: str = "graph") -> float:
    """Make so many calls and return how many seconds they had to take."""
    began = time.monotonic()
    with one.unit(Place("app", "global", group)):
        for _ in range(number):
            one.wait(service, "/")
    return time.monotonic() - began


@pytest.mark.req("R-22")
@pytest.mark.django_db
def test_calls_leave_at_the_rate_of_the_limit_and_cost_few_queries(django_assert_max_num_queries: Any) -> None:
    one = pacer(rate=200.0)
    with django_assert_max_num_queries(20):
        seconds = calls(one, 100)
    assert seconds >= 0.4


@pytest.mark.req("R-31")
@pytest.mark.django_db
def test_one_partner_does_not_take_the_whole_limit() -> None:
    one = pacer(rate=10_000.0, per_group=20.0)
    assert calls(one, 20, group=1) < 0.2  # a second's worth at once
    assert calls(one, 5, group=1) >= 0.2
    assert calls(one, 5, group=2) < 0.2


@pytest.mark.req("R-31")
@pytest.mark.django_db
def test_two_executors_share_what_one_partner_may() -> None:
    one = pacer(rate=10_000.0, per_group=20.0)
    one.executors = 2
    calls(one, 20)
    assert calls(one, 4) >= 0.35


@pytest.mark.django_db
def test_a_429_holds_the_partner_and_not_the_others() -> None:
    one = pacer(rate=10_000.0)
    for group in range(50, 60):
        with one.unit(Place("app", "global", group)):
            one.wait("graph", "/")
            one.answered("graph", "/", 200, None, 0.1)
    with one.unit(Place("app", "global", 1)):
        one.answered("graph", "/", 429, 20.0, 0.1)
        with time_budget(10.0), pytest.raises(Throttled) as refused:
            one.wait("graph", "/")
    assert refused.value.retry_after == pytest.approx(20, abs=1)
    assert one.held_for(1) > 19
    assert one.held_for(2) <= 0
    assert not one.all_held()
    assert calls(one, 3, group=2) < 0.5


def answers(one: Pacer, status: int, number: int, hold: float | None = None) -> None:
    """Let so many calls of different partners be answered like this."""
    for group in range(number):
        with one.unit(Place("app", "global", group)):
            one.answered("graph", "/", status, hold, 0.1)


@pytest.mark.req("R-22")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("executors", "hold", "rate"),
    [
        (1, 1.0, 57.0),  # 60 in the second before
        (2, 1.0, 95.0),  # the other one was answered as often, so it was the limit of them all
        (1, 3.0, 40.0),  # 60 in the three seconds before; no complaint lowers by more
    ],
)
def test_429s_of_several_partners_hold_the_application_and_lower_the_rate_for_all(
    executors: int, hold: float, rate: float
) -> None:
    one = pacer(rate=100.0)
    one.executors = executors
    calls(one, 1)
    answers(one, 200, 60)
    answers(one, 429, 20, hold)
    assert one.all_held()
    one.replenish()
    assert RateBucket.objects.get(name="graph").rate == pytest.approx(rate)


@pytest.mark.req("R-22")
@pytest.mark.django_db
def test_below_what_a_service_refused_no_time_is_saved_for_a_burst() -> None:
    one = pacer(rate=50.0, saved_seconds=10.0)
    calls(one, 1)
    answers(one, 200, 100)
    answers(one, 429, 20, 0.0)
    calls(one, 1)  # now there are times for the next half second
    time.sleep(0.6)
    one.replenish()
    assert calls(one, 10) >= 0.15


@pytest.mark.req("R-22")
@pytest.mark.django_db
@pytest.mark.parametrize(("asking", "held"), [(range(60), False), ([1] * 60, True)])
def test_one_429_in_twenty_is_the_partners_and_half_of_all_is_the_applications(asking: Any, *, held: bool) -> None:
    one = pacer(rate=10_000.0)
    for number, group in enumerate(asking):
        with one.unit(Place("app", "global", group)):
            one.answered("graph", "/", 429 if number % (2 if held else 20) == 0 else 200, 1.0, 0.1)
    assert one.all_held() is held


@pytest.mark.req("R-27")
@pytest.mark.django_db
def test_nothing_is_sent_once_the_lease_is_gone() -> None:
    one = pacer(alive=lambda: False)
    with one.unit(Place("app", "global", 1)), pytest.raises(Halted):
        one.wait("graph", "/")


@pytest.mark.django_db
def test_the_session_asks_before_each_request_and_tells_what_was_answered() -> None:
    session = GuardedSession(is_allowed=lambda netloc: netloc == HOST)
    one = Pacer(
        rule_of=limits.rule_of,
        per_group=5,
        run_rule=Rule("run:1", 1000.0, per_application=False),
        alive=lambda: True,
        request_refill=lambda: None,
        inline=True,
    )
    with responses.RequestsMock() as mock, one.unit(Place("app", "global", 7)):
        mock.get(f"https://{HOST}/v1/customers", json={}, status=200)
        mock.post(
            f"https://{HOST}/v1/customers/x/applicationconsents", json={}, status=429, headers={"Retry-After": "9"}
        )
        assert session.get(f"https://{HOST}/v1/customers").status_code == 200
        assert session.post(f"https://{HOST}/v1/customers/x/applicationconsents").status_code == 429
    assert set(RateBucket.objects.values_list("name", "nominal")) == {
        ("run:1", 1000.0),
        ("partner_center:global:app", 200.0),
        ("consents:global:app", 45.0),
    }
    assert one.held_for(7) == pytest.approx(9, abs=1)


@pytest.mark.req("R-22")
@pytest.mark.parametrize(
    ("url", "limit"),
    [
        (f"https://{HOST}/v1/profiles/organization", ("partner_center", 200, True)),
        (f"https://{HOST}/v1/customers/1/applicationconsents", ("consents", 45, True)),
        ("https://login.microsoftonline.com/x/oauth2/v2.0/token", ("sign_in", 200, True)),
        ("https://graph.microsoft.com/v1.0/organization", ("graph", 200, True)),
        ("https://cpv.vault.azure.net/secrets/x", ("vault:cpv.vault.azure.net", 300, False)),
    ],
)
def test_every_request_counts_for_its_limit(settings: Any, url: str, limit: tuple[str, float, bool]) -> None:
    settings.VAULT_URL = "https://cpv.vault.azure.net"
    parts = urlsplit(url)
    rule = limits.rule_of(parts.netloc, parts.path)
    assert (rule.name, rule.rate, rule.per_application) == limit
