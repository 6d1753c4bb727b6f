"""Colours of a PNG without a profile: what cICP, sRGB, gAMA and cHRM mean, and the same as an ICC profile.

PNG keeps the chunks. JPEG and WebP get a profile of matrix and curve (ICC.1:2022 section 8.3), which says the same.
Sources: W3C PNG third edition sections 4.3 and 11.3.2, ITU-T H.273 sections 8.1 and 8.2.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Body bytes of each chunk that is kept. mDCV and cLLI describe the display of HDR images.
CHUNK_BYTES = {b"cICP": 4, b"mDCV": 24, b"cLLI": 8, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}

# (x, y) of white, red, green and blue.
_D65 = (0.3127, 0.3290)
_ILLUMINANT_C = (0.310, 0.316)
_SRGB = (_D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_PRIMARIES = {  # H.273 table 2
    1: _SRGB,
    4: (_ILLUMINANT_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: (_ILLUMINANT_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: (_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
# Parameters g, a, b, c, d of ICC's parametric curve: (a v + b)^g from d on, c v below. One parameter: v^g.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES: Mapping[int, tuple[float, ...]] = {  # H.273 table 3
    1: _BT709_CURVE,
    4: (2.2,),
    5: (2.8,),
    6: _BT709_CURVE,
    8: (1.0,),
    13: _SRGB_CURVE,
    14: _BT709_CURVE,
    15: _BT709_CURVE,
}
_HDR_CURVES = {16: "PQ", 18: "HLG"}
_MAX_EXPONENT = 10.0

# ICC.1:2022 section 7.2.16 and annex E.
_D50 = np.array((0.9642, 1.0, 0.8249))
_BRADFORD = np.array(((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)))

Matrix = npt.NDArray[np.float64]
Point = tuple[float, float]


class Colours(NamedTuple):
    """A colour space of matrix and curve."""

    points: tuple[Point, Point, Point, Point]
    """(x, y) of white, red, green and blue."""
    curve: tuple[float, ...]
    """Parameters of ICC's parametric curve, one or five."""


def find_colours(chunks: Mapping[bytes, bytes], *, has_profile: bool) -> Colours | None:
    """Return the colour space that the chunks describe; None when the image is in sRGB or its profile describes it.

    cICP wins over a profile, the profile over sRGB, and sRGB over gAMA and cHRM. A cICP that cannot be expressed is
    left out: see `name_inexpressible`.
    """
    if b"cICP" in chunks and not name_inexpressible(chunks):
        primaries, transfer = chunks[b"cICP"][:2]
        return Colours(_PRIMARIES[primaries], _CURVES[transfer])
    if has_profile or b"sRGB" in chunks or not chunks.keys() & {b"gAMA", b"cHRM"}:
        return None
    points = _SRGB
    curve: tuple[float, ...] = _SRGB_CURVE
    gamma = int.from_bytes(chunks.get(b"gAMA", b""), "big")
    if 1e5 / _MAX_EXPONENT <= gamma <= 1e5 * _MAX_EXPONENT:
        curve = (1e5 / gamma,)
    elif b"cHRM" not in chunks:
        return None
    if b"cHRM" in chunks:
        numbers = [number / 1e5 for number in struct.unpack(">8I", chunks[b"cHRM"])]
        white, red, green, blue = zip(numbers[::2], numbers[1::2], strict=True)
        points = (white, red, green, blue)
    return Colours(points, curve) if _to_d50(points) is not None else None


def name_inexpressible(chunks: Mapping[bytes, bytes]) -> str:
    """Return what in cICP a profile of matrix and curve cannot express, in words; empty when it can."""
    if b"cICP" not in chunks:
        return ""
    primaries, transfer, matrix, is_full_range = chunks[b"cICP"]
    if transfer in _HDR_CURVES:
        return f"HDR, {_HDR_CURVES[transfer]}"
    if primaries not in _PRIMARIES or transfer not in _CURVES or matrix or is_full_range != 1:
        return f"cICP {primaries}, {transfer}, {matrix}, {is_full_range}"
    return ""


def make_profile(colours: Colours, *, is_grey: bool) -> bytes:
    """Return an ICC profile, version 4.3, of a colour space from `find_colours`.

    Raises ValueError for points that no colour space has.
    """
    matrices = _to_d50(colours.points)
    if matrices is None:
        raise ValueError(f"No colour space has the white, red, green and blue points {colours.points}.")
    columns, adaptation = matrices
    kind, parameters = (3, colours.curve) if len(colours.curve) == 5 else (0, colours.curve)
    curve = struct.pack(">4s4xHxx", b"para", kind) + _fixed(*parameters)
    tags = {
        b"desc": _text("Colours of the original PNG"),
        b"cprt": _text("No copyright"),
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50),
        b"chad": b"sf32\0\0\0\0" + _fixed(*adaptation.reshape(-1)),
    }
    if is_grey:
        tags[b"kTRC"] = curve
    else:
        for number, name in enumerate((b"r", b"g", b"b")):
            tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(*columns[:, number])
            tags[name + b"TRC"] = curve
    table, data, places = b"", b"", dict[bytes, int]()
    start = 128 + 4 + 12 * len(tags)
    for tag, body in tags.items():
        if body not in places:  # three equal curves are stored once
            places[body] = start + len(data)
            data += body + bytes(-len(body) % 4)
        table += struct.pack(">4sII", tag, places[body], len(body))
    header = struct.pack(
        ">I4xI4s4s4s6H4s4xIII8xI12s",
        start + len(data),
        0x04300000,
        b"mntr",
        b"GRAY" if is_grey else b"RGB ",
        b"XYZ ",
        *(2026, 1, 1, 0, 0, 0),
        b"acsp",
        *(0, 0, 0),
        0,
        _fixed(*_D50),
    )
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _to_d50(points: tuple[Point, Point, Point, Point]) -> tuple[Matrix, Matrix] | None:
    """Return the matrix from linear RGB to XYZ under D50, and the adaptation to D50; None for impossible points."""
    if min(y for _, y in points) <= 0:
        return None
    white, *colours = (np.array((x / y, 1.0, (1 - x - y) / y)) for x, y in points)
    unscaled = np.column_stack(colours)
    cone = _BRADFORD @ white
    if abs(np.linalg.det(unscaled)) < 1e-6 or np.abs(cone).min() < 1e-6:
        return None
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / cone) @ _BRADFORD
    columns = adaptation @ (unscaled * np.linalg.solve(unscaled, white))
    is_small = max(np.abs(columns).max(), np.abs(adaptation).max()) < 8
    return (columns, adaptation) if is_small else None


def _fixed(*numbers: float) -> bytes:
    """Return s15Fixed16Numbers (ICC.1:2022 section 4.6)."""
    return struct.pack(f">{len(numbers)}i", *(round(float(number) * 65_536) for number in numbers))


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return struct.pack(">4s4xII4sII", b"mluc", 1, 12, b"enUS", len(encoded), 28) + encoded
