"""Rate limits counted in memory."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.moving_windows import MemoryWindows
from gateway.access.rate_limits import RateLimiter
from gateway.config.rates import count_megapixels
from gateway.config.settings import Settings
from gateway.problems import Banned, LimitReached, OverAllowance
from testing import images
from testing.clock import ManualClock

BIG = images.encode_png(np.full((1_000, 1_500, 3), 128, np.uint8))
"""1.5 megapixels, charged as 2."""
V4 = "203.0.113.7"


class Counting:
    """Rate limits in memory on a manual clock."""

    def __init__(self, **changes: object) -> None:
        self.clock = ManualClock()
        self.limiter = RateLimiter(Flask("counting"), Settings(**changes), clock=self.clock)  # type: ignore[arg-type]

    def ask(self, cost: int = 1, address: str = V4, what: str = "megapixels") -> float:
        """Charge a request; return 0, or the seconds to wait from the error."""
        try:
            self.limiter.charge(self.limiter.client_for(address), what, cost)  # type: ignore[arg-type]
        except LimitReached as problem:
            return int(problem.headers["Retry-After"])
        return 0


def test_an_amount_that_does_not_fit_is_not_counted_at_all() -> None:
    counting = Counting(anonymous_megapixels="10 per hour")

    assert [counting.ask(cost) > 0 for cost in (6, 5, 4, 1)] == [False, True, False, True]


def test_every_limit_of_a_visitor_holds_and_a_refusal_by_one_costs_nothing_at_the_others() -> None:
    counting = Counting(anonymous_megapixels="4 per minute; 6 per hour")

    assert counting.ask(4) == 0
    counting.clock.now += 61
    assert counting.ask(3) > 0, "7 of 6 in the hour"
    assert counting.ask(2) == 0, "what the hour refused must not count in the minute"


@pytest.mark.parametrize(("spent", "cost"), [([1, 2, 3], 1), ([1, 2, 3], 2), ([1, 2, 3], 4), ([6], 6), ([3, 3], 6)])
def test_retry_after_is_the_second_from_which_this_very_request_passes(spent: list[int], cost: int) -> None:
    counting = Counting(anonymous_megapixels="6 per minute", ban_after="")
    for amount in spent:
        assert counting.ask(amount) == 0
        counting.clock.now += 7

    wait_s = counting.ask(cost)
    assert wait_s > 0
    counting.clock.now += wait_s - 1.5
    assert counting.ask(cost) > 0, "it said too long"
    counting.clock.now += 1.5
    assert counting.ask(cost) == 0, "it said too short"


def test_what_is_given_back_can_be_used_again_and_only_once() -> None:
    counting = Counting(anonymous_megapixels="5 per hour", ban_after="")
    client = counting.limiter.client_for(V4)
    charge = counting.limiter.charge(client, "megapixels", 3)
    counting.limiter.charge(client, "megapixels", 2)

    counting.limiter.refund(charge)
    counting.limiter.refund(charge)

    assert counting.ask(4) > 0
    assert counting.ask(3) == 0
    assert counting.ask(1) > 0


def test_what_costs_more_than_the_limit_is_told_so_and_waits_for_nothing() -> None:
    counting = Counting(anonymous_megapixels="10 per minute; 3 per day")

    with pytest.raises(OverAllowance) as caught:
        counting.limiter.charge(counting.limiter.client_for(V4), "megapixels", 4)

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
def test_an_ipv4_address_or_an_ipv6_64_shares_one_allowance(one: str, other: str, *, is_shared: bool) -> None:
    counting = Counting(anonymous_megapixels="1 per hour")

    assert counting.ask(address=one) == 0
    assert (counting.ask(address=other) > 0) == is_shared


def test_repeat_offenders_get_nothing_for_a_while_and_then_again() -> None:
    counting = Counting(
        anonymous_megapixels="1 per minute", anonymous_requests="100 per minute", ban_after="3 per 10 minutes"
    )
    assert counting.ask() == 0
    assert [counting.ask() > 0 for _ in range(3)] == [True] * 3

    with pytest.raises(Banned) as caught:
        counting.limiter.charge(counting.limiter.client_for(V4), "requests")
    assert caught.value.headers["Retry-After"] == "601"
    assert counting.ask(address="203.0.113.8") == 0, "others are not banned"

    counting.clock.now += 61
    assert counting.ask() > 0, "the limit is free again, the ban is not over"
    counting.clock.now += 540
    assert counting.ask() == 0


def test_refused_wake_calls_bring_nobody_nearer_to_a_ban_and_whoever_is_banned_wakes_nothing() -> None:
    counting = Counting(anonymous_requests="1 per minute", wake_rate="1 per minute", ban_after="2 per 10 minutes")
    assert counting.ask(what="wakes") == 0
    assert all(counting.ask(what="wakes") > 0 for _ in range(9))
    assert counting.ask(what="requests") == 0, "not banned"

    assert all(counting.ask(what="requests") > 0 for _ in range(2))
    counting.clock.now += 61
    assert counting.ask(what="wakes") > 60, "the limit is free again, the ban is not over"


def test_an_empty_allowance_is_no_limit() -> None:
    counting = Counting(anonymous_megapixels="", anonymous_requests="", ban_after="")

    assert {counting.ask(10_000) for _ in range(50)} == {0}


def test_threads_on_memory_get_exactly_what_there_is() -> None:
    counting = Counting(anonymous_megapixels="100 per hour", ban_after="")
    passed: Counter[bool] = Counter()
    barrier, lock = threading.Barrier(8), threading.Lock()

    def ask() -> None:
        barrier.wait()
        for _ in range(25):
            has_passed = counting.ask(1) == 0
            with lock:
                passed[has_passed] += 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert passed == {True: 100, False: 100}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9), st.integers(0, 40)), max_size=60))
def test_no_window_ever_holds_more_than_the_limit(steps: list[tuple[str, int, int]]) -> None:
    windows, now = MemoryWindows(), 1_000.0
    counted: list[tuple[str, float, int]] = []
    for key, amount, pause in steps:
        now += pause
        recent = sum(n for k, moment, n in counted if k == key and moment >= now - 60)
        expected = recent + amount <= 10
        wait_s = windows.wait_s(key, 10, 60, amount, now)

        assert windows.acquire(key, 10, 60, amount, now) == expected
        assert (wait_s == 0) == expected or recent + amount > 10
        if expected:
            counted.append((key, now, amount))


def test_memory_is_bounded_however_many_ask() -> None:
    windows = MemoryWindows(max_keys=100, clock=lambda: 0.0)
    for number in range(1_000):
        windows.acquire(f"k{number}", 5, 60, 1, 0.0)

    assert len(windows) == 100
    assert windows.get_moving_window("k999", 5, 60) == (0.0, 1)


@pytest.mark.parametrize(("pixels", "cost"), [(1, 1), (1_000_000, 1), (1_000_001, 2), (4_194_304, 5)])
def test_an_upload_costs_whole_megapixels(pixels: int, cost: int) -> None:
    assert count_megapixels(pixels) == cost


def test_visitors_are_named_without_their_secrets() -> None:
    counting = Counting()
    client = counting.limiter.client_for("2001:db8:1:2:3::4")

    assert client.id == "address:2001:db8:1:2::/64"
