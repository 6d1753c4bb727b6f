"""Gateways that share a Redis agree on the state of their backend and on its usual boot time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from gateway.backend.peers import REPORT_EXPIRY_S
from gateway.backend.remote import make_remote_backend
from gateway.backend.state import MAX_BOOTS, BackendStateTracker
from gateway.backend.state_sharing import StateSharing
from gateway.config.settings import Settings
from testing.clock import ManualClock
from testing.ports import find_free_ports
from testing.redis_server import RedisServer, wait_for

pytestmark = pytest.mark.redis

ASLEEP_AFTER_S = 45.0
STEP_S = 5.0


class Gateway:
    """The state tracker of one gateway, and its exchange with the others."""

    def __init__(self, redis: RedisServer, clock: ManualClock) -> None:
        self.clock = clock
        self.tracker = BackendStateTracker(assume_asleep_after_s=ASLEEP_AFTER_S, min_boot_s=1.0, clock=clock)
        self.sharing = StateSharing(self.tracker, redis.url, "triton:8001", clock=clock)

    def state(self) -> str:
        return self.tracker.current().name

    def usual_boot_s(self) -> tuple[float, float] | None:
        return self.tracker.current().usual_boot_s

    def boot(self, seconds: float) -> None:
        self.tracker.mark_asleep()
        assert self.tracker.begin_boot()
        self.clock.now += seconds
        self.tracker.mark_up()


@pytest.fixture
def pair(redis_server: RedisServer, clock: ManualClock) -> tuple[Gateway, Gateway]:
    return Gateway(redis_server, clock), Gateway(redis_server, clock)


def exchange(*gateways: Gateway) -> None:
    for gateway in (*gateways, *gateways):  # so that the first knows what the last said
        assert gateway.sharing.exchange()


def pass_time(clock: ManualClock, seconds: float, *gateways: Gateway) -> None:
    end = clock.now + seconds
    while clock.now < end:
        clock.now += min(STEP_S, end - clock.now)
        exchange(*gateways)


def test_backend_is_up_for_all_while_one_has_a_call_open(pair: tuple[Gateway, Gateway], clock: ManualClock) -> None:
    idle, busy = pair
    idle.tracker.mark_up()
    busy.tracker.mark_up()

    with busy.tracker.calling():
        pass_time(clock, 10 * ASLEEP_AFTER_S, idle, busy)
        assert (idle.state(), busy.state()) == ("up", "up")
        assert not idle.tracker.begin_boot()
    pass_time(clock, ASLEEP_AFTER_S + STEP_S, idle, busy)

    assert (idle.state(), busy.state()) == ("asleep", "asleep"), "idle gateways do not keep each other's state up"


def test_idle_gateway_follows_the_responses_of_the_other_and_does_not_alternate(
    pair: tuple[Gateway, Gateway], clock: ManualClock
) -> None:
    idle, busy = pair
    for _ in range(10):
        busy.tracker.mark_up()
        pass_time(clock, ASLEEP_AFTER_S - STEP_S, idle, busy)

    assert [name for name, _ in idle.tracker.recent_states()] == ["asleep", "up"]


def test_boot_is_seen_by_all_and_recorded_once(pair: tuple[Gateway, Gateway], clock: ManualClock) -> None:
    first, second = pair
    first.tracker.begin_boot()
    clock.now += 4
    exchange(*pair)
    assert (second.state(), second.tracker.current().since_s) == ("booting", 4)
    assert [name for name, _ in second.tracker.recent_states()] == ["asleep"], "its own meter counts no boot"

    with second.tracker.waiting_for_boot():
        second.tracker.begin_boot()
        assert second.tracker.current().since_s == 4
        clock.now += 6
        second.tracker.mark_up()
        first.tracker.mark_up()
    exchange(*pair)

    assert first.usual_boot_s() == second.usual_boot_s() == (10, 10)
    assert second.sharing.exchange()
    assert len(second.tracker.report()[2]) == 1


def test_wait_for_a_busy_backend_is_no_boot(pair: tuple[Gateway, Gateway], clock: ManualClock) -> None:
    new, busy = pair
    busy.tracker.mark_up()
    with busy.tracker.calling():
        pass_time(clock, 2 * ASLEEP_AFTER_S, busy)
        new.tracker.begin_boot()
        assert new.state() == "booting"
        clock.now += 1
        exchange(*pair)
        assert new.state() == "up"
        clock.now += 30
        new.tracker.mark_up()

    exchange(*pair)
    assert new.usual_boot_s() is None


def test_boot_times_outlast_the_gateway_and_a_redis_that_lost_them(
    pair: tuple[Gateway, Gateway], redis_server: RedisServer, clock: ManualClock
) -> None:
    first, second = pair
    first.boot(10)
    exchange(first)
    first.sharing.close()

    exchange(second)
    assert second.usual_boot_s() == (10, 10)
    redis_server.execute("FLUSHALL")
    exchange(second)
    third = Gateway(redis_server, clock)
    exchange(third)
    assert third.usual_boot_s() == (10, 10)


def test_what_is_stored_is_bounded(redis_server: RedisServer, clock: ManualClock) -> None:
    for _ in range(5):  # gateways that were killed
        killed = Gateway(redis_server, clock)
        for _ in range(15):
            killed.boot(10)
        exchange(killed)
        clock.now += 2 * REPORT_EXPIRY_S
    last = Gateway(redis_server, clock)
    exchange(last)

    (key,) = redis_server.execute("KEYS", "superres:backend:*")
    assert len(last.tracker.report()[2]) == MAX_BOOTS
    assert redis_server.execute("HLEN", key) == 2, "the boots and this gateway"
    assert 0 < redis_server.execute("TTL", key) <= 90 * 86_400


def test_calls_of_a_killed_gateway_and_of_one_without_redis_expire(
    pair: tuple[Gateway, Gateway], redis_server: RedisServer, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    idle, killed = pair
    killed.tracker.mark_up()
    with ExitStack() as open_calls:
        open_calls.enter_context(killed.tracker.calling())
        exchange(*pair)
        pass_time(clock, ASLEEP_AFTER_S + STEP_S, idle)  # the other sends nothing any more
        assert idle.state() == "asleep"

        pass_time(clock, STEP_S, idle, killed)
        assert idle.state() == "up"
        redis_server.kill()
        for _ in range(12):
            clock.now += STEP_S
            assert not idle.sharing.exchange()
        assert idle.state() == "asleep"
        assert killed.state() == "up"
    assert caplog.text.count("is not shared with other gateways") == 1, "one line in a minute"


def test_backend_that_one_gateway_lost_is_up_again_once_another_gets_a_response(
    pair: tuple[Gateway, Gateway], clock: ManualClock
) -> None:
    one, other = pair
    other.tracker.mark_up()
    exchange(*pair)
    clock.now += 1
    one.tracker.mark_asleep()  # the connection broke
    exchange(*pair)
    assert one.state() == "asleep"

    clock.now += 1
    other.tracker.mark_up()
    exchange(*pair)
    assert one.state() == "up"


def test_remote_backends_share_by_themselves(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    address = f"127.0.0.1:{find_free_ports(1)[0]}"
    backends = [
        make_remote_backend(
            Settings(
                state_dir=str(tmp_path_factory.mktemp("gateway")), backend_address=address, redis_url=redis_server.url
            )
        )
        for _ in range(2)
    ]
    backends[0].state_tracker.mark_up()

    wait_for(lambda: backends[1].state_tracker.current().name == "up", "the state of the other gateway")

    for backend in backends:
        backend.close()
    assert redis_server.execute("KEYS", "superres:backend:*") == [], "the reports of gateways that have ended"
