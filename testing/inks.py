"""CMYK images with an ICC profile of a made-up press, drawn from RGB pixels, and the colours of ghostscript's profile.

The inks of this press act as filters: each multiplies the light by its colour to the power of its amount. So amounts
for any RGB colour follow from a linear equation of logarithms. Uses numpy and Pillow, nothing of the packages under
test.
"""

from __future__ import annotations

import struct
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from testing.images import Pixels, save

# Linear sRGB of a solid of cyan, magenta, yellow and black.
_SOLIDS = np.array([(0.06, 0.32, 0.66), (0.62, 0.05, 0.15), (0.98, 0.83, 0.05), (0.03, 0.028, 0.025)])
# Share of the common darkness that black prints.
_BLACK_SHARE = 0.5
_NODES = 9
# From linear sRGB to XYZ under D50 (ICC.1:2022 annex E), and that white.
_TO_XYZ = np.array(((0.4361, 0.3851, 0.1431), (0.2225, 0.7169, 0.0606), (0.0139, 0.0971, 0.7142)))
_WHITE = np.array((0.9642, 1.0, 0.8249))

GHOSTSCRIPT_COLOURS = np.frombuffer(
    bytes.fromhex(
        "ffffff96989b373535fff79c999462343328fff215999125333220f49dc393607937262bf7997e935f50362623f89734935d2935271e"
        "ed279090205a371a25ee2f628f263f371e20ee33388f2a2a371f1d73d0f64a809723303786cb9f527d6422302a90c84b557a35213022"
        "8b85bf59557828232e9285815b54522725259783475c53312726209539935f275d2b1a28973d685e2b432a1d22993f425e2d2e291f1e"
        "00b0f0006f94122d3700aca0006d65132e2b00a85a006c3e142f230077bd044c771e212f017683164c541d24261975501d4c371d2520"
        "3f40962f2b6023192943436b302e45211d22444446312f31201f1f"
    ),
    np.uint8,
).reshape(9, 9, 3)
"""The colours in sRGB, relative colorimetric, of the amounts of `grid_of_inks(3)` with ghostscript's
default_cmyk.icc."""


def grid_of_inks(steps: int) -> PilImage.Image:
    """Return an image in mode CMYK with every combination of `steps` amounts of each ink."""
    amounts = np.linspace(0, 255, steps).astype(np.uint8)
    grid = np.stack(np.meshgrid(*[amounts] * 4, indexing="ij"), axis=-1)
    return PilImage.frombytes("CMYK", (steps**2, steps**2), grid.tobytes())


def separate(pixels: Pixels) -> PilImage.Image:
    """Return RGB pixels as inks of the made-up press, in mode CMYK."""
    light = np.maximum(_to_linear(pixels / 255), 0.004)
    black = np.clip(_BLACK_SHARE * np.log(light.max(axis=2)) / np.log(_SOLIDS[3].max()), 0, 1)
    missing = np.log(light) - black[..., np.newaxis] * np.log(_SOLIDS[3])
    colours = np.clip(missing @ np.linalg.inv(np.log(_SOLIDS[:3])), 0, 1)
    inks = np.dstack((colours, black))
    return PilImage.frombytes(
        "CMYK", (pixels.shape[1], pixels.shape[0]), np.rint(inks * 255).astype(np.uint8).tobytes()
    )


@cache
def press_profile() -> bytes:
    """Return the ICC profile of the made-up press: version 2.4, class prtr, CMYK to L*a*b*."""
    inks = np.stack(np.meshgrid(*[np.linspace(0, 1, _NODES)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    ratios = np.exp(inks @ np.log(_SOLIDS)) @ _TO_XYZ.T / _WHITE
    x, y, z = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116).T
    lab = np.stack((2.55 * (116 * y - 16), 128 + 500 * (x - y), 128 + 200 * (y - z)), axis=1)
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes((4, 3, _NODES, 0))
    table += struct.pack(">9i", *(65_536 * value for value in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table += ramp * 4 + np.clip(np.rint(lab), 0, 255).astype(np.uint8).tobytes() + ramp * 3
    white = struct.pack(">3i", *(round(65_536 * value) for value in _WHITE))
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 14) + b"Made-up press\0" + bytes(78),
        b"cprt": b"text\0\0\0\0No copyright\0",
        b"wtpt": b"XYZ \0\0\0\0" + white,
        b"A2B0": table,
    }
    directory, data, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, body in tags.items():
        directory += struct.pack(">4sII", tag, start + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s", start + len(data), 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    return (head.ljust(68, b"\0") + white).ljust(128, b"\0") + directory + data


def cmyk_jpeg_with_profile(pixels: Pixels) -> bytes:
    """Encode RGB pixels as an Adobe CMYK JPEG with the profile of the made-up press."""
    return save(separate(pixels), "JPEG", quality=98, subsampling=0, icc_profile=press_profile())


def _to_linear(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
