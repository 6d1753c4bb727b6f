"""The specification of gateway.places."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from gateway.places import NoPlace, Places, State, WaitedTooLong
from tests.fakes import HandClock

LIMIT_S = 30.0


def soon() -> float:
    return time.monotonic() + LIMIT_S


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "the state did not come"
        time.sleep(0.002)


def test_no_more_work_at_once_than_there_are_places() -> None:
    places, lock, now, most = Places(3, 100), threading.Lock(), [0], [0]

    def work() -> None:
        with places.take(soon()):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.002)
            with lock:
                now[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)

    assert most[0] == 3
    assert (places.state().at_work, places.state().waiting) == (0, 0)


def test_whoever_came_first_works_first() -> None:
    places, order = Places(1, 10), []

    def work(number: int) -> None:
        with places.take(soon()):
            order.append(number)

    threads = []
    with places.take(soon()):
        for number in range(6):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            wait_until(lambda expected=number + 1: places.state().waiting == expected)  # type: ignore[misc]
    for thread in threads:
        thread.join(LIMIT_S)

    assert order == [0, 1, 2, 3, 4, 5]


def test_the_one_too_many_is_sent_away_at_once_with_an_estimate() -> None:
    places = Places(2, 0, usual_s=8.0)

    with places.take(soon()), places.take(soon()), pytest.raises(NoPlace) as caught, places.take(soon()):
        pass

    assert (caught.value.waiting, caught.value.retry_after_s) == (0, 4.0)


def test_the_estimate_follows_what_is_measured() -> None:
    clock = HandClock()
    places = Places(1, 0, clock=clock, usual_s=5.0)
    for _ in range(50):
        with places.take(clock.now):
            clock.now += 60

    assert places.state().retry_after_s == pytest.approx(60, abs=1)


def test_a_wait_ends_at_the_deadline_and_gives_its_place_in_the_queue_back() -> None:
    places = Places(1, 1)

    with places.take(soon()):
        with pytest.raises(WaitedTooLong), places.take(time.monotonic() + 0.01):
            pass
        assert places.state() == State(at_work=1, waiting=0, is_full=False, retry_after_s=5.0)


def test_a_place_is_given_back_when_the_work_fails() -> None:
    places = Places(1, 0)

    with pytest.raises(ValueError, match="bad"), places.take(soon()):
        raise ValueError("bad")

    with places.take(soon()):
        assert places.state().is_full
    assert not places.state().is_full
