"""The specification of gateway.jobs.upload_memory: uploads in memory are bounded, in turn, and none waits for ever."""

from __future__ import annotations

import threading

import pytest

from gateway.jobs.upload_memory import UploadMemory, UploadMemoryFullError

LIMIT_S = 20.0


def test_a_share_that_fits_is_had_at_once_and_given_back_once() -> None:
    intake = UploadMemory(100)

    share = intake.take(60, "alice")
    assert intake.taken() == 60
    share.end()
    share.end()

    assert intake.taken() == 0


def test_what_was_not_needed_is_given_back_early() -> None:
    intake = UploadMemory(100)
    share = intake.take(80, "alice")

    share.shrink(30)
    assert intake.taken() == 30
    share.shrink(50)
    assert intake.taken() == 30
    share.end()

    assert intake.taken() == 0


def test_more_than_there_is_counts_as_all_there_is() -> None:
    intake = UploadMemory(100)

    share = intake.take(1_000, "alice")

    assert (share.n_bytes, intake.taken()) == (100, 100)


def test_who_waits_in_vain_is_sent_away_and_leaves_no_trace() -> None:
    intake = UploadMemory(100, wait_s=0.01)
    held = intake.take(100, "alice")
    with pytest.raises(UploadMemoryFullError):
        intake.take(1, "alice")

    held.end()

    intake.take(100, "alice").end()
    assert intake.taken() == 0


def test_a_large_one_that_waits_is_not_overtaken_by_small_ones() -> None:
    intake = UploadMemory(100, wait_s=LIMIT_S)
    held = intake.take(50, "alice")
    order: list[str] = []

    def take(name: str, n_bytes: int) -> None:
        share = intake.take(n_bytes, name)
        order.append(name)
        share.end()

    large = threading.Thread(target=take, args=("large", 100))
    large.start()
    while len(intake._turns) < 1:
        pass
    small = threading.Thread(target=take, args=("small", 10))
    small.start()
    while len(intake._turns) < 2:
        pass
    held.end()
    large.join(LIMIT_S)
    small.join(LIMIT_S)

    assert order == ["large", "small"]


def test_the_bound_holds_with_many_threads() -> None:
    intake, most = UploadMemory(100, wait_s=LIMIT_S), []

    def work(number: int) -> None:
        for n_bytes in (10, 40, 70):
            share = intake.take(n_bytes, f"visitor {number % 5}")
            most.append(intake.taken())
            share.end()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)

    assert len(most) == 48
    assert max(most) <= 100
    assert intake.taken() == 0


def test_nobody_holds_more_than_half_beside_others_and_keeps_nobody_out() -> None:
    intake = UploadMemory(100, wait_s=0.05)
    first = intake.take(40, "greedy")
    with pytest.raises(UploadMemoryFullError):
        intake.take(20, "greedy")

    waiting = threading.Thread(target=_take_in_vain, args=(intake,))
    waiting.start()
    intake.take(60, "modest").end()
    waiting.join(LIMIT_S)
    first.end()

    assert intake.take(100, "greedy").n_bytes == 100, "alone one may hold what there is"


def _take_in_vain(intake: UploadMemory) -> None:
    with pytest.raises(UploadMemoryFullError):
        intake.take(20, "greedy")
