"""The last steps of restored tiles in C agree with NumPy, for each kind of vectors that the sources have."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swinir.inference.compiled_tiles import measure_back_errors, shrink_in_numpy
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
