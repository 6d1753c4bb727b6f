"""The forward pass for training: images of one size, all windows of a block at once, attention written out.

`swinir.network` is written for inference, where windows of a kind share a mask; under autograd that is slower. With
`fused`, blocks run in `training.swin_block` with such products instead of PyTorch's operators; docs/how-to/train.md has
the speeds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from swinir.network.shapes import RGB_MEAN
from swinir.network.swinir import SwinIR
from swinir.network.windows import relative_position_index
from training import swin_block


class TrainingForward:
    """Callable [B, C, H, W] -> [B, C, H * scale, W * scale]; H and W are `side` pixels, a multiple of the window."""

    def __init__(self, network: SwinIR, side: int, *, fused: swin_block.Products | None = None) -> None:
        window = network.window_size
        if side % window:
            raise ValueError(f"Crops of {side} pixels do not fit windows of {window}; use a multiple of {window}.")
        device = network.conv_first.weight.device
        self._network = network
        self._fused = fused
        self._index = relative_position_index(window).view(-1).to(device)
        self._mask = _mask(side, window).to(device)
        mean = RGB_MEAN if network.in_chans == len(RGB_MEAN) else (0.0,)
        self._mean = torch.tensor(mean, device=device).view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """[B, C, H, W] of 0..1 -> [B, C, H * scale, W * scale]."""
        net = self._network
        x = (images - self._mean) * net.img_range
        shallow = net.conv_first(x)
        tokens = net.patch_embed.norm(shallow.permute(0, 2, 3, 1))
        for layer in net.layers:
            tokens = self._group(layer, tokens)
        deep = net.conv_after_body(net.norm(tokens).permute(0, 3, 1, 2)) + shallow
        out = net.upsample(deep) if net.upsampler else x + net.conv_last(deep)
        return out / net.img_range + self._mean

    def _group(self, layer: Any, tokens: Tensor) -> Tensor:
        x = tokens
        for block in layer.residual_group.blocks:
            if self._fused:
                x = swin_block.run_block(block, x, self._position_bias(block.attn), self._fused)
            else:
                x = x + self._attention(block, block.norm1(x))
                x = x + block.mlp.fc2(functional.gelu(block.mlp.fc1(block.norm2(x))))
        return layer.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + tokens

    def _position_bias(self, attn: Any) -> Tensor:
        """The bias of each pair of positions of a window, [heads, N, N]."""
        n = attn.window_size**2
        bias: Tensor = attn.relative_position_bias_table[self._index].view(n, n, -1).permute(2, 0, 1)
        return bias

    def _attention(self, block: Any, x: Tensor) -> Tensor:
        attn, (b, h, w, c) = block.attn, x.shape
        s, n = attn.window_size, attn.window_size**2
        if block.shifted:
            x = x.roll((-(s // 2), -(s // 2)), dims=(1, 2))
        x = x.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, n, c)
        q, k, v = attn.qkv(x).view(-1, n, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
        scores = (q * attn.head_dim**-0.5) @ k.transpose(-2, -1)
        scores = scores.view(b, -1, attn.num_heads, n, n) + self._position_bias(attn)
        if block.shifted:
            scores = scores + self._mask[:, None]
        scores = scores.softmax(-1).view(-1, attn.num_heads, n, n)
        x = attn.proj((scores @ v).transpose(1, 2).reshape(-1, n, c))
        x = x.view(b, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return x.roll((s // 2, s // 2), dims=(1, 2)) if block.shifted else x


def _mask(side: int, window: int) -> Tensor:
    """-100 between pixels that are neighbours only after the roll, else 0: float32 [windows, N, N]."""
    region = torch.zeros(side)
    region[-window:], region[-(window // 2) :] = 1, 2
    regions = region[:, None] * 3 + region[None]
    regions = regions.view(side // window, window, side // window, window).permute(0, 2, 1, 3)
    regions = regions.reshape(-1, window**2)
    return torch.where(regions[:, None] == regions[:, :, None], 0.0, -100.0)
