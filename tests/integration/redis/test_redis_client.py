"""The Redis client with slow DNS: `getaddrinfo` is blocked by the test, the server is a real Redis."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from gateway.access.rate_limit_storage import RETRY_S, FallbackStorage
from gateway.storage.redis import MAX_LOOKUPS, DnsResolver, connect
from testing.clock import ManualClock
from testing.redis_server import RedisServer

LIMIT_S = 60.0
"""Time limit for events that must happen; not a measure of speed."""


class Names:
    """A `getaddrinfo` that blocks until the test releases it."""

    def __init__(self) -> None:
        self.are_slow = threading.Event()
        self.let_go = threading.Event()
        self.asked: list[str] = []
        self._real = socket.getaddrinfo

    def __call__(self, host: str, *rest: Any, **named: Any) -> Any:
        if self.are_slow.is_set():
            self.asked.append(host)
            assert self.let_go.wait(LIMIT_S)
        return self._real(host, *rest, **named)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    held_up = Names()
    monkeypatch.setattr(socket, "getaddrinfo", held_up)
    yield held_up
    held_up.let_go.set()


def by_name(server: RedisServer) -> str:
    return server.url.replace("127.0.0.1", "localhost")


def test_no_request_stands_by_while_a_name_is_looked_up(names: Names, redis_server: RedisServer) -> None:
    monotonic = ManualClock()
    counters = FallbackStorage(redis_url=by_name(redis_server), monotonic=monotonic)
    assert counters.acquire_entry("key", 10, 60)
    assert counters.check()
    redis_server.kill()
    names.are_slow.set()

    for _ in range(3):  # the look-up is blocked: a request that waited for it would never get here
        assert counters.acquire_entry("key", 10, 60)
        assert not counters.check()
        monotonic.now += RETRY_S
    asked = len(names.asked)
    assert set(names.asked) == {"localhost"}

    names.are_slow.clear()  # for later look-ups: the earlier ones still block
    redis_server.start()
    deadline = time.monotonic() + LIMIT_S
    while not counters.check():
        assert time.monotonic() < deadline, "it is back and nobody notices"
        monotonic.now += RETRY_S
        counters.acquire_entry("key", 1000, 60)
        time.sleep(0.05)
    assert not names.let_go.is_set()
    assert len(names.asked) == asked


def test_who_asks_together_shares_a_look_up_and_there_are_only_so_many(names: Names) -> None:
    look_ups = DnsResolver()
    names.are_slow.set()
    with ThreadPoolExecutor(8) as pool:
        waits = [pool.submit(look_ups.wait, "together", 6379, LIMIT_S) for _ in range(8)]
        while not names.asked:
            time.sleep(0.01)
        for number in range(MAX_LOOKUPS - 1):
            with pytest.raises(TimeoutError, match="took longer than 0 s"):
                look_ups.wait(f"name-{number}", 6379, 0.0)
        with pytest.raises(TimeoutError, match=f"{MAX_LOOKUPS} DNS look-ups are already running"):
            look_ups.wait("one-more", 6379, LIMIT_S)
        names.let_go.set()
        for wait in waits:
            with pytest.raises(OSError, match="the host together was not found"):
                wait.result()

    assert sorted(names.asked) == sorted(["together", *(f"name-{number}" for number in range(MAX_LOOKUPS - 1))])
    names.are_slow.clear()
    deadline = time.monotonic() + LIMIT_S
    while True:  # finished look-ups free their slots
        try:
            look_ups.wait("localhost", 6379, LIMIT_S)
        except TimeoutError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            break


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_look_up_that_takes_too_long_is_an_error_of_redis(names: Names, scheme: str) -> None:
    names.are_slow.set()
    with pytest.raises(redis.TimeoutError):
        connect(f"{scheme}://{scheme}-somewhere:6379/0").ping()
    assert names.asked == [f"{scheme}-somewhere"]


@pytest.mark.parametrize("host", ["no-such-name.invalid", "x" * 70 + ".invalid"], ids=["unknown", "not a name"])
def test_a_name_that_is_not_found_is_told_to_all_who_wait(host: str) -> None:
    look_ups = DnsResolver()
    for _ in range(2):
        with pytest.raises(OSError, match=f"the host {host} was not found"):
            look_ups.wait(host, 6379, LIMIT_S)


def test_where_no_thread_can_be_started_it_is_an_error_of_redis_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(redis.ConnectionError, match="can't start new thread"):
        connect("redis://nowhere.invalid:6379/0").ping()


def test_a_socket_of_this_machine_has_no_name_to_look_up(names: Names) -> None:
    names.are_slow.set()
    with pytest.raises(redis.ConnectionError):
        connect("unix:///nowhere/redis.sock").ping()
    assert names.asked == []
