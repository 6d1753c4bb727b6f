"""Rate limits and usage on a master that Sentinels name, and on a cluster. All servers are real."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.access.circuit_breaker import RETRY_S
from gateway.access.rate_limit_storage import FallbackStorage
from gateway.access.redis_windows import KEY_PREFIX
from gateway.storage.redis import RedisUnavailableError, SharedRedis
from gateway.usage.records import AwakeSpan, ClientUsage, MonthlyUsage, UsageBatch, UsageStoreError
from gateway.usage.redis_store import RedisUsageStore
from testing.clock import ManualClock
from testing.fixtures import MakeApp
from testing.ports import find_free_port
from testing.redis_groups import SERVICE, ClusterServers, SentinelGroup, catch_up, running
from testing.redis_server import RedisServer, wait_for
from testing.requests import post_image

BATCH = UsageBatch((AwakeSpan("2026-09", "up_s", 100.0, 160.0),), {("2026-09", "alice"): ClientUsage(1, 2.5)})
STORED = {"2026-09": MonthlyUsage("2026-09", 0.0, 60.0, {"alice": ClientUsage(1, 2.5)})}


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[SentinelGroup]:
    group = SentinelGroup(tmp_path)
    try:
        yield group
    finally:
        group.stop()


@pytest.fixture(params=[1, 3], ids=["one node", "three nodes"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClusterServers]:
    group = ClusterServers(tmp_path, request.param)
    with running(*group.servers):
        yield group


def check_everything(url: str) -> None:
    """Use each part of the gateway that uses Redis, from two gateways."""
    one, other = (FallbackStorage(redis_url=url) for _ in range(2))
    for number in range(20):  # of which some are in each slot range
        key = f"key {number}"
        hits = [storage.acquire(key, 3, 60) for storage in (one, other, one, other)]
        assert [hit is not None and hit.is_shared for hit in hits] == [True, True, True, False]
        assert one.usage(key, 60).used == 3
        assert 0 < other.wait_s(key, 3, 60, 1) <= 60
        assert hits[0] is not None
        other.refund(hits[0])
        assert one.usage(key, 60).used == 2
    assert one.check()
    assert other.check()
    assert one.incr("fixed", 60, 2) == one.get("fixed") == 2
    one.clear("key 0")
    assert one.usage("key 0", 60).used == 0
    assert other.reset() == 20

    stores = RedisUsageStore(url), RedisUsageStore(url)
    for store in (*stores, stores[0]):
        store.add(BATCH)
    assert [store.read() for store in stores] == [STORED, STORED], "written three times, counted once"


def test_everything_works_on_the_master_that_a_sentinel_names(sentinels: SentinelGroup) -> None:
    dead = "127.0.0.1:1"
    check_everything(sentinels.url.replace("//", f"//{dead},"))


def test_everything_works_on_a_cluster(cluster: ClusterServers) -> None:
    check_everything(cluster.url)


@pytest.mark.parametrize("kind", ["sentinels", "cluster"])
def test_gateway_with_such_an_address_limits_its_clients(
    make_app: MakeApp, key: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "sentinels":
        url = request.getfixturevalue("sentinels").url
    else:
        node = ClusterServers(tmp_path, 1)
        request.addfinalizer(node.servers[0].kill)
        url = node.url
    clients = [make_app(redis_url=url, client_requests="3 per hour").test_client() for _ in range(2)]

    statuses = [post_image(client, key).status_code for client in clients * 2]

    assert statuses == [200, 200, 200, 429]


def test_new_master_of_a_sentinel_is_used_at_once(sentinels: SentinelGroup) -> None:
    storage, store = FallbackStorage(redis_url=sentinels.url), RedisUsageStore(sentinels.url)
    assert storage.acquire_entry("key", 1, 60)
    store.add(BATCH)

    sentinels.fail_over()
    sentinels.master.kill()

    assert not storage.acquire_entry("key", 1, 60), "the new master has the count"
    assert storage.check()
    store.add(BATCH)
    assert store.read() == STORED


def test_sentinels_that_do_not_know_the_master_say_so(sentinels: SentinelGroup) -> None:
    other = SharedRedis(sentinels.url.replace(SERVICE, "another"))
    dead = SharedRedis("redis+sentinel://127.0.0.1:1/another")

    with pytest.raises(RedisUnavailableError, match="none of them knows a master named another"):
        other.call(lambda client: client.ping())
    with pytest.raises(RedisUnavailableError, match="do not name the master: Error 111 connecting to 127"):
        dead.call(lambda client: client.ping())


def test_lost_node_of_a_cluster_stops_nothing_and_is_used_again(tmp_path: Path) -> None:
    clock = ManualClock()
    group = ClusterServers(tmp_path, 3)
    with running(*group.servers):
        storage = FallbackStorage(redis_url=group.url, clock=clock)
        lost = group.servers[2]
        key = next(f"key {number}" for number in range(99) if _slot(group, f"key {number}") >= 16_384 * 2 // 3)
        alone = FallbackStorage(redis_url=group.url, clock=clock)
        assert storage.acquire_entry(key, 1000, 60)
        assert alone.acquire_entry(key, 1000, 60)
        lost.kill()
        for server in group.servers[:2]:
            server.execute("CONFIG", "RESETSTAT")

        assert alone.acquire_entry(key, 1000, 60)
        reads = [name for server in group.servers[:2] for name in server.execute("INFO", "commandstats")]
        assert "cmdstat_cluster|slots" not in reads, "a failed call does not look for the slots, for which others wait"
        with ThreadPoolExecutor(8) as pool:
            counted = list(pool.map(lambda _: storage.acquire(key, 1000, 60), range(8)))
        assert all(hit is not None and not hit.is_shared for hit in counted)
        assert not storage.check()
        clock.now += RETRY_S
        assert storage.acquire_entry(f"{key} and another", 1000, 60), "elsewhere, but the lost node is tested"
        assert not storage.check()

        lost.start()
        group.wait_until_ok()
        clock.now += RETRY_S
        hit = storage.acquire(key, 1000, 60)
        assert hit is not None
        assert hit.is_shared


@pytest.mark.parametrize("old_master", ["lives", "dies"])
def test_failover_in_a_cluster_needs_no_restart(tmp_path: Path, old_master: str) -> None:
    clock = ManualClock()
    group = ClusterServers(tmp_path, 1)
    with running(*group.servers):
        master, replica = group.servers[0], group.add_replica(tmp_path)
        with running(replica):
            storage, store = FallbackStorage(redis_url=group.url, clock=clock), RedisUsageStore(group.url)
            assert storage.acquire_entry("key", 2, 60)
            store.add(BATCH)
            catch_up(replica, master)
            replica.execute("CLUSTER", "FAILOVER", "TAKEOVER")
            wait_for(lambda: master.execute("ROLE")[0] == "slave", "the old master knows the new one")
            if old_master == "dies":
                master.kill()

            storage.acquire_entry("key", 2, 60)  # with a dead master, counted in memory
            clock.now += RETRY_S
            storage.acquire_entry("key", 2, 60)

            assert storage.check()
            assert not storage.acquire_entry("key", 2, 60), "the new master has the counts"
            with suppress(UsageStoreError):
                store.add(BATCH)
            assert store.read() == STORED


def test_server_that_is_a_node_of_a_cluster_is_named(tmp_path: Path) -> None:
    group = ClusterServers(tmp_path, 2)
    with running(*group.servers):
        redis = SharedRedis(group.servers[0].url)
        reasons = set()
        for key in map(str, range(20)):
            try:
                redis.call(lambda client: client.get(key))  # noqa: B023 - called at once
            except RedisUnavailableError as error:
                reasons.add(str(error))

    assert reasons == {"it is a node of a cluster: write the URL as redis+cluster://"}


def test_cluster_without_slots_is_named(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--cluster-enabled", "yes", port=find_free_port())
    with running(server), pytest.raises(RedisUnavailableError) as caught:
        SharedRedis(server.url).call(lambda client: client.get("key"))

    assert str(caught.value) == "its cluster is down"


def _slot(group: ClusterServers, key: str) -> int:
    return int(group.servers[0].execute("CLUSTER", "KEYSLOT", f"{KEY_PREFIX}:{key}"))
