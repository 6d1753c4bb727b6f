"""SwinIR exactly as its paper describes it, as the reference that benchmarks compare ours with.

Tokens lie in image order between blocks. Each block rolls the image, cuts it into windows, attends (matrix product,
softmax, matrix product), puts the windows back and rolls back; the shift mask is created for the training size, and
created again in every shifted block for any other size. Written from the paper (Liang et al. 2021; Liu et al. 2021 for
the windows) under the published parameter names, so that the weights of `swinir.network.swinir` load with
``strict=True``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RGB_MEAN = (0.4488, 0.4371, 0.4040)
NUM_FEAT = 64
MASKED = -100.0


def cut_windows(image: Tensor, side: int) -> Tensor:
    """[B, H, W, C] -> [B * windows, side * side, C], window by window."""
    batch, height, width, channels = image.shape
    grid = image.view(batch, height // side, side, width // side, side, channels).transpose(2, 3)
    return grid.reshape(-1, side * side, channels)


def join_windows(windows: Tensor, side: int, height: int, width: int) -> Tensor:
    """Undo `cut_windows`: [B * windows, side * side, C] -> [B, H, W, C]."""
    grid = windows.view(-1, height // side, width // side, side, side, windows.shape[-1])
    return grid.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def make_shift_mask(height: int, width: int, side: int) -> Tensor:
    """Return [windows, N, N]: 0 between pixels that are neighbours in the image, -100 between those rolled together."""
    regions = torch.zeros(1, height, width, 1)
    cuts = (slice(0, -side), slice(-side, -(side // 2)), slice(-(side // 2), None))
    for row, rows in enumerate(cuts):
        for column, columns in enumerate(cuts):
            regions[:, rows, columns] = 3 * row + column
    labels = cut_windows(regions, side).squeeze(-1)
    return torch.where(labels[:, :, None] == labels[:, None, :], 0.0, MASKED)


class PlainAttention(nn.Module):
    """Attention within windows (SwinIR eq. 4), every step a tensor operation of its own."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        positions = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        distance = positions[:, :, None] - positions[:, None, :] + window - 1  # [2, N, N], 0 .. 2 * window - 2
        index = distance[0] * (2 * window - 1) + distance[1]
        self.register_buffer("relative_position_index", index, persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """[B * windows, N, C], mask [windows, N, N] or None -> [B * windows, N, C]."""
        count, tokens, channels = windows.shape
        qkv = self.qkv(windows).reshape(count, tokens, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = (query * self.scale) @ key.transpose(-2, -1)  # [count, heads, N, N]
        index = self.get_buffer("relative_position_index")
        bias = self.relative_position_bias_table[index.flatten()].view(tokens, tokens, self.heads)
        scores = scores + bias.permute(2, 0, 1)
        if mask is not None:
            scores = scores.view(-1, len(mask), self.heads, tokens, tokens) + mask[None, :, None]
            scores = scores.view(count, self.heads, tokens, tokens)
        attended = scores.softmax(dim=-1) @ value
        return self.proj(attended.transpose(1, 2).reshape(count, tokens, channels))


class PlainBlock(nn.Module):
    """One Swin layer (SwinIR eq. 6-8) on tokens in image order."""

    def __init__(self, dim: int, heads: int, window: int, mlp_ratio: float, shift: int, img_size: int) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.trained_size = (img_size, img_size)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = PlainAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(dim, int(dim * mlp_ratio)), "fc2": nn.Linear(int(dim * mlp_ratio), dim)}
        )
        self.register_buffer(
            "attn_mask", make_shift_mask(img_size, img_size, window) if shift else None, persistent=False
        )

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, H * W, C] -> the same."""
        height, width = size
        image = self.norm1(tokens).view(-1, height, width, tokens.shape[-1])
        mask = None
        if self.shift:
            image = image.roll((-self.shift, -self.shift), dims=(1, 2))
            if size == self.trained_size:
                mask = self.get_buffer("attn_mask")
            else:
                mask = make_shift_mask(height, width, self.window).to(tokens.device)
        image = join_windows(self.attn(cut_windows(image, self.window), mask), self.window, height, width)
        if self.shift:
            image = image.roll((self.shift, self.shift), dims=(1, 2))
        tokens = tokens + image.view(tokens.shape)
        return tokens + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(tokens))))


class PlainGroup(nn.Module):
    """Residual Swin Transformer block (SwinIR eq. 5)."""

    def __init__(
        self, dim: int, depth: int, heads: int, window: int, mlp_ratio: float, resi_connection: str, img_size: int
    ) -> None:
        super().__init__()
        shifts = [0 if index % 2 == 0 else window // 2 for index in range(depth)]
        blocks = [PlainBlock(dim, heads, window, mlp_ratio, shift, img_size) for shift in shifts]
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.conv = _residual_conv(dim, resi_connection)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, H * W, C] -> the same."""
        deep = tokens
        for block in self.residual_group["blocks"].children():
            deep = block(deep, size)
        image = deep.transpose(1, 2).view(-1, deep.shape[-1], *size)
        return self.conv(image).flatten(2).transpose(1, 2) + tokens


