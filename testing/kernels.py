"""Triton's interpreter: runs the kernels of a Swin block on CPU tensors.

tests/conftest.py sets TRITON_INTERPRET, which the Triton language reads when it is imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from swinir.network.cuda import kernels
from swinir.network.cuda.shapes import KERNELS, BlockShape


class InterpretedLaunch:
    """Stands in for the kernels of a GPU of one compute capability, as in 90 for 9.0."""

    def __init__(self, shape: BlockShape, capability: int) -> None:
        self._constants = {name: shape.program(name, capability).constants for name in KERNELS}

    def __call__(self, kernel: str, grid: tuple[int, int], *arguments: Tensor | int) -> None:
        getattr(kernels, kernel)[grid](*arguments, **self._constants[kernel])

    def rows(self, kernel: str) -> int:
        return self._constants[kernel]["ROWS"]


_create_dot = interpreter.InterpreterBuilder.create_dot
_convert_float = interpreter._convert_float


def _create_dot_of_bfloat16(builder: Any, a: Any, b: Any, *others: Any) -> Any:
    """Widen bfloat16 first: the interpreter of Triton 3.7 multiplies their bits as if they were integers."""
    return _create_dot(builder, _widen(a), _widen(b), *others)


def _widen(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def _convert_and_round(values: Any, source: Any, target: Any, rounding: Any) -> Any:
    """Round float32 to the nearest bfloat16, as GPUs do: the interpreter cuts the last bits off."""
    if (source, target) != (tl.float32, tl.bfloat16):
        return _convert_float(values, source, target, rounding)
    return torch.from_numpy(np.ascontiguousarray(values)).bfloat16().view(torch.uint16).numpy()


interpreter.InterpreterBuilder.create_dot = _create_dot_of_bfloat16
interpreter._convert_float = _convert_and_round
