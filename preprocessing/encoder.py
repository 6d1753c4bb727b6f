"""Encodes an image as PNG, JPEG or WebP: pixels and colour profile, no other metadata."""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image as PilImage

from preprocessing.colour_profile import colour_space
from preprocessing.errors import UnsupportedOutput
from preprocessing.image import Image, Pixels
from preprocessing.png_stream import MAX_SIDE as PNG_MAX_SIDE
from preprocessing.png_stream import PngStream

OutputFormat = Literal["png", "jpeg", "webp"]

DEFAULT_QUALITY = 92

MAX_OUTPUT_SIDES: dict[OutputFormat, int] = {"png": PNG_MAX_SIDE, "jpeg": 65_500, "webp": 16_383}
"""Pixels a side. JPEG allows 65,535, libjpeg-turbo writes 65,500 (JPEG_MAX_DIMENSION); WebP: RFC 9649 section 2.7."""

_NAMES: dict[OutputFormat, str] = {"png": "PNG", "jpeg": "JPEG", "webp": "WebP"}
_BAND_ROWS = 256


def check_output(width: int, height: int, format: OutputFormat, quality: int = DEFAULT_QUALITY) -> None:  # noqa: A002
    """Raise UnsupportedOutput when the format cannot hold a result of this size; ask before computing it."""
    if format not in MAX_OUTPUT_SIDES:
        raise UnsupportedOutput(f"{format!r} is not written here: ask for png, jpeg or webp.")
    if not 1 <= quality <= 100:
        raise UnsupportedOutput(
            f"The quality is {quality}: it must be between 1 and 100 ({DEFAULT_QUALITY} when left out)."
        )
    if max(width, height) > MAX_OUTPUT_SIDES[format]:
        roomier = [_NAMES[other] for other, side in MAX_OUTPUT_SIDES.items() if side >= max(width, height)]
        raise UnsupportedOutput(
            f"The result has {width} x {height} pixels and {_NAMES[format]} holds {MAX_OUTPUT_SIDES[format]:,} a side: "
            f"ask for {' or '.join(roomier) or 'a smaller one'}."
        )


def describe_losses(image: Image, format: OutputFormat) -> tuple[str, ...]:  # noqa: A002
    """Say in sentences what writing this image in this format will change, for the person who asked."""
    notes = []
    if image.alpha is not None and format == "jpeg":
        notes.append("JPEG has no transparency: the image was laid on white.")
    if image.icc_profile is not None and profile_for(image, format) is None:
        notes.append(f"{_NAMES[format]} stores these pixels as colour: the profile for greyscale was dropped.")
    return tuple(notes)


def encode(image: Image, format: OutputFormat, quality: int = DEFAULT_QUALITY) -> bytes:  # noqa: A002
    """Return the image as a file of the format; greyscale as one channel where the format has it (not in WebP).

    `quality` counts for JPEG (4:4:4) and WebP (lossy). Raises UnsupportedOutput when the format cannot hold the image.
    """
    check_output(image.width, image.height, format, quality)
    profile = profile_for(image, format)
    if format == "png":
        return _encode_png(image, profile)
    keywords = {} if profile is None else {"icc_profile": profile}
    target = BytesIO()
    if format == "jpeg":
        _lay_on_white(image).save(target, "JPEG", quality=quality, subsampling=0, **keywords)
    else:
        stored = image.pixels if image.alpha is None else np.dstack((image.pixels, image.alpha))
        PilImage.fromarray(stored).save(target, "WEBP", quality=quality, **keywords)
    return target.getvalue()


def png_mode(image: Image) -> str:
    """Return the mode in which this image is written as PNG: L, LA, RGB or RGBA."""
    return ("L" if image.is_grey else "RGB") + ("" if image.alpha is None else "A")


def join_channels(pixels: Pixels, alpha: Pixels | None, *, is_grey: bool) -> Pixels:
    """Return rows as a PNG stores them, [h, W, 1..4]: one grey channel (ITU-R BT.601 luma) or three, then alpha.

    `pixels` [h, W, 3] and `alpha` [h, W] may be a band of an image.
    """
    colour = np.asarray(PilImage.fromarray(pixels).convert("L"))[..., np.newaxis] if is_grey else pixels
    return colour if alpha is None else np.dstack((colour, alpha))


def _encode_png(image: Image, profile: bytes | None) -> bytes:
    stream = PngStream(image.width, image.height, png_mode(image), profile)
    parts = [stream.header()]
    for top in range(0, image.height, _BAND_ROWS):
        band = slice(top, top + _BAND_ROWS)
        alpha = None if image.alpha is None else image.alpha[band]
        parts.append(stream.rows(join_channels(image.pixels[band], alpha, is_grey=image.is_grey)))
    return b"".join((*parts, stream.finish()))


def _lay_on_white(image: Image) -> PilImage.Image:
    drawn = PilImage.fromarray(image.pixels)
    if image.alpha is not None:
        white = PilImage.new("RGB", drawn.size, (255, 255, 255))
        white.paste(drawn, mask=PilImage.fromarray(image.alpha))
        drawn = white
    return drawn.convert("L") if image.is_grey else drawn


def profile_for(image: Image, format: OutputFormat) -> bytes | None:  # noqa: A002
    """Return the profile when it describes the pixels as they are written: WebP has no greyscale."""
    if image.icc_profile is None:
        return None
    written = "greyscale" if image.is_grey and format != "webp" else "RGB"
    return image.icc_profile if colour_space(image.icc_profile) == written else None
