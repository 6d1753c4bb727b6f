"""Use of the server, from its counters and its connections."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from gateway.backend.activity import READ_INTERVAL_S, UNREADABLE_LIMIT_S, ServerActivity
from gateway.backend.triton_counters import CountersUnreadableError, ModelCounters, TritonCounters
from testing.clock import ManualClock


def of_swinir(tiles: float = 0, pending: float = 0) -> TritonCounters:
    return TritonCounters(MappingProxyType({"swinir": ModelCounters(tiles=tiles, pending=pending)}))


@pytest.mark.parametrize(
    ("readings", "has_open_request", "expected"),
    [
        ([of_swinir(), of_swinir()], False, [False, False]),
        ([of_swinir(7), of_swinir(7), of_swinir(8), of_swinir(8)], False, [False, False, True, False]),
        ([of_swinir(7, pending=1), of_swinir(7)], False, [True, False]),
        ([of_swinir(), of_swinir()], True, [True, True]),
        ([None, of_swinir(3), None, of_swinir(3), None, of_swinir(4)], False, [True, False, True, False, True, True]),
    ],
    ids=("still", "moved", "pending", "open request", "unreadable"),
)
def test_server_is_in_use(readings: list[TritonCounters | None], has_open_request: bool, expected: list[bool]) -> None:
    left = iter(readings)

    def read(port: int) -> TritonCounters:
        assert port == 8002
        if (counters := next(left)) is None:
            raise CountersUnreadableError("port 8002")
        return counters

    activity = ServerActivity(8002, lambda: has_open_request, read=read)
    assert [activity.is_in_use() for _ in readings] == expected


def test_counters_are_read_once_per_interval() -> None:
    clock = ManualClock()
    activity = ServerActivity(8002, lambda: False, read=lambda _: of_swinir(), clock=clock)
    assert activity.is_due()
    activity.is_in_use()
    assert not activity.is_due()
    clock.now += READ_INTERVAL_S
    assert activity.is_due()


@pytest.mark.parametrize("has_open_request", [False, True])
def test_server_without_counters_may_sleep_after_a_while(has_open_request: bool) -> None:
    clock = ManualClock()

    def fail(_: int) -> TritonCounters:
        raise CountersUnreadableError("port 8002")

    activity = ServerActivity(8002, lambda: has_open_request, read=fail, clock=clock)
    clock.now += UNREADABLE_LIMIT_S - 1
    assert activity.is_in_use()
    clock.now += 1
    assert activity.is_in_use() == has_open_request
