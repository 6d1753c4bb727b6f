"""What each output format can hold of an image, and how its channels and profile go into it. Encodes nothing."""

from __future__ import annotations

import struct
from typing import Literal

import numpy as np
from PIL import Image as PilImage

from preprocessing.errors import UnsupportedOutputError
from preprocessing.formats.avif import MAX_SIDE as AVIF_MAX_SIDE
from preprocessing.formats.avif_container import AvifColours
from preprocessing.formats.colour_chunks import find_colours, make_profile, name_inexpressible
from preprocessing.formats.icc import colour_space
from preprocessing.formats.png import MAX_SIDE as PNG_MAX_SIDE
from preprocessing.formats.png_metadata import METRES_PER_INCH
from preprocessing.grey import to_grey
from preprocessing.image import Image, Pixels

OutputFormat = Literal["png", "jpeg", "webp", "avif"]

DEFAULT_QUALITY = 92

# Pixels per side. JPEG permits 65,535, libjpeg-turbo writes 65,500 (JPEG_MAX_DIMENSION). WebP: RFC 9649 section 2.7.
MAX_OUTPUT_SIDES: dict[OutputFormat, int] = {
    "png": PNG_MAX_SIDE,
    "jpeg": 65_500,
    "webp": 16_383,
    "avif": AVIF_MAX_SIDE,
}

LOSSLESS_FORMATS: tuple[OutputFormat, ...] = ("png", "webp")
"""The formats that can keep every pixel exactly: PNG always does, WebP on request."""

FORMAT_NAMES: dict[OutputFormat, str] = {"png": "PNG", "jpeg": "JPEG", "webp": "WebP", "avif": "AVIF"}


def check_output(width: int, height: int, format: OutputFormat, quality: int = DEFAULT_QUALITY) -> None:  # noqa: A002
    """Raise UnsupportedOutputError when the format cannot hold a result of this size; call it before computing one."""
    if format not in MAX_OUTPUT_SIDES:
        raise UnsupportedOutputError(f"Unknown output format {format!r}: use png, jpeg, webp or avif.")
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
    keeps_codes = format == "png" or (format == "avif" and _avif_codes(image) is not None)
    if not keeps_codes and (colours := name_inexpressible(image.colour_chunks)):
        notes.append(
            f"{FORMAT_NAMES[format]} cannot hold the colours of this PNG ({colours}): they may look different. "
            "Use PNG to keep them."
        )
    elif not keeps_codes and image.icc_profile is not None and profile_for(image, format) is None:
        notes.append(f"{FORMAT_NAMES[format]} has no greyscale: the greyscale colour profile was dropped.")
    not_held = () if format in ("png", "jpeg") else (("IPTC", image.metadata.iptc), ("text", image.metadata.texts))
    if names := " and ".join(name for name, is_there in not_held if is_there):
        notes.append(f"{FORMAT_NAMES[format]} cannot hold {names} of the upload: not in the result.")
    return tuple(notes)


def png_chunks(image: Image) -> dict[bytes, bytes]:
    """Return type and body of the chunks that a PNG has ahead of its pixels: colours and resolution."""
    if image.dpi is None:
        return {**image.colour_chunks}
    x, y = (round(dpi / METRES_PER_INCH) for dpi in image.dpi)
    return {**image.colour_chunks, b"pHYs": struct.pack(">IIB", x, y, 1)}


def png_mode(image: Image) -> str:
    """Return the mode in which this image is written as PNG: L, LA, RGB or RGBA."""
    return ("L" if image.is_grey else "RGB") + ("" if image.alpha is None else "A")


def join_channels(pixels: Pixels, alpha: Pixels | None, *, is_grey: bool) -> Pixels:
    """Return rows as a PNG stores them, [h, W, 1..4]: one grey channel (ITU-R BT.601 luma) or three, then alpha.

    `pixels` [h, W, 3] and `alpha` [h, W], uint8 or uint16, may be a band of an image.
    """
    colour = pixels
    if is_grey and pixels.dtype == np.uint8:
        colour = np.asarray(PilImage.fromarray(pixels).convert("L"))[..., np.newaxis]
    elif is_grey:
        colour = to_grey(pixels)[..., :1]
    return colour if alpha is None else np.dstack((colour, alpha))


def profile_for(image: Image, format: OutputFormat) -> bytes | None:  # noqa: A002
    """Return the profile that describes the pixels as they are written.

    WebP has no greyscale, and AVIF no profile for it. JPEG, WebP and AVIF have no colour chunks, so these become a
    profile.
    """
    is_grey = image.is_grey and format not in ("webp", "avif")
    profile = image.icc_profile
    if profile is not None and colour_space(profile) != ("greyscale" if is_grey else "RGB"):
        profile = None
    if format == "png":
        return profile
    colours = find_colours(image.colour_chunks, has_profile=image.icc_profile is not None)
    return make_profile(colours, is_grey=is_grey) if colours else profile


def avif_colours(image: Image) -> AvifColours:
    """Return what an AVIF says of the colours: its codes are those of cICP (H.273), HDR too, and win over a profile."""
    if codes := _avif_codes(image):
        return AvifColours(codes=codes)
    return AvifColours(icc_profile=profile_for(image, "avif"))


def _avif_codes(image: Image) -> tuple[int, int] | None:
    """Return primaries and transfer of cICP, if its pixels are RGB of full range as everywhere here."""
    primaries, transfer, matrix, is_full_range = image.colour_chunks.get(b"cICP", bytes(4))
    return (primaries, transfer) if matrix == 0 and is_full_range == 1 else None
