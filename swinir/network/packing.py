"""The weights of the network in the layout of the C library: panels of PANEL columns, padded with zeros.

Imports no torch. Arrays have the published shapes: [outputs, inputs] of a linear layer, [outputs, inputs, k, k] of a
convolution.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from swinir.network.window_order import KINDS, Index, edge_mask, position_index

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.uint16]
"""Values of bfloat16, as their bits."""

Products = Literal["float32", "bfloat16", "bfloat16x3"]
"""How matrices are multiplied, in the order of the C enumeration: in float32, in bfloat16, or on the tiles of AMX as
three products of halves in bfloat16, with errors of less than 1e-5 (tiles.h)."""

# Columns of a panel of weights, as in vectors.h.
PANEL = 16
# Length of the array of zeros in `attend` of fused_block.c; longer heads run in PyTorch.
MAX_HEAD_DIM = 1024
# Input channels from which a convolution is quicker on tiles.
MIN_TILE_INPUTS = 16
# Added to the scores of padding tokens, so that their exponential is zero.
PADDING_SCORE = -1e30
# The layers of a block in the order of the C struct.
_LAYERS = ("norm1", "norm2", "qkv", "proj", "fc1", "fc2")


class _Block(ctypes.Structure):
    _numbers = ("dim", "heads", "head_dim", "window_tokens", "hidden", "products")
    _tensors = tuple(f"{layer}_{kind}" for layer in _LAYERS for kind in ("weight", "bias"))
    _fields_ = (
        *((name, ctypes.c_int64) for name in _numbers),
        *((name, ctypes.c_void_p) for name in _tensors),
    )


class _Kind(ctypes.Structure):
    _fields_ = (("first", ctypes.c_int64), ("end", ctypes.c_int64), ("bias", ctypes.c_void_p))


class PackedBlock:
    """One Swin block with its weights packed for the compiled library.

    Args:
        weights: float32 arrays by the published names within a block, such as ``attn.qkv.weight``.
        heads: heads of the attention.
        shifted: whether its windows are shifted.
        products: bfloat16 only if the library has it and `fits_bfloat16`, bfloat16x3 only if it has tiles.
    """

    def __init__(
        self, weights: Mapping[str, Floats], heads: int, *, shifted: bool, products: Products = "float32"
    ) -> None:
        dim, hidden = len(weights["attn.proj.weight"]), len(weights["mlp.fc1.weight"])
        table = weights["attn.relative_position_bias_table"]
        window = (round(len(table) ** 0.5) + 1) // 2
        scale = np.ones((3 * dim, 1), np.float32)
        scale[:dim] = (dim // heads) ** -0.5  # of the scores, moved into the query
        pack_weight = _PACK[products]
        qkv_weight, qkv_bias = weights["attn.qkv.weight"] * scale, weights["attn.qkv.bias"] * scale[:, 0]
        self._arrays: dict[str, npt.NDArray[Any]] = {
            "qkv_weight": pack_weight(qkv_weight),
            "qkv_bias": pad(qkv_bias),
            **{
                f"{layer}_weight": pack_weight(weights[f"{name}.weight"])
                for layer, name in (("proj", "attn.proj"), ("fc1", "mlp.fc1"), ("fc2", "mlp.fc2"))
            },
            **{
                f"{layer}_bias": pad(weights[f"{name}.bias"])
                for layer, name in (("proj", "attn.proj"), ("fc1", "mlp.fc1"), ("fc2", "mlp.fc2"))
            },
            **{f"{norm}_{kind}": pad(weights[f"{norm}.{kind}"]) for norm in ("norm1", "norm2") for kind in _PAIR},
        }
        bias = np.moveaxis(table[position_index(window)], 2, 0)
        self._biases = {
            kind: pad(bias + edge_mask(kind, window), PADDING_SCORE) for kind in (KINDS if shifted else KINDS[:1])
        }
        self._window_tokens = window**2
        self._block = _Block(
            dim=dim,
            heads=heads,
            head_dim=dim // heads,
            window_tokens=window**2,
            hidden=hidden,
            products=get_args(Products).index(products),
            **{name: array.ctypes.data for name, array in self._arrays.items()},
        )

    @property
    def fits_bfloat16(self) -> bool:
        """Whether the products of this block come in pairs, as bfloat16 needs them."""
        return not any(size % 2 for size in (self._block.dim, self._block.head_dim, self._block.hidden))

    def to_bfloat16(self) -> PackedBlock:
        """Return the same block for products in bfloat16."""
        other = copy.copy(self)
        halves = {name: pack_pairs(unpack(self._arrays[name])) for name in _LINEAR}
        other._arrays = self._arrays | halves  # noqa: SLF001 - of its own class
        numbers = {name: getattr(self._block, name) for name in _Block._numbers} | {"products": 1}  # noqa: SLF001
        pointers = {name: array.ctypes.data for name, array in other._arrays.items()}  # noqa: SLF001
        other._block = _Block(**numbers, **pointers)  # noqa: SLF001
        return other

    @property
    def size_bytes(self) -> int:
        """Memory of the packed weights, without the parameters they were packed from."""
        return sum(array.nbytes for array in (*self._arrays.values(), *self._biases.values()))

    def run(
        self,
        library: Any,
        tokens: Floats,
        gather: Index,
        kinds: Sequence[tuple[int, int, int]],
        threads: int,
        *,
        out: Floats | None = None,
    ) -> Floats:
        """Gather float32 tokens [B*H*W, C] into this block's window order, run the block and return its result.

        ``kinds`` lists (kind of window, first token, end token) in that order. The result is a new array in window
        order, or ``out``, which gets it in the order of ``tokens`` and may share their memory. Raises MemoryError when
        the buffers of a window cannot be allocated.
        """
        tokens = np.ascontiguousarray(tokens)
        scatter = None if out is None else gather
        out = np.empty_like(tokens) if out is None else out
        area = self._window_tokens
        rows = [_Kind(a // area, b // area, self._biases[kind].ctypes.data) for kind, a, b in kinds]
        failed = library.run_swin_block(
            ctypes.byref(self._block),
            (_Kind * len(rows))(*rows),
            len(rows),
            tokens.ctypes.data,
            gather.ctypes.data,
            None if scatter is None else scatter.ctypes.data,
            out.ctypes.data,
            threads,
        )
        if failed:
            raise MemoryError("not enough memory for the buffers of a window")
        return out


_PAIR = ("weight", "bias")
_LINEAR = ("qkv_weight", "proj_weight", "fc1_weight", "fc2_weight")


def pad(array: Floats, value: float = 0.0) -> Floats:
    """Pad the last dimension to a multiple of PANEL."""
    missing = [(0, 0)] * (array.ndim - 1) + [(0, -array.shape[-1] % PANEL)]
    return np.ascontiguousarray(np.pad(array.astype(np.float32), missing, constant_values=value))


def pack(weight: Floats) -> Floats:
    """Return [outputs, inputs] as panels [outputs / PANEL, inputs, PANEL], padded with zeros."""
    columns = pad(weight.T)
    return np.ascontiguousarray(columns.reshape(len(columns), -1, PANEL).transpose(1, 0, 2))


def unpack(panels: Floats) -> Floats:
    """Return [outputs, inputs] for panels of `pack`, with the rows of zeros that pad the outputs."""
    return np.ascontiguousarray(panels.transpose(0, 2, 1).reshape(-1, panels.shape[1]))


def pack_pairs(weight: Floats) -> Halves:
    """Return [outputs, inputs] in bfloat16 as panels [outputs / PANEL, inputs / 2, PANEL, 2], padded with zeros."""
    rows = np.pad(weight.astype(np.float32), ((0, -len(weight) % PANEL), (0, 0)))
    panels = rows.reshape(-1, PANEL, weight.shape[1] // 2, 2).transpose(0, 2, 1, 3)
    return round_to_bfloat16(panels)


def round_to_bfloat16(values: Floats) -> Halves:
    """Return the nearest values of bfloat16, to even from the middle, as their bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def pack_tiles(weight: Floats) -> Halves:
    """Return [outputs, inputs] for tiles.h: [outputs / 16, inputs / 32, high and low, 16, 16, 2], padded with zeros."""
    outputs, inputs = weight.shape
    rows = np.pad(weight.astype(np.float32), ((0, -outputs % 16), (0, -inputs % 32)))
    high = round_to_bfloat16(rows)
    low = round_to_bfloat16(rows - (high.astype(np.uint32) << 16).view(np.float32))
    halves = np.stack([high, low]).reshape(2, len(rows) // 16, 16, rows.shape[1] // 32, 16, 2)
    return align(halves.transpose(1, 3, 0, 4, 2, 5))


def align(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a contiguous copy that begins at a line of the cache: a tile's row is read twice if it spans two lines."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    first = -memory.ctypes.data % 64
    copied = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copied[...] = array
    return copied


def pack_convolution(weight: Floats, shuffle: int = 1, *, on_tiles: bool = False) -> npt.NDArray[Any]:
    """Return [outputs, inputs, k, k] as panels [k, outputs / PANEL, k * inputs, PANEL], padded with zeros.

    On tiles they are packed as tiles.h says, with a part for each kernel row. With a pixel shuffle the outputs come in
    the order of the shuffled pixels: row, column, channel.
    """
    outputs, inputs, size, _ = weight.shape
    rows = reorder_outputs(weight, shuffle).transpose(2, 0, 3, 1).reshape(size, outputs, size * inputs)
    return (
        align(np.stack([pack_tiles(row) for row in rows], axis=1))
        if on_tiles
        else np.stack([pack(row) for row in rows])
    )


def reorder_outputs(array: Floats, shuffle: int) -> Floats:
    """Move the outputs [channels * shuffle^2, ...] of a pixel shuffle into the order row, column, channel."""
    parts = array.reshape(-1, shuffle, shuffle, *array.shape[1:])
    return np.ascontiguousarray(np.moveaxis(parts, 0, 2).reshape(array.shape))


_PACK: Mapping[Products, Callable[[Floats], npt.NDArray[Any]]] = {
    "float32": pack,
    "bfloat16": pack_pairs,
    "bfloat16x3": pack_tiles,
}
