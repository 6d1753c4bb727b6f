"""gateway.storage.dns_lookup with slow DNS: `getaddrinfo` is replaced, Redis is real."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from gateway.access.circuit_breaker import RETRY_S
from gateway.access.rate_limit_storage import FallbackStorage
from gateway.storage.dns_lookup import MAX_LOOKUPS, DnsResolver
from gateway.storage.redis import open_client
from gateway.storage.redis_url import parse_redis_url
from testing.clock import ManualClock
from testing.redis_server import RedisServer

pytestmark = pytest.mark.redis_timeouts

# Longest wait for anything that must happen.
LIMIT_S = 120.0


class SlowDns:
    """A `getaddrinfo` that does not return until it is released, and knows no host but this machine."""

    def __init__(self) -> None:
        self.is_slow = threading.Event()
        self.released = threading.Event()
        self.hosts: list[str] = []
        self._real = socket.getaddrinfo

    def __call__(self, host: str, *rest: Any, **named: Any) -> Any:
        if self.is_slow.is_set():
            self.hosts.append(host)
            assert self.released.wait(LIMIT_S)
        if host not in ("localhost", "127.0.0.1"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._real(host, *rest, **named)


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDns]:
    slow = SlowDns()
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    yield slow
    slow.released.set()


def by_name(server: RedisServer) -> str:
    return server.url.replace("127.0.0.1", "localhost")


def use_again(storage: FallbackStorage, clock: ManualClock) -> None:
    """Count until the storage counts in Redis."""
    deadline = time.monotonic() + LIMIT_S
    while not (storage.acquire_entry("key", 10_000, 60) and storage.check()):
        assert time.monotonic() < deadline, "Redis is there, but is not used"
        clock.now += RETRY_S
        time.sleep(0.05)


def test_no_request_waits_for_a_slow_dns_lookup(dns: SlowDns, redis_server: RedisServer) -> None:
    monotonic = ManualClock()
    storage = FallbackStorage(redis_url=by_name(redis_server), clock=monotonic)
    use_again(storage, monotonic)
    redis_server.kill()
    dns.is_slow.set()

    for _ in range(3):  # the look-up never returns: a request that waited for it would not get here
        assert storage.acquire_entry("key", 10, 60)
        assert not storage.check()
        monotonic.now += RETRY_S
    lookups_before = len(dns.hosts)
    assert set(dns.hosts) == {"localhost"}

    dns.is_slow.clear()  # new look-ups return, the old ones still do not
    redis_server.start()
    use_again(storage, monotonic)
    assert not dns.released.is_set()
    assert len(dns.hosts) == lookups_before


def test_dns_lookups_are_shared_and_bounded(dns: SlowDns) -> None:
    resolver = DnsResolver()
    dns.is_slow.set()
    with ThreadPoolExecutor(8) as pool:
        waits = [pool.submit(resolver.wait, "together", 6379, LIMIT_S) for _ in range(8)]
        while not dns.hosts:
            time.sleep(0.01)
        for number in range(MAX_LOOKUPS - 1):
            with pytest.raises(TimeoutError, match="took longer than 0 s"):
                resolver.wait(f"name-{number}", 6379, 0.0)
        with pytest.raises(TimeoutError, match=f"{MAX_LOOKUPS} DNS look-ups are already running"):
            resolver.wait("one-more", 6379, LIMIT_S)
        dns.released.set()
        for wait in waits:
            with pytest.raises(OSError, match="the host together was not found"):
                wait.result()

    assert sorted(dns.hosts) == sorted(["together", *(f"name-{number}" for number in range(MAX_LOOKUPS - 1))])
    dns.is_slow.clear()
    deadline = time.monotonic() + LIMIT_S
    while True:  # finished look-ups are no longer counted
        try:
            resolver.wait("localhost", 6379, LIMIT_S)
        except TimeoutError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            break


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_dns_timeout_is_a_redis_error(dns: SlowDns, scheme: str) -> None:
    dns.is_slow.set()
    with pytest.raises(redis.TimeoutError):
        open_client(parse_redis_url(f"{scheme}://{scheme}-somewhere:6379/0")).ping()
    assert dns.hosts == [f"{scheme}-somewhere"]


@pytest.mark.parametrize("host", ["no-such-name.invalid", "x" * 70 + ".invalid"], ids=["unknown", "not a name"])
def test_unknown_host_fails_every_waiting_call(host: str) -> None:
    resolver = DnsResolver()
    for _ in range(2):
        with pytest.raises(OSError, match=f"the host {host} was not found"):
            resolver.wait(host, 6379, LIMIT_S)


def test_failure_to_start_a_thread_is_a_redis_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(redis.ConnectionError, match="can't start new thread"):
        open_client(parse_redis_url("redis://nowhere.invalid:6379/0")).ping()


def test_unix_socket_needs_no_dns_lookup(dns: SlowDns) -> None:
    dns.is_slow.set()
    with pytest.raises(redis.ConnectionError):
        open_client(parse_redis_url("unix:///nowhere/redis.sock")).ping()
    assert dns.hosts == []
