"""The result store: ids, age, bytes and count."""

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


def put(results: ResultStore, size: int) -> str:
    result_id = results.put(pair(size))
    assert result_id is not None
    return result_id


def test_result_is_found_by_its_id_only(clock: ManualClock) -> None:
    results = store(clock)

    first, second = put(results, 10), put(results, 20)

    assert results.get(first) == pair(10)
    assert results.get(second) == pair(20)
    assert results.get(first[:-1]) is None
    assert len(first) >= 22, "an id must hold 128 bits that nobody can guess"


def test_result_expires(clock: ManualClock) -> None:
    results = store(clock)
    old = put(results, 10)
    clock.now += 59
    young = put(results, 10)
    assert results.get(old)

    clock.now += 1

    assert results.get(old) is None
    assert results.get(young)


def test_oldest_is_dropped_over_max_bytes(clock: ManualClock) -> None:
    results = store(clock)
    ids = [put(results, 40), put(results, 40), put(results, 60)]

    assert [results.get(result_id) is not None for result_id in ids] == [False, True, True]


def test_least_recently_read_is_dropped_first(clock: ManualClock) -> None:
    results = store(clock, max_count=2)
    first, second = put(results, 1), put(results, 1)
    results.get(first)

    put(results, 1)

    assert results.get(first)
    assert results.get(second) is None


def test_oldest_is_dropped_over_max_count(clock: ManualClock) -> None:
    results = store(clock, max_count=2)
    ids = [put(results, 1), put(results, 1), put(results, 1)]

    assert [results.get(result_id) is not None for result_id in ids] == [False, True, True]


def test_result_over_max_bytes_is_rejected_and_drops_nothing(clock: ManualClock) -> None:
    results = store(clock)
    stored = put(results, 100)

    assert results.put(pair(101)) is None
    assert results.get(stored)


def test_deleted_result_is_gone_and_its_bytes_are_free(clock: ManualClock) -> None:
    results = store(clock)
    first = put(results, 60)

    assert results.delete(first)

    assert results.get(first) is None
    assert not results.delete(first)
    second = put(results, 40)
    put(results, 60)
    assert results.get(second), "60 of 100 bytes were free"


def test_bytes_of_expired_results_are_free_again(clock: ManualClock) -> None:
    results = store(clock)
    for _ in range(20):
        last = put(results, 100)
        assert results.get(last)
        clock.now += 61
        assert results.get(last) is None
