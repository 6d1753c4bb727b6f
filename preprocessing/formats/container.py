"""The facts in an upload's headers, and the chunks that a decoder needs, read before any decoder runs.

Each format has a reader (`read_png`, `read_jpeg`, `read_webp`) that walks its chunks or segments without touching a
pixel and returns a `Container`. Pillow is given `Container.required_chunks` only. Text, thumbnails, further frames,
EXIF, XMP and compressed profiles never reach it, so a decompression bomb in them cannot explode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

InputFormat = Literal["JPEG", "PNG", "WEBP"]

# Chunks or segments read from one upload. Encoders write 8 KiB and more per chunk, so 512 MiB of normal PNG pass.
# Reading 65,536 empty chunks takes 0.1 to 0.2 s here; the 2.8 million that fit into 32 MiB took 4.8 s.
MAX_PARTS = 65_536

# The largest ICC profile kept. sRGB-like profiles have 0.5 to 4 kB, RGB table profiles up to some 600 kB.
MAX_ICC_BYTES = 1_048_576


@dataclass(frozen=True, eq=False)
class Container:
    """The facts in an upload's headers; `width` and `height` as stored, before the orientation is applied."""

    format: InputFormat
    width: int
    height: int
    mode: str
    """Pillow's name of the stored pixels: 1, L, LA, I;16, P, RGB, RGBA or CMYK."""
    required_chunks: Sequence[bytes | memoryview] = field(repr=False)
    """The chunks (JPEG: segments) that a decoder needs, in order; joined, a valid file without any metadata."""
    bits: int = 8
    """Bits per sample; 16 is reduced to 8, fewer are spread over 0..255."""
    frames: int = 1
    """Frames of an animation; 1 for a still image."""
    exif: bytes = field(default=b"", repr=False)
    """The EXIF block as found, unchecked; empty when there is none."""
    icc_profile: bytes | None = field(default=None, repr=False)
    """The ICC profile as found, unchecked, at most MAX_ICC_BYTES + 1 bytes."""
    transparent: bytes = b""
    """The one transparent grey or colour of a PNG (tRNS, big-endian 16-bit samples); empty when there is none."""
    defect: str = ""
    """Why these bytes cannot be decoded, as a sentence; empty when no defect was found."""
