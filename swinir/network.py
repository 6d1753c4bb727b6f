"""SwinIR, whole, written for inference; the geometry of its windows is in `windows`.

The network of Liang et al., "SwinIR: Image Restoration Using Swin Transformer" (2021), under the published parameter
names, so that published checkpoints load with ``strict=True``. What differs is the order of the work, never its result:

* Tokens stay in window order from block to block; one gather a block moves them to the next block's windows
  (published code rolls, partitions, reverses and rolls back: four copies).
* The windows of a shifted block fall into four kinds (inside, right edge, bottom edge, corner), and all windows of a
  kind share one mask. Windows are gathered kind by kind, so four small biases [heads, N, N] serve every image size.
* A block is run over chunks of windows that fit the processor's cache; windows of one block do not see each other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinir.windows import WindowOrders, relative_position_index, shift_mask, window_orders

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, subtracted from RGB input by the published code
NUM_FEAT = 64  # channels of the reconstruction of "pixelshuffle" and "nearest+conv"
UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect", "nearest+conv", "")
# Tokens a block handles at once on a CPU: measured in docs/benchmarks.md ("Chunk of windows").
CPU_CHUNK_TOKENS = 4096
# Buffers of the published state dict that follow from the configuration; checked on load, then dropped.
DERIVED_BUFFERS = ("attn_mask", "relative_position_index")


class SwinIR(nn.Module):
    """The network: [B, in_chans, H, W] float in 0..1 -> [B, in_chans, H * upscale, W * upscale] float, not clamped.

    Sides that are no multiple of the window are padded by reflection and cropped after, as in the published code.
    """

    def __init__(
        self,
        *,
        upscale: int,
        depths: Sequence[int],
        embed_dim: int,
        num_heads: Sequence[int],
        window_size: int,
        upsampler: str,
        mlp_ratio: float = 2.0,
        in_chans: int = 3,
        img_range: float = 1.0,
        resi_connection: str = "1conv",
    ) -> None:
        super().__init__()
        if upsampler not in UPSAMPLERS:
            raise ValueError(f"upsampler is {upsampler!r}; it must be one of {', '.join(map(repr, UPSAMPLERS))}")
        if len(depths) != len(num_heads):
            raise ValueError(f"depths names {len(depths)} groups but num_heads names {len(num_heads)}; they must agree")
        self.upscale = upscale
        self.window_size = window_size
        self.upsampler = upsampler
        self.img_range = float(img_range)
        self.in_chans = in_chans

        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, 1, 1)
        self.patch_embed = _PatchEmbed(embed_dim)
        self.layers = nn.ModuleList(
            ResidualGroup(embed_dim, depth, heads, window_size, mlp_ratio, resi_connection)
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = _residual_conv(embed_dim, resi_connection)
        self._build_reconstruction(embed_dim)

    def _build_reconstruction(self, embed_dim: int) -> None:
        if self.upsampler == "pixelshuffle":
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, NUM_FEAT, 3, 1, 1), nn.LeakyReLU())
            self.upsample: nn.Module = _pixel_shuffle_steps(self.upscale)
            self.conv_last = nn.Conv2d(NUM_FEAT, self.in_chans, 3, 1, 1)
        elif self.upsampler == "pixelshuffledirect":
            channels = self.in_chans * self.upscale**2
            self.upsample = nn.Sequential(nn.Conv2d(embed_dim, channels, 3, 1, 1), nn.PixelShuffle(self.upscale))
        elif self.upsampler == "nearest+conv":
            if self.upscale not in (2, 4):
                raise ValueError(f"upsampler 'nearest+conv' has scale 2 or 4, not {self.upscale}")
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, NUM_FEAT, 3, 1, 1), nn.LeakyReLU())
            self.conv_up1 = nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, 1, 1)
            if self.upscale == 4:
                self.conv_up2 = nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, 1, 1)
            self.conv_hr = nn.Conv2d(NUM_FEAT, NUM_FEAT, 3, 1, 1)
            self.conv_last = nn.Conv2d(NUM_FEAT, self.in_chans, 3, 1, 1)
        else:
            self.conv_last = nn.Conv2d(embed_dim, self.in_chans, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> [B, in_chans, H * upscale, W * upscale], same dtype and device."""
        height, width = images.shape[-2:]
        x = pad_to_window(images, self.window_size)
        mean = _mean(self.in_chans, x.device, x.dtype)
        x = (x - mean) * self.img_range if mean is not None else x * self.img_range
        x = x.contiguous(memory_format=torch.channels_last)  # tokens [B, H, W, C] are then views, not copies

        shallow = self.conv_first(x)
        deep = self.conv_after_body(self._deep_features(shallow)) + shallow
        x = self._reconstruct(deep, x)

        x = x / self.img_range
        if mean is not None:
            x = x + mean
        return x[:, :, : height * self.upscale, : width * self.upscale]

    def _deep_features(self, shallow: Tensor) -> Tensor:
        batch, channels, height, width = shallow.shape
        orders = window_orders(batch, height, width, self.window_size, shallow.device)
        tokens = shallow.permute(0, 2, 3, 1).reshape(-1, channels)  # [B*H*W, C], in image order
        tokens = self.patch_embed.norm(tokens)
        for layer in self.layers:
            tokens = layer(tokens, orders, (batch, height, width))
        tokens = self.norm(tokens)
        return tokens.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _reconstruct(self, deep: Tensor, network_input: Tensor) -> Tensor:
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(self.conv_before_upsample(deep)))
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(deep)
        if self.upsampler == "nearest+conv":
            x = self.conv_before_upsample(deep)
            x = F.leaky_relu(self.conv_up1(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
            if self.upscale == 4:
                x = F.leaky_relu(self.conv_up2(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
            return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))
        return network_input + self.conv_last(deep)


class ResidualGroup(nn.Module):
    """Residual Swin Transformer Block (SwinIR eq. 5): Swin layers, a convolution, and the group's input added."""

    def __init__(
        self, dim: int, depth: int, num_heads: int, window_size: int, mlp_ratio: float, resi_connection: str
    ) -> None:
        super().__init__()
        self.residual_group = _BlockList(
            SwinBlock(dim, num_heads, window_size, mlp_ratio, shifted=index % 2 == 1) for index in range(depth)
        )
        self.conv = _residual_conv(dim, resi_connection)

    def forward(self, tokens: Tensor, orders: WindowOrders, size: tuple[int, int, int]) -> Tensor:
        """[B*H*W, C] in image order -> the same."""
        batch, height, width = size
        x, current = tokens, "image"
        for block in self.residual_group.blocks:
            wanted = "shifted" if block.shifted else "plain"
            x = block(x, orders.gather[current, wanted], orders.kinds[wanted])
            current = wanted
        x = x.index_select(0, orders.gather[current, "image"])
        x = self.conv(x.view(batch, height, width, -1).permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1).reshape(tokens.shape) + tokens


class SwinBlock(nn.Module):
    """One Swin layer (SwinIR eq. 6-8): window attention and a two-layer perceptron, each with its input added."""

    def __init__(self, dim: int, num_heads: int, window_size: int, mlp_ratio: float, *, shifted: bool) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size, shifted=shifted)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _Mlp(dim, int(dim * mlp_ratio))

    def forward(self, tokens: Tensor, gather: Tensor, kinds: Sequence[tuple[int, int, int]]) -> Tensor:
        """Gather ``tokens`` [B*H*W, C] into this block's window order and run the block.

        ``kinds`` lists (kind of window, first token, end token) in that order.
        """
        if torch.is_grad_enabled():
            runs = [self._run(tokens.index_select(0, gather[a:b]), self.attn.bias(kind)) for kind, a, b in kinds]
            return torch.cat(runs)
        out = torch.empty_like(tokens)
        area = self.attn.window_size**2
        step = max(area, CPU_CHUNK_TOKENS // area * area) if tokens.device.type == "cpu" else tokens.shape[0]
        for kind, first, end in kinds:
            bias = self.attn.bias(kind)
            for a in range(first, end, step):
                b = min(a + step, end)
                out[a:b] = self._run(tokens.index_select(0, gather[a:b]), bias)
        return out

    def _run(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), bias)
        return x + self.mlp(self.norm2(x))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Accept the published buffer of any training side: check that it is one of this window, then drop it."""
        name, n = f"{prefix}attn_mask", self.attn.window_size**2
        mask = state_dict.pop(name, None) if self.shifted else None
        if mask is not None and tuple(mask.shape[1:]) != (n, n):
            raise RuntimeError(
                f"{name} has shape {tuple(mask.shape)}; window {self.attn.window_size} needs [*, {n}, {n}]"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias for each relative position (SwinIR eq. 4)."""

    def __init__(self, dim: int, num_heads: int, window_size: int, *, shifted: bool) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embed_dim {dim} is no multiple of {num_heads} heads")
        self.num_heads = num_heads
        self.window_size = window_size
        self.shifted = shifted
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self._bias_cache: dict[int, Tensor] = {}
        self._bias_source: tuple[object, ...] = ()

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[nW*N, C] window by window, ``bias`` [heads, N, N] -> [nW*N, C]."""
        channels = x.shape[-1]
        n = self.window_size**2
        q, k, v = self.qkv(x).view(-1, n, 3, self.num_heads, channels // self.num_heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(q.shape[0], -1, -1, -1))
        return self.proj(attended.transpose(1, 2).reshape(-1, channels))

    def bias(self, kind: int) -> Tensor:
        """Relative position bias plus the shift mask of this kind of window: [heads, N, N], cached when serving."""
        table = self.relative_position_bias_table
        if torch.is_grad_enabled():
            return self._make_bias(kind)
        version = 0 if table.is_inference() else table._version  # noqa: SLF001 - torch's documented way to see an update
        source = (table.data_ptr(), version, table.dtype, table.device)
        if source != self._bias_source:
            self._bias_cache, self._bias_source = {}, source
        if kind not in self._bias_cache:
            self._bias_cache[kind] = self._make_bias(kind).contiguous()
        return self._bias_cache[kind]

    def _make_bias(self, kind: int) -> Tensor:
        table = self.relative_position_bias_table
        index = relative_position_index(self.window_size).to(table.device)
        bias = table[index.view(-1)].view(*index.shape, -1).permute(2, 0, 1)
        if not kind:
            return bias
        return bias + shift_mask(kind, self.window_size).to(table.device, table.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Accept the published buffer: check that it is what follows from the window, then drop it."""
        name = f"{prefix}relative_position_index"
        index = state_dict.pop(name, None)
        if index is not None and not torch.equal(index.cpu().long(), relative_position_index(self.window_size)):
            raise RuntimeError(f"{name} is not that of window {self.window_size}: shape {tuple(index.shape)}")
        super()._load_from_state_dict(state_dict, prefix, *args)


def pad_to_window(images: Tensor, window: int) -> Tensor:
    """Pad right and bottom to the next multiple: by reflection up to side - 1, what is left by the last pixel."""
    for dim, side in ((-1, images.shape[-1]), (-2, images.shape[-2])):
        missing = -side % window
        reflected = min(missing, side - 1)
        for amount, mode in ((reflected, "reflect"), (missing - reflected, "replicate")):
            if amount:
                images = F.pad(images, (0, amount, 0, 0) if dim == -1 else (0, 0, 0, amount), mode=mode)
    return images


@functools.lru_cache(maxsize=16)
def _mean(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    if channels != len(RGB_MEAN):
        return None
    with torch.inference_mode(mode=False):
        return torch.tensor(RGB_MEAN, device=device, dtype=dtype).view(1, -1, 1, 1)


class _PatchEmbed(nn.Module):
    """Holds the norm under its published name, ``patch_embed.norm``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)


class _BlockList(nn.Module):
    """Holds the blocks under their published name, ``residual_group.blocks``."""

    def __init__(self, blocks: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class _Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def _residual_conv(dim: int, resi_connection: str) -> nn.Module:
    if resi_connection == "1conv":
        return nn.Conv2d(dim, dim, 3, 1, 1)
    if resi_connection == "3conv":
        return nn.Sequential(
            nn.Conv2d(dim, dim // 4, 3, 1, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(dim // 4, dim // 4, 1, 1, 0),
            nn.LeakyReLU(0.2),
            nn.Conv2d(dim // 4, dim, 3, 1, 1),
        )
    raise ValueError(f"resi_connection is {resi_connection!r}; it must be '1conv' or '3conv'")


def _pixel_shuffle_steps(upscale: int) -> nn.Sequential:
    if upscale == 3:
        return nn.Sequential(nn.Conv2d(NUM_FEAT, 9 * NUM_FEAT, 3, 1, 1), nn.PixelShuffle(3))
    steps = math.log2(upscale) if upscale > 0 else 0.5
    if steps != int(steps):
        raise ValueError(f"upsampler 'pixelshuffle' has scale 3 or a power of two, not {upscale}")
    layers: list[nn.Module] = []
    for _ in range(int(steps)):
        layers += [nn.Conv2d(NUM_FEAT, 4 * NUM_FEAT, 3, 1, 1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)
