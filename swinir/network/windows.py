"""The geometry of attention windows: the order of tokens, and which tokens attend to each other. Holds no weights.

A shifted block has four kinds of windows (inside, right edge, bottom edge, corner). All windows of a kind share one
mask, so windows are ordered kind by kind and four masks [N, N] serve every image size.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

# Kinds of shifted windows: bit 0 = at the right edge, bit 1 = at the bottom. Windows that are not shifted have kind 0.
KINDS = (0, 1, 2, 3)


class WindowOrders(NamedTuple):
    """The orders of the tokens of one batch size and image size."""

    gather: Mapping[tuple[str, str], Tensor]
    """(current order, target order) -> int64 [B*H*W] such that ``tokens[gather]`` has the target order."""
    kinds: Mapping[str, tuple[tuple[int, int, int], ...]]
    """Order -> (kind of window, first token, end token) for each kind."""


@functools.lru_cache(maxsize=16)  # a service sees few tile shapes; an entry of a 256x256 tile is 3 MB
def window_orders(batch: int, height: int, width: int, window: int, device: torch.device) -> WindowOrders:
    """Return the orders of [B, H, W] tokens; H and W are multiples of the window."""
    with torch.inference_mode(mode=False):  # a cached tensor may meet autograd later
        plain, plain_kinds = _order(batch, height, width, window, shift=0)
        shifted, shifted_kinds = _order(batch, height, width, window, shift=window // 2)
        inverse_plain, inverse_shifted = plain.argsort(), shifted.argsort()
        gather = {
            ("image", "plain"): plain,
            ("plain", "shifted"): inverse_plain[shifted],
            ("shifted", "plain"): inverse_shifted[plain],
            ("plain", "image"): inverse_plain,
            ("shifted", "image"): inverse_shifted,
        }
        gather = {names: index.to(device) for names, index in gather.items()}
    return WindowOrders(gather, {"plain": plain_kinds, "shifted": shifted_kinds})


def _order(
    batch: int, height: int, width: int, window: int, *, shift: int
) -> tuple[Tensor, tuple[tuple[int, int, int], ...]]:
    tokens = torch.arange(batch * height * width).view(batch, height, width)
    tokens = tokens.roll((-shift, -shift), dims=(1, 2))
    windows = tokens.view(batch, height // window, window, width // window, window).permute(0, 1, 3, 2, 4)
    if not shift:
        return windows.reshape(-1), ((0, 0, batch * height * width),)
    # The roll wraps the last row and column of windows: only those hold pixels that are not neighbours.
    parts = [windows[:, :-1, :-1], windows[:, :-1, -1:], windows[:, -1:, :-1], windows[:, -1:, -1:]]
    kinds, first = [], 0
    for kind, part in enumerate(parts):
        if part.numel():
            kinds.append((kind, first, first + part.numel()))
            first += part.numel()
    return torch.cat([part.reshape(-1) for part in parts]), tuple(kinds)


@functools.cache
def relative_position_index(window: int) -> Tensor:
    """Return the row of the bias table for each pair of positions in a window: int64 [N, N], as in Swin Transformer."""
    with torch.inference_mode(mode=False):
        ys, xs = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        ys, xs = ys.reshape(-1), xs.reshape(-1)
        down = ys[:, None] - ys[None, :] + window - 1
        right = xs[:, None] - xs[None, :] + window - 1
        return down * (2 * window - 1) + right


@functools.cache
def shift_mask(kind: int, window: int) -> Tensor:
    """Return -100 between pixels that only the roll made neighbours, else 0: float32 [N, N], as published."""
    with torch.inference_mode(mode=False):
        wrapped = torch.arange(window) >= window - window // 2
        columns = wrapped if kind & 1 else torch.zeros(window, dtype=torch.bool)
        rows = wrapped if kind & 2 else torch.zeros(window, dtype=torch.bool)
        region = (rows.long()[:, None] * 2 + columns.long()[None, :]).reshape(-1)
        return torch.where(region[:, None] == region[None, :], 0.0, -100.0)
