"""Limits of the decoder process that an operator may lower."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SECONDS = 30
# More than the largest image that is accepted needs: MAX_DECODED_PIXELS, and an upload of 1 GB twice.
MAX_MEMORY_BYTES = 5_000_000_000


@dataclass(frozen=True)
class DecoderLimits:
    """What one decoder process may use."""

    max_memory_bytes: int = MAX_MEMORY_BYTES
    """Address space; an image of few pixels may use less (`preprocessing.sandbox.process.memory_limit`)."""
    max_s: int = MAX_SECONDS
    """Seconds, of the processor and by the clock."""
