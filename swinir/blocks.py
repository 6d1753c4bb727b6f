"""The body of SwinIR: residual groups, Swin blocks, attention within windows (eq. 4-8), written for inference.

* Tokens stay in window order from block to block; one gather a block moves them to the next block's windows
  (published code rolls, partitions, reverses and rolls back: four copies).
* The windows of a shifted block fall into four kinds (inside, right edge, bottom edge, corner), and all windows of a
  kind share one mask. Windows are gathered kind by kind, so four small biases [heads, N, N] serve every image size.
* On a CPU a block is run in place over chunks of windows that fit the processor's cache; windows of one block do not
  see each other. docs/benchmarks.md tells what each of these is worth, and what was tried and left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinir import fused
from swinir.windows import KINDS, WindowOrders, relative_position_index, shift_mask

# Tokens a block handles at once on a CPU: measured in docs/benchmarks.md ("Chunk of windows").
CPU_CHUNK_TOKENS = 4096


class ResidualGroup(nn.Module):
    """Residual Swin Transformer Block (SwinIR eq. 5): Swin layers, a convolution, and the group's input added."""

    def __init__(
        self, dim: int, depth: int, num_heads: int, window_size: int, mlp_ratio: float, resi_connection: str
    ) -> None:
        super().__init__()
        self.residual_group = _BlockList(
            SwinBlock(dim, num_heads, window_size, mlp_ratio, shifted=index % 2 == 1) for index in range(depth)
        )
        self.conv = residual_conv(dim, resi_connection)

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
        self.attn = WindowAttention(dim, num_heads, window_size)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _Mlp(dim, int(dim * mlp_ratio))
        self._kept: tuple[tuple[object, ...], fused.FusedBlock] | None = None

    def forward(self, tokens: Tensor, gather: Tensor, kinds: Sequence[tuple[int, int, int]]) -> Tensor:
        """Gather ``tokens`` [B*H*W, C] into this block's window order and run the block.

        ``kinds`` lists (kind of window, first token, end token) in that order.
        """
        if not _is_served_on_cpu(tokens):
            return self._run(tokens.index_select(0, gather), kinds)
        if self._is_fused(tokens):
            return self._packed().run(tokens, gather, kinds, torch.get_num_threads())
        out = torch.empty_like(tokens)
        area = self.attn.window_size**2
        step = max(area, CPU_CHUNK_TOKENS // area * area)
        for kind, first, end in kinds:
            for a in range(first, end, step):
                b = min(a + step, end)
                self._run_in_place(torch.index_select(tokens, 0, gather[a:b], out=out[a:b]), kind)
        return out

    def prepare(self) -> int:
        """Make what serving keeps beside the parameters, for it would be made by the first images; return its bytes."""
        with torch.no_grad():
            weight = self.norm1.weight
            if _is_served_on_cpu(weight) and self._is_fused(weight):
                return self._packed().size_bytes
            return self.attn.prepare(KINDS if self.shifted else KINDS[:1])

    def _is_fused(self, tokens: Tensor) -> bool:
        return tokens.dtype == torch.float32 and self.attn.head_dim <= fused.MAX_HEAD_DIM and fused.is_available()

    def _packed(self) -> fused.FusedBlock:
        """Return the weights as the fused block wants them: kept until one of them changes."""
        source = tuple(_identify(parameter) for parameter in self.parameters())
        kept = self._kept  # read once, written once: another thread may renew it at any moment
        if kept is None or source != kept[0]:
            kept = self._kept = (source, fused.FusedBlock(self))
        return kept[1]

    def _run(self, x: Tensor, kinds: Sequence[tuple[int, int, int]]) -> Tensor:
        x = x + self.attn(self.norm1(x), kinds)
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))

    def _run_in_place(self, x: Tensor, kind: int) -> None:
        """As `_run`, with each result added to ``x`` by the matrix product that makes it."""
        attended, proj_weight = self.attn.attend(self.norm1(x), ((kind, 0, len(x)),))
        x.add_(self.attn.proj.bias).addmm_(attended, proj_weight.t())
        hidden = torch.ops.aten.gelu_(self.mlp.fc1(self.norm2(x)))
        x.add_(self.mlp.fc2.bias).addmm_(hidden, self.mlp.fc2.weight.t())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Accept the published buffer of any training side: check that it is one of this window, then drop it."""
        name, n = f"{prefix}attn_mask", self.attn.window_size**2
        mask = state_dict.pop(name, None) if self.shifted else None
        if mask is not None and tuple(mask.shape[1:]) != (n, n):
            raise RuntimeError(
                f"{name} has shape {tuple(mask.shape)}; window {self.attn.window_size} needs [*, {n}, {n}]"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class PaddedHeads(NamedTuple):
    """The projections of an attention with heads of a length that the device multiplies well; zeros fill them up."""

    head_dim: int
    qkv_weight: Tensor
    """[3 * heads * head_dim, C]"""
    qkv_bias: Tensor
    proj_weight: Tensor
    """[C, heads * head_dim]"""


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias for each relative position (SwinIR eq. 4)."""

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embed_dim {dim} is no multiple of {num_heads} heads")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.window_size = window_size
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self._kept: tuple[tuple[object, ...], dict[int, Tensor], PaddedHeads] | None = None

    def forward(self, x: Tensor, kinds: Sequence[tuple[int, int, int]]) -> Tensor:
        """[nW*N, C] window by window -> [nW*N, C]; ``kinds`` lists (kind of window, first token, end token)."""
        attended, proj_weight = self.attend(x, kinds)
        return F.linear(attended, proj_weight, self.proj.bias)

    def attend(self, x: Tensor, kinds: Sequence[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
        """Do all but the last projection: [nW*N, C] -> [nW*N, heads * head_dim], and the weight that fits it."""
        biases, heads = self._biases_and_heads([kind for kind, _, _ in kinds])
        area = self.window_size**2
        qkv = F.linear(x, heads.qkv_weight, heads.qkv_bias)
        q, k, v = qkv.view(-1, area, 3, self.num_heads, heads.head_dim).permute(2, 0, 3, 1, 4)
        attended = []
        for (_, first, end), bias in zip(kinds, biases, strict=True):
            own = slice(first // area, end // area)
            mask = bias.to(q.dtype).expand((end - first) // area, -1, -1, -1)
            made = F.scaled_dot_product_attention(q[own], k[own], v[own], attn_mask=mask, scale=self.head_dim**-0.5)
            attended.append(made.transpose(1, 2))
        whole = attended[0] if len(attended) == 1 else torch.cat(attended)
        return whole.reshape(-1, self.num_heads * heads.head_dim), heads.proj_weight

    def prepare(self, kinds: Sequence[int]) -> int:
        """As `SwinBlock.prepare`, for these kinds of window."""
        biases, heads = self._biases_and_heads(kinds)
        padded = (tensor for tensor in heads[1:] if not any(tensor is own for own in self.parameters()))
        return sum(tensor.nbytes for tensor in (*biases, *padded))

    def _biases_and_heads(self, kinds: Sequence[int]) -> tuple[list[Tensor], PaddedHeads]:
        """Return what follows from the parameters: kept when serving, until a parameter changes."""
        if torch.is_grad_enabled():
            return [self.make_bias(kind) for kind in kinds], self._pad_heads(self.head_dim)
        parameters = (self.relative_position_bias_table, self.qkv.weight, self.qkv.bias, self.proj.weight)
        source = tuple(_identify(parameter) for parameter in parameters)
        kept = self._kept  # read once, written once: another thread may renew it at any moment
        if kept is None or source != kept[0]:
            length = padded_length(self.head_dim, self.qkv.weight.device.type)
            kept = self._kept = (source, {}, self._pad_heads(length))
        _, biases, heads = kept
        for kind in kinds:
            if kind not in biases:
                biases[kind] = self.make_bias(kind).contiguous()
        return [biases[kind] for kind in kinds], heads

    def make_bias(self, kind: int) -> Tensor:
        """Relative position bias plus the shift mask of this kind of window: [heads, N, N]."""
        table = self.relative_position_bias_table
        index = relative_position_index(self.window_size).to(table.device)
        bias = table[index.view(-1)].view(*index.shape, -1).permute(2, 0, 1)
        if not kind:
            return bias
        return bias + shift_mask(kind, self.window_size).to(table.device, table.dtype)

    def _pad_heads(self, length: int) -> PaddedHeads:
        """Zeros add nothing to a product of query and key, and give outputs that meet columns of zeros."""
        dim, missing = self.proj.in_features, length - self.head_dim
        if not missing:
            return PaddedHeads(length, self.qkv.weight, self.qkv.bias, self.proj.weight)
        qkv_weight = F.pad(self.qkv.weight.view(3 * self.num_heads, self.head_dim, dim), (0, 0, 0, missing))
        qkv_bias = F.pad(self.qkv.bias.view(3 * self.num_heads, self.head_dim), (0, missing))
        proj_weight = F.pad(self.proj.weight.view(dim, self.num_heads, self.head_dim), (0, missing))
        return PaddedHeads(length, qkv_weight.view(-1, dim), qkv_bias.view(-1), proj_weight.view(dim, -1))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Accept the published buffer: check that it is what follows from the window, then drop it."""
        name = f"{prefix}relative_position_index"
        index = state_dict.pop(name, None)
        if index is not None and not torch.equal(index.cpu().long(), relative_position_index(self.window_size)):
            raise RuntimeError(f"{name} is not that of window {self.window_size}: shape {tuple(index.shape)}")
        super()._load_from_state_dict(state_dict, prefix, *args)


def padded_length(head_dim: int, device_type: str) -> int:
    """Return the length of a head that the device multiplies well.

    On a CPU 10 (lightweight) wants 16; 12 (compact) is quicker as it is and 30 (classical, real) no slower: measured in
    docs/benchmarks.md ("Heads"). Elsewhere a multiple of 8 lets attention take its memory-efficient path.
    """
    if device_type == "cpu":
        return 16 if 8 < head_dim < 12 else head_dim
    return -(-head_dim // 8) * 8


def _is_served_on_cpu(tokens: Tensor) -> bool:
    """Whether blocks may run in place, over chunks, in the tokens' own type."""
    return tokens.device.type == "cpu" and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def _identify(parameter: Tensor) -> tuple[object, ...]:
    """What changes when the parameter does."""
    version = 0 if parameter.is_inference() else parameter._version  # noqa: SLF001 - torch's documented way to see it
    return parameter.data_ptr(), version, parameter.dtype, parameter.device


class _BlockList(nn.Module):
    """Holds the blocks under their published name, ``residual_group.blocks``."""

    def __init__(self, blocks: Iterable[SwinBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class _Mlp(nn.Module):
    """Holds the perceptron's layers under their published names, ``mlp.fc1`` and ``mlp.fc2``."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)


class Convolution(nn.Conv2d):
    """A convolution that stays in float32 where the rest of the network runs in bfloat16.

    Convolutions carry the image itself past the blocks: in bfloat16 they are most of what its pictures are off by
    (57 dB from float32's, 71 dB so), and in float32 they cost 0 to 5 % of the time (docs/gpu.md).
    """

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W'], float32 under autocast, else in the type given."""
        if not torch.is_autocast_enabled(images.device.type):
            return super().forward(images)
        with torch.autocast(images.device.type, enabled=False):
            return super().forward(images.float())


def residual_conv(dim: int, resi_connection: str) -> nn.Module:
    """Return the convolution that ends a group and the body; "3conv" is that of the large networks."""
    if resi_connection == "1conv":
        return Convolution(dim, dim, 3, 1, 1)
    if resi_connection == "3conv":
        return nn.Sequential(
            Convolution(dim, dim // 4, 3, 1, 1),
            nn.LeakyReLU(0.2),
            Convolution(dim // 4, dim // 4, 1, 1, 0),
            nn.LeakyReLU(0.2),
            Convolution(dim // 4, dim, 3, 1, 1),
        )
    raise ValueError(f"resi_connection is {resi_connection!r}; it must be '1conv' or '3conv'")
