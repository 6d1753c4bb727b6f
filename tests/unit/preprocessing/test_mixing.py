"""Mixing by strength: exact for every pair of levels, without a shift of brightness; strengths outside 0..1 fail."""

from __future__ import annotations

import numpy as np
import pytest

from preprocessing.image import Pixels
from preprocessing.mixing import mix

LEVELS = np.arange(256, dtype=np.uint8)
# Every pair of levels, as [256, 256, 3] images.
ORIGINAL = LEVELS[:, np.newaxis, np.newaxis].repeat(256, 1).repeat(3, 2)
RESTORED = LEVELS[np.newaxis, :, np.newaxis].repeat(256, 0).repeat(3, 2)


def round_half_to_even(hundredths: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Return hundredths rounded to whole numbers, in integer arithmetic only."""
    whole, rest = np.divmod(hundredths, 100)
    return whole + ((rest > 50) | ((rest == 50) & (whole % 2 == 1)))


@pytest.mark.parametrize("percent", range(101))
def test_every_pair_of_levels_is_rounded_once(percent: int) -> None:
    exact = ORIGINAL.astype(int) * (100 - percent) + RESTORED.astype(int) * percent

    mixed = mix(ORIGINAL, RESTORED, percent)

    assert mixed.dtype == np.uint8
    assert np.array_equal(mixed, round_half_to_even(exact))


def test_ends_are_the_original_and_the_restored_image() -> None:
    assert np.array_equal(mix(ORIGINAL, RESTORED, 0), ORIGINAL)
    assert mix(ORIGINAL, RESTORED, 100) is RESTORED


def test_half_strength_does_not_shift_brightness() -> None:
    mixed = mix(ORIGINAL, RESTORED, 50)

    assert abs(mixed.mean() - 127.5) < 1e-9, "half of all pairs are ties: rounded up they would add a quarter level"


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200])
def test_slices_of_rows_make_no_difference(rows: int) -> None:
    whole = mix(ORIGINAL, RESTORED, 37)

    assert np.array_equal(mix(ORIGINAL[:rows], RESTORED[:rows], 37), whole[:rows])


def test_read_only_rows_are_mixed_and_left_unchanged() -> None:
    received = np.frombuffer(RESTORED.tobytes(), np.uint8).reshape(RESTORED.shape)  # as gRPC delivers bands
    original = ORIGINAL.copy()

    mix(original, received, 50)

    assert np.array_equal(received, RESTORED)
    assert np.array_equal(original, ORIGINAL)


@pytest.mark.parametrize("other", [RESTORED[:255], RESTORED[:, :255], RESTORED[..., :1], RESTORED[:1]])
def test_other_shape_is_an_error(other: Pixels) -> None:
    with pytest.raises(ValueError, match="cannot be mixed"):
        mix(ORIGINAL, other, 50)


@pytest.mark.parametrize("percent", [-1, 101])
def test_strength_outside_the_range_is_an_error(percent: int) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.100"):
        mix(ORIGINAL, RESTORED, percent)
