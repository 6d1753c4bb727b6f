"""Window attention with relative position bias (SwinIR eq. 4), and a whole Swin layer in plain PyTorch.

`blocks` and `fused` build on this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinir.network.windows import relative_position_index, shift_mask


class PaddedHeads(NamedTuple):
    """The projections of an attention whose heads are padded with zeros to a length that is fast on the device."""

    head_dim: int
    """Length of a head, padding included."""
    qkv_weight: Tensor
    """[3 * heads * head_dim, C]"""
    qkv_bias: Tensor
    """[3 * heads * head_dim]"""
    proj_weight: Tensor
    """[C, heads * head_dim]"""


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias for each relative position (SwinIR eq. 4)."""

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embed_dim {dim} is not a multiple of {num_heads} heads")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.window_size = window_size
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self._cached: tuple[tuple[object, ...], dict[int, Tensor], PaddedHeads] | None = None

    def forward(self, x: Tensor, kinds: Sequence[tuple[int, int, int]]) -> Tensor:
        """Return [nW*N, C] for [nW*N, C] in window order; ``kinds`` lists (kind, first token, end token)."""
        attended, proj_weight = self.attend(x, kinds)
        return F.linear(attended, proj_weight, self.proj.bias)

    def attend(self, x: Tensor, kinds: Sequence[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
        """Return [nW*N, heads * head_dim] for [nW*N, C], and the weight of the last projection, not applied."""
        biases, heads = self._biases_and_heads([kind for kind, _, _ in kinds])
        area = self.window_size**2
        qkv = F.linear(x, heads.qkv_weight, heads.qkv_bias)
        q, k, v = qkv.view(-1, area, 3, self.num_heads, heads.head_dim).permute(2, 0, 3, 1, 4)
        attended = []
        for (_, first, end), bias in zip(kinds, biases, strict=True):
            span = slice(first // area, end // area)
            mask = bias.to(q.dtype).expand((end - first) // area, -1, -1, -1)
            result = F.scaled_dot_product_attention(
                q[span], k[span], v[span], attn_mask=mask, scale=self.head_dim**-0.5
            )
            attended.append(result.transpose(1, 2))
        whole = attended[0] if len(attended) == 1 else torch.cat(attended)
        return whole.reshape(-1, self.num_heads * heads.head_dim), heads.proj_weight

    def prepare(self, kinds: Sequence[int]) -> int:
        """Fill the caches for these kinds of window and return their bytes; see `SwinBlock.prepare`."""
        biases, heads = self._biases_and_heads(kinds)
        padded = (tensor for tensor in heads[1:] if not any(tensor is own for own in self.parameters()))
        return sum(tensor.nbytes for tensor in (*biases, *padded))

    def _biases_and_heads(self, kinds: Sequence[int]) -> tuple[list[Tensor], PaddedHeads]:
        """Return the biases and padded heads of the parameters; cached for inference until a parameter changes."""
        if torch.is_grad_enabled():
            return [self.make_bias(kind) for kind in kinds], self._pad_heads(self.head_dim)
        parameters = (self.relative_position_bias_table, self.qkv.weight, self.qkv.bias, self.proj.weight)
        source = tuple(parameter_version(parameter) for parameter in parameters)
        cached = self._cached  # read once and written once, because another thread may replace it
        if cached is None or source != cached[0]:
            length = padded_length(self.head_dim, self.qkv.weight.device.type)
            cached = self._cached = (source, {}, self._pad_heads(length))
        _, biases, heads = cached
        for kind in kinds:
            if kind not in biases:
                biases[kind] = self.make_bias(kind).contiguous()
        return [biases[kind] for kind in kinds], heads

    def make_bias(self, kind: int) -> Tensor:
        """Return relative position bias plus the shift mask of this kind of window: [heads, N, N]."""
        table = self.relative_position_bias_table
        index = relative_position_index(self.window_size).to(table.device)
        bias = table[index.view(-1)].view(*index.shape, -1).permute(2, 0, 1)
        if not kind:
            return bias
        return bias + shift_mask(kind, self.window_size).to(table.device, table.dtype)

    def _pad_heads(self, length: int) -> PaddedHeads:
        """Return padded heads. Zeros add nothing to query times key, and meet zero columns in the output."""
        dim, missing = self.proj.in_features, length - self.head_dim
        if not missing:
            return PaddedHeads(length, self.qkv.weight, self.qkv.bias, self.proj.weight)
        qkv_weight = F.pad(self.qkv.weight.view(3 * self.num_heads, self.head_dim, dim), (0, 0, 0, missing))
        qkv_bias = F.pad(self.qkv.bias.view(3 * self.num_heads, self.head_dim), (0, missing))
        proj_weight = F.pad(self.proj.weight.view(dim, self.num_heads, self.head_dim), (0, missing))
        return PaddedHeads(length, qkv_weight.view(-1, dim), qkv_bias.view(-1), proj_weight.view(dim, -1))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Accept the published buffer: check that it matches the window, then drop it."""
        name = f"{prefix}relative_position_index"
        index = state_dict.pop(name, None)
        if index is not None and not torch.equal(index.cpu().long(), relative_position_index(self.window_size)):
            raise RuntimeError(f"{name} does not match window {self.window_size}: shape {tuple(index.shape)}")
        super()._load_from_state_dict(state_dict, prefix, *args)


def padded_length(head_dim: int, device_type: str) -> int:
    """Return the padded length of a head that is fastest on the device.

    On a CPU 10 (lightweight) is faster as 16; 12 (compact) is faster unpadded, and 30 (classical, real) not slower:
    measured in docs/measurements/benchmarks.md ("Heads"). On other devices a multiple of 8 lets attention use its
    memory-efficient kernel.
    """
    if device_type == "cpu":
        return 16 if 8 < head_dim < 12 else head_dim
    return -(-head_dim // 8) * 8


class Mlp(nn.Module):
    """The layers of the perceptron under their published names, ``mlp.fc1`` and ``mlp.fc2``."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)


class PlainSwinBlock(nn.Module):
    """One Swin layer (SwinIR eq. 6-8) in plain PyTorch: the reference for faster forms of a block."""

    def __init__(self, dim: int, num_heads: int, window_size: int, mlp_ratio: float, *, shifted: bool) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def run_plain(self, x: Tensor, kinds: Sequence[tuple[int, int, int]]) -> Tensor:
        """Return [nW*N, C] for [nW*N, C] in window order; ``kinds`` lists (kind, first token, end token)."""
        x = x + self.attn(self.norm1(x), kinds)
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


def parameter_version(parameter: Tensor) -> tuple[object, ...]:
    """Return a value that changes whenever the parameter is written to or moved."""
    version = 0 if parameter.is_inference() else parameter._version  # noqa: SLF001 - torch's documented way to see it
    return parameter.data_ptr(), version, parameter.dtype, parameter.device
