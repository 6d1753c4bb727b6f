"""The usage meter: the GPU seconds of a month are complete and survive restarts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.backend.state import BackendStateTracker
from gateway.usage.file_store import FileUsageStore
from gateway.usage.meter import UsageMeter
from gateway.usage.records import (
    MAX_CLIENTS,
    OTHER_CLIENTS,
    AwakeSpan,
    ClientUsage,
    MonthlyUsage,
    UsageBatch,
    UsageStoreError,
)
from gateway.usage.redis_store import RedisUsageStore
from gateway.usage.store import UsageStore
from testing.clock import ManualClock
from testing.redis_server import RedisServer

NOVEMBER_30 = 1_796_083_100.0
"""Mon, 30 Nov 2026, 23:58:20 UTC: 100 s before December."""
MakeStore = Callable[[ManualClock], UsageStore]


@pytest.fixture
def make_file_store(tmp_path: Path) -> MakeStore:
    return lambda clock: FileUsageStore(tmp_path / "meter.json", clock=clock)


@pytest.fixture(params=["file", pytest.param("redis", marks=pytest.mark.redis)])
def make_store(request: pytest.FixtureRequest, make_file_store: MakeStore) -> MakeStore:
    """Return a factory of usage stores with one shared destination, as of replicas or restarts."""
    if request.param == "file":
        return make_file_store
    server: RedisServer = request.getfixturevalue("redis_server")
    return lambda clock: RedisUsageStore(server.url, clock=clock)


class MeteredBackend:
    """A backend's states and a meter on one clock."""

    def __init__(self, make_store: MakeStore, now: float, budget_s: float = 0.0) -> None:
        self.clock = ManualClock()
        self.clock.now = now
        self.state_tracker = BackendStateTracker(clock=self.clock)
        self.meter = UsageMeter(
            self.state_tracker.recent_states, make_store(self.clock), budget_s=budget_s, clock=self.clock
        )

    def upscale(self, *, boot_s: float, work_s: float, idle_s: float, client: str = "alice") -> None:
        """Simulate a boot, an image and the idle time; observe once in each."""
        self.state_tracker.begin_boot()
        self.meter.observe()
        self.clock.now += boot_s
        self.state_tracker.mark_up()
        self.clock.now += work_s
        self.meter.record_work(client, work_s, 1)
        self.meter.observe()
        self.clock.now += idle_s
        self.state_tracker.mark_asleep()
        self.clock.now += 1000
        self.meter.observe()


def read_seconds(month: MonthlyUsage) -> tuple[float, float, float, float]:
    return tuple(round(value, 3) for value in (month.boot_s, month.work_s, month.idle_s, month.gpu_s))  # type: ignore[return-value]


def test_boot_work_and_idle_count_but_sleep_does_not(make_store: MakeStore) -> None:
    backend = MeteredBackend(make_store, 1_790_000_000.0)

    backend.upscale(boot_s=12, work_s=3, idle_s=300)

    assert read_seconds(backend.meter.current_month()) == (12, 3, 300, 315)
    backend.meter.write()
    assert read_seconds(backend.meter.current_month()) == (12, 3, 300, 315)


def test_restart_continues_the_count(make_store: MakeStore) -> None:
    first = MeteredBackend(make_store, 1_790_000_000.0)
    first.upscale(boot_s=12, work_s=3, idle_s=300)
    first.meter.close()

    second = MeteredBackend(make_store, first.clock.now)
    second.meter.write()
    second.upscale(boot_s=10, work_s=1, idle_s=300, client="bob")

    assert read_seconds(second.meter.current_month()) == (22, 4, 600, 626)
    assert second.meter.current_month().clients == {"alice": ClientUsage(1, 3.0), "bob": ClientUsage(1, 1.0)}


def test_second_seen_by_two_gateways_counts_once(make_store: MakeStore) -> None:
    backends = [MeteredBackend(make_store, 1_790_000_000.0) for _ in range(2)]
    for backend in backends:  # one backend, seen by both; each serves one image
        backend.upscale(boot_s=12, work_s=3, idle_s=300)
    for backend in backends:
        backend.meter.write()
    backends[0].meter.write()

    assert read_seconds(backends[0].meter.current_month()) == (12, 6, 297, 315)
    assert backends[0].meter.current_month().clients == {"alice": ClientUsage(2, 6.0)}


def test_batch_written_twice_counts_once(make_store: MakeStore) -> None:
    store = make_store(ManualClock())
    batch = UsageBatch((AwakeSpan("2026-09", "up_s", 100.0, 160.0),), {("2026-09", "alice"): ClientUsage(1, 2.5)})

    store.add(batch)
    store.add(batch)

    assert store.read() == {"2026-09": MonthlyUsage("2026-09", 0.0, 60.0, {"alice": ClientUsage(1, 2.5)})}


def test_number_of_clients_is_bounded_without_losing_seconds(make_store: MakeStore) -> None:
    store = make_store(ManualClock())
    uses = {("2026-09", f"client {number}"): ClientUsage(1, 0.5) for number in range(MAX_CLIENTS + 5)}

    store.add(UsageBatch((), uses))

    month = store.read()["2026-09"]
    assert len(month.clients) == MAX_CLIENTS + 1
    assert month.clients[OTHER_CLIENTS] == ClientUsage(5, 2.5)
    assert month.work_s == pytest.approx(0.5 * (MAX_CLIENTS + 5))


