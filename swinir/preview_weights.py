"""The weights of the compact 4x networks as `gateway/browser/compact_x4.c` reads them: for a preview in the browser.

They are read from the bundled files without torch, so the preview always has the weights that the backend has.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinir.weights_file import SUFFIX
from swinir.zoo import DEFAULT_VARIANT, PHOTO_VARIANT, find_variant

PREVIEW_VARIANTS = (DEFAULT_VARIANT, PHOTO_VARIANT, "compact_photo_x4")

_BUNDLED = Path(__file__).resolve().parent / "bundled"
_LENGTH = struct.Struct("<Q")

Array = NDArray[np.float32]
Tensors = Callable[[str], Array]


def preview_weights_file(name: str) -> Path:
    """Return the bundled file of a variant of PREVIEW_VARIANTS."""
    return _BUNDLED / f"{name}{SUFFIX}"


@cache
def pack_preview_weights(name: str) -> bytes:
    """Return the weights of a variant of PREVIEW_VARIANTS as float16, little-endian: 487,104 bytes.

    Products are [in, out] and convolutions [ky, kx, in, out], in the order of the C code's struct `Weights`. Rounding
    to float16 costs less than the 8 bits of a result: 66 to 75 dB against float32 (docs/explanation/page.md).
    """
    tensors = _read_tensors(preview_weights_file(name))
    config = find_variant(name).config
    arrays = _in_order(tensors.__getitem__, config["depths"])
    return np.concatenate([array.ravel() for array in arrays]).astype("<f2").tobytes()


def _read_tensors(path: Path) -> Mapping[str, Array]:
    """Read a bundled safetensors file: 8 bytes of length, a JSON header, then float32 tensors."""
    data = path.read_bytes()
    start = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    header = json.loads(data[_LENGTH.size : start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data, "<f4", (end - first) // 4, start + first).reshape(entry["shape"])
    return tensors


def _in_order(tensor: Tensors, depths: list[int]) -> Iterator[Array]:
    yield from _layer(tensor, "conv_first")
    yield from _layer(tensor, "patch_embed.norm")
    for group, depth in enumerate(depths):
        for index in range(depth):
            block = f"layers.{group}.residual_group.blocks.{index}"
            yield from _layer(tensor, f"{block}.norm1")
            yield tensor(f"{block}.attn.relative_position_bias_table")
            for part in ("attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
                yield from _layer(tensor, f"{block}.{part}")
        yield from _layer(tensor, f"layers.{group}.conv")
    for name in ("norm", "conv_after_body", "upsample.0"):
        yield from _layer(tensor, name)


def _layer(tensor: Tensors, name: str) -> Iterator[Array]:
    """Yield weight and bias: of a convolution [out, in, ky, kx], a product [out, in] or a norm [C]."""
    weight = tensor(f"{name}.weight")
    yield weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
    yield tensor(f"{name}.bias")
