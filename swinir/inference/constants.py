"""Small constant tensors on a device, each copied to it once: a CUDA graph cannot record a copy from the host."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.cache  # a handful: graphs read them at the same address in each run
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return float32 [len(values)], or a tensor without dimensions for a single value. Do not change it."""
    with torch.inference_mode(mode=False):
        return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float32, device=device)
