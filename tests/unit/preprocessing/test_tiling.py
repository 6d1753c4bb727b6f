"""Split and stitch: no pixel is lost or blended; a tiled result equals the whole one if the halo suffices."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.tiling import (
    Grid,
    GridError,
    bands,
    choose_grid,
    pad_to_window,
    split,
    split_band,
    stitch,
    stitch_band,
)
from testing.data import ROOT
from testing.images import draw_photo

Array = npt.NDArray[Any]

sides = st.one_of(st.integers(1, 90), st.sampled_from([1, 2, 7, 8, 13, 97, 211]))
windows = st.sampled_from([7, 8])


def photo_and_grid(
    height: int, width: int, window: int = 8, halo: int = 16, max_tile_px: int = 64, margin: int = 0
) -> tuple[Array, Grid]:
    grid = choose_grid(height, width, window=window, halo=halo, margin=margin, max_tile_px=max_tile_px)
    return draw_photo(height, width), grid


def repeat(tiles: Array, scale: int) -> Array:
    """Replace the network: every pixel becomes scale x scale."""
    return tiles.repeat(scale, axis=-3).repeat(scale, axis=-2)


@settings(max_examples=80, deadline=None)
@given(sides, sides, windows, st.integers(0, 16), st.integers(0, 60), st.integers(0, 16))
def test_split_then_stitch_is_the_image_bit_for_bit(
    height: int, width: int, window: int, halo: int, spare: int, margin: int
) -> None:
    max_tile_px = 2 * (halo + window) + window + spare
    image, grid = photo_and_grid(height, width, window, halo, max_tile_px, min(margin, halo))
    tiles = split(image, grid)
    assert tiles.shape == (grid.rows * grid.columns, grid.tile_height, grid.tile_width, 3)
    assert (stitch(tiles, grid, 1) == image).all()


@pytest.mark.parametrize("shape", [(20_011, 9), (9, 20_011), (2_503, 1_009)])
@pytest.mark.parametrize("window", [7, 8])
def test_huge_sides_come_back_bit_for_bit(shape: tuple[int, int], window: int) -> None:
    image = (
        np.arange(shape[0] * shape[1] * 3, dtype=np.uint32).view(np.uint8)[: shape[0] * shape[1] * 3].reshape(*shape, 3)
    )
    grid = choose_grid(*shape, window=window, halo=16, max_tile_px=256)
    assert (stitch(split(image, grid), grid, 1) == image).all()


@settings(max_examples=25, deadline=None)
@given(sides, sides, windows, st.sampled_from([2, 3, 4, 8]))
def test_network_that_repeats_pixels_gives_the_repeated_image(height: int, width: int, window: int, scale: int) -> None:
    image, grid = photo_and_grid(height, width, window)
    stitched = stitch(repeat(split(image, grid), scale), grid, scale)
    assert stitched.flags.c_contiguous
    assert (stitched == repeat(image, scale)).all()


@settings(max_examples=60, deadline=None)
@given(sides, sides, windows, st.sampled_from([1, 3, 4]))
def test_bands_tile_the_rows_and_are_the_rows_of_the_whole(height: int, width: int, window: int, scale: int) -> None:
    image, grid = photo_and_grid(height, width, window, margin=window)
    parts = []
    next_top = 0
    for row, (top, rows) in enumerate(bands(grid)):
        assert top == next_top
        next_top = top + rows
        tiles = split_band(image, grid, row)
        assert (tiles == split(image, grid)[row * grid.columns : (row + 1) * grid.columns]).all()
        restored = repeat(tiles, scale)
        parts.append(stitch_band(restored, grid, row, scale))
        assert (stitch_band(list(restored), grid, row, scale) == parts[-1]).all()
        assert parts[-1].shape == (rows * scale, width * scale, 3)
    assert next_top == height
    assert (np.concatenate(parts) == repeat(image, scale)).all()


@pytest.mark.parametrize(
    ("side", "shown"),
    [
        (1, [0, 0, 0, 0, 0, 0, 0, 0]),
        (2, [0, 1, 0, 0, 0, 0, 0, 0]),
        (3, [0, 1, 2, 1, 0, 0, 0, 0]),
        (5, [0, 1, 2, 3, 4, 3, 2, 1]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (9, [0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1]),
    ],
)
def test_padding_reflects_as_far_as_it_can_and_then_replicates(side: int, shown: list[int]) -> None:
    column = np.arange(side, dtype=np.uint8)[:, np.newaxis, np.newaxis]
    assert pad_to_window(column, 8)[:, 0, 0].tolist() == shown
    assert pad_to_window(column.swapaxes(0, 1), 8)[0, :, 0].tolist() == shown


@pytest.mark.parametrize(
    ("side", "shown"),
    [
        (1, [0] * 24),
        (2, [1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (3, [2, 2, 2, 2, 2, 2, 2, 1, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (9, [8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_margin_reflects_on_all_sides(side: int, shown: list[int]) -> None:
    column = np.arange(side, dtype=np.uint8)[:, np.newaxis, np.newaxis]
    assert pad_to_window(column, 8, margin=8)[:, 4, 0].tolist() == shown
    assert pad_to_window(column.swapaxes(0, 1), 8, margin=8)[4, :, 0].tolist() == shown


@settings(max_examples=40, deadline=None)
@given(sides, sides, windows, st.sampled_from([0, 1, 2]))
def test_tiles_cover_the_padded_image(height: int, width: int, window: int, margin_windows: int) -> None:
    image, grid = photo_and_grid(height, width, window, margin=min(margin_windows * window, 16))
    whole = pad_to_window(image, window, grid.margin)
    assert not whole.shape[0] % window
    assert not whole.shape[1] % window
    corners = [(top + grid.margin, left + grid.margin) for top in grid.tops for left in grid.lefts]
    for tile, (top, left) in zip(split(image, grid), corners, strict=True):
        assert (tile == whole[top : top + grid.tile_height, left : left + grid.tile_width]).all()


def shift_covariant(radius: int) -> Callable[[Array], Array]:
    """Build a filter of a receptive field: a box sum of `radius` px each way, zero outside, as convolutions pad."""

    def run(image: Array) -> Array:
        padded = np.pad(image.astype(np.int64), ((radius, radius), (radius, radius), (0, 0)))
        shifts = range(2 * radius + 1)
        rows = np.sum([padded[shift : shift + len(image)] for shift in shifts], axis=0)
        return np.asarray(np.sum([rows[:, shift : shift + image.shape[1]] for shift in shifts], axis=0))

    return run


def windowed(window: int) -> Callable[[Array], Array]:
    """Build a stand-in for two Swin blocks: sums over windows, then over shifted windows cut at the image's border."""

    def over(image: Array, shift: int) -> Array:
        rows, columns = ((np.arange(side) + shift) // window for side in image.shape[:2])
        sums = np.zeros((rows[-1] + 1, columns[-1] + 1, image.shape[2]), np.int64)
        np.add.at(sums, (rows[:, np.newaxis], columns), image)
        return np.asarray(image + sums[rows[:, np.newaxis], columns] % 251)

    return lambda image: over(over(image.astype(np.int64), 0), window // 2)


@pytest.mark.parametrize(("window", "shape"), [(8, (150, 203)), (7, (150, 203)), (8, (64, 300)), (8, (97, 5))])
@pytest.mark.parametrize("kind", ["shift-covariant", "windowed"])
@pytest.mark.parametrize("margin_windows", [0, 1])
def test_tiled_equals_whole_with_a_sufficient_halo(
    kind: str, window: int, shape: tuple[int, int], margin_windows: int
) -> None:
    network = shift_covariant(16) if kind == "shift-covariant" else windowed(window)
    margin = margin_windows * window
    image, grid = photo_and_grid(*shape, window, halo=16, max_tile_px=80, margin=margin)
    whole = network(pad_to_window(image, window, margin))[margin:, margin:][: shape[0], : shape[1]]
    tiles = np.stack([network(tile) for tile in split(image, grid)])
    assert len(tiles) > 1
    assert (stitch(tiles, grid, 1) == whole).all()


def test_receptive_field_beyond_the_halo_is_seen_as_a_difference() -> None:
    network, (image, grid) = shift_covariant(26), photo_and_grid(150, 203, max_tile_px=80)
    tiles = np.stack([network(tile) for tile in split(image, grid)])
    assert (stitch(tiles, grid, 1) != network(pad_to_window(image, 8))[:150, :203]).any()


def test_image_that_is_its_own_tile_is_not_copied() -> None:
    image, grid = photo_and_grid(64, 48)
    tiles = split(image, grid)
    assert np.shares_memory(tiles, image)
    assert np.shares_memory(stitch(tiles, grid, 1), tiles)
    assert np.shares_memory(stitch_band(tiles, grid, 0, 1), tiles)


def test_split_and_stitch_allocate_only_their_result() -> None:
    image, grid = photo_and_grid(1000, 1000, max_tile_px=128)
    tiles = split(image, grid)
    runs: dict[str, Callable[[], Array]] = {
        "split": lambda: split(image, grid),
        "stitch": lambda: stitch(tiles, grid, 1),
    }
    for name, run in runs.items():
        result_bytes = run().nbytes
        tracemalloc.start()
        try:
            run()
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < result_bytes + 4 * tiles[0].nbytes, name


def test_any_channels_and_dtype_pass() -> None:
    image = np.random.default_rng(0).normal(size=(70, 90, 1)).astype(np.float32)
    grid = choose_grid(70, 90, window=8, halo=8, max_tile_px=40)
    assert (stitch(split(image, grid), grid, 1) == image).all()


def test_arrays_of_another_shape_are_rejected() -> None:
    image, grid = photo_and_grid(100, 100)
    tiles = split(image, grid)
    with pytest.raises(GridError, match=r"image \[100, 100, C\], not \[99, 100, 3\]"):
        split(image[1:], grid)
    with pytest.raises(GridError, match=r"needs tiles \[9, 224, 224, C\], not \[9, 56, 56, 3\]"):
        stitch(tiles, grid, 4)
    with pytest.raises(GridError, match="needs tiles"):
        stitch(tiles[:-1], grid, 1)
    with pytest.raises(GridError, match="needs tiles"):
        stitch_band(tiles, grid, 0, 1)
    with pytest.raises(GridError, match=r"not \[3, 55, 56, 3\] and \[3, 56, 56, 3\]"):
        stitch_band([tiles[0], tiles[1][:-1], tiles[2]], grid, 0, 1)


def test_docs_table_of_computed_pixels_matches_the_grid() -> None:
    text = ROOT.joinpath("docs/explanation/tiling.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (\d+) x (\d+) \| (\d+) \| (\d+) x (\d+) of (\d+) x (\d+) \| ([\d.]+) \|", text, re.MULTILINE
    )
    assert len(rows) == 16
    for width, height, max_tile_px, columns, n_rows, tile_width, tile_height, ratio in rows:
        grid = choose_grid(int(height), int(width), window=8, halo=24, max_tile_px=int(max_tile_px))
        documented = (int(columns), int(n_rows), int(tile_width), int(tile_height), ratio)
        assert documented == (grid.columns, grid.rows, grid.tile_width, grid.tile_height, f"{grid.computed_ratio:.2f}")
