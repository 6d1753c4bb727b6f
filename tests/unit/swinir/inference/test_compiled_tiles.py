"""The last steps of restored tiles in C agree with NumPy, for each kind of vectors that the sources have."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swinir.inference.compiled_tiles import (
    blend,
    find_flats,
    find_neutrals,
    measure_back_errors,
    round_tiles,
    shrink_in_numpy,
)
from swinir.inference.engine import LUMINANCE
from swinir.inference.pixel_rules import flat_weights, neutral_weights
from testing.compiled_library import compile_with, forget_library

# Vectors as this processor has them, as AVX2 has them, and in plain C without any instruction named.
KINDS = {"native": (), "8 floats": ("-DVECTOR_WIDTH=8",), "plain": ("-DPLAIN_VECTORS",)}


@pytest.fixture(scope="module", params=KINDS)
def c_library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder: Path = tmp_path_factory.mktemp("compiled")
        yield compile_with(monkeypatch, folder, *KINDS[request.param])
        shutil.rmtree(folder)
    forget_library()


@pytest.mark.parametrize("scale", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("sides", [(1, 1), (3, 2), (5, 3), (33, 17), (16, 40), (50, 71)], ids=str)
@pytest.mark.parametrize("content", ["noise", "extremes"])
def test_way_back_is_that_of_numpy(c_library: Any, content: str, sides: tuple[int, int], scale: int) -> None:
    random = np.random.default_rng(scale)
    height, width = sides
    levels = random.integers(0, 256, (2, height * scale, width * scale, 3), np.uint8)
    if content == "extremes":  # sums below 0 and above 255
        levels = np.where(levels > 127, np.uint8(255), np.uint8(0))
    images = random.random((2, height, width, 3), np.float32)
    expected = ((shrink_in_numpy(levels, sides) - images * 255.0) ** 2).mean(axis=(1, 2, 3))
    assert measure_back_errors(c_library, 2, levels, images) == pytest.approx(expected, rel=1e-6)


def test_way_back_of_equal_pixels_is_zero(c_library: Any) -> None:
    images = np.full((1, 20, 30, 3), 200 / 255, np.float32)
    levels = np.full((1, 80, 120, 3), 200, np.uint8)
    assert measure_back_errors(c_library, 1, levels, images) == pytest.approx(0, abs=1e-9)


def draw_values(*shape: int) -> Any:
    """Return values in and around 0..1 with ties of 8 and 16 bits, huge ones and both zeros."""
    random = np.random.default_rng(0)
    values = random.normal(0.5, 0.6, shape).astype(np.float32)
    special = np.array(
        [0, -0.0, 1, 0.5 / 255, 1.5 / 255, 254.5 / 255, 255.5 / 255, -0.5 / 255, 2.5 / 65535, 1e30, -1e30]
    )
    at = random.integers(0, values.size, values.size // 4)
    values.flat[at] = random.choice(special, len(at))
    return values


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 5, 7, 3), (3, 31, 33, 3), (2, 150, 149, 3)], ids=str)
@pytest.mark.parametrize("bits", [8, 16])
def test_rounding_and_ranges_are_those_of_numpy(c_library: Any, bits: int, shape: tuple[int, ...]) -> None:
    tiles = draw_values(*shape)
    levels, deep = np.empty(shape, np.uint8), np.empty(shape, np.uint16)
    ranges = round_tiles(c_library, 2, tiles, levels, deep if bits == 16 else None)
    in_levels = tiles * np.float32(255)
    assert (levels == np.rint(in_levels.clip(0, 255))).all()
    if bits == 16:
        assert (deep == np.rint((tiles * np.float32(65535)).clip(0, 65535))).all()
    assert (ranges.extremes == np.stack([tiles.min(axis=(1, 2, 3)), tiles.max(axis=(1, 2, 3))], axis=1)).all()
    outside = (in_levels < -0.5) | (in_levels > 255.5)
    assert ranges.clamped == pytest.approx(outside.mean(axis=(1, 2, 3)), abs=1e-12)
    assert ranges.find_not_finite() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_each_value_that_is_not_finite_is_found(c_library: Any, value: float) -> None:
    shape = (3, 5, 7, 3)
    levels = np.empty(shape, np.uint8)
    for at in range(5 * 7 * 3):
        tiles = draw_values(*shape)
        tiles[1].flat[at] = value
        assert round_tiles(c_library, 2, tiles, levels).find_not_finite() == [1]
    for at in (0, 4_095, 4_096, 65_535, 65_536, 150 * 150 * 3 - 1):  # at the ends of blocks and steps
        tiles = draw_values(2, 150, 150, 3)
        tiles[0].flat[at] = value
        assert round_tiles(c_library, 2, tiles, np.empty(tiles.shape, np.uint8)).find_not_finite() == [0]


@pytest.mark.parametrize("value", [-0.51, 255.51])
@pytest.mark.parametrize("at", [0, 4_095, 4_096, 65_535, 65_536, 150 * 150 * 3 - 1])
def test_a_single_value_outside_is_counted(c_library: Any, at: int, value: float) -> None:
    tiles = np.full((1, 150, 150, 3), 0.5, np.float32)
    levels = np.empty(tiles.shape, np.uint8)
    assert round_tiles(c_library, 1, tiles, levels).clamped == 0
    tiles.flat[at] = value / 255
    assert round_tiles(c_library, 1, tiles, levels).clamped * tiles.size == pytest.approx(1)


@pytest.mark.parametrize("to_grey", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (5, 33)], ids=str)
def test_tiles_are_mixed_by_weights(c_library: Any, sides: tuple[int, int], scale: int, *, to_grey: bool) -> None:
    random = np.random.default_rng(scale)
    height, width = sides
    images = random.random((2, height, width, 3), np.float32)
    tiles = random.random((2, height * scale, width * scale, 3), np.float32)
    weights = random.random((2, height, width), np.float32)
    weights[random.random(weights.shape) < 0.4] = 0
    weights[random.random(weights.shape) < 0.3] = 1
    wide = weights.repeat(scale, 1).repeat(scale, 2)[..., np.newaxis]
    colours = images.repeat(scale, 1).repeat(scale, 2)
    targets = (tiles @ np.array(LUMINANCE))[..., np.newaxis] if to_grey else colours
    expected = tiles + wide * (targets - tiles)
    unchanged = (wide == 0).repeat(3, axis=3)
    before = tiles.copy()

    blend(c_library, 2, tiles, images, weights, to_grey=to_grey)

    assert tiles == pytest.approx(expected, abs=2e-7)
    assert (tiles[unchanged] == before[unchanged]).all()


def draw_areas(height: int, width: int) -> Any:
    """Return images of noise with boxes: constant colours and greys, some that touch the borders, and one of noise."""
    random = np.random.default_rng(height * 100 + width)
    images = random.integers(0, 256, (4, height, width, 3)).astype(np.float32) / np.float32(255)
    images[0, : height * 2 // 3, : width * 3 // 4] = images[0, 0, 0]
    images[0, height // 3, width // 2, 2] += np.float32(1 / 255)
    images[1, height // 4 :, width // 4 :] = images[1, height // 4 :, width // 4 :, :1]
    images[1, -1:, -1:] = (0.5, 0.5, 0.5 + 0.6 / 255)
    images[2] = images[2, :1, :1]
    return images


@pytest.mark.parametrize("sides", [(1, 1), (1, 40), (2, 3), (33, 17), (64, 64), (90, 131)], ids=str)
@pytest.mark.parametrize("reach", [0, 1, 3, 9, 24])
def test_flat_areas_are_those_of_numpy(c_library: Any, reach: int, sides: tuple[int, int]) -> None:
    images = draw_areas(*sides)
    assert np.array_equal(find_flats(c_library, 2, images, reach), flat_weights(images, reach))  # type: ignore[arg-type]


@pytest.mark.parametrize("sides", [(1, 1), (1, 40), (2, 3), (33, 17), (64, 64), (90, 131)], ids=str)
def test_neutral_areas_are_those_of_numpy(c_library: Any, sides: tuple[int, int]) -> None:
    images = draw_areas(*sides)
    expected = neutral_weights(images)
    found = find_neutrals(c_library, 2, images)
    assert expected is None if found is None else np.array_equal(found, expected)  # type: ignore[arg-type]


def test_images_of_noise_have_no_areas(c_library: Any) -> None:
    images = np.random.default_rng(0).random((2, 60, 70, 3), np.float32)
    assert find_flats(c_library, 2, images, 24) is None
    assert find_neutrals(c_library, 2, images) is None
