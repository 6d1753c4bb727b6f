"""The specification of gateway.jobs.queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gateway.cancellation import CancelToken
from gateway.jobs.promises import GRACE_S, LINE_PER_PLACE
from gateway.jobs.queue import (
    Capacity,
    ClientQueueFullError,
    JobQueue,
    QueueFullError,
    QueueSlot,
    QueueState,
    QueueTimeoutError,
)
from testing.clock import ManualClock

LIMIT_S = 30.0


@contextmanager
def taken(places: JobQueue, timeout_s: float = LIMIT_S) -> Iterator[QueueSlot]:
    """Hold a place for the block, waiting for it that long at most."""
    ticket = places.enter()
    try:
        ticket.wait(timeout_s, CancelToken())
        yield ticket
    finally:
        ticket.leave()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "the state did not come"
        time.sleep(0.002)


def test_no_more_work_at_once_than_there_are_places() -> None:
    places, lock, now, most = JobQueue(Capacity(at_work=3, waiting=100)), threading.Lock(), [0], [0]
    are_full = threading.Event()

    def work() -> None:
        with taken(places):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
                if now[0] == 3:
                    are_full.set()
            assert are_full.wait(LIMIT_S)
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
    places, order = JobQueue(Capacity(at_work=1, waiting=10)), []

    def work(number: int) -> None:
        with taken(places):
            order.append(number)

    threads = []
    with taken(places):
        for number in range(6):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            wait_until(lambda expected=number + 1: places.state().waiting == expected)  # type: ignore[misc]
    for thread in threads:
        thread.join(LIMIT_S)

    assert order == [0, 1, 2, 3, 4, 5]


def test_the_one_too_many_is_sent_away_at_once_with_an_estimate() -> None:
    places = JobQueue(Capacity(at_work=2, waiting=0), usual_s=8.0)

    with taken(places), taken(places), pytest.raises(QueueFullError) as caught, taken(places):
        pass

    assert (caught.value.waiting, caught.value.retry_after_s) == (0, 4.0)


def test_the_estimate_follows_what_is_measured() -> None:
    clock = ManualClock()
    places = JobQueue(Capacity(at_work=1, waiting=0), clock=clock, usual_s=5.0)
    for _ in range(50):
        with taken(places) as ticket:
            clock.now += 60
            ticket.has_finished = True

    assert places.state().retry_after_s == pytest.approx(60, abs=1)


def test_the_estimate_learns_nothing_from_work_that_did_not_finish() -> None:
    clock = ManualClock()
    places = JobQueue(Capacity(at_work=1, waiting=0), clock=clock, usual_s=5.0)
    for seconds in (0.0, 60.0) * 20:
        with taken(places):
            clock.now += seconds

    assert places.state().retry_after_s == 5.0


def test_a_wait_ends_at_the_deadline_and_gives_its_place_in_the_queue_back() -> None:
    places = JobQueue(Capacity(at_work=1, waiting=1))

    with taken(places):
        with pytest.raises(QueueTimeoutError), taken(places, 0.01):
            pass
        assert places.state() == QueueState(at_work=1, waiting=0, is_full=False, retry_after_s=5.0)


def test_a_place_is_given_back_when_the_work_fails() -> None:
    places = JobQueue(Capacity(at_work=1, waiting=0))

    with pytest.raises(ValueError, match="bad"), taken(places):
        raise ValueError("bad")

    with taken(places):
        assert places.state().is_full
    assert not places.state().is_full


def test_whoever_sends_many_waits_behind_its_own() -> None:
    places = JobQueue(Capacity(at_work=2, waiting=10))
    greedy = [places.enter("greedy") for _ in range(5)]  # two at work, three waiting
    modest = [places.enter(name) for name in ("one", "two")]

    assert [ticket.turn[0] for ticket in modest] == [1, 2]
    assert [ticket.turn[0] for ticket in greedy[2:]] == [3, 4, 5]
    greedy[0].leave()
    assert [ticket.turn for ticket in (*modest, *greedy[2:])] == [(0, 0), (1, 2), (2, 3), (3, 4), (4, 5)]


def test_the_order_of_turns_is_the_order_in_which_places_are_given() -> None:
    places = JobQueue(Capacity(at_work=1, waiting=20))
    at_work = places.enter("a")
    waiting = [places.enter(name) for name in "aabacbcd"]
    told = sorted(waiting, key=lambda ticket: ticket.turn)

    served: list[QueueSlot] = []
    for _ in waiting:
        at_work.leave()
        (at_work,) = (ticket for ticket in waiting if ticket.turn == (0, 0) and ticket not in served)
        served.append(at_work)

    assert [ticket.visitor for ticket in served] == ["b", "c", "d", "a", "b", "c", "a", "a"]
    assert told == served


def test_one_visitor_cannot_fill_the_queue() -> None:
    places = JobQueue(Capacity(at_work=1, waiting=6, waiting_each=2), usual_s=8.0)
    for _ in range(3):
        places.enter("greedy")

    with pytest.raises(ClientQueueFullError) as caught:
        places.enter("greedy")
    places.enter("modest")

    assert (caught.value.waiting, caught.value.retry_after_s) == (2, 24.0)


def told(places: JobQueue, visitor: str) -> float:
    """Return when a visitor who is sent away is told to come again, in seconds."""
    with pytest.raises(QueueFullError) as caught:
        places.enter(visitor)
    return caught.value.retry_after_s


def test_when_to_come_again_grows_with_those_who_were_told_before() -> None:
    places = JobQueue(Capacity(at_work=2, waiting=1), usual_s=10.0)
    for number in range(3):
        places.enter(f"visitor {number}")

    assert [told(places, name) for name in ("a", "b", "c", "b", "a")] == [5.0, 10.0, 15.0, 10.0, 5.0]
    assert places.state().retry_after_s == 20.0


def test_whoever_was_sent_away_comes_before_whoever_was_just_served() -> None:
    clock = ManualClock()
    places = JobQueue(Capacity(at_work=1, waiting=1), clock=clock, usual_s=1.0)
    served, waiting = places.enter("served"), places.enter("waiting")
    assert told(places, "sent away") == 1.0

    clock.now += 1
    served.leave()
    assert waiting.turn == (0, 0)
    assert told(places, "served") > 1.0, "the place is kept for the one who was told to come"
    assert places.state().is_full
    assert places.enter("sent away").turn[0] == 1


def test_a_promise_is_void_some_seconds_after_its_time() -> None:
    clock = ManualClock()
    places = JobQueue(Capacity(at_work=1, waiting=1), clock=clock, usual_s=1.0)
    first = places.enter("first")
    places.enter("second")
    told(places, "never seen again")
    first.leave()

    clock.now += 1 + GRACE_S + 0.1

    assert places.enter("newcomer").turn[0] == 1


def test_no_promise_keeps_the_backend_idle() -> None:
    places = JobQueue(Capacity(at_work=1, waiting=0))
    first = places.enter("first")
    told(places, "promised")
    first.leave()

    assert places.enter("newcomer").turn == (0, 0)


def test_the_line_of_promises_is_bounded_by_the_places_there_are() -> None:
    places, most = JobQueue(Capacity(at_work=2, waiting=3), usual_s=2.0), LINE_PER_PLACE * 5
    for number in range(5):
        places.enter(f"first {number}")

    retry_after_s = [told(places, f"visitor {number}") for number in range(most + 50)]

    assert retry_after_s == [*range(1, most + 1), *[most + 1] * 50]


def test_promises_that_nobody_keeps_do_not_shut_a_queue_that_has_drained() -> None:
    clock = ManualClock()
    places = JobQueue(Capacity(at_work=4, waiting=24), clock=clock, usual_s=5.0)
    crowd = [places.enter(f"first {number}") for number in range(28)]
    for number in range(1_000):
        told(places, f"never seen again {number}")
    assert places.state().is_full
    while len(crowd) > 4:
        clock.now += 5
        for ticket in crowd[:4]:
            ticket.leave()
        del crowd[:4]

    state = places.state()
    assert (state.at_work, state.waiting, state.is_full) == (4, 0, False)
    assert state.retry_after_s == pytest.approx(5 / 4)
    newcomers = [places.enter(f"newcomer {number}") for number in range(8)]
    assert [ticket.turn[0] for ticket in newcomers] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_newcomer_has_a_free_place_that_is_promised_to_nobody_while_it_would_wait() -> None:
    clock = ManualClock()
    places = JobQueue(Capacity(at_work=1, waiting=3), clock=clock, usual_s=10.0)
    _, *waiting = (places.enter(f"first {number}") for number in range(4))
    assert [told(places, name) for name in "abcde"] == [10.0, 20.0, 30.0, 40.0, 50.0]
    for ticket in waiting:
        ticket.leave()  # nobody wants to wait that long

    clock.now += 10
    assert places.enter("newcomer").turn[0] == 1, "a and b come within its 10 s"
    assert told(places, "another") == 60.0, "a, b and c come within its 20 s"
    assert [places.enter(name).turn[0] for name in "ab"] == [2, 3]


def test_bytes_at_work_are_bounded_and_a_large_image_is_not_passed_by_small_ones() -> None:
    places = JobQueue(Capacity(at_work=4, waiting=9, n_bytes=100))
    first, second = places.enter("a", 60), places.enter("b", 40)
    large, small = places.enter("c", 90), places.enter("d", 1)
    assert [ticket.turn[0] for ticket in (first, second, large, small)] == [0, 0, 1, 2]

    first.leave()
    assert [ticket.turn[0] for ticket in (large, small)] == [1, 2]
    second.leave()
    assert [ticket.turn[0] for ticket in (large, small)] == [0, 0]


def test_an_image_of_more_bytes_than_there_may_be_is_worked_on_alone() -> None:
    places = JobQueue(Capacity(at_work=4, waiting=9, n_bytes=100))
    huge, small = places.enter("a", 1_000), places.enter("b", 1)
    assert [ticket.turn[0] for ticket in (huge, small)] == [0, 1]

    huge.leave()
    assert small.turn == (0, 0)


def test_when_a_large_image_stops_waiting_those_behind_it_begin() -> None:
    places = JobQueue(Capacity(at_work=4, waiting=9, n_bytes=100))
    places.enter("a", 60)
    large, small = places.enter("b", 90), places.enter("c", 10)

    large.leave()

    assert small.turn == (0, 0)
