"""Rate limits of two gateway processes on one real Redis: exact together, separate during an outage."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from limits import parse
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from gateway.access.api_keys import ApiKeyStore
from gateway.access.circuit_breaker import RETRY_S
from gateway.access.moving_windows import MemoryWindows
from gateway.access.rate_limit_storage import FallbackStorage
from gateway.access.redis_windows import KEY_PREFIX, RedisWindows
from gateway.storage.redis import RedisUnavailableError
from testing.clock import ManualClock
from testing.redis_server import RedisServer
from testing.requests import PHOTO
from testing.server import Served, serving

# Client threads per gateway.
THREADS = 8
MAX_STORMS = 5
# Longest wait for anything that must happen.
LIMIT_S = 120.0


class Pair:
    """Two gateways that share one Redis, and clients that send requests to them."""

    def __init__(self, keys: ApiKeyStore, gateways: tuple[Served, Served], server: RedisServer) -> None:
        self.redis = server
        self._keys = keys
        self._gateways = gateways
        self._ports = [gateway.port for gateway in gateways]
        self._names = itertools.count()

    def new_key(self, requests: str) -> str:
        return self._keys.new(f"client {next(self._names)}", requests=requests, megapixels="")

    def ask(self, port: int, key: str) -> int:
        """Upscale an image and return the status."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        try:
            connection.request("POST", "/api/v1/upscale", PHOTO, {"X-API-Key": key})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def storm(
        self, key: str, each: int, pause_s: float = 0.0, meanwhile: Callable[[], object] = lambda: None
    ) -> list[Counter[int]]:
        """Send `each` requests from 8 threads to each gateway. Return the status codes of each gateway."""
        statuses: list[Counter[int]] = [Counter() for _ in self._ports]
        lock = threading.Lock()

        def run(index: int) -> None:
            for _ in range(each):
                status = self.ask(self._ports[index], key)
                with lock:
                    statuses[index][status] += 1
                time.sleep(pause_s)

        threads = [threading.Thread(target=run, args=(index,)) for index in range(2) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        meanwhile()
        for thread in threads:
            thread.join(LIMIT_S)
        assert sum(sum(responses.values()) for responses in statuses) == 2 * THREADS * each, "a response is missing"
        return statuses

    def storm_while_shared(self, requests: str, each: int) -> list[Counter[int]]:
        """Repeat with a new key until neither gateway lost Redis: after a timeout of 0.5 s a gateway counts locally."""
        for _ in range(MAX_STORMS):
            key, outages = self.new_key(requests), self.outages()
            first = [self.ask(port, key) for port in self._ports]  # one per gateway, so that both have used the key
            statuses = self.storm(key, each)
            if self.outages() == outages:
                assert first == [200, 200], first
                return statuses
            self.await_shared()
        raise AssertionError("Redis was unreachable in every storm")

    def outages(self) -> list[int]:
        return [gateway.log().count("Redis is unavailable") for gateway in self._gateways]

    def await_shared(self) -> None:
        """Send requests to each gateway until it counts in Redis again, which it tries once per second."""
        for port in self._ports:
            end = time.monotonic() + LIMIT_S
            while not self._counts_in_redis(port):
                assert time.monotonic() < end, "the gateway does not use Redis again"
                time.sleep(0.1)

    def _counts_in_redis(self, port: int) -> bool:
        key = self.new_key("10 per hour")
        with redis.Redis(port=self.redis.port) as client:
            before = _count_rate_limit_keys(client)
            assert self.ask(port, key) == 200
            return _count_rate_limit_keys(client) > before


def _count_rate_limit_keys(client: redis.Redis) -> int:
    """Return the number of keys of rate limits. Usage meters write to the same Redis."""
    return sum(not key.startswith(b"superres:meter:") for key in client.scan_iter(count=1000))


@contextmanager
def two_gateways(folder: Path, server: RedisServer, *arguments: str) -> Iterator[Pair]:
    environ = {
        "SUPERRES_REDIS_URL": server.url,
        "SUPERRES_KEYS_FILE": str(folder / "keys.json"),
        "SUPERRES_MAX_CONCURRENT_REQUESTS": "100",
        "SUPERRES_QUEUE_SIZE": "20",
        "SUPERRES_QUEUE_SIZE_PER_CLIENT": "20",
        "SUPERRES_THREADS": "40",
        "SUPERRES_BAN_AFTER": "",
        "SUPERRES_LOG_LEVEL": "debug",  # has a line about each outage, however many there are
    }
    for name in ("one", "two"):
        (folder / name).mkdir()
    with (
        serving(folder / "one", *arguments, **environ) as one,
        serving(folder / "two", *arguments, **environ) as two,
    ):
        yield Pair(ApiKeyStore(folder / "keys.json"), (one, two), server)


def test_shared_limit_is_exact(tmp_path: Path, redis_server: RedisServer) -> None:
    with two_gateways(tmp_path, redis_server) as pair:
        statuses = pair.storm_while_shared("40 per hour", each=10)

    assert statuses[0] + statuses[1] == {200: 38, 429: 122}


def test_rejected_command_does_not_stop_sharing(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    one, other = (FallbackStorage(redis_url=redis_server.url) for _ in range(2))
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(f"{KEY_PREFIX}:damaged", "no list")

    passed = [each.acquire_entry("damaged", 1, 60) for each in (one, one, other, other)]
    shared = [each.acquire_entry("sound", 2, 60) for each in (one, other, one, other)]

    assert passed == [True, False, True, False], "each storage counts by itself"
    assert shared == [True, True, False, False]
    assert one.check()
    assert [record.message[:24] for record in caplog.records] == ["Redis rejected a command"] * 2, "once each"


def test_late_response_does_not_end_an_outage(redis_server: RedisServer) -> None:
    monotonic = ManualClock()
    storage = FallbackStorage(redis_url=redis_server.url, clock=monotonic)

    def fail(windows: MemoryWindows | RedisWindows) -> None:
        if isinstance(windows, RedisWindows):
            raise RedisUnavailableError

    def respond_late(windows: MemoryWindows | RedisWindows) -> str:
        if isinstance(windows, RedisWindows):
            storage._call("", fail)
        return "late"

    assert storage._call("", respond_late) == ("late", True)
    assert not storage.check(), "Redis was lost after that call had begun"
    monotonic.now += RETRY_S
    assert storage._call("", lambda _: "again") == ("again", True)
    assert storage.check()


@pytest.mark.parametrize("shared", [True, False], ids=["redis", "memory"])
def test_every_method_of_a_limits_storage_works(redis_server: RedisServer, *, shared: bool) -> None:
    storage = FallbackStorage(redis_url=redis_server.url if shared else "")
    item = parse("3 per minute")
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("superres:meter:total", "kept")

        fixed = FixedWindowRateLimiter(storage)
        assert [fixed.hit(item, "fixed") for _ in range(4)] == [True, True, True, False]
        assert fixed.get_window_stats(item, "fixed").reset_time > time.time()
        fixed.clear(item, "fixed")
        assert fixed.hit(item, "fixed")

        moving = MovingWindowRateLimiter(storage)
        assert [moving.hit(item, "moving", cost=2) for _ in range(2)] == [True, False]
        moving.clear(item, "moving")
        assert moving.hit(item, "moving", cost=3)
        assert storage.reset() == 2
        assert moving.hit(item, "moving", cost=3)

        assert client.get("superres:meter:total") == b"kept", "a reset spares the usage records"


@pytest.mark.parametrize("loss", ["killed", "frozen"])
def test_outage_under_load_causes_no_error_and_sharing_resumes(
    tmp_path: Path, redis_server: RedisServer, loss: str
) -> None:
    lose = redis_server.kill if loss == "killed" else redis_server.freeze
    bring_back = redis_server.start if loss == "killed" else redis_server.thaw

    def stop_redis_under_load() -> None:
        time.sleep(0.2)
        lose()

    with two_gateways(tmp_path, redis_server, "redis-timeouts") as pair:
        under_load = pair.storm(pair.new_key("100000 per hour"), each=10, pause_s=0.05, meanwhile=stop_redis_under_load)
        outages = pair.outages()
        alone = pair.storm(pair.new_key("20 per hour"), each=5)
        bring_back()
        pair.await_shared()
        together = pair.storm_while_shared("20 per hour", each=5)

    assert all(outages), "both gateways noticed the outage"
    assert under_load == [{200: 80}, {200: 80}]
    assert alone == [{200: 20, 429: 20}] * 2, "each gateway counts by itself"
    assert together[0] + together[1] == {200: 18, 429: 62}
