"""PNG filters (W3C PNG, third edition, section 9): replaces each byte by its difference from a prediction.

For each row the filter with the cheapest differences is taken, as encoders usually do, but only a part of the bytes is
looked at. In NumPy on bytes, without wider integers: Pillow, which filters in a scalar loop, takes many times as long.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

# Numbers of the filters in the file.
NONE, SUB, UP, AVERAGE, PAETH = range(5)

# (bytes of a row, step): in rows of at least so many bytes, one byte per step decides on the filter. No step has a
# factor in common with the bytes of a pixel, so every channel counts. With 17 instead of 7, photos take at most 0.2 %
# more bytes.
_SAMPLE_STEPS = ((6_000, 17), (512, 7), (0, 1))
# Bytes of rows to which a filter is applied at once; its arrays stay in the second cache.
_STEP_BYTES = 131_072
# Cost of a difference, by its byte: its magnitude in bits, times 16. A sum of plain magnitudes makes files of
# screenshots 5 % larger, those of photos 0 to 1 %.
_COSTS = np.rint(16 * np.log2(1 + np.abs(np.arange(256).astype(np.uint8).view(np.int8).astype(float)))).astype(np.uint8)
# Cost of two differences, by their bytes as one number: half as many look-ups.
_PAIR_COSTS = np.add.outer(_COSTS, _COSTS, dtype=np.uint16).ravel()


def filter_rows(rows: Bytes, above: Bytes | None, pixel_bytes: int) -> Bytes:
    """Return rows [h, n] as [h, 1 + n]: each after the number of its filter.

    `above` is the row before the first, [1, n]; None at the top of the image, where it counts as zeros.
    """
    count, n_bytes = rows.shape
    known = np.zeros((count + 1, pixel_bytes + n_bytes), np.uint8)  # zeros count as pixels left of the image
    known[1:, pixel_bytes:] = rows
    if above is not None:
        known[:1, pixel_bytes:] = above
    neighbours = _neighbours(known[1:], known[:-1], pixel_bytes)
    chosen = _choose(*neighbours)
    filtered = np.empty((count, 1 + n_bytes), np.uint8)
    filtered[:, 0] = chosen
    step = max(1, _STEP_BYTES // n_bytes)
    for kind in np.unique(chosen).tolist():
        where = np.flatnonzero(chosen == kind)
        for rows_of_kind in (where[start : start + step] for start in range(0, len(where), step)):
            filtered[rows_of_kind, 1:] = _apply(
                kind, *_neighbours(known[rows_of_kind + 1], known[rows_of_kind], pixel_bytes)
            )
    return filtered


def _neighbours(rows: Bytes, above: Bytes, pixel_bytes: int) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Return each byte with those to its left, above it, and above left. Both arrays begin with a pixel of zeros."""
    return rows[:, pixel_bytes:], rows[:, :-pixel_bytes], above[:, pixel_bytes:], above[:, :-pixel_bytes]


def _choose(*neighbours: Bytes) -> npt.NDArray[np.intp]:
    """Return the number of the filter with the cheapest differences for each row, [h]."""
    step = next(step for min_bytes, step in _SAMPLE_STEPS if neighbours[0].shape[1] >= min_bytes)
    sample = [np.ascontiguousarray(array[:, ::step]) for array in neighbours]
    costs = [_sum_costs(_apply(kind, *sample)) for kind in range(PAETH + 1)]
    return np.argmin(costs, axis=0)


def _sum_costs(differences: Bytes) -> npt.NDArray[np.uint32]:
    """Return the cost of each row, [h]."""
    even = differences.shape[1] // 2 * 2
    pairs = _PAIR_COSTS.take(np.ascontiguousarray(differences[:, :even]).view(np.uint16)).sum(axis=1, dtype=np.uint32)
    return pairs if even == differences.shape[1] else pairs + _COSTS[differences[:, -1]]


def _apply(kind: int, byte: Bytes, left: Bytes, up: Bytes, up_left: Bytes) -> Bytes:
    """Return the differences, modulo 256."""
    if kind == NONE:
        return byte
    if kind == SUB:
        return byte - left
    if kind == UP:
        return byte - up
    return byte - (_average(left, up) if kind == AVERAGE else _predict_paeth(left, up, up_left))


def _average(left: Bytes, up: Bytes) -> Bytes:
    """Return (left + up) // 2, without the ninth bit of the sum."""
    average = left ^ up
    average >>= 1
    average += left & up
    return average


def _predict_paeth(left: Bytes, up: Bytes, up_left: Bytes) -> Bytes:
    """Return whichever of the three is closest to left + up - up_left; of equals, the first.

    `up_left` is clipped to the range of the other two: beyond it, the end that is farther from it is closest anyway.
    The distance of `low` is then `high` - `up_left`, that of `high` is `up_left` - `low`, and that of `up_left` is the
    difference of these two. So an end is closest if `up_left` is at least twice as far from it as from the other end.
    """
    low, high = np.minimum(left, up), np.maximum(left, up)
    predicted = np.maximum(up_left, low)
    np.minimum(predicted, high, out=predicted)
    above = np.subtract(high, predicted, out=high)
    below = np.subtract(predicted, low, out=low)
    half = below // 2
    takes_low = (above <= half).view(np.uint8)
    np.floor_divide(above, 2, out=half)
    takes_high = (below <= half).view(np.uint8)
    below *= takes_low
    above *= takes_high
    predicted -= below
    predicted += above
    return predicted
