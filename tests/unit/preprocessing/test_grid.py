"""The grid: every pixel belongs to one core, aligned to the window, and few pixels are computed twice."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from preprocessing.grid import Grid, GridError, choose_grid, pad_length

PRIMES = [1, 2, 3, 7, 13, 127, 251, 509, 1021, 4093]
sides = st.one_of(st.integers(1, 700), st.sampled_from(PRIMES), st.integers(10_000, 40_000))
windows = st.sampled_from([7, 8])


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    window, halo, margin = draw(windows), draw(st.integers(0, 40)), draw(st.integers(0, 16))
    margin = min(margin, halo)
    smallest = 2 * pad_length(halo, window) + window
    max_tile_px = draw(st.integers(smallest, smallest + 300))
    return choose_grid(draw(sides), draw(sides), window=window, halo=halo, margin=margin, max_tile_px=max_tile_px)


@given(grids())
def test_cores_own_every_row_and_column_exactly_once(grid: Grid) -> None:
    for edges, side in ((grid.row_edges, grid.height), (grid.column_edges, grid.width)):
        assert (edges[0], edges[-1]) == (0, side)
        assert all(start < stop for start, stop in pairwise(edges))
    assert (len(grid.row_edges), len(grid.column_edges)) == (grid.rows + 1, grid.columns + 1)


@given(grids())
def test_tiles_lie_on_the_window_inside_the_padded_image(grid: Grid) -> None:
    for offsets, tile, side in ((grid.tops, grid.tile_height, grid.height), (grid.lefts, grid.tile_width, grid.width)):
        assert tile % grid.window == 0
        assert all(offset % grid.window == 0 for offset in offsets)
        assert offsets[0] == -grid.margin
        assert offsets[-1] + tile + grid.margin == pad_length(side + 2 * grid.margin, grid.window)


@given(grids())
def test_every_core_keeps_the_halo_from_each_inner_side(grid: Grid) -> None:
    for offsets, edges, tile in (
        (grid.tops, grid.row_edges, grid.tile_height),
        (grid.lefts, grid.column_edges, grid.tile_width),
    ):
        for offset, (start, stop) in zip(offsets, pairwise(edges), strict=True):
            assert start - offset >= (grid.margin if start == 0 else grid.halo)
            assert offset + tile - stop >= (grid.margin if stop == edges[-1] else grid.halo)
            assert start % grid.window == 0


@given(sides, sides, windows, st.integers(0, 40), st.integers(0, 300), st.sampled_from([0, 1]))
def test_tiles_are_within_the_limit(
    height: int, width: int, window: int, halo: int, spare: int, margin_windows: int
) -> None:
    max_tile_px = 2 * pad_length(halo, window) + window + spare
    margin = min(margin_windows * window, halo)
    grid = choose_grid(height, width, window=window, halo=halo, margin=margin, max_tile_px=max_tile_px)
    assert max(grid.tile_height, grid.tile_width) <= max_tile_px
    for side, tile, count in ((height, grid.tile_height, grid.rows), (width, grid.tile_width, grid.columns)):
        padded = pad_length(side + 2 * grid.margin, window)
        assert (count == 1) == (padded <= max_tile_px)
        assert count > 1 or tile == padded


@given(st.integers(1, 2000), windows, st.integers(1, 3), st.integers(1, 12))
@example(416, 8, 1, 7)  # ten tiles of 56 px compute less than eight of 72
def test_no_other_count_of_tiles_computes_fewer_pixels(side: int, window: int, halos: int, cores: int) -> None:
    halo, largest = halos * window, (2 * halos + cores) * window
    padded = pad_length(side, window)
    assume(padded > largest)
    grid = choose_grid(side, 1, window=window, halo=halo, max_tile_px=largest)
    possible = [
        count * tile
        for tile in range(2 * halo + window, largest + 1, window)
        for count in [-(-(padded - 2 * halo) // (tile - 2 * halo))]
    ]
    assert grid.rows * grid.tile_height == min(possible)


def test_halo_is_rounded_up_to_the_window() -> None:
    assert [choose_grid(99, 99, window=7, halo=halo, max_tile_px=98).halo for halo in (0, 1, 7, 8, 16)] == [
        0,
        7,
        7,
        14,
        21,
    ]


def test_one_tile_of_a_small_image_is_only_padded_to_the_window() -> None:
    assert choose_grid(1, 250, window=8, halo=16, max_tile_px=256) == Grid(1, 250, 8, 16, 0, 8, 256, 1, 1)
    assert choose_grid(64, 128, window=8, halo=16, max_tile_px=128) == Grid(64, 128, 8, 16, 0, 64, 128, 1, 1)


def test_margin_lies_around_the_image_and_is_rounded_up_to_the_window() -> None:
    grid = choose_grid(1, 240, window=8, halo=16, margin=5, max_tile_px=256)
    assert grid == Grid(1, 240, 8, 16, 8, 24, 256, 1, 1)
    assert (grid.tops, grid.lefts) == ((-8,), (-8,))
    assert (grid.row_edges, grid.column_edges) == ((0, 1), (0, 240))
    assert choose_grid(1, 241, window=8, halo=16, margin=8, max_tile_px=256).columns == 2


def test_margin_wider_than_the_halo_is_rejected() -> None:
    with pytest.raises(GridError, match="margin 24 is wider than the halo 16"):
        choose_grid(500, 500, window=8, halo=16, margin=17, max_tile_px=256)


def test_tile_too_small_for_a_core_is_rejected() -> None:
    with pytest.raises(GridError, match="allow 40 px"):
        choose_grid(500, 500, window=8, halo=16, max_tile_px=39)
    assert choose_grid(500, 500, window=8, halo=16, max_tile_px=40).tile_height == 40


@pytest.mark.parametrize(
    "wrong", [{"height": 0}, {"width": -3}, {"window": 0}, {"halo": -1}, {"margin": -1}, {"max_tile_px": 0}]
)
def test_numbers_that_make_no_grid_are_rejected(wrong: dict[str, int]) -> None:
    right = {"height": 9, "width": 9, "window": 8, "halo": 8, "margin": 0, "max_tile_px": 64}
    numbers = right | wrong
    with pytest.raises(GridError, match="No grid"):
        choose_grid(
            numbers["height"],
            numbers["width"],
            window=numbers["window"],
            halo=numbers["halo"],
            margin=numbers["margin"],
            max_tile_px=numbers["max_tile_px"],
        )


@given(grids())
def test_grid_crosses_triton_as_nine_numbers(grid: Grid) -> None:
    array = grid.to_array()
    assert array.dtype == np.int32
    assert array.shape == (9,)
    assert Grid.from_array(array) == grid


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0},
        {"height": -5},
        {"width": 2**31 - 1},
        {"window": 0},
        {"window": 3},
        {"halo": 12},
        {"halo": 64},
        {"margin": -8},
        {"margin": 4},
        {"margin": 24},
        {"margin": 2**31 - 1},
        {"tile_height": 0},
        {"tile_height": 60},
        {"tile_width": 2**30},
        {"rows": 0},
        {"rows": 2**31 - 1},
        {"rows": 1},
        {"columns": 99},
        {"columns": 2},
    ],
)
def test_hostile_grid_is_rejected(change: dict[str, int]) -> None:
    grid = choose_grid(500, 700, window=8, halo=16, max_tile_px=128)
    hostile = np.array(list((dataclasses.asdict(grid) | change).values()), np.int32)
    with pytest.raises(GridError):
        Grid.from_array(hostile)


@pytest.mark.parametrize(
    "array",
    [np.zeros(8, np.int32), np.zeros((1, 9), np.int32), np.ones(9, np.float32), np.ones(9, np.int64), np.array(5)],
)
def test_tensor_of_an_invalid_grid_is_rejected_with_its_shape(array: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(GridError, match=r"int32 \[9\] tensor, not"):
        Grid.from_array(array)


@settings(max_examples=400, deadline=None)
@given(
    grids(), st.lists(st.sampled_from([-64, -16, -8, -7, -2, -1, 0, 0, 0, 0, 1, 7, 8, 16, 64]), min_size=9, max_size=9)
)
def test_every_valid_grid_covers_its_image(grid: Grid, changes: list[int]) -> None:
    try:
        changed = Grid.from_array(grid.to_array() + np.array(changes, np.int32))
    except GridError:
        return
    test_cores_own_every_row_and_column_exactly_once.hypothesis.inner_test(changed)  # type: ignore[attr-defined]
    test_tiles_lie_on_the_window_inside_the_padded_image.hypothesis.inner_test(changed)  # type: ignore[attr-defined]
    test_every_core_keeps_the_halo_from_each_inner_side.hypothesis.inner_test(changed)  # type: ignore[attr-defined]


def test_offsets_and_edges_are_computed_once() -> None:
    """Computed again for each row of tiles, they would cost a long, thin image the square of its rows."""
    grid = choose_grid(4000, 3000, window=8, halo=16, max_tile_px=64)
    for name in ("tops", "lefts", "row_edges", "column_edges"):
        assert getattr(grid, name) is getattr(grid, name), name
