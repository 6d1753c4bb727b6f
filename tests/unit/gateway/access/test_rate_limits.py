"""gateway.access.rate_limits, counted in memory."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.moving_windows import MemoryWindows, WindowUsage
from gateway.access.rate_limits import RateLimiter
from gateway.config.rates import count_megapixels
from gateway.config.settings import Settings
from gateway.problems import Banned, LimitReached, OverAllowance
from testing.clock import ManualClock
from testing.fixtures import MakeApp

V4 = "203.0.113.7"


class LimiterOnManualClock:
    """Rate limits in memory on a manual clock."""

    def __init__(self, **changes: object) -> None:
        self.clock = ManualClock()
        self.inner = RateLimiter(Flask("test"), Settings(**changes), clock=self.clock)  # type: ignore[arg-type]

    def charge(self, cost: int = 1, address: str = V4, resource: str = "megapixels") -> int:
        """Charge a client. Return 0, or the seconds of Retry-After if a limit rejects it."""
        try:
            self.inner.charge(self.inner.client_for(address), resource, cost)  # type: ignore[arg-type]
        except LimitReached as problem:
            return int(problem.headers["Retry-After"])
        return 0


def test_amount_over_the_limit_is_not_counted() -> None:
    limiter = LimiterOnManualClock(anonymous_megapixels="10 per hour")

    assert [limiter.charge(cost) > 0 for cost in (6, 5, 4, 1)] == [False, True, False, True]


def test_amount_rejected_by_one_rate_is_not_counted_by_the_others() -> None:
    limiter = LimiterOnManualClock(anonymous_megapixels="4 per minute; 6 per hour")

    assert limiter.charge(4) == 0
    limiter.clock.now += 61
    assert limiter.charge(3) > 0, "7 of 6 in the hour"
    assert limiter.charge(2) == 0, "what the hour refused must not count in the minute"


@pytest.mark.parametrize(("spent", "cost"), [([1, 2, 3], 1), ([1, 2, 3], 2), ([1, 2, 3], 4), ([6], 6), ([3, 3], 6)])
def test_retry_after_is_exact(spent: list[int], cost: int) -> None:
    limiter = LimiterOnManualClock(anonymous_megapixels="6 per minute", ban_after="")
    for amount in spent:
        assert limiter.charge(amount) == 0
        limiter.clock.now += 7

    wait_s = limiter.charge(cost)
    assert wait_s > 0
    limiter.clock.now += wait_s - 1.5
    assert limiter.charge(cost) > 0, "it said too long"
    limiter.clock.now += 1.5
    assert limiter.charge(cost) == 0, "it said too short"


def test_refunded_amount_can_be_used_once_more() -> None:
    limiter = LimiterOnManualClock(anonymous_megapixels="5 per hour", ban_after="")
    client = limiter.inner.client_for(V4)
    charge = limiter.inner.charge(client, "megapixels", 3)
    limiter.inner.charge(client, "megapixels", 2)

    limiter.inner.refund(charge)
    limiter.inner.refund(charge)

    assert limiter.charge(4) > 0
    assert limiter.charge(3) == 0
    assert limiter.charge(1) > 0


def test_cost_above_the_whole_limit_has_no_retry_after() -> None:
    limiter = LimiterOnManualClock(anonymous_megapixels="10 per minute; 3 per day")

    with pytest.raises(OverAllowance) as caught:
        limiter.inner.charge(limiter.inner.client_for(V4), "megapixels", 4)

    assert caught.value.detail == "This costs 4 megapixels, and the limit is 3 per day. Send a smaller image."
    assert "Retry-After" not in caught.value.headers


@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        (V4, V4, True),
        (V4, "203.0.113.8", False),
        ("::ffff:203.0.113.7", V4, True),
        ("2001:db8:1:2::1", "2001:db8:1:2:8000::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("", "", True),
    ],
)
def test_ipv4_address_or_ipv6_64_shares_one_count(one: str, other: str, *, is_shared: bool) -> None:
    limiter = LimiterOnManualClock(anonymous_megapixels="1 per hour")

    assert limiter.charge(address=one) == 0
    assert (limiter.charge(address=other) > 0) == is_shared


def test_client_that_exceeds_limits_too_often_is_banned_for_a_while() -> None:
    limiter = LimiterOnManualClock(
        anonymous_megapixels="1 per minute", anonymous_requests="100 per minute", ban_after="3 per 10 minutes"
    )
    assert limiter.charge() == 0
    assert [limiter.charge() > 0 for _ in range(3)] == [True] * 3

    with pytest.raises(Banned) as caught:
        limiter.inner.charge(limiter.inner.client_for(V4), "requests")
    assert caught.value.headers["Retry-After"] == "601"
    assert limiter.charge(address="203.0.113.8") == 0, "others are not banned"

    limiter.clock.now += 61
    assert limiter.charge() > 0, "the limit is free again, the ban is not over"
    limiter.clock.now += 540
    assert limiter.charge() == 0


@pytest.mark.parametrize("jump_s", [-5 * 3600.0, 5 * 3600.0], ids=["back", "forward"])
def test_machines_clock_that_is_set_changes_no_limit(monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    limiter = LimiterOnManualClock(anonymous_megapixels="1 per minute", ban_after="2 per 10 minutes")
    client = limiter.inner.client_for(V4)
    charge = limiter.inner.charge(client, "requests")
    assert [limiter.charge() > 0 for _ in range(3)] == [False, True, True]

    now = time.time() + jump_s
    monkeypatch.setattr(time, "time", lambda: now)

    assert limiter.inner.statuses(charge)[0].reset_s == 60
    with pytest.raises(Banned) as caught:
        limiter.inner.charge(client, "requests")
    assert caught.value.headers["Retry-After"] == "601"
    limiter.clock.now += 601
    assert limiter.charge() == 0


def test_wake_calls_never_lead_to_a_ban_and_are_rejected_during_one() -> None:
    limiter = LimiterOnManualClock(
        anonymous_requests="1 per minute", wake_rate="1 per minute", ban_after="2 per 10 minutes"
    )
    assert limiter.charge(resource="wakes") == 0
    assert all(limiter.charge(resource="wakes") > 0 for _ in range(9))
    assert limiter.charge(resource="requests") == 0, "not banned"

    assert all(limiter.charge(resource="requests") > 0 for _ in range(2))
    limiter.clock.now += 61
    assert limiter.charge(resource="wakes") > 60, "the limit is free again, the ban is not over"


def test_empty_rate_is_unlimited() -> None:
    limiter = LimiterOnManualClock(anonymous_megapixels="", anonymous_requests="", ban_after="")

    assert {limiter.charge(10_000) for _ in range(50)} == {0}


def test_counts_in_memory_are_exact_under_threads() -> None:
    limiter = LimiterOnManualClock(anonymous_megapixels="100 per hour", ban_after="")
    passed: Counter[bool] = Counter()
    barrier, lock = threading.Barrier(8), threading.Lock()

    def ask() -> None:
        barrier.wait()
        for _ in range(25):
            has_passed = limiter.charge(1) == 0
            with lock:
                passed[has_passed] += 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert passed == {True: 100, False: 100}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9), st.integers(0, 40)), max_size=60))
def test_window_never_exceeds_the_limit(steps: list[tuple[str, int, int]]) -> None:
    clock = ManualClock()
    windows = MemoryWindows(clock=clock)
    counted: list[tuple[str, float, int]] = []
    for key, amount, pause in steps:
        clock.now += pause
        recent = sum(n for k, moment, n in counted if k == key and moment >= clock.now - 60)
        expected = recent + amount <= 10
        wait_s = windows.wait_s(key, 10, 60, amount)

        assert (windows.acquire(key, 10, 60, amount) is not None) == expected
        assert (wait_s == 0) == expected or recent + amount > 10
        if expected:
            counted.append((key, clock.now, amount))


def test_number_of_keys_in_memory_is_bounded() -> None:
    windows = MemoryWindows(max_keys=100, clock=lambda: 0.0)
    for number in range(1_000):
        windows.acquire(f"k{number}", 5, 60, 1)

    assert len(windows) == 100
    assert windows.usage("k999", 60) == WindowUsage(1, 0.0)


@pytest.mark.parametrize(("pixels", "cost"), [(1, 1), (1_000_000, 1), (1_000_001, 2), (4_194_304, 5)])
def test_upload_costs_whole_megapixels(pixels: int, cost: int) -> None:
    assert count_megapixels(pixels) == cost


def test_client_id_of_an_address_is_its_rate_limit_key() -> None:
    limiter = LimiterOnManualClock()
    client = limiter.inner.client_for("2001:db8:1:2:3::4")

    assert client.id == "address:2001:db8:1:2::/64"


def test_sum_of_a_window_follows_counts_refunds_and_time() -> None:
    times = iter([0.0, 10.0, 20.0, 25.0, 30.0, 61.0, 71.0, 200.0, 200.0])
    windows = MemoryWindows(clock=lambda: next(times))
    counted = [windows.acquire("key", 10, 60, amount) for amount in (5, 3, 4, 2)]  # at 0, 10, 20 and 25 s
    assert counted == [0.0, 10.0, None, 25.0]
    windows.refund("key", 3, 10.0)
    windows.refund("key", 3, 10.0)
    assert windows.usage("key", 60) == WindowUsage(7, 30.0)
    assert windows.usage("key", 60) == WindowUsage(2, 36.0)
    assert windows.acquire("key", 10, 60, 8) == 71.0
    assert windows.usage("key", 60) == WindowUsage(0, 0.0)
    assert len(windows) == 0


def test_no_hook_of_flask_limiter_runs_for_each_request(make_app: MakeApp) -> None:
    app = make_app()
    hooks = [*app.before_request_funcs[None], *app.after_request_funcs[None], *app.teardown_request_funcs[None]]
    assert not [hook for hook in hooks if "flask_limiter" in str(getattr(hook, "func", hook))]
