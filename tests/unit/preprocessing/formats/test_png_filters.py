"""preprocessing.formats.png_filters: the filters of the specification, and which one a row has."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from preprocessing.formats import png_filters
from preprocessing.formats.png_filters import AVERAGE, NONE, PAETH, SUB, UP, filter_rows

Bytes = png_filters.Bytes

LEVELS = (0, 1, 2, 63, 64, 127, 128, 129, 254, 255)


def predict(kind: int, left: int, up: int, up_left: int) -> int:
    """Return the prediction as PNG section 9.2 defines it."""
    if kind == PAETH:
        initial = left + up - up_left
        return min((abs(initial - value), rank, value) for rank, value in enumerate((left, up, up_left)))[2]
    return {NONE: 0, SUB: left, UP: up, AVERAGE: (left + up) // 2}[kind]


def unfilter(filtered: Bytes, above: Bytes | None, pixel_bytes: int) -> Bytes:
    """Return the rows of which these are the filtered ones."""
    n_bytes = filtered.shape[1] - 1
    previous = [0] * n_bytes if above is None else above[0].tolist()
    rows = []
    for kind, *differences in filtered.tolist():
        row: list[int] = []
        for at, difference in enumerate(differences):
            left, up_left = (row[at - pixel_bytes], previous[at - pixel_bytes]) if at >= pixel_bytes else (0, 0)
            row.append((difference + predict(kind, left, previous[at], up_left)) % 256)
        rows.append(row)
        previous = row
    return np.array(rows, np.uint8)


@pytest.mark.parametrize("kind", [NONE, SUB, UP, AVERAGE, PAETH])
def test_filter_subtracts_the_prediction_of_the_specification(kind: int) -> None:
    corners = np.array(list(itertools.product(LEVELS, repeat=3)), np.uint8)
    others = np.random.default_rng(0).integers(0, 256, (20_000, 3), np.uint8)
    left, up, up_left = np.concatenate((corners, others)).T
    byte = up_left[::-1]

    differences = png_filters._apply(kind, byte, left, up, up_left)

    predicted = [predict(kind, *three) for three in zip(left.tolist(), up.tolist(), up_left.tolist(), strict=True)]
    assert (differences == (byte - np.array(predicted)).astype(np.uint8)).all()


@pytest.mark.parametrize("pixel_bytes", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("has_row_above", [False, True])
def test_rows_can_be_restored(pixel_bytes: int, has_row_above: bool) -> None:
    generator = np.random.default_rng(pixel_bytes)
    ramp = np.add.outer(np.arange(9) * 3, np.arange(40 * pixel_bytes) // pixel_bytes * 5)
    rows = (ramp + generator.integers(0, 4, ramp.shape)).astype(np.uint8)
    above = rows[:1][::-1] if has_row_above else None

    filtered = filter_rows(rows, above, pixel_bytes)

    assert (unfilter(filtered, above, pixel_bytes) == rows).all()


@pytest.mark.parametrize(("pixel_bytes", "columns"), [(1, 6_001), (3, 2_006), (4, 1_501)])
def test_wide_rows_can_be_restored(pixel_bytes: int, columns: int) -> None:
    generator = np.random.default_rng(columns)
    smooth = np.cumsum(generator.integers(-3, 4, (4, columns * pixel_bytes)), axis=0).astype(np.uint8)
    rows = np.concatenate([smooth, generator.integers(0, 256, smooth[:1].shape, np.uint8)])

    filtered = filter_rows(rows, None, pixel_bytes)

    assert (unfilter(filtered, None, pixel_bytes) == rows).all()


def test_each_row_has_the_filter_that_suits_it() -> None:
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, 3_000, np.uint8)
    ramp = np.repeat(np.arange(1_000) % 256, 3).astype(np.uint8)
    zeros_but_few = np.where(generator.integers(0, 50, 3_000) == 0, 200, 0).astype(np.uint8)

    filtered = filter_rows(np.stack([ramp, noise, noise, zeros_but_few]), None, 3)

    assert filtered[:, 0].tolist()[::2] == [SUB, UP]
    assert filtered[3, 0] == NONE
