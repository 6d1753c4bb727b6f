"""The result cache: what makes two requests equal, and which result is dropped first."""

from __future__ import annotations

import threading

import pytest

from gateway.config.settings import Settings
from gateway.jobs.job import Result
from gateway.jobs.options import UpscaleRequest, make_request, parse_options
from gateway.jobs.result_cache import ResultCache, cache_key
from testing import images
from testing.clock import ManualClock
from testing.requests import PHOTO

SETTINGS = Settings(variants="compact_x4,real_x4")
PIXELS = images.draw_photo(24, 32)


def request_for(data: bytes = PHOTO, name: str = "photo.png", **parameters: str) -> UpscaleRequest:
    return make_request(data, name, parse_options(parameters, SETTINGS), SETTINGS)


def result(n_bytes: int = 10) -> Result:
    return Result(bytes(n_bytes), "image/png", "first.png", 4, 4, ("a note",), 2.5)


def cache(clock: ManualClock, max_bytes: int = 100, max_count: int = 3) -> ResultCache:
    return ResultCache(max_bytes=max_bytes, max_count=max_count, max_age_s=60, clock=clock)


def test_equal_request_hits_with_its_own_file_name(clock: ManualClock) -> None:
    results = cache(clock)
    results.put(request_for(), result())

    found = results.get(request_for(name="holiday.png"))

    assert found == Result(bytes(10), "image/png", "holiday_compact_x4.png", 4, 4, ("a note",), 0.0, cache="hit")


@pytest.mark.parametrize(
    "other",
    [
        request_for(variant="real_x4"),
        request_for(format="webp"),
        request_for(format="jpeg"),
        request_for(images.encode_png(images.draw_photo(24, 32, seed=1))),
        request_for(images.insert_png_chunk(PHOTO, b"tRNS", bytes(6))),
        request_for(images.encode_png(PIXELS, icc_profile=images.icc_profile())),
        request_for(images.encode_jpeg(PIXELS, exif=b"Exif\0\0" + images.exif_with_orientation(6))),
        request_for(images.encode_jpeg(PIXELS, exif=b"Exif\0\0" + images.exif_with_orientation(3))),
        request_for(images.animated_png([PIXELS, PIXELS[::-1].copy()])),
    ],
)
def test_anything_that_changes_the_result_is_a_miss(clock: ManualClock, other: UpscaleRequest) -> None:
    results = cache(clock)
    results.put(request_for(), result())

    assert results.get(other) is None


def test_quality_is_part_of_the_key_except_for_png() -> None:
    assert cache_key(request_for(format="jpeg", quality="80")) != cache_key(request_for(format="jpeg", quality="81"))
    assert cache_key(request_for(format="webp", quality="80")) != cache_key(request_for(format="webp", quality="81"))
    assert cache_key(request_for(format="png", quality="80")) == cache_key(request_for(format="png", quality="81"))


def uploads(count: int) -> list[UpscaleRequest]:
    return [request_for(images.encode_png(images.draw_photo(8, 8, seed=seed))) for seed in range(count)]


def test_least_recently_used_is_dropped_first(clock: ManualClock) -> None:
    results, requests = cache(clock), uploads(4)
    for each in requests[:3]:
        results.put(each, result())
    results.get(requests[0])
    results.put(requests[3], result())

    assert [results.get(each) is not None for each in requests] == [True, False, True, True]


def test_bytes_are_bounded_and_an_oversized_result_drops_nothing(clock: ManualClock) -> None:
    results, requests = cache(clock), uploads(4)
    results.put(requests[0], result(60))
    results.put(requests[1], result(101))
    assert results.stats().n_bytes == 60

    results.put(requests[2], result(50))

    assert [results.get(each) is not None for each in requests] == [False, False, True, False]
    assert results.stats().n_bytes == 50
    results.put(requests[2], result(70))
    assert results.stats().n_bytes == 70


def test_result_expires(clock: ManualClock) -> None:
    results = cache(clock)
    results.put(request_for(), result())
    clock.now += 59
    assert results.get(request_for())
    clock.now += 1

    assert results.get(request_for()) is None
    assert (results.stats().count, results.stats().n_bytes, results.stats().hits, results.stats().misses) == (
        0,
        0,
        1,
        1,
    )


def test_cache_of_zero_bytes_keeps_nothing(clock: ManualClock) -> None:
    results = cache(clock, max_bytes=0)
    results.put(request_for(), result())

    assert results.get(request_for()) is None


def test_counts_are_right_after_many_threads() -> None:
    results, requests = ResultCache(max_bytes=100, max_count=3, max_age_s=60), uploads(6)

    def work(factor: int) -> None:
        for number in range(300):
            each = requests[(number * factor) % len(requests)]
            if results.get(each) is None:
                results.put(each, result(10 + factor))

    threads = [threading.Thread(target=work, args=(factor,)) for factor in (1, 2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    stats = results.stats()
    assert stats.n_bytes == sum(len(each.data) for each in results._results.values())
    assert stats.count <= 3
    assert stats.hits + stats.misses == 1200
