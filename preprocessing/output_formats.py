"""What PNG, JPEG and WebP can hold of an image, and how its channels and profile go into them. Encodes nothing."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image as PilImage

from preprocessing.errors import UnsupportedOutputError
from preprocessing.formats.icc import colour_space
from preprocessing.formats.png import MAX_SIDE as PNG_MAX_SIDE
from preprocessing.image import Image, Pixels

OutputFormat = Literal["png", "jpeg", "webp"]

DEFAULT_QUALITY = 92

# Pixels per side. JPEG permits 65,535, libjpeg-turbo writes 65,500 (JPEG_MAX_DIMENSION). WebP: RFC 9649 section 2.7.
MAX_OUTPUT_SIDES: dict[OutputFormat, int] = {"png": PNG_MAX_SIDE, "jpeg": 65_500, "webp": 16_383}

FORMAT_NAMES: dict[OutputFormat, str] = {"png": "PNG", "jpeg": "JPEG", "webp": "WebP"}


def check_output(width: int, height: int, format: OutputFormat, quality: int = DEFAULT_QUALITY) -> None:  # noqa: A002
    """Raise UnsupportedOutputError when the format cannot hold a result of this size; call it before computing one."""
    if format not in MAX_OUTPUT_SIDES:
        raise UnsupportedOutputError(f"Unknown output format {format!r}: use png, jpeg or webp.")
    if not 1 <= quality <= 100:
        raise UnsupportedOutputError(
            f"Invalid quality {quality}: use a number between 1 and 100 (default: {DEFAULT_QUALITY})."
        )
    if max(width, height) > MAX_OUTPUT_SIDES[format]:
        larger = [FORMAT_NAMES[other] for other, side in MAX_OUTPUT_SIDES.items() if side >= max(width, height)]
        raise UnsupportedOutputError(
            f"The result would have {width} x {height} pixels; {FORMAT_NAMES[format]} holds at most "
            f"{MAX_OUTPUT_SIDES[format]:,} per side. "
            f"{'Use ' + ' or '.join(larger) if larger else 'Send a smaller image'}."
        )


def describe_losses(image: Image, format: OutputFormat) -> tuple[str, ...]:  # noqa: A002
    """Return what writing this image in this format changes, one sentence each, for the user."""
    notes = []
    if image.alpha is not None and format == "jpeg":
        notes.append("JPEG has no transparency: the image was put on a white background.")
    if image.icc_profile is not None and profile_for(image, format) is None:
        notes.append(f"{FORMAT_NAMES[format]} has no greyscale: the greyscale colour profile was dropped.")
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
