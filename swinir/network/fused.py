"""The fused Swin block of the C library for PyTorch's networks, and the command that compiles the library.

``python -m swinir.network.fused`` compiles it. Without it blocks run in PyTorch and give the same image.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from swinir.network.attention import PlainSwinBlock
from swinir.network.library import CompileError, compile_library, find_library, load_library
from swinir.network.packing import PackedBlock

_enabled = True


class FusedBlock:
    """One Swin block with its weights packed for the compiled library.

    With ``precision`` torch.bfloat16 its products are in bfloat16, summed in float32; only if `library.has_bfloat16`
    and `fits_bfloat16`.
    """

    def __init__(self, block: PlainSwinBlock, precision: torch.dtype = torch.float32) -> None:
        weights = {name: parameter.detach().float().numpy() for name, parameter in block.named_parameters()}
        self._packed = PackedBlock(
            weights,
            block.attn.num_heads,
            shifted=block.shifted,
            products="bfloat16" if precision == torch.bfloat16 else "float32",
        )

    @property
    def size_bytes(self) -> int:
        """Memory of the packed weights, without the parameters they were packed from."""
        return self._packed.size_bytes

    def run(self, tokens: Tensor, gather: Tensor, kinds: Sequence[tuple[int, int, int]], threads: int) -> Tensor:
        """Return what `SwinBlock.forward` returns, for float32 tokens [B*H*W, C] on a CPU.

        Raises MemoryError when the buffers of a window cannot be allocated.
        """
        return torch.from_numpy(self._packed.run(load_library(), tokens.numpy(), gather.numpy(), kinds, threads))


def is_available() -> bool:
    """Return whether blocks may run fused in this process."""
    return _enabled and find_library() is not None


def fits_bfloat16(block: PlainSwinBlock) -> bool:
    """Return whether the products of a block come in pairs, as bfloat16 needs them."""
    attention = block.attn
    return not any(size % 2 for size in (attention.proj.in_features, attention.head_dim, block.mlp.fc1.out_features))


@contextmanager
def disabled() -> Iterator[None]:
    """Run every block in PyTorch, to measure or test both ways."""
    global _enabled  # noqa: PLW0603 - one switch per process
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def main() -> None:
    """Compile the library, or print why not. A failure is not an error, because the engine also runs in PyTorch."""
    try:
        print(f"the engine's fused block: {compile_library()}")  # noqa: T201 - this is a command
    except CompileError as error:
        print(f"the engine runs in PyTorch, about half as fast on a CPU: {error}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
