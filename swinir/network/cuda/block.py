"""A Swin block on a GPU: its weights packed for the kernels, and the three launches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from swinir.network.attention import PlainSwinBlock
from swinir.network.cuda.shapes import BlockShape
from swinir.network.window_order import KINDS

# Bytes: tensors start at multiples of it, which the kernels are compiled for.
ALIGNMENT = 16


class Launch(Protocol):
    """Starts kernels that were compiled for a `BlockShape`."""

    def __call__(self, kernel: str, grid: tuple[int, int], *arguments: Tensor | int) -> None:
        """Start ``grid`` programs of a kernel of `kernels` on the current stream."""

    def rows(self, kernel: str) -> int:
        """Return the rows of tokens that one program of a kernel computes."""


def shape_of(block: PlainSwinBlock) -> BlockShape:
    """Return the sizes of a block."""
    attention = block.attn
    return BlockShape(
        attention.proj.in_features, attention.num_heads, attention.window_size, block.mlp.fc1.out_features
    )


class KernelBlock:
    """One Swin block with its weights packed for the kernels; ``shape_of(block).fits`` is true."""

    def __init__(self, block: PlainSwinBlock, launch: Launch) -> None:
        attention, shape = block.attn, shape_of(block)
        self._launch = launch
        self._shape = shape
        scale = torch.ones(3 * shape.dim, 1, device=attention.qkv.weight.device)
        scale[: shape.dim] = attention.head_dim**-0.5  # of the scores, moved into the query
        qkv_weight, qkv_bias = _fold_norm(block.norm1, attention.qkv)
        fc1_weight, fc1_bias = _fold_norm(block.norm2, block.mlp.fc1)
        channels, hidden = shape.padded_dim, shape.padded_hidden
        self._qkv_weight = _pack(_pad_heads(qkv_weight * scale, shape), channels)
        self._qkv_bias = _pad_heads((qkv_bias * scale[:, 0])[:, None], shape)[:, 0].contiguous()
        self._proj_weight = _pack(_pad_heads(attention.proj.weight.float().t(), shape).t(), shape.inner, channels)
        self._proj_bias = _pad(attention.proj.bias.float(), channels)
        self._fc1_weight = _pack(fc1_weight, channels, hidden)
        self._fc1_bias = _pad(fc1_bias, hidden)
        self._fc2_weight = _pack(block.mlp.fc2.weight, hidden, channels)
        self._fc2_bias = _pad(block.mlp.fc2.bias.float(), channels)
        kinds = KINDS if block.shifted else KINDS[:1]
        missing = shape.tokens - shape.area
        biases = torch.stack([F.pad(attention.make_bias(kind), (0, missing, 0, missing)) for kind in kinds])
        self._biases = biases.bfloat16().contiguous()

    @property
    def size_bytes(self) -> int:
        """Memory of the packed weights, without the parameters they were packed from."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))

    def run(self, tokens: Tensor, gather: Tensor, kinds: Sequence[tuple[int, int, int]]) -> Tensor:
        """Return what `SwinBlock.forward` returns: float32 [B*H*W, C] for float32 tokens."""
        tokens = tokens.contiguous()
        if tokens.data_ptr() % ALIGNMENT:
            tokens = tokens.clone()
        attended = self.attend(self.project_qkv(tokens, gather), kinds)
        return self.finish(tokens, gather, attended)

    def project_qkv(self, tokens: Tensor, gather: Tensor) -> Tensor:
        """Return queries, keys and values of the gathered tokens: bfloat16 [3 * heads, B*H*W, head]."""
        rows, shape = len(tokens), self._shape
        qkv = tokens.new_empty(3 * shape.heads, rows, shape.head, dtype=torch.bfloat16)
        grid = (-(-rows // self._launch.rows("project_qkv")), 1)
        self._launch("project_qkv", grid, tokens, gather, self._qkv_weight, self._qkv_bias, qkv, rows)
        return qkv

    def attend(self, qkv: Tensor, kinds: Sequence[tuple[int, int, int]]) -> Tensor:
        """Return the attention of all heads in all windows: bfloat16 [B*H*W, heads * head]."""
        rows, shape = qkv.shape[1], self._shape
        attended = qkv.new_empty(rows, shape.inner)
        windows = rows // shape.area
        ends = dict.fromkeys(KINDS, 0)  # a kind without windows ends where the one before it does
        for kind, _, end in kinds:
            ends.update(dict.fromkeys(KINDS[kind:], end // shape.area))
        self._launch(
            "attend_windows",
            (windows, shape.heads),
            qkv,
            self._biases,
            attended,
            rows,
            *(ends[kind] for kind in KINDS[:-1]),
        )
        return attended

    def finish(self, tokens: Tensor, gather: Tensor, attended: Tensor) -> Tensor:
        """Return the gathered tokens plus the projection of what was attended, plus the perceptron of that sum."""
        out = torch.empty_like(tokens)
        self._launch(
            "finish_block",
            (-(-len(tokens) // self._launch.rows("finish_block")), 1),
            tokens,
            gather,
            attended,
            self._proj_weight,
            self._proj_bias,
            self._fc1_weight,
            self._fc1_bias,
            self._fc2_weight,
            self._fc2_bias,
            out,
            len(tokens),
        )
        return out


def _fold_norm(norm: torch.nn.LayerNorm, linear: torch.nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias, float32, of the norm's weight and bias followed by the linear layer."""
    weight = linear.weight.float()
    return weight * norm.weight.float(), linear.bias.float() + weight @ norm.bias.float()


def _pad_heads(weight: Tensor, shape: BlockShape) -> Tensor:
    """Pad the rows of each head, [n * dim, columns], to [n * inner, columns] with zeros."""
    heads = weight.view(-1, shape.dim // shape.heads, weight.shape[1])
    return F.pad(heads, (0, 0, 0, shape.head - heads.shape[1])).reshape(-1, weight.shape[1])


def _pack(weight: Tensor, rows: int, columns: int = 0) -> Tensor:
    """Return [outputs, inputs] as bfloat16 [inputs, outputs], padded with zeros to ``rows`` and ``columns``."""
    transposed = weight.t()
    padding = (0, max(0, columns - transposed.shape[1]), 0, rows - len(transposed))
    return F.pad(transposed.float(), padding).bfloat16().contiguous()


def _pad(bias: Tensor, length: int) -> Tensor:
    return F.pad(bias, (0, length - len(bias))).contiguous()
