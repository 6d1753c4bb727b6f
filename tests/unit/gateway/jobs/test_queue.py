"""The job queue: bounds, fairness across clients, estimates and reservations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gateway.cancellation import CancelToken
from gateway.jobs.queue import (
    RESERVATION_GRACE_S,
    RESERVATIONS_PER_SLOT,
    RUNNING,
    Capacity,
    ClientQueueFullError,
    JobQueue,
    QueueFullError,
    QueueSlot,
    QueueState,
    QueueTimeoutError,
)
from testing.clock import ManualClock

LIMIT_S = 120.0


@contextmanager
def acquired(queue: JobQueue, timeout_s: float = LIMIT_S) -> Iterator[QueueSlot]:
    """Hold a running slot for the block, after waiting for it at most `timeout_s`."""
    slot = queue.acquire()
    try:
        slot.wait(timeout_s, CancelToken())
        yield slot
    finally:
        slot.release()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "timed out waiting for the queue"
        time.sleep(0.002)


def test_running_jobs_never_exceed_the_capacity() -> None:
    queue, lock, now, peak = JobQueue(Capacity(running=3, waiting=100)), threading.Lock(), [0], [0]
    are_full = threading.Event()

    def work() -> None:
        with acquired(queue):
            with lock:
                now[0] += 1
                peak[0] = max(peak[0], now[0])
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

    assert peak[0] == 3
    assert (queue.state().running, queue.state().waiting) == (0, 0)


def test_jobs_of_one_client_start_in_order_of_arrival() -> None:
    queue, order = JobQueue(Capacity(running=1, waiting=10)), []

    def work(number: int) -> None:
        with acquired(queue):
            order.append(number)

    threads = []
    with acquired(queue):
        for number in range(6):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            wait_until(lambda expected=number + 1: queue.state().waiting == expected)  # type: ignore[misc]
    for thread in threads:
        thread.join(LIMIT_S)

    assert order == [0, 1, 2, 3, 4, 5]


def test_full_queue_rejects_at_once_with_an_estimate() -> None:
    queue = JobQueue(Capacity(running=2, waiting=0), usual_job_s=8.0)

    with acquired(queue), acquired(queue), pytest.raises(QueueFullError) as caught, acquired(queue):
        pass

    assert (caught.value.waiting, caught.value.retry_after_s) == (0, 4.0)


def test_estimate_follows_measured_job_times() -> None:
    clock = ManualClock()
    queue = JobQueue(Capacity(running=1, waiting=0), clock=clock, usual_job_s=5.0)
    for _ in range(50):
        with acquired(queue) as slot:
            clock.now += 60
            slot.has_finished = True

    assert queue.state().retry_after_s == pytest.approx(60, abs=1)


def test_estimate_ignores_unfinished_jobs() -> None:
    clock = ManualClock()
    queue = JobQueue(Capacity(running=1, waiting=0), clock=clock, usual_job_s=5.0)
    for seconds in (0.0, 60.0) * 20:
        with acquired(queue):
            clock.now += seconds

    assert queue.state().retry_after_s == 5.0


def test_wait_times_out_and_releases_the_waiting_slot() -> None:
    queue = JobQueue(Capacity(running=1, waiting=1))

    with acquired(queue):
        with pytest.raises(QueueTimeoutError), acquired(queue, 0.01):
            pass
        assert queue.state() == QueueState(running=1, waiting=0, is_full=False, retry_after_s=5.0)


def test_slot_is_released_when_the_job_fails() -> None:
    queue = JobQueue(Capacity(running=1, waiting=0))

    with pytest.raises(ValueError, match="bad"), acquired(queue):
        raise ValueError("bad")

    with acquired(queue):
        assert queue.state().is_full
    assert not queue.state().is_full


def test_client_with_many_jobs_waits_behind_its_own() -> None:
    queue = JobQueue(Capacity(running=2, waiting=10))
    heavy = [queue.acquire("greedy") for _ in range(5)]  # two running, three waiting
    light = [queue.acquire(name) for name in ("one", "two")]

    assert [slot.position[0] for slot in light] == [1, 2]
    assert [slot.position[0] for slot in heavy[2:]] == [3, 4, 5]
    heavy[0].release()
    assert [slot.position for slot in (*light, *heavy[2:])] == [(0, 0), (1, 2), (2, 3), (3, 4), (4, 5)]


def test_positions_are_the_order_in_which_jobs_start() -> None:
    queue = JobQueue(Capacity(running=1, waiting=20))
    running = queue.acquire("a")
    waiting = [queue.acquire(name) for name in "aabacbcd"]
    by_position = sorted(waiting, key=lambda slot: slot.position)

    served: list[QueueSlot] = []
    for _ in waiting:
        running.release()
        (running,) = (slot for slot in waiting if slot.position == (0, 0) and slot not in served)
        served.append(running)

    assert [slot.client_id for slot in served] == ["b", "c", "d", "a", "b", "c", "a", "a"]
    assert by_position == served


def test_one_client_cannot_fill_the_queue() -> None:
    queue = JobQueue(Capacity(running=1, waiting=6, waiting_per_client=2), usual_job_s=8.0)
    for _ in range(3):
        queue.acquire("greedy")

    with pytest.raises(ClientQueueFullError) as caught:
        queue.acquire("greedy")
    queue.acquire("modest")

    assert (caught.value.waiting, caught.value.retry_after_s) == (2, 24.0)


def retry_after(queue: JobQueue, client_id: str) -> float:
    """Return the retry-after seconds of a client that the full queue rejects."""
    with pytest.raises(QueueFullError) as caught:
        queue.acquire(client_id)
    return caught.value.retry_after_s


def test_retry_after_grows_with_earlier_reservations() -> None:
    queue = JobQueue(Capacity(running=2, waiting=1), usual_job_s=10.0)
    for number in range(3):
        queue.acquire(f"client {number}")

    assert [retry_after(queue, name) for name in ("a", "b", "c", "b", "a")] == [5.0, 10.0, 15.0, 10.0, 5.0]
    assert queue.state().retry_after_s == 20.0


def test_rejected_client_comes_before_one_that_was_just_served() -> None:
    clock = ManualClock()
    queue = JobQueue(Capacity(running=1, waiting=1), clock=clock, usual_job_s=1.0)
    served, waiting = queue.acquire("served"), queue.acquire("waiting")
    assert retry_after(queue, "rejected") == 1.0

    clock.now += 1
    served.release()
    assert waiting.position == (0, 0)
    assert retry_after(queue, "served") > 1.0, "the slot is reserved for the rejected client"
    assert queue.state().is_full
    assert queue.acquire("rejected").position[0] == 1


def test_reservation_expires_after_its_grace_time() -> None:
    clock = ManualClock()
    queue = JobQueue(Capacity(running=1, waiting=1), clock=clock, usual_job_s=1.0)
    first = queue.acquire("first")
    queue.acquire("second")
    retry_after(queue, "never seen again")
    first.release()

    clock.now += 1 + RESERVATION_GRACE_S + 0.1

    assert queue.acquire("newcomer").position[0] == 1


def test_reservation_does_not_keep_the_backend_idle() -> None:
    queue = JobQueue(Capacity(running=1, waiting=0))
    first = queue.acquire("first")
    retry_after(queue, "reserved")
    first.release()

    assert queue.acquire("newcomer").position == (0, 0)


def test_reservations_are_bounded_by_the_capacity() -> None:
    queue, max_count = JobQueue(Capacity(running=2, waiting=3), usual_job_s=2.0), RESERVATIONS_PER_SLOT * 5
    for number in range(5):
        queue.acquire(f"first {number}")

    retry_after_s = [retry_after(queue, f"client {number}") for number in range(max_count + 50)]

    assert retry_after_s == [*range(1, max_count + 1), *[max_count + 1] * 50]


def test_unused_reservations_do_not_close_a_drained_queue() -> None:
    clock = ManualClock()
    queue = JobQueue(Capacity(running=4, waiting=24), clock=clock, usual_job_s=5.0)
    crowd = [queue.acquire(f"first {number}") for number in range(28)]
    for number in range(1_000):
        retry_after(queue, f"never seen again {number}")
    assert queue.state().is_full
    while len(crowd) > 4:
        clock.now += 5
        for slot in crowd[:4]:
            slot.release()
        del crowd[:4]

    state = queue.state()
    assert (state.running, state.waiting, state.is_full) == (4, 0, False)
    assert state.retry_after_s == pytest.approx(5 / 4)
    newcomers = [queue.acquire(f"newcomer {number}") for number in range(8)]
    assert [slot.position[0] for slot in newcomers] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_new_client_gets_a_slot_that_is_not_reserved_while_it_would_wait() -> None:
    clock = ManualClock()
    queue = JobQueue(Capacity(running=1, waiting=3), clock=clock, usual_job_s=10.0)
    _, *waiting = (queue.acquire(f"first {number}") for number in range(4))
    assert [retry_after(queue, name) for name in "abcde"] == [10.0, 20.0, 30.0, 40.0, 50.0]
    for slot in waiting:
        slot.release()  # nobody wants to wait that long

    clock.now += 10
    assert queue.acquire("newcomer").position[0] == 1, "a and b come within its 10 s"
    assert retry_after(queue, "another") == 60.0, "a, b and c come within its 20 s"
    assert [queue.acquire(name).position[0] for name in "ab"] == [2, 3]


def test_working_bytes_are_bounded_and_small_jobs_do_not_overtake_a_large_one() -> None:
    queue = JobQueue(Capacity(running=4, waiting=9, working_bytes=100))
    first, second = queue.acquire("a", 60), queue.acquire("b", 40)
    large, small = queue.acquire("c", 90), queue.acquire("d", 1)
    assert [slot.position[0] for slot in (first, second, large, small)] == [0, 0, 1, 2]

    first.release()
    assert [slot.position[0] for slot in (large, small)] == [1, 2]
    second.release()
    assert [slot.position[0] for slot in (large, small)] == [0, 0]


def test_job_over_the_working_bytes_runs_alone() -> None:
    queue = JobQueue(Capacity(running=4, waiting=9, working_bytes=100))
    huge, small = queue.acquire("a", 1_000), queue.acquire("b", 1)
    assert [slot.position[0] for slot in (huge, small)] == [0, 1]

    huge.release()
    assert small.position == (0, 0)


def test_jobs_behind_a_large_one_start_when_it_leaves() -> None:
    queue = JobQueue(Capacity(running=4, waiting=9, working_bytes=100))
    queue.acquire("a", 60)
    large, small = queue.acquire("b", 90), queue.acquire("c", 10)

    large.release()

    assert small.position == (0, 0)


def is_running(slot: QueueSlot) -> bool:
    return slot.position == RUNNING


def test_small_jobs_share_a_running_slot() -> None:
    queue = JobQueue(Capacity(running=2, small_per_running=3, waiting=9))

    small = [queue.acquire(is_small=True) for _ in range(4)]
    large, seventh = queue.acquire(), queue.acquire(is_small=True)

    assert all(is_running(slot) for slot in small)
    assert not is_running(large), "two thirds of a slot are left"
    assert not is_running(seventh), "it must not overtake"
    small[0].release()
    assert is_running(large)
    assert not is_running(seventh), "both slots are taken"
    large.release()
    assert is_running(seventh)


def test_small_jobs_fill_all_slots_and_no_more() -> None:
    queue = JobQueue(Capacity(running=2, small_per_running=3, waiting=9))

    slots = [queue.acquire(is_small=True) for _ in range(7)]

    assert [is_running(slot) for slot in slots] == [True] * 6 + [False]
    assert queue.state().running == 6


def test_small_jobs_need_memory_like_others() -> None:
    queue = JobQueue(Capacity(running=2, small_per_running=3, waiting=9, working_bytes=100))

    slots = [queue.acquire(working_bytes=60, is_small=True) for _ in range(2)]

    assert [is_running(slot) for slot in slots] == [True, False]
