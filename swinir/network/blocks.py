"""The body of SwinIR: residual groups and Swin blocks (eq. 5-8), written for inference.

* Tokens stay in window order from block to block; one gather per block moves them to the next block's windows (the
  published code rolls, partitions, reverses and rolls back: four copies).
* The windows of a shifted block fall into four kinds (inside, right edge, bottom edge, corner), and all windows of a
  kind share one mask. Windows are gathered kind by kind, so four small biases [heads, N, N] serve every image size.
* On a CPU a block runs in place over chunks of windows that fit the processor's cache; windows of one block do not
  depend on each other. docs/measurements/benchmarks.md has the gain of each of these, and what was tried and dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from swinir.network import fused
from swinir.network.attention import PlainSwinBlock, parameter_version
from swinir.network.cuda.block import KernelBlock
from swinir.network.packing import MAX_HEAD_DIM
from swinir.network.window_order import KINDS
from swinir.network.windows import WindowOrders

# Tokens a block handles at once on a CPU: measured in docs/measurements/benchmarks.md ("Chunk of windows").
CPU_CHUNK_TOKENS = 4096


_thread = threading.local()


@contextmanager
def blocks_in_float32() -> Iterator[None]:
    """Run the fused blocks of this thread in float32 although their precision is bfloat16."""
    _thread.in_float32 = True
    try:
        yield
    finally:
        _thread.in_float32 = False


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
        """Return [B*H*W, C] for [B*H*W, C] in image order; ``size`` is (B, H, W)."""
        batch, height, width = size
        x, current = tokens, "image"
        for block in self.residual_group.blocks:
            target = "shifted" if block.shifted else "plain"
            x = block(x, orders.gather[current, target], orders.kinds[target])
            current = target
        x = x.index_select(0, orders.gather[current, "image"])
        x = self.conv(x.view(batch, height, width, -1).permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1).reshape(tokens.shape) + tokens


class SwinBlock(PlainSwinBlock):
    """One Swin layer (SwinIR eq. 6-8) for inference: fused where possible, else in plain PyTorch."""

    def __init__(self, dim: int, num_heads: int, window_size: int, mlp_ratio: float, *, shifted: bool) -> None:
        super().__init__(dim, num_heads, window_size, mlp_ratio, shifted=shifted)
        self._packed_cache: tuple[tuple[object, ...], fused.FusedBlock] | None = None
        self.fused_precision = torch.float32
        """Of the fused block's products; torch.bfloat16 only where `library.has_bfloat16`."""
        self.kernels: KernelBlock | None = None
        """The block for a GPU that runs under autocast to bfloat16; `cuda.choose.use_kernels` sets it."""

    def forward(self, tokens: Tensor, gather: Tensor, kinds: Sequence[tuple[int, int, int]]) -> Tensor:
        """Gather ``tokens`` [B*H*W, C] into this block's window order and run the block.

        ``kinds`` lists (kind of window, first token, end token) in that order.
        """
        if not _is_served_on_cpu(tokens):
            if self.kernels is not None and _is_served_in_bfloat16(tokens):
                return self.kernels.run(tokens, gather, kinds)
            return self.run_plain(tokens.index_select(0, gather), kinds)
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
        """Create the caches that the first image would create otherwise; return their bytes."""
        if self.kernels is not None:
            return self.kernels.size_bytes
        with torch.no_grad():
            weight = self.norm1.weight
            if _is_served_on_cpu(weight) and self._is_fused(weight):
                return self._packed().size_bytes
            return self.attn.prepare(KINDS if self.shifted else KINDS[:1])

    def _is_fused(self, tokens: Tensor) -> bool:
        return tokens.dtype == torch.float32 and self.attn.head_dim <= MAX_HEAD_DIM and fused.is_available()

    def _packed(self) -> fused.FusedBlock:
        """Return the weights packed for the fused block; cached until one of them or the precision changes."""
        precision = self.fused_precision if fused.fits_bfloat16(self) else torch.float32
        if precision != torch.float32 and getattr(_thread, "in_float32", False):
            return fused.FusedBlock(self)  # packed for this one pass
        source = (precision, *(parameter_version(parameter) for parameter in self.parameters()))
        cached = self._packed_cache  # read once and written once, because another thread may replace it
        if cached is None or source != cached[0]:
            cached = self._packed_cache = (source, fused.FusedBlock(self, precision))
        return cached[1]

    def _run_in_place(self, x: Tensor, kind: int) -> None:
        """Do the same as `run_plain` in place: each matrix product adds its result to ``x``."""
        attended, proj_weight = self.attn.attend(self.norm1(x), ((kind, 0, len(x)),))
        x.add_(self.attn.proj.bias).addmm_(attended, proj_weight.t())
        hidden = torch.ops.aten.gelu_(self.mlp.fc1(self.norm2(x)))
        x.add_(self.mlp.fc2.bias).addmm_(hidden, self.mlp.fc2.weight.t())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Accept the published buffer for any training image size: check that it fits this window, then drop it."""
        name, n = f"{prefix}attn_mask", self.attn.window_size**2
        mask = state_dict.pop(name, None) if self.shifted else None
        if mask is not None and tuple(mask.shape[1:]) != (n, n):
            raise RuntimeError(
                f"{name} has shape {tuple(mask.shape)}; window {self.attn.window_size} needs [*, {n}, {n}]"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _is_served_on_cpu(tokens: Tensor) -> bool:
    """Return whether blocks may run in place, over chunks, in the dtype of the tokens."""
    return tokens.device.type == "cpu" and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def _is_served_in_bfloat16(tokens: Tensor) -> bool:
    """Return whether products run in bfloat16 while tokens stay in float32, as on a GPU under autocast."""
    device = tokens.device.type
    in_bfloat16 = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    return in_bfloat16 and tokens.dtype == torch.float32 and not torch.is_grad_enabled()


class _BlockList(nn.Module):
    """The blocks under their published name, ``residual_group.blocks``."""

    def __init__(self, blocks: Iterable[SwinBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class Convolution(nn.Conv2d):
    """A convolution that stays in float32 where the rest of the network runs in bfloat16.

    Convolutions carry the image itself past the blocks. In bfloat16 they cause most of the error against float32
    (57 dB; 71 dB when they run in float32). In float32 they cost 0 to 5 % of the time (docs/measurements/gpu.md).
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, C', H', W'] for [B, C, H, W]: float32 under autocast, else in the dtype of the input."""
        if not torch.is_autocast_enabled(images.device.type):
            return super().forward(images)
        with torch.autocast(images.device.type, enabled=False):
            return super().forward(images.float())


def residual_conv(dim: int, resi_connection: str) -> nn.Module:
    """Return the convolution at the end of a group and of the body; the large networks have "3conv"."""
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
