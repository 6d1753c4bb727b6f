"""Clocks that were set, of gateways and of Redis. Redis is real; its clock is replaced where it must jump."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.access.rate_limit_storage import FallbackStorage
from gateway.backend.state import BackendStateTracker
from gateway.cli import usage
from gateway.config.settings import Settings
from gateway.usage.meter import UsageMeter
from gateway.usage.redis_store import RedisUsageStore
from testing.clock import ManualClock
from testing.redis_server import RedisServer

HOURS = 5 * 3600.0


def test_limits_in_redis_count_by_its_own_clock(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (FallbackStorage(redis_url=redis_server.url) for _ in range(2))
    assert one.acquire_entry("key", 2, 60)

    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)  # the machine's clock of both gateways
    hit = other.acquire("key", 2, 60)

    assert hit is not None
    assert hit.is_shared
    assert not one.acquire_entry("key", 2, 60)
    assert 0 < one.wait_s("key", 2, 60, 1) <= 60
    begin, used = one.get_moving_window("key", 2, 60)
    assert (begin > 999_990, used) == (True, 2)
    one.refund(hit)
    assert other.usage("key", 60).used == 1


@pytest.mark.parametrize("amount", [1, 12_000], ids=["one", "more than one command can push"])
def test_clock_of_redis_set_back_shuts_nobody_out(redis_server: RedisServer, amount: int) -> None:
    clock = ManualClock()
    clock.now = 1_790_000_000.0
    storage = FallbackStorage(redis_url=redis_server.url, redis_clock=clock)
    assert storage.acquire_entry("limit", 2 * amount, 60, amount)
    assert storage.acquire_entry("ban", 1, 600)
    clock.now += 30
    assert storage.acquire_entry("limit", 2 * amount, 60, amount)

    clock.now -= HOURS
    assert storage.get_moving_window("ban", 1, 600)[1] == 1, "the ban holds"
    assert not storage.acquire_entry("limit", 2 * amount, 60), "so does the limit"
    assert storage.wait_s("limit", 2 * amount, 60, 1) == 60
    clock.now += 61
    assert storage.acquire_entry("limit", 2 * amount, 60, 2 * amount)
    assert storage.wait_s("ban", 1, 600, 1) == 600 - 61
    clock.now += 540
    assert storage.get_moving_window("ban", 1, 600)[1] == 0
    assert redis_server.execute("LLEN", "superres:rate-limit:limit") == 2 * amount
    assert 0 < redis_server.execute("TTL", "superres:rate-limit:limit") <= 60


def test_meters_of_gateways_with_different_clocks_count_each_second_once(redis_server: RedisServer) -> None:
    clock = ManualClock()
    meters = []
    for _ in range(2):
        states = BackendStateTracker(clock=clock)
        meters.append((states, UsageMeter(states.recent_states, RedisUsageStore(redis_server.url), clock=clock)))
        clock.now += 100_000.0  # the monotonic clock of each machine begins at its start
    for states, meter in meters:
        meter.write()
        states.mark_up()
        meter.observe()
    clock.now += 300.0

    for _, meter in meters:
        assert meter.write()
        meter.observe()
        assert meter.write()

    stored = RedisUsageStore(redis_server.url).read()
    assert sum(month.up_s for month in stored.values()) == pytest.approx(300, abs=5)


def test_clock_of_redis_set_back_does_not_stop_the_meter(redis_server: RedisServer) -> None:
    clock, redis_clock = ManualClock(), ManualClock()
    redis_clock.now = 1_790_000_000.0
    states = BackendStateTracker(clock=clock)
    meter = UsageMeter(states.recent_states, RedisUsageStore(redis_server.url, clock=redis_clock), clock=clock)
    states.mark_up()
    meter.observe()

    for step in (0.0, -HOURS, HOURS, -HOURS):
        redis_clock.now += step
        for each in (clock, redis_clock):
            each.now += 10
        meter.observe()
        assert meter.write()

    assert meter.current_month().up_s == 40


def test_months_follow_the_clock_of_redis(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)  # a machine whose clock begins in 1970
    store = RedisUsageStore(redis_server.url)
    assert store.now() < 10

    store.read()

    assert store.now() == pytest.approx(int(redis_server.execute("TIME")[0]), abs=5)


def test_usage_command_names_the_month_of_redis(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)

    text = usage.describe(Settings(state_dir=str(tmp_path), redis_url=redis_server.url), "")

    assert "1970" not in text
