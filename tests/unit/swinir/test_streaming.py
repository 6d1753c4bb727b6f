"""Streaming yields the bands that stitching gives, with few tiles in flight, and stops on a cancel."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.grey import to_grey
from preprocessing.tiling import Grid, choose_grid, split, stitch
from swinir.streaming import MAX_IN_FLIGHT, SUB_BATCH_S, StreamCancelledError, SubBatchSize, stream_bands
from testing.images import draw_photo

SCALE = 2


def make_grid(height: int, width: int) -> Grid:
    return choose_grid(height, width, window=8, halo=8, max_tile_px=48)


def enlarge(tiles: Any) -> tuple[Any, Any, int]:
    """A network whose result shows where a tile comes from."""
    restored = tiles.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    return restored, np.repeat(tiles[:, 0, 0, :1].astype(np.float32), 6, axis=1), 7 * len(tiles)


def never() -> bool:
    return False


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150))
def test_bands_equal_the_stitched_image(height: int, width: int) -> None:
    image, grid = draw_photo(height, width, seed=height), make_grid(height, width)

    bands = list(stream_bands(image, grid, SCALE, enlarge, never))

    restored, checks, work_us = enlarge(split(image, grid))
    assert sum(band.compute_us for band in bands) == work_us
    assert np.array_equal(np.concatenate([band.pixels for band in bands]), stitch(restored, grid, SCALE))
    assert np.array_equal(np.concatenate([band.checks for band in bands]), checks)
    assert [band.top for band in bands] == [edge * SCALE for edge in grid.row_edges[:-1]]


def tint(tiles: Any) -> tuple[Any, Any, int]:
    """A network that colours what it gets."""
    restored, checks, work_us = enlarge(tiles // 2)
    return restored + np.array([0, 60, 120], np.uint8), checks, work_us


def test_bands_of_a_grey_image_are_its_luminance() -> None:
    image, grid = draw_photo(110, 60)[..., :1].repeat(3, axis=2), make_grid(110, 60)
    bands = np.concatenate([band.pixels for band in stream_bands(image, grid, SCALE, tint, never)])
    assert np.array_equal(bands, to_grey(stitch(tint(split(image, grid))[0], grid, SCALE)))


def test_one_coloured_pixel_leaves_the_colour_of_every_tile() -> None:
    image, grid = draw_photo(110, 60)[..., :1].repeat(3, axis=2), make_grid(110, 60)
    image[-1, -1, 0] ^= 1
    bands = np.concatenate([band.pixels for band in stream_bands(image, grid, SCALE, tint, never)])
    assert np.array_equal(bands, stitch(tint(split(image, grid))[0], grid, SCALE))


def test_no_more_than_two_sub_batches_are_under_way() -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def restore(tiles: Any) -> tuple[Any, Any, int]:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        result = enlarge(tiles)
        with lock:
            under_way -= 1
        return result

    list(stream_bands(draw_photo(300, 300), make_grid(300, 300), SCALE, restore, never))

    assert 1 <= most <= MAX_IN_FLIGHT


def test_after_a_cancel_nothing_more_is_sent() -> None:
    left, sent = threading.Event(), []

    def restore(tiles: Any) -> tuple[Any, Any, int]:
        sent.append(len(tiles))
        if len(sent) >= 3:  # two threads may have sent before either checks
            left.set()
        return enlarge(tiles)

    with pytest.raises(StreamCancelledError) as stopped:
        list(stream_bands(draw_photo(300, 300), make_grid(300, 300), SCALE, restore, left.is_set))

    assert len(sent) <= 2 + MAX_IN_FLIGHT
    assert stopped.value.tiles <= sum(sent)


def test_failure_ends_the_stream_with_itself() -> None:
    def restore(tiles: Any) -> tuple[Any, Any, int]:
        raise MemoryError(f"no memory for {len(tiles)}")

    with pytest.raises(MemoryError, match="no memory for 1"):
        list(stream_bands(draw_photo(100, 100), make_grid(100, 100), SCALE, restore, never))


def test_slow_tiles_are_sent_one_at_a_time() -> None:
    """On a CPU a second tile would only delay a cancel and other requests."""
    size = SubBatchSize()
    for _ in range(5):
        size.update(size.tiles, 1.0 * size.tiles)
    assert (size.tiles, size.in_flight) == (1, 1)


def test_sub_batches_grow_for_fast_tiles() -> None:
    """On a GPU: 5 ms per tile."""
    size = SubBatchSize()
    sizes = []
    for _ in range(8):
        sizes.append(size.tiles)
        size.update(size.tiles, 0.005 * size.tiles)
    assert sizes == [1, 2, 4, 8, 16, 20, 20, 20]
    assert sizes[-1] * 0.005 == pytest.approx(SUB_BATCH_S)
    assert size.in_flight == MAX_IN_FLIGHT


def test_queue_that_grows_makes_sub_batches_small_again() -> None:
    size = SubBatchSize()
    for _ in range(8):
        size.update(size.tiles, 0.005 * size.tiles)
    size.update(size.tiles, 2.0)
    assert (size.tiles, size.in_flight) == (1, 1)
