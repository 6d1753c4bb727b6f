"""The specification of gateway.jobs.result_store."""

from __future__ import annotations

from gateway.jobs.result_store import BeforeAfter, ResultStore, StoredImage
from testing.clock import ManualClock


def pair(size: int) -> BeforeAfter:
    return BeforeAfter(
        StoredImage(b"b" * (size // 2), "image/png", "a.png"),
        StoredImage(b"a" * (size - size // 2), "image/png", "b.png"),
    )


def store(clock: ManualClock, **changes: int) -> ResultStore:
    return ResultStore(**{"max_bytes": 100, "max_count": 10, "max_age_s": 60, **changes}, clock=clock)


def keep(results: ResultStore, size: int) -> str:
    result_id = results.keep(pair(size))
    assert result_id is not None
    return result_id


def test_what_is_kept_is_found_by_its_id_and_by_no_other(clock: ManualClock) -> None:
    results = store(clock)

    first, second = keep(results, 10), keep(results, 20)

    assert results.find(first) == pair(10)
    assert results.find(second) == pair(20)
    assert results.find(first[:-1]) is None
    assert len(first) >= 22, "an id must hold 128 bits that nobody can guess"


def test_what_is_too_old_is_gone(clock: ManualClock) -> None:
    results = store(clock)
    old = keep(results, 10)
    clock.now += 59
    young = keep(results, 10)
    assert results.find(old)

    clock.now += 1

    assert results.find(old) is None
    assert results.find(young)


def test_the_oldest_goes_when_there_is_no_room_in_bytes(clock: ManualClock) -> None:
    results = store(clock)
    ids = [keep(results, 40), keep(results, 40), keep(results, 60)]

    assert [results.find(result_id) is not None for result_id in ids] == [False, True, True]


def test_the_oldest_goes_when_there_are_too_many(clock: ManualClock) -> None:
    results = store(clock, max_count=2)
    ids = [keep(results, 1), keep(results, 1), keep(results, 1)]

    assert [results.find(result_id) is not None for result_id in ids] == [False, True, True]


def test_what_is_larger_than_the_store_is_not_kept_and_drives_nothing_out(clock: ManualClock) -> None:
    results = store(clock)
    kept = keep(results, 100)

    assert results.keep(pair(101)) is None
    assert results.find(kept)


def test_room_that_was_given_back_can_be_used_again(clock: ManualClock) -> None:
    results = store(clock)
    for _ in range(20):
        last = keep(results, 100)
        assert results.find(last)
        clock.now += 61
        assert results.find(last) is None
