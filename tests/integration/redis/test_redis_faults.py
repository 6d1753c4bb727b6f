"""Redis servers that respond but cannot be used: each is named in one log line, and used again after a write."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.access.circuit_breaker import LOG_AGAIN_S, RETRY_S, CircuitBreaker
from gateway.access.rate_limit_storage import FallbackStorage
from gateway.usage.records import UsageBatch, UsageStoreError
from gateway.usage.redis_store import RedisUsageStore
from testing.clock import ManualClock
from testing.redis_groups import fail_over, follow, running
from testing.redis_server import RedisServer, wait_for

AWAY, BACK = "Redis is unavailable: ", "Redis is available again. Rate limits are shared between gateways."


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log's lines about rate limits so far."""
    return [record.getMessage() for record in caplog.records if record.name == "gateway.access.circuit_breaker"]


class Broken:
    """Makes servers unusable in one way, and usable again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def read_only(self, server: RedisServer) -> Iterator[None]:
        other = RedisServer(self.folder)
        with running(other):
            follow(server, other)
            yield
            server.execute("REPLICAOF", "NO", "ONE")

    @contextmanager
    def without_its_master(self, server: RedisServer) -> Iterator[None]:
        server.execute("CONFIG", "SET", "replica-serve-stale-data", "no")
        with self.read_only(server):
            pass
        server.execute("REPLICAOF", "127.0.0.1", "1")
        yield
        server.execute("REPLICAOF", "NO", "ONE")

    @contextmanager
    def without_replicas(self, server: RedisServer) -> Iterator[None]:
        server.execute("CONFIG", "SET", "min-replicas-to-write", "1")
        yield
        server.execute("CONFIG", "SET", "min-replicas-to-write", "0")

    @contextmanager
    def out_of_memory(self, server: RedisServer) -> Iterator[None]:
        server.execute("CONFIG", "SET", "maxmemory", "1")
        yield
        server.execute("CONFIG", "SET", "maxmemory", "0")

    @contextmanager
    def without_disk(self, server: RedisServer) -> Iterator[None]:
        server.execute("CONFIG", "SET", "save", "3600 1000")
        shutil.rmtree(self.folder / "data")
        with suppress(redis.ResponseError):
            server.execute("BGSAVE")
        wait_for(lambda: server.execute("INFO")["rdb_last_bgsave_status"] == "err", "BGSAVE fails")
        yield
        server.execute("CONFIG", "SET", "save", "")

    @contextmanager
    def with_a_password(self, server: RedisServer) -> Iterator[None]:
        with redis.Redis(port=server.port) as admin:
            admin.execute_command("CONFIG", "SET", "requirepass", "hunter2")
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            yield
            admin.execute_command("CONFIG", "SET", "requirepass", "")

    @contextmanager
    def without_permission(self, server: RedisServer) -> Iterator[None]:
        with redis.Redis(port=server.port) as admin:
            admin.execute_command("ACL", "SETUSER", "default", "-@write", "-@scripting")
            yield
            admin.execute_command("ACL", "SETUSER", "default", "+@all")

    @contextmanager
    def busy(self, server: RedisServer) -> Iterator[None]:
        server.execute("CONFIG", "SET", "busy-reply-threshold", "1")

        def block() -> None:
            with suppress(redis.RedisError), redis.Redis(port=server.port) as client:
                client.eval("while true do end", 0)

        thread = threading.Thread(target=block)
        thread.start()
        wait_for(lambda: _error_code(server) == "BUSY", "the script blocks Redis")
        yield
        server.execute("SCRIPT", "KILL")
        thread.join()

    @contextmanager
    def paused(self, server: RedisServer) -> Iterator[None]:
        server.execute("CLIENT", "PAUSE", 1_000_000, "WRITE")
        yield
        server.execute("CLIENT", "UNPAUSE")

    @contextmanager
    def loading(self, server: RedisServer) -> Iterator[None]:
        with redis.Redis(port=server.port) as client:
            client.mset({f"key {number}": "x" * 2000 for number in range(1000)})
        server.execute("CONFIG", "SET", "rdbcompression", "no")
        server.execute("SAVE")
        server.kill()
        slow = ("--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
        server.start(*slow, until=(redis.exceptions.BusyLoadingError,))
        yield
        server.execute("CONFIG", "SET", "key-load-delay", "0")
        wait_for(lambda: _error_code(server) == "", "the data is loaded")


def _error_code(server: RedisServer) -> str:
    try:
        server.execute("GET", "x")
    except redis.RedisError as error:
        return getattr(error, "status_code", None) or str(error).split()[0]
    return ""


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Broken.read_only, "it is a read-only replica"),
        (Broken.loading, "it is loading its data"),
        (Broken.without_its_master, "it is a replica that has lost its master"),
        (Broken.without_replicas, "it accepts no writes, because too few replicas are connected"),
        (Broken.out_of_memory, "it is out of memory (maxmemory)"),
        (Broken.without_disk, "it accepts no writes, because it cannot save its data to disk"),
        (Broken.with_a_password, "it requires a password"),
        (Broken.without_permission, "its user may not use a command or key that the gateway needs (ACL)"),
        (Broken.busy, "it is busy with a script"),
        pytest.param(Broken.paused, "Timeout reading from socket", marks=pytest.mark.redis_timeouts),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_unusable_server_is_named_once_and_used_again_after_a_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Callable[..., Any], words: str
) -> None:
    (tmp_path / "data").mkdir()
    server = RedisServer(tmp_path / "data")
    clock = ManualClock()
    storage = FallbackStorage(redis_url=server.url, clock=clock)
    store = RedisUsageStore(server.url)
    with running(server):
        assert storage.acquire_entry("key", 1000, 60)

        with fault(Broken(tmp_path), server):
            for _ in range(5):
                assert storage.acquire_entry("key", 1000, 60), "counted in memory"
                clock.now += RETRY_S
                assert storage.usage("key", 60).used > 0
                assert not storage.check(), "a read does not end the outage"
                clock.now += RETRY_S
            with pytest.raises(UsageStoreError, match="Redis, which stores the GPU usage, cannot be used") as caught:
                store.add(UsageBatch())

        wait_for(lambda: _error_code(server) == "", "the server responds")
        assert storage.acquire_entry("key", 1000, 60)
        assert storage.check()
        store.add(UsageBatch())

    assert words in str(caught.value)
    away, back = messages(caplog)
    assert away.startswith(AWAY + words)
    assert back == BACK


class SwitchedName:
    """A `getaddrinfo` for which "redis-master" is the server that a test chooses."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._real = socket.getaddrinfo

    def __call__(self, host: str, *rest: Any, **named: Any) -> Any:
        return self._real(self.host if host == "redis-master" else host, *rest, **named)


