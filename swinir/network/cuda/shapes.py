"""The numbers of a Swin block that its kernels are compiled for, and the padded sizes that follow from them.

Imports neither torch nor the Triton language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Columns of hidden values or of heads that enter one product of `finish_block`.
STEP = 32
# The matrix units of a GPU multiply at least this many columns.
MIN_COLUMNS = 16
KERNELS = ("project_qkv", "attend_windows", "finish_block")


@dataclass(frozen=True)
class Program:
    """How a kernel is compiled and started."""

    constants: Mapping[str, int]
    """Its compile-time constants, by their names in `kernels`."""
    warps: int
    """Warps (32 threads) of a program."""


@dataclass(frozen=True)
class BlockShape:
    """The sizes of a Swin block."""

    dim: int
    heads: int
    window: int
    hidden: int

    @property
    def fits(self) -> bool:
        """Whether the kernels can be compiled for it: wider blocks do not fit into a program's registers."""
        is_wide_enough = self.dim > MIN_COLUMNS and self.dim % self.heads == 0
        return is_wide_enough and self.dim <= 256 and self.area <= 64 and self.inner % STEP == 0

    @property
    def area(self) -> int:
        """Tokens of a window."""
        return self.window**2

    @property
    def tokens(self) -> int:
        """Tokens of a window, rounded up to what the matrix units take."""
        return max(MIN_COLUMNS, round_up_to_power(self.area))

    @property
    def first(self) -> int:
        """Columns of the first part of the channels: the largest power of two below `dim`."""
        return round_up_to_power(self.dim) // 2

    @property
    def second(self) -> int:
        """Columns of the second part of the channels."""
        return max(MIN_COLUMNS, round_up_to_power(self.dim - self.first))

    @property
    def padded_dim(self) -> int:
        """Columns of both parts."""
        return self.first + self.second

    @property
    def head(self) -> int:
        """Length of a head, padding included."""
        return max(MIN_COLUMNS, round_up_to_power(self.dim // self.heads))

    @property
    def inner(self) -> int:
        """Columns of all heads."""
        return self.heads * self.head

    @property
    def padded_hidden(self) -> int:
        """Hidden columns of the perceptron, padding included."""
        return -(-self.hidden // STEP) * STEP

    def file_name(self, kernel: str) -> str:
        """Return the name of the compiled kernel in an archive."""
        return f"{kernel}-{self.dim}-{self.heads}-{self.window}-{self.hidden}.cubin"

    def program(self, kernel: str, capability: int) -> Program:
        """Return how a kernel of `kernels` is compiled for a compute capability, as in 90 for 9.0."""
        parts = {"DIM": self.dim, "FIRST": self.first, "SECOND": self.second}
        heads = {"HEADS": self.heads, "HEAD": self.head}
        if kernel == "attend_windows":
            return Program({**heads, "AREA": self.area, "TOKENS": self.tokens}, warps=4)
        if kernel == "project_qkv":
            columns = next(size for size in (64, 32, 16) if 3 * self.inner % size == 0)
            return Program({**parts, **heads, "ROWS": 64, "COLUMNS": columns}, warps=4)
        # Only compute capability 9 and 10 multiply from shared memory. The others hold both operands in registers,
        # where 64 rows of 180 channels do not fit: the compiler spills up to 328 bytes a thread.
        rows = 64 if capability // 10 in (9, 10) else 32
        inner = {"INNER": self.inner, "HIDDEN": self.padded_hidden}
        return Program({**parts, **inner, "ROWS": rows, "STEP": STEP}, warps=rows // 8)


def round_up_to_power(number: int) -> int:
    """Return the smallest power of two that is not below the number."""
    return 1 << (number - 1).bit_length()
