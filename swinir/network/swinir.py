"""SwinIR, written for inference: pixels to tokens, through the groups of `blocks`, and back to pixels.

The network of Liang et al., "SwinIR: Image Restoration Using Swin Transformer" (2021), under the published parameter
names, so that published checkpoints load with ``strict=True``. Only the order of the work differs from the
published code, not the result.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinir.network.blocks import Convolution, ResidualGroup, SwinBlock, residual_conv
from swinir.network.shapes import NUM_FEAT, RGB_MEAN, UPSAMPLERS
from swinir.network.windows import WindowOrders, window_orders

# Buffers of the published state dict that follow from the configuration; checked on load, then dropped.
DERIVED_BUFFERS = ("attn_mask", "relative_position_index")


class SwinIR(nn.Module):
    """The network: [B, in_chans, H, W] float in 0..1 -> [B, in_chans, H * upscale, W * upscale] float, not clamped.

    Sides that are not multiples of the window are padded by reflection and cropped after, as in the published code.
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

        self.conv_first = Convolution(in_chans, embed_dim, 3, 1, 1)
        self.patch_embed = _PatchEmbed(embed_dim)
        self.layers = nn.ModuleList(
            ResidualGroup(embed_dim, depth, heads, window_size, mlp_ratio, resi_connection)
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = residual_conv(embed_dim, resi_connection)
        self._build_reconstruction(embed_dim)

    def _build_reconstruction(self, embed_dim: int) -> None:
        if self.upsampler == "pixelshuffle":
            self.conv_before_upsample = nn.Sequential(Convolution(embed_dim, NUM_FEAT, 3, 1, 1), nn.LeakyReLU())
            self.upsample: nn.Module = _pixel_shuffle_steps(self.upscale)
            self.conv_last = Convolution(NUM_FEAT, self.in_chans, 3, 1, 1)
        elif self.upsampler == "pixelshuffledirect":
            channels = self.in_chans * self.upscale**2
            self.upsample = nn.Sequential(Convolution(embed_dim, channels, 3, 1, 1), nn.PixelShuffle(self.upscale))
        elif self.upsampler == "nearest+conv":
            if self.upscale not in (2, 4):
                raise ValueError(f"upsampler 'nearest+conv' has scale 2 or 4, not {self.upscale}")
            self.conv_before_upsample = nn.Sequential(Convolution(embed_dim, NUM_FEAT, 3, 1, 1), nn.LeakyReLU())
            self.conv_up1 = Convolution(NUM_FEAT, NUM_FEAT, 3, 1, 1)
            if self.upscale == 4:
                self.conv_up2 = Convolution(NUM_FEAT, NUM_FEAT, 3, 1, 1)
            self.conv_hr = Convolution(NUM_FEAT, NUM_FEAT, 3, 1, 1)
            self.conv_last = Convolution(NUM_FEAT, self.in_chans, 3, 1, 1)
        else:
            self.conv_last = Convolution(embed_dim, self.in_chans, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, in_chans, H * upscale, W * upscale] for [B, in_chans, H, W], same dtype and device."""
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

    def set_fused_precision(self, precision: torch.dtype) -> None:
        """Set the precision of the fused blocks: torch.float32, or torch.bfloat16 if `library.has_bfloat16`."""
        for block in self._blocks():
            block.fused_precision = precision

    def prepare(self) -> int:
        """Create all caches of the weights; return the bytes of caches and parameters."""
        return sum(each.nbytes for each in self.parameters()) + sum(block.prepare() for block in self._blocks())

    def _blocks(self) -> Iterator[SwinBlock]:
        return (module for module in self.modules() if isinstance(module, SwinBlock))

    def orders_of(self, images: Tensor) -> WindowOrders:
        """Return the orders of tokens that a pass of these images [B, in_chans, H, W] uses, from their cache."""
        height, width = (-(-side // self.window_size) * self.window_size for side in images.shape[2:])
        return window_orders(len(images), height, width, self.window_size, images.device)

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


def pad_to_window(images: Tensor, window: int) -> Tensor:
    """Pad right and bottom to the next multiple of the window: by reflection up to side - 1, then by the last pixel."""
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
    """The norm under its published name, ``patch_embed.norm``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)


def _pixel_shuffle_steps(upscale: int) -> nn.Sequential:
    if upscale == 3:
        return nn.Sequential(Convolution(NUM_FEAT, 9 * NUM_FEAT, 3, 1, 1), nn.PixelShuffle(3))
    steps = math.log2(upscale) if upscale > 0 else 0.5
    if steps != int(steps):
        raise ValueError(f"upsampler 'pixelshuffle' has scale 3 or a power of two, not {upscale}")
    layers: list[nn.Module] = []
    for _ in range(int(steps)):
        layers += [Convolution(NUM_FEAT, 4 * NUM_FEAT, 3, 1, 1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)
