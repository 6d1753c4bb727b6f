"""The project's root, the Set5 images, and a comparison of two images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


SET5 = ROOT / "tests" / "data" / "Set5"


# Files that public bug reports describe, drawn again; README.md there says what is special in each.
UPLOADS = ROOT / "tests" / "data" / "uploads"


SET5_NAMES = ("baby", "bird", "butterfly", "head", "woman")


def read_pixels(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image as uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def set5_pair(name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return (the x4 input, the reference) of a Set5 image; the reference is cropped to 4x the input."""
    low_resolution, reference = read_pixels(SET5 / "x4" / f"{name}.png"), read_pixels(SET5 / "HR" / f"{name}.png")
    return low_resolution, reference[: low_resolution.shape[0] * 4, : low_resolution.shape[1] * 4]


def max_difference(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> int:
    """Return the maximum difference of two images of equal shape, in levels."""
    assert a.shape == b.shape, f"{a.shape} against {b.shape}"
    return int(np.abs(a.astype(np.int16) - b.astype(np.int16)).max())


def decode_pixels(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))
