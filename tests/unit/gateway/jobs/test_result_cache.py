"""The specification of gateway.jobs.result_cache: what is one result, what is another, and what goes first."""

from __future__ import annotations

import threading

import pytest

from gateway.config.settings import Settings
from gateway.jobs.options import UpscaleRequest, make_request, parse_options
from gateway.jobs.result_cache import ResultCache, cache_key
from gateway.jobs.runner import Result
from testing import images
from testing.clock import ManualClock
from testing.requests import PHOTO

SETTINGS = Settings(variants="compact_x4,real_x4")
PIXELS = images.draw_photo(24, 32)


def order(data: bytes = PHOTO, name: str = "photo.png", **parameters: str) -> UpscaleRequest:
    return make_request(data, name, parse_options(parameters, SETTINGS), SETTINGS)


def result(n_bytes: int = 10) -> Result:
    return Result(bytes(n_bytes), "image/png", "first.png", 4, 4, ("a note",), 2.5)


def cache(clock: ManualClock, max_bytes: int = 100, max_count: int = 3) -> ResultCache:
    return ResultCache(max_bytes=max_bytes, max_count=max_count, max_age_s=60, clock=clock)


def test_the_same_order_finds_the_result_under_its_own_name(clock: ManualClock) -> None:
    kept = cache(clock)
    kept.keep(order(), result())

    found = kept.find(order(name="holiday.png"))

    assert found == Result(bytes(10), "image/png", "holiday_compact_x4.png", 4, 4, ("a note",), 0.0, cache="hit")


@pytest.mark.parametrize(
    "other",
    [
        order(variant="real_x4"),
        order(format="webp"),
        order(format="jpeg"),
        order(images.encode_png(images.draw_photo(24, 32, seed=1))),
        order(images.insert_png_chunk(PHOTO, b"tRNS", bytes(6))),
        order(images.encode_png(PIXELS, icc_profile=images.icc_profile())),
        order(images.encode_jpeg(PIXELS, exif=b"Exif\0\0" + images.exif_with_orientation(6))),
        order(images.encode_jpeg(PIXELS, exif=b"Exif\0\0" + images.exif_with_orientation(3))),
        order(images.animated_png([PIXELS, PIXELS[::-1].copy()])),
    ],
)
def test_whatever_changes_the_answer_is_another_result(clock: ManualClock, other: UpscaleRequest) -> None:
    kept = cache(clock)
    kept.keep(order(), result())

    assert kept.find(other) is None


def test_quality_counts_where_the_format_knows_it() -> None:
    assert cache_key(order(format="jpeg", quality="80")) != cache_key(order(format="jpeg", quality="81"))
    assert cache_key(order(format="webp", quality="80")) != cache_key(order(format="webp", quality="81"))
    assert cache_key(order(format="png", quality="80")) == cache_key(order(format="png", quality="81"))


def uploads(count: int) -> list[UpscaleRequest]:
    return [order(images.encode_png(images.draw_photo(8, 8, seed=seed))) for seed in range(count)]


def test_the_one_not_asked_for_longest_goes_first(clock: ManualClock) -> None:
    kept, orders = cache(clock), uploads(4)
    for each in orders[:3]:
        kept.keep(each, result())
    kept.find(orders[0])
    kept.keep(orders[3], result())

    assert [kept.find(each) is not None for each in orders] == [True, False, True, True]


def test_bytes_are_bounded_and_too_large_a_result_drives_nobody_out(clock: ManualClock) -> None:
    kept, orders = cache(clock), uploads(4)
    kept.keep(orders[0], result(60))
    kept.keep(orders[1], result(101))
    assert kept.state().n_bytes == 60

    kept.keep(orders[2], result(50))

    assert [kept.find(each) is not None for each in orders] == [False, False, True, False]
    assert kept.state().n_bytes == 50
    kept.keep(orders[2], result(70))
    assert kept.state().n_bytes == 70


def test_a_result_has_its_time(clock: ManualClock) -> None:
    kept = cache(clock)
    kept.keep(order(), result())
    clock.now += 59
    assert kept.find(order())
    clock.now += 1

    assert kept.find(order()) is None
    assert (kept.state().count, kept.state().n_bytes, kept.state().hits, kept.state().misses) == (0, 0, 1, 1)


def test_a_cache_of_no_bytes_keeps_nothing(clock: ManualClock) -> None:
    kept = cache(clock, max_bytes=0)
    kept.keep(order(), result())

    assert kept.find(order()) is None


def test_many_threads_leave_the_sums_right() -> None:
    kept, orders = ResultCache(max_bytes=100, max_count=3, max_age_s=60), uploads(6)

    def work(mine: int) -> None:
        for number in range(300):
            each = orders[(number * mine) % len(orders)]
            if kept.find(each) is None:
                kept.keep(each, result(10 + mine))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in (1, 2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    state = kept.state()
    assert state.n_bytes == sum(len(each.data) for _, each in kept._kept.values())
    assert state.count <= 3
    assert state.hits + state.misses == 1200
