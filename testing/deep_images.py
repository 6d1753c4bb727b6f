"""Files with 16 bits per channel, which Pillow writes for grey only."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from testing.images import ADAM7, PNG_SIGNATURE, png_chunk, raw_png

Samples = npt.NDArray[np.uint16]

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def draw_gradient(height: int, width: int, channels: int = 3) -> Samples:
    """Draw [H, W, channels] with a smooth ramp in each channel; alpha rises too."""
    rows, columns = np.mgrid[0:height, 0:width]
    ramps = (rows * width + columns, (height - rows) * width - columns, columns * height + rows)
    levels = np.dstack([ramp.clip(0) * (65_535 / (height * width)) for ramp in (*ramps, ramps[0])])
    return np.rint(levels[..., [0, 3] if channels == 2 else list(range(channels))]).astype(np.uint16)


def png16(samples: npt.NDArray[Any], chunks: tuple[bytes, ...] = ()) -> bytes:
    """Encode samples [H, W, 1..4] as a PNG of 16 bits."""
    height, width, channels = samples.shape
    return raw_png(height, width, 16, _COLOUR_TYPES[channels], samples.astype(">u2").tobytes(), chunks)


def interlaced_png16(samples: Samples) -> bytes:
    """Encode samples [H, W, 1..4] as a PNG of 16 bits with Adam7 interlacing."""
    height, width, channels = samples.shape
    parts = [samples[top::down, left::right].astype(">u2") for top, left, down, right in ADAM7]
    filtered = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    size = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 1)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(filtered)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(png_chunk(kind, body) for kind, body in chunks)


def tiff16(samples: Samples, order: Literal["<", ">"] = "<", *, deflates: bool = False, alpha_kind: int = 2) -> bytes:
    """Encode samples [H, W, 1, 3 or 4] as a TIFF of 16 bits with one strip (TIFF 6.0 section 6)."""
    height, width, channels = samples.shape
    strip = samples.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if deflates else strip
    strip += b"\0" * (len(strip) % 2)
    bits_at, pixels_at = 8, 16
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, 16 if channels == 1 else bits_at),
        (259, 3, 1, 8 if deflates else 1),
        (262, 3, 1, 1 if channels == 1 else 2),
        (273, 4, 1, pixels_at),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, len(strip)),
        *([(338, 3, 1, alpha_kind)] if channels == 4 else []),
    ]
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        is_short = kind == 3 and count * 2 <= 4
        directory += struct.pack(f"{order}HHI{'HH' if is_short else 'I'}", tag, kind, count, value, *([0] * is_short))
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", pixels_at + len(strip))
    return header + struct.pack(f"{order}4H", 16, 16, 16, 16) + strip + directory + bytes(4)
