"""The geometry of attention windows: the order of tokens, and which tokens attend to each other. Holds no weights.

A shifted block has four kinds of windows (inside, right edge, bottom edge, corner). All windows of a kind share one
mask, so windows are ordered kind by kind and four masks [N, N] serve every image size. Imports no torch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Kinds of shifted windows: bit 0 = at the right edge, bit 1 = at the bottom. Windows that are not shifted have kind 0.
KINDS = (0, 1, 2, 3)

Index = npt.NDArray[np.int64]


class TokenOrders(NamedTuple):
    """The orders of the tokens of one batch size and image size."""

    gather: Mapping[tuple[str, str], Index]
    """(current order, target order) -> int64 [B*H*W] such that ``tokens[gather]`` has the target order."""
    kinds: Mapping[str, tuple[tuple[int, int, int], ...]]
    """Order -> (kind of window, first token, end token) for each kind."""


@functools.lru_cache(maxsize=16)  # a service sees few tile shapes; an entry of a 256x256 tile is 1 MB
def order_image(batch: int, height: int, width: int, window: int) -> TokenOrders:
    """Return the orders to which [B, H, W] tokens of an image are gathered; H and W are multiples of the window."""
    plain, plain_kinds = _order(batch, height, width, window, shift=0)
    shifted, shifted_kinds = _order(batch, height, width, window, shift=window // 2)
    gather = {("image", "plain"): plain, ("image", "shifted"): shifted}
    return TokenOrders(gather, {"plain": plain_kinds, "shifted": shifted_kinds})


@functools.lru_cache(maxsize=16)  # an entry of a 256x256 tile is 2 MB more than that of `order_image`
def order_windows(batch: int, height: int, width: int, window: int) -> TokenOrders:
    """Return the orders of [B, H, W] tokens; H and W are multiples of the window."""
    orders = order_image(batch, height, width, window)
    plain, shifted = orders.gather["image", "plain"], orders.gather["image", "shifted"]
    inverse_plain, inverse_shifted = _invert(plain), _invert(shifted)
    gather = {
        **orders.gather,
        ("plain", "shifted"): inverse_plain[shifted],
        ("shifted", "plain"): inverse_shifted[plain],
        ("plain", "image"): inverse_plain,
        ("shifted", "image"): inverse_shifted,
    }
    return orders._replace(gather=gather)


def _invert(order: Index) -> Index:
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return inverse


def _order(
    batch: int, height: int, width: int, window: int, *, shift: int
) -> tuple[Index, tuple[tuple[int, int, int], ...]]:
    tokens = np.arange(batch * height * width, dtype=np.int64).reshape(batch, height, width)
    tokens = np.roll(tokens, (-shift, -shift), axis=(1, 2))
    windows = tokens.reshape(batch, height // window, window, width // window, window).transpose(0, 1, 3, 2, 4)
    if not shift:
        return windows.reshape(-1), ((0, 0, batch * height * width),)
    # The roll wraps the last row and column of windows: only those hold pixels that are not neighbours.
    parts = [windows[:, :-1, :-1], windows[:, :-1, -1:], windows[:, -1:, :-1], windows[:, -1:, -1:]]
    kinds, first = [], 0
    for kind, part in enumerate(parts):
        if part.size:
            kinds.append((kind, first, first + part.size))
            first += part.size
    return np.concatenate([part.reshape(-1) for part in parts]), tuple(kinds)


@functools.cache
def position_index(window: int) -> Index:
    """Return the row of the bias table for each pair of positions in a window: int64 [N, N], as in Swin Transformer."""
    ys, xs = (each.reshape(-1) for each in np.mgrid[:window, :window])
    down = ys[:, None] - ys[None, :] + window - 1
    right = xs[:, None] - xs[None, :] + window - 1
    return np.asarray(down * (2 * window - 1) + right, np.int64)


@functools.cache
def edge_mask(kind: int, window: int) -> npt.NDArray[np.float32]:
    """Return -100 between pixels that only the roll made neighbours, else 0: float32 [N, N], as published."""
    wrapped = np.arange(window) >= window - window // 2
    columns = wrapped if kind & 1 else np.zeros(window, bool)
    rows = wrapped if kind & 2 else np.zeros(window, bool)
    region = (rows[:, None] * 2 + columns[None, :]).reshape(-1)
    return np.where(region[:, None] == region[None, :], 0.0, -100.0).astype(np.float32)
