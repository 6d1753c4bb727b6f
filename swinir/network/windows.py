"""The geometry of `window_order` as tensors on a device."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from swinir.network.window_order import edge_mask, order_windows, position_index


class WindowOrders(NamedTuple):
    """The orders of the tokens of one batch size and image size, as in `window_order.TokenOrders`."""

    gather: Mapping[tuple[str, str], Tensor]
    """(current order, target order) -> int64 [B*H*W] such that ``tokens[gather]`` has the target order."""
    kinds: Mapping[str, tuple[tuple[int, int, int], ...]]
    """Order -> (kind of window, first token, end token) for each kind."""


@functools.lru_cache(maxsize=16)  # as in `order_windows`
def window_orders(batch: int, height: int, width: int, window: int, device: torch.device) -> WindowOrders:
    """Return the orders of [B, H, W] tokens; H and W are multiples of the window."""
    orders = order_windows(batch, height, width, window)
    with torch.inference_mode(mode=False):  # a cached tensor may meet autograd later
        gather = {names: torch.from_numpy(index).to(device) for names, index in orders.gather.items()}
    return WindowOrders(gather, orders.kinds)


@functools.cache
def relative_position_index(window: int) -> Tensor:
    """Return the row of the bias table for each pair of positions in a window: int64 [N, N], as in Swin Transformer."""
    with torch.inference_mode(mode=False):
        return torch.from_numpy(position_index(window))


@functools.cache
def shift_mask(kind: int, window: int) -> Tensor:
    """Return -100 between pixels that only the roll made neighbours, else 0: float32 [N, N], as published."""
    with torch.inference_mode(mode=False):
        return torch.from_numpy(edge_mask(kind, window))
