"""Measures the tuning of blocks in PyTorch: the chunk of tokens that a block handles at once, and the padding of heads.

Each choice is measured in turn with its alternatives; everything else stays as shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from torch import Tensor

from benchmarks.candidates import make_pair, make_runs
from benchmarks.rounds import Timing, measure_in_turn
from swinir.network import attention, blocks

CHUNKS = (256, 512, 1024, 2048, 4096, 8192, 1 << 30)


def measure_chunks(variant: str, side: int, rounds: int, chunks: Sequence[int] = CHUNKS) -> dict[str, Timing]:
    """Return a timing for each number of tokens per chunk."""
    run = make_runs(make_pair(variant), side)["pytorch"]

    def make(tokens: int) -> Callable[[], Tensor]:
        def run_with_chunk() -> Tensor:
            with set_choice(blocks, "CPU_CHUNK_TOKENS", tokens):
                return run()

        return run_with_chunk

    return measure_in_turn({"all" if tokens == 1 << 30 else str(tokens): make(tokens) for tokens in chunks}, rounds)


def measure_heads(variant: str, side: int, rounds: int, lengths: Sequence[int]) -> dict[str, Timing]:
    """Return a timing for each padded length of a head, without the time of padding itself."""
    runs = {}
    for length in lengths:
        with set_choice(attention, "padded_length", lambda _head_dim, _device, length=length: length):
            # the first run pads the weights and caches them
            runs[str(length)] = make_runs(make_pair(variant), side)["pytorch"]
    return measure_in_turn(runs, rounds)


@contextmanager
def set_choice(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Replace a constant or function of the module within the `with` block."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