def test_failover_behind_one_name_needs_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = RedisServer(tmp_path)
    new = RedisServer(tmp_path, host="127.0.0.2", port=old.port)
    name = SwitchedName(old.host)
    monkeypatch.setattr(socket, "getaddrinfo", name)
    clock = ManualClock()
    with running(old, new):
        url = f"redis://redis-master:{old.port}/0"
        storage, store = FallbackStorage(redis_url=url, clock=clock), RedisUsageStore(url)
        follow(new, old)
        assert storage.acquire_entry("key", 2, 60)
        store.add(UsageBatch())
        fail_over(old, new)
        name.host = new.host

        assert storage.acquire_entry("key", 2, 60), "the old master is read-only: counted in memory"
        with pytest.raises(UsageStoreError, match="read-only replica"):
            store.add(UsageBatch())
        clock.now += RETRY_S
        counted = [storage.acquire_entry("key", 2, 60) for _ in range(2)]
        store.add(UsageBatch())

        assert counted == [True, False], "the new master has the count of the old one"
        assert storage.check()
        assert len(new.execute("KEYS", "superres:meter:batch:*")) == 2
    assert [line.split(":")[0] for line in messages(caplog)] == [AWAY.split(":", maxsplit=1)[0], BACK]


def test_restart_without_data_loses_no_script_and_no_usage(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    storage = FallbackStorage(redis_url=redis_server.url, clock=clock)
    store = RedisUsageStore(redis_server.url)
    redis_server.execute("HSET", "superres:meter:2026-09", "up_s", "60.5", "images:alice", "3", "work_s:alice", "2.25")
    assert store.read()["2026-09"].gpu_s == 60.5
    assert storage.acquire_entry("key", 1, 60)

    redis_server.execute("FLUSHALL")
    redis_server.execute("SCRIPT", "FLUSH")

    assert [storage.acquire_entry("key", 1, 60) for _ in range(2)] == [True, False], "limits begin again"
    assert messages(caplog) == []
    store.add(UsageBatch())
    assert store.read() == RedisUsageStore(redis_server.url).read()
    assert store.read()["2026-09"].gpu_s == 60.5
    assert redis_server.execute("HINCRBY", "superres:meter:2026-09", "images:alice", 1) == 4, "still a whole number"
    assert [record.getMessage()[:62] for record in caplog.records] == [
        "Redis had lost usage that this gateway knew (2026-09); it is s"
    ]


def test_redis_that_evicts_counts_still_counts(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    used = int(redis_server.execute("INFO")["used_memory"])
    redis_server.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    redis_server.execute("CONFIG", "SET", "maxmemory", used + 300_000)
    storage = FallbackStorage(redis_url=redis_server.url)

    hits = [storage.acquire(f"key {number}", 1000, 60, 1000) for number in range(300)]

    assert all(hit is not None and hit.is_shared for hit in hits)
    assert int(redis_server.execute("INFO")["evicted_keys"]) > 0
    # Otherwise Redis, which evicts by samples, may evict the key that is asked next.
    redis_server.execute("CONFIG", "SET", "maxmemory", 0)
    assert storage.acquire("key after", 1000, 60, 1000)
    assert not storage.acquire_entry("key after", 1000, 60)
    assert messages(caplog) == []


def test_redis_that_comes_and_goes_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(clock)

    for _ in range(int(3 * LOG_AGAIN_S)):
        breaker.record_outage("it is loading its data")
        clock.now += RETRY_S
        assert breaker.allows_call()
        breaker.record_success(breaker.outages)

    lines = messages(caplog)
    assert len(lines) == 6
    assert lines[2].endswith("It was unavailable 59 more times since the last such line.")


def test_long_outage_that_begins_in_a_quiet_minute_is_logged_later(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(clock)
    breaker.record_outage("first")
    breaker.record_success(breaker.outages)

    for _ in range(int(LOG_AGAIN_S) + 1):
        breaker.record_outage("second")
        clock.now += RETRY_S

    assert [line.split(".")[0] for line in messages(caplog)] == [
        AWAY + "first",
        BACK.split(".", maxsplit=1)[0],
        AWAY + "second",
    ]