class PlainSwinIR(nn.Module):
    """[B, in_chans, H, W] in 0..1 -> [B, in_chans, H * upscale, W * upscale]; keywords as `SwinIR`."""

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
        img_size: int = 64,
    ) -> None:
        super().__init__()
        self.upscale, self.window, self.upsampler, self.img_range = upscale, window_size, upsampler, img_range
        mean = torch.tensor(RGB_MEAN if in_chans == 3 else (0.0,) * in_chans).view(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, 1, 1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(embed_dim)})
        self.layers = nn.ModuleList(
            PlainGroup(embed_dim, depth, heads, window_size, mlp_ratio, resi_connection, img_size)
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = _residual_conv(embed_dim, resi_connection)
        self._build_reconstruction(embed_dim, in_chans)

    def _build_reconstruction(self, dim: int, channels: int) -> None:
        if self.upsampler in ("pixelshuffle", "nearest+conv"):
            self.conv_before_upsample = nn.Sequential(_conv(dim, NUM_FEAT), nn.LeakyReLU())
        if self.upsampler == "pixelshuffle":
            factors = [3] if self.upscale == 3 else [2] * round(math.log2(self.upscale))
            self.upsample = nn.Sequential()
            for factor in factors:
                self.upsample.extend([_conv(NUM_FEAT, NUM_FEAT * factor**2), nn.PixelShuffle(factor)])
        elif self.upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(_conv(dim, channels * self.upscale**2), nn.PixelShuffle(self.upscale))
        elif self.upsampler == "nearest+conv":
            self.conv_up1 = _conv(NUM_FEAT, NUM_FEAT)
            if self.upscale == 4:
                self.conv_up2 = _conv(NUM_FEAT, NUM_FEAT)
            self.conv_hr = _conv(NUM_FEAT, NUM_FEAT)
        if self.upsampler != "pixelshuffledirect":
            self.conv_last = _conv(NUM_FEAT if self.upsampler else dim, channels)

    def forward(self, images: Tensor) -> Tensor:
        """Restore the images."""
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % self.window, 0, -height % self.window), mode="reflect")
        mean = self.get_buffer("mean")
        x = (padded - mean) * self.img_range
        shallow = self.conv_first(x)
        size = (shallow.shape[2], shallow.shape[3])
        tokens = self.patch_embed["norm"](shallow.flatten(2).transpose(1, 2))
        for layer in self.layers:
            tokens = layer(tokens, size)
        image = self.norm(tokens).transpose(1, 2).view(shallow.shape)
        deep = self.conv_after_body(image) + shallow
        restored = self._reconstruct(deep, x) / self.img_range + mean
        return restored[:, :, : height * self.upscale, : width * self.upscale]

    def _reconstruct(self, deep: Tensor, x: Tensor) -> Tensor:
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(self.conv_before_upsample(deep)))
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(deep)
        if self.upsampler == "nearest+conv":
            y = self.conv_before_upsample(deep)
            for conv in [self.conv_up1, self.conv_up2] if self.upscale == 4 else [self.conv_up1]:
                y = F.leaky_relu(conv(F.interpolate(y, scale_factor=2, mode="nearest")), 0.2)
            return self.conv_last(F.leaky_relu(self.conv_hr(y), 0.2))
        return x + self.conv_last(deep)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, 1, 1)


def _residual_conv(dim: int, resi_connection: str) -> nn.Module:
    if resi_connection == "1conv":
        return _conv(dim, dim)
    between = nn.Conv2d(dim // 4, dim // 4, 1)
    return nn.Sequential(_conv(dim, dim // 4), nn.LeakyReLU(0.2), between, nn.LeakyReLU(0.2), _conv(dim // 4, dim))
