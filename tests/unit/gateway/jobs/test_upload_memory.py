"""The memory budget for uploads: bounded, in order of arrival, with a bounded wait."""

from __future__ import annotations

import threading

import pytest

from gateway.jobs.upload_memory import UploadMemory, UploadMemoryFullError

LIMIT_S = 120.0


def test_reservation_is_immediate_and_released_once() -> None:
    memory = UploadMemory(100)

    reservation = memory.reserve(60, "alice")
    assert memory.reserved_bytes() == 60
    reservation.release()
    reservation.release()

    assert memory.reserved_bytes() == 0


def test_surplus_is_released_early() -> None:
    memory = UploadMemory(100)
    reservation = memory.reserve(80, "alice")

    reservation.shrink(30)
    assert memory.reserved_bytes() == 30
    reservation.shrink(50)
    assert memory.reserved_bytes() == 30
    reservation.release()

    assert memory.reserved_bytes() == 0


def test_reservation_over_the_budget_is_the_whole_budget() -> None:
    memory = UploadMemory(100)

    reservation = memory.reserve(1_000, "alice")

    assert (reservation.n_bytes, memory.reserved_bytes()) == (100, 100)


def test_timed_out_wait_raises_and_leaves_nothing_reserved() -> None:
    memory = UploadMemory(100, wait_s=0.01)
    held = memory.reserve(100, "alice")
    with pytest.raises(UploadMemoryFullError):
        memory.reserve(1, "alice")

    held.release()

    memory.reserve(100, "alice").release()
    assert memory.reserved_bytes() == 0


def test_small_uploads_do_not_overtake_a_large_one() -> None:
    memory = UploadMemory(100, wait_s=LIMIT_S)
    held = memory.reserve(50, "alice")
    order: list[str] = []

    def reserve(name: str, n_bytes: int) -> None:
        reservation = memory.reserve(n_bytes, name)
        order.append(name)
        reservation.release()

    large = threading.Thread(target=reserve, args=("large", 100))
    large.start()
    while len(memory._waiters) < 1:
        pass
    small = threading.Thread(target=reserve, args=("small", 10))
    small.start()
    while len(memory._waiters) < 2:
        pass
    held.release()
    large.join(LIMIT_S)
    small.join(LIMIT_S)

    assert order == ["large", "small"]


def test_budget_holds_with_many_threads() -> None:
    memory, seen = UploadMemory(100, wait_s=LIMIT_S), []

    def work(number: int) -> None:
        for n_bytes in (10, 40, 70):
            reservation = memory.reserve(n_bytes, f"client {number % 5}")
            seen.append(memory.reserved_bytes())
            reservation.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)

    assert len(seen) == 48
    assert max(seen) <= 100
    assert memory.reserved_bytes() == 0


def test_client_holds_at_most_half_while_it_has_another_upload() -> None:
    memory = UploadMemory(100, wait_s=0.05)
    first = memory.reserve(40, "greedy")
    with pytest.raises(UploadMemoryFullError):
        memory.reserve(20, "greedy")

    waiting = threading.Thread(target=_expect_full, args=(memory,))
    waiting.start()
    memory.reserve(60, "modest").release()
    waiting.join(LIMIT_S)
    first.release()

    assert memory.reserve(100, "greedy").n_bytes == 100, "a single upload may use the whole budget"


def _expect_full(memory: UploadMemory) -> None:
    with pytest.raises(UploadMemoryFullError):
        memory.reserve(20, "greedy")
