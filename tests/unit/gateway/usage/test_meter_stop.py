"""The end of the usage meter, and clocks that were set or stood still: no second is lost, and none is made up."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.backend.state import BOOT_LIMIT_S, BackendStateTracker
from gateway.cli.usage import describe
from gateway.config.settings import Settings
from gateway.usage import meter as meter_module
from gateway.usage.file_store import FileUsageStore
from gateway.usage.meter import LOG_INTERVAL_S, UsageMeter
from gateway.usage.records import AwakeSpan, ClientUsage, MonthlyUsage, UsageBatch, UsageStoreError
from gateway.usage.redis_store import RedisUsageStore
from gateway.usage.store import UsageStore
from gateway.usage.unwritten import UnwrittenUsageFile
from testing.clock import ManualClock
from testing.redis_server import RedisServer

HOURS = 5 * 3600.0
NOW = 1_790_000_000.0


class FailingStore:
    """A store that fails while a test says so."""

    def __init__(self, inner: UsageStore) -> None:
        self.fails = True
        self.attempts = 0
        self._inner = inner

    def now(self) -> float:
        return self._inner.now()

    def add(self, batch: UsageBatch) -> None:
        self.attempts += 1
        if self.fails:
            raise UsageStoreError("The disk is full.")
        self._inner.add(batch)

    def read(self) -> dict[str, MonthlyUsage]:
        return self._inner.read()


class Metered:
    """A backend's states and a meter on a monotonic clock, and a store on the machine's clock."""

    def __init__(self, folder: Path, assume_asleep_after_s: float = 0.0) -> None:
        self.clock, self.wall = ManualClock(), ManualClock()
        self.wall.now = NOW
        self.folder = folder
        self.store = FailingStore(FileUsageStore(folder / "meter.json", clock=self.wall))
        self.store.fails = False
        self._assume_asleep_after_s = assume_asleep_after_s
        self.meter = self.restart()

    def restart(self) -> UsageMeter:
        self.states = BackendStateTracker(clock=self.clock, assume_asleep_after_s=self._assume_asleep_after_s)
        return UsageMeter(
            self.states.recent_states,
            self.store,
            unwritten=UnwrittenUsageFile(self.folder / "meter-unwritten.json"),
            clock=self.clock,
        )

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.wall.now += seconds

    def images(self) -> int:
        return sum(use.images for month in self.store.read().values() for use in month.clients.values())


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_module, "CLOSE_LIMIT_S", 0.0)
    monkeypatch.setattr(meter_module, "CLOSE_RETRY_S", 0.0)


def test_close_writes_what_came_after_a_failed_write(tmp_path: Path) -> None:
    metered = Metered(tmp_path)
    metered.store.fails = True
    metered.meter.record_work("me", 1.0, 1)
    assert not metered.meter.write()
    metered.meter.record_work("me", 1.0, 2)
    metered.store.fails = False

    metered.meter.close()

    assert metered.images() == 3
    assert not (tmp_path / "meter-unwritten.json").exists()


def test_close_tries_again_until_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metered = Metered(tmp_path)
    metered.store.fails = True
    metered.meter.record_work("me", 1.0, 1)

    def recover(_: float) -> None:
        metered.store.fails = metered.store.attempts < 3

    monkeypatch.setattr(time, "sleep", recover)
    metered.meter.close()

    assert metered.images() == 1


@pytest.mark.usefixtures("no_wait")
def test_what_cannot_be_written_at_the_end_is_kept_and_written_by_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metered = Metered(tmp_path)
    metered.store.fails = True
    metered.states.mark_up()
    metered.meter.observe()
    metered.pass_time(60)
    metered.meter.record_work("me", 1.0, 1)
    metered.meter.write()
    metered.meter.record_work("me", 1.5, 2)
    metered.pass_time(30)
    metered.meter.close()
    path = tmp_path / "meter-unwritten.json"
    line = f"At the end, 90.0 GPU seconds and 3 images could not be written and are in {path}, and the next start "
    assert caplog.records[-1].getMessage() == line + "writes them."
    shown = describe(Settings(state_dir=str(tmp_path)), "")
    assert f"Not included: 90.0 GPU seconds and 3 images in {path}. The next start of the gateway adds them." in shown

    metered.pass_time(HOURS)
    still_away = metered.restart()
    still_away.start()
    assert still_away.current_month().gpu_s == 90, "counts although it is not written"
    still_away.close()
    metered.store.fails = False
    for _ in range(2):
        again = metered.restart()
        again.start()
        again.close()

    assert metered.store.read() == {"2026-09": MonthlyUsage("2026-09", 0.0, 90.0, {"me": ClientUsage(3, 2.5)})}
    assert not path.exists()


@pytest.mark.usefixtures("no_wait")
def test_full_disk_loses_nothing_while_the_gateway_runs_and_says_what_it_loses_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    metered = Metered(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        metered.meter.record_work("me", 1.0, 1)
        assert not metered.meter.write()
        metered.meter.record_work("me", 1.0, 2)
        assert metered.meter.current_month().work_s == 2.0
    assert metered.meter.write()
    assert metered.images() == 3

    monkeypatch.setattr(os, "fsync", fail)
    metered.meter.record_work("me", 1.0, 4)
    metered.meter.close()

    assert metered.images() == 3
    first, written, lost = (record.getMessage() for record in caplog.records)
    assert (
        "No space left on device. Usage is kept in memory until it can be written; now 0.0 GPU seconds and 1 image."
        in first
    )
    assert written == "The usage that was kept in memory is written."
    assert lost.startswith("At the end, 0.0 GPU seconds and 4 images could not be written and are lost. ")
    assert lost.endswith("cannot be written: No space left on device.")


@pytest.mark.usefixtures("no_wait")
def test_without_redis_the_rest_goes_to_the_file_and_to_redis_at_the_next_start(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    def start() -> UsageMeter:
        states = BackendStateTracker()
        unwritten = UnwrittenUsageFile(tmp_path / "meter-unwritten.json")
        started = UsageMeter(states.recent_states, RedisUsageStore(redis_server.url), unwritten=unwritten)
        started.start()
        return started

    first = start()
    redis_server.kill()
    first.record_work("me", 1.0, 2)
    first.close()
    redis_server.start()
    start().close()
    start().close()

    months = RedisUsageStore(redis_server.url).read().values()
    assert sum(use.images for month in months for use in month.clients.values()) == 2


def test_failing_store_is_logged_at_intervals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metered = Metered(tmp_path)
    metered.meter.record_work("me", 1.0, 1)
    for number in range(int(LOG_INTERVAL_S)):  # fails every other time
        metered.store.fails = number % 2 == 0
        metered.meter.record_work("me", 1.0, 1)
        metered.meter.write()
        metered.pass_time(1)

    assert [record.getMessage()[:24] for record in caplog.records] == [
        "The disk is full. Usage ",
        "The usage that was kept ",
    ]


def test_damaged_file_of_unwritten_usage_does_not_stop_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "meter-unwritten.json").write_text('{"batches": [{"id"')
    metered = Metered(tmp_path)

    metered.meter.start()
    metered.meter.record_work("me", 1.0, 1)
    metered.meter.close()

    assert metered.images() == 1
    assert "meter-unwritten.json is invalid" in caplog.records[0].getMessage()


@pytest.mark.parametrize("jump", [-HOURS, HOURS, -40 * 86_400.0], ids=["back", "forward", "back by months"])
def test_machines_clock_that_is_set_neither_stops_the_meter_nor_adds_a_second(tmp_path: Path, jump: float) -> None:
    metered = Metered(tmp_path)
    metered.states.begin_boot()
    metered.pass_time(10)
    metered.states.mark_up()
    for number in range(30):
        if number in (10, 20):
            metered.wall.now += jump if number == 10 else -jump
        metered.pass_time(10)
        metered.meter.observe()
        assert metered.meter.write()

    months = metered.store.read().values()
    assert sum(month.boot_s for month in months) == pytest.approx(10)
    assert sum(month.up_s for month in months) == pytest.approx(300)


def test_two_processes_count_a_second_once_after_the_clock_was_set_back(tmp_path: Path) -> None:
    clock = ManualClock()
    stores = [FileUsageStore(tmp_path / "meter.json", clock=clock) for _ in range(2)]
    for begin in (50_000.0, 1_000.0):
        clock.now = begin + 60
        for store in stores:
            store.add(UsageBatch((AwakeSpan("2026-09", "up_s", begin, begin + 60),)))

    assert stores[0].read()["2026-09"].up_s == 120


def test_batches_of_two_processes_that_are_sent_again_count_once(tmp_path: Path) -> None:
    store = FileUsageStore(tmp_path / "meter.json")
    batches = [UsageBatch((), {("2026-09", "me"): ClientUsage(1, 1.0)}) for _ in range(2)]

    for batch in (*batches, *batches):
        store.add(batch)

    assert store.read()["2026-09"].clients["me"].images == 2


@pytest.mark.parametrize(
    ("enter", "counted_s"),
    [
        (BackendStateTracker.mark_asleep, 0.0),
        (BackendStateTracker.mark_up, 90.0),
        (BackendStateTracker.begin_boot, BOOT_LIMIT_S),
    ],
    ids=["asleep", "up", "booting"],
)
def test_frozen_gateway_counts_no_hours(
    tmp_path: Path, enter: Callable[[BackendStateTracker], object], counted_s: float
) -> None:
    """A backend elsewhere that falls asleep after 90 s: the gateway is stopped (SIGSTOP) for hours."""
    metered = Metered(tmp_path, assume_asleep_after_s=90)
    enter(metered.states)
    metered.meter.observe()

    metered.pass_time(HOURS)
    metered.meter.observe()
    metered.meter.write()

    assert sum(month.gpu_s for month in metered.store.read().values()) == pytest.approx(counted_s)
