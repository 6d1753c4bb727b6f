"""What PNG, JPEG and WebP can hold of an image, and how its channels and profile go into them. Encodes nothing."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image as PilImage

from preprocessing.errors import UnsupportedOutputError
from preprocessing.formats.icc import colour_space
from preprocessing.formats.png_stream import MAX_SIDE as PNG_MAX_SIDE
from preprocessing.image import Image, Pixels

OutputFormat = Literal["png", "jpeg", "webp"]

DEFAULT_QUALITY = 92

MAX_OUTPUT_SIDES: dict[OutputFormat, int] = {"png": PNG_MAX_SIDE, "jpeg": 65_500, "webp": 16_383}
"""Pixels a side. JPEG allows 65,535, libjpeg-turbo writes 65,500 (JPEG_MAX_DIMENSION); WebP: RFC 9649 section 2.7."""

FORMAT_NAMES: dict[OutputFormat, str] = {"png": "PNG", "jpeg": "JPEG", "webp": "WebP"}


def check_output(width: int, height: int, format: OutputFormat, quality: int = DEFAULT_QUALITY) -> None:  # noqa: A002
    """Raise UnsupportedOutput when the format cannot hold a result of this size; ask before computing it."""
    if format not in MAX_OUTPUT_SIDES:
        raise UnsupportedOutputError(f"{format!r} is not written here: ask for png, jpeg or webp.")
    if not 1 <= quality <= 100:
        raise UnsupportedOutputError(
            f"The quality is {quality}: it must be between 1 and 100 ({DEFAULT_QUALITY} when left out)."
        )
    if max(width, height) > MAX_OUTPUT_SIDES[format]:
        roomier = [FORMAT_NAMES[other] for other, side in MAX_OUTPUT_SIDES.items() if side >= max(width, height)]
        raise UnsupportedOutputError(
            f"The result has {width} x {height} pixels and {FORMAT_NAMES[format]} holds {MAX_OUTPUT_SIDES[format]:,} "
            f"a side: ask for {' or '.join(roomier) or 'a smaller one'}."
        )


def describe_losses(image: Image, format: OutputFormat) -> tuple[str, ...]:  # noqa: A002
    """Say in sentences what writing this image in this format will change, for the person who asked."""
    notes = []
    if image.alpha is not None and format == "jpeg":
        notes.append("JPEG has no transparency: the image was laid on white.")
    if image.icc_profile is not None and profile_for(image, format) is None:
        notes.append(f"{FORMAT_NAMES[format]} stores these pixels as colour: the profile for greyscale was dropped.")
    return tuple(notes)


def png_mode(image: Image) -> str:
    """Return the mode in which this image is written as PNG: L, LA, RGB or RGBA."""
    return ("L" if image.is_grey else "RGB") + ("" if image.alpha is None else "A")


def join_channels(pixels: Pixels, alpha: Pixels | None, *, is_grey: bool) -> Pixels:
    """Return rows as a PNG stores them, [h, W, 1..4]: one grey channel (ITU-R BT.601 luma) or three, then alpha.

    `pixels` [h, W, 3] and `alpha` [h, W] may be a band of an image.
    """
    colour = np.asarray(PilImage.fromarray(pixels).convert("L"))[..., np.newaxis] if is_grey else pixels
    return colour if alpha is None else np.dstack((colour, alpha))


def profile_for(image: Image, format: OutputFormat) -> bytes | None:  # noqa: A002
    """Return the profile when it describes the pixels as they are written: WebP has no greyscale."""
    if image.icc_profile is None:
        return None
    written = "greyscale" if image.is_grey and format != "webp" else "RGB"
    return image.icc_profile if colour_space(image.icc_profile) == written else None
