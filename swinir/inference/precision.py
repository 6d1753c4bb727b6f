"""Chooses the precision in which PyTorch's networks run: float32, or bfloat16 where it is quicker and close enough."""

from __future__ import annotations

import numpy as np
import torch

from swinir.inference.bfloat16 import Floats, chooses_bfloat16
from swinir.network import fused
from swinir.network.swinir import SwinIR
from swinir.settings import Precision


def choose_autocast(device: torch.device, precision: Precision) -> torch.dtype:
    """Return the dtype for `torch.autocast` on a device: on a CPU always float32, its blocks have their own precision.

    On a GPU bfloat16 where it is supported; never float16, because SwinIR's activations overflow float16 and whole
    tiles turn black (SwinIR issues 103 and 180).
    """
    if device.type != "cuda" or precision == "float32":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32


def set_block_precision(network: SwinIR, name: str, precision: Precision) -> None:
    """Set the precision of a network's fused blocks on a CPU: bfloat16 where `chooses_bfloat16` takes it."""

    def run(images: Floats, in_bfloat16: bool) -> Floats:  # noqa: FBT001 - as RunIn
        return run_in(network, images, in_bfloat16=in_bfloat16)

    if fused.is_available() and chooses_bfloat16(name, network.in_chans, precision, run):
        network.set_fused_precision(torch.bfloat16)


@torch.inference_mode()
def run_in(network: SwinIR, images: Floats, *, in_bfloat16: bool) -> Floats:
    """Return the output of a network for images [N, H, W, C], its fused blocks in bfloat16 or float32.

    Leaves the blocks in float32.
    """
    network.set_fused_precision(torch.bfloat16 if in_bfloat16 else torch.float32)
    output = network(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    network.set_fused_precision(torch.float32)
    return np.ascontiguousarray(output.numpy())