def test_many_threads_lose_nothing(make_store: MakeStore) -> None:
    backend = MeteredBackend(make_store, 1_790_000_000.0)

    def work() -> None:
        for number in range(50):
            backend.meter.record_work("alice", 0.25, 1)
            if number % 10 == 0:
                backend.meter.write()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backend.meter.write()

    assert backend.meter.current_month().clients == {"alice": ClientUsage(200, 50.0)}


def test_new_month_starts_at_zero(make_file_store: MakeStore) -> None:
    backend = MeteredBackend(make_file_store, NOVEMBER_30, budget_s=50)
    backend.state_tracker.mark_up()
    backend.meter.observe()
    backend.clock.now += 60
    assert backend.meter.is_budget_spent()
    assert backend.meter.seconds_to_next_month() == 40

    backend.clock.now += 41
    backend.meter.observe()

    assert backend.meter.current_month().name == "2026-12"
    assert not backend.meter.is_budget_spent()
    backend.meter.write()
    assert set(backend.meter._stored) == {"2026-11", "2026-12"}


def test_december_is_followed_by_january(make_file_store: MakeStore) -> None:
    backend = MeteredBackend(make_file_store, NOVEMBER_30 + 100 + 30 * 86_400)

    assert backend.meter.current_month().name == "2026-12"
    assert backend.meter.seconds_to_next_month() == 86_400


def test_without_a_budget_it_is_never_used_up(make_file_store: MakeStore) -> None:
    backend = MeteredBackend(make_file_store, 1_790_000_000.0)
    backend.upscale(boot_s=12, work_s=3, idle_s=1_000_000)

    assert not backend.meter.is_budget_spent()
    assert backend.meter.describe()["budget_gpu_s"] is None


def test_late_observation_misses_nothing(make_file_store: MakeStore) -> None:
    """A boot takes about as long as the interval between two observations, and was missed once (0.0 s)."""
    backend = MeteredBackend(make_file_store, 1_790_000_000.0)
    began = backend.clock.now

    backend.state_tracker.begin_boot()
    backend.clock.now += 0.75
    backend.state_tracker.mark_up()
    backend.clock.now += 0.125
    backend.state_tracker.mark_asleep()
    backend.clock.now += 3600
    backend.state_tracker.begin_boot()
    backend.clock.now += 0.5
    backend.meter.observe()
    backend.clock.now += 0.25
    backend.state_tracker.mark_up()
    backend.clock.now += 10
    backend.meter.observe()

    assert [(span.kind, span.begin - began, span.end - began) for span in backend.meter._spans] == [
        ("boot_s", 0, 0.75),
        ("up_s", 0.75, 0.875),
        ("boot_s", 3600.875, 3601.625),
        ("up_s", 3601.625, 3611.625),
    ]


def test_boot_before_the_meters_start_counts_whole(tmp_path: Path, make_file_store: MakeStore) -> None:
    backend = MeteredBackend(make_file_store, 1_790_000_000.0)
    backend.state_tracker.begin_boot()
    backend.clock.now += 2
    meter = UsageMeter(
        backend.state_tracker.recent_states, FileUsageStore(tmp_path / "meter.json"), clock=backend.clock
    )
    backend.clock.now += 3

    assert meter.current_month().boot_s == 5


def test_unwritten_usage_counts_and_is_written_later(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    backend = MeteredBackend(
        lambda clock: RedisUsageStore(redis_server.url, clock=clock), 1_790_000_000.0, budget_s=310
    )
    redis_server.kill()
    backend.upscale(boot_s=12, work_s=3, idle_s=300)
    backend.meter.write()
    backend.meter.write()

    assert backend.meter.is_budget_spent()
    line = (
        "Redis, which stores the GPU usage, cannot be used: "
        f"Error 111 connecting to 127.0.0.1:{redis_server.port}. Connection refused. "
        "Usage is kept in memory until it can be written; now 315.0 GPU seconds and 1 image."
    )
    assert [record.getMessage() for record in caplog.records] == [line], "once, not with every attempt"
    redis_server.start()
    backend.upscale(boot_s=10, work_s=3, idle_s=300)
    assert backend.meter.write()
    assert backend.meter.write()

    assert read_seconds(backend.meter.current_month()) == (22, 6, 600, 628)
    assert read_seconds(RedisUsageStore(redis_server.url).read()["2026-09"]) == (22, 6, 600, 628)
    assert [record.getMessage() for record in caplog.records[1:]] == ["The usage that was kept in memory is written."]


def test_damaged_file_is_kept_and_counting_continues(tmp_path: Path, make_file_store: MakeStore) -> None:
    path = tmp_path / "meter.json"
    path.write_text('{"version": 1, "months": ')
    backend = MeteredBackend(make_file_store, 1_790_000_000.0)
    backend.upscale(boot_s=12, work_s=3, idle_s=300)
    backend.meter.write()

    assert backend.meter.current_month().gpu_s == pytest.approx(315)
    assert path.read_text() == '{"version": 1, "months": '
    with pytest.raises(UsageStoreError, match="damaged"):
        FileUsageStore(path).read()


def test_thirteen_months_are_stored(tmp_path: Path) -> None:
    store = FileUsageStore(tmp_path / "meter.json")
    for number in range(20):
        name = f"{2026 + number // 12}-{number % 12 + 1:02d}"
        store.add(UsageBatch((), {(name, "alice"): ClientUsage(1, 1.0)}))

    months = json.loads((tmp_path / "meter.json").read_text())["months"]
    assert (len(months), min(months), max(months)) == (13, "2026-08", "2027-08")
