"""Uploads: encoded bytes with the facts of their headers, before any decoding.

`probe` detects the format from the bytes, reads the size from the headers and rejects an upload that is over a limit or
invalid. It never decodes a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from preprocessing.errors import (
    EmptyUploadError,
    SideTooLongError,
    TooManyBytesError,
    TooManyPixelsError,
    UnknownFormatError,
    UnreadableImageError,
)
from preprocessing.formats.container import Container, InputFormat
from preprocessing.formats.exif import read_orientation, swaps_sides
from preprocessing.formats.jpeg import SIGNATURE as JPEG_SIGNATURE
from preprocessing.formats.jpeg import read_jpeg
from preprocessing.formats.png import SIGNATURE as PNG_SIGNATURE
from preprocessing.formats.png import read_png
from preprocessing.formats.webp import is_webp, read_webp

# Pillow's own limit (Image.MAX_IMAGE_PIXELS). Above it Pillow warns of a decompression bomb, which is an error here.
MAX_DECODED_PIXELS = 89_478_485

# Offset, first bytes and name of formats that are named in the error.
_UNSUPPORTED_FORMATS = (
    (0, (b"GIF87a", b"GIF89a"), "a GIF"),
    (0, (b"BM",), "a BMP"),
    (0, (b"II*\0", b"MM\0*"), "a TIFF or a camera's raw file"),
    (4, (b"ftypavif", b"ftypavis"), "an AVIF"),
    (4, (b"ftyp",), "a HEIC image or a video"),
    (0, (b"%PDF",), "a PDF"),
    (0, (b"<svg", b"<?xml", b"<!DOC", b"<html"), "SVG or a web page"),
    (0, (b"\xff\x0a", b"\0\0\0\x0cJXL "), "a JPEG XL"),
    (0, (b"\0\0\0\x0cjP  ",), "a JPEG 2000"),
)


@dataclass(frozen=True)
class UploadLimits:
    """Limits of one upload. Raises ValueError for limits below 1 or above what Pillow decodes."""

    max_bytes: int
    """Maximum size of the file."""
    max_pixels: int
    """Maximum of width times height; at most MAX_DECODED_PIXELS."""
    max_side: int
    """Maximum pixels of the longer side."""

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.max_pixels, self.max_side) < 1:
            raise ValueError(f"{self}: every limit must be at least 1.")
        if self.max_pixels > MAX_DECODED_PIXELS:
            raise ValueError(
                f"{self}: max_pixels can be at most {MAX_DECODED_PIXELS:,}, the maximum that Pillow decodes."
            )


@dataclass(frozen=True)
class Upload:
    """An upload that may be decoded: within the limits, of a known format, without a defect in its container."""

    data: bytes = field(repr=False)
    format: InputFormat
    width: int
    """Pixels as displayed, after the orientation is applied."""
    height: int
    """Pixels as displayed, after the orientation is applied."""
    mode: str
    """Pillow's name of the stored pixels: 1, L, LA, I;16, P, RGB, RGBA or CMYK."""
    frames: int
    """Frames of an animation, 1 for a still image; only the first is decoded."""
    orientation: int
    """EXIF orientation 1..8."""
    container: Container = field(repr=False, compare=False)

    @property
    def may_be_transparent(self) -> bool:
        """Whether the headers declare alpha; only decoding shows whether a pixel is in fact transparent."""
        in_palette = self.mode == "P" and any(chunk[4:8] == b"tRNS" for chunk in self.container.required_chunks)
        return in_palette or self.mode in ("LA", "RGBA") or bool(self.container.transparent)


def probe(data: bytes, limits: UploadLimits) -> Upload:
    """Return the facts in the headers of an upload, or reject it before any decoding.

    Raises EmptyUploadError, TooManyBytesError, UnknownFormatError, TooManyPixelsError, SideTooLongError or
    UnreadableImageError.
    """
    if not data:
        raise EmptyUploadError("The upload is empty (0 bytes). Choose a JPEG, PNG or WebP image.")
    if len(data) > limits.max_bytes:
        raise TooManyBytesError(
            f"The upload has {len(data):,} bytes; {limits.max_bytes:,} is the limit. "
            "Send a smaller image, or save it as JPEG or WebP."
        )
    container = _read_container(data)
    _check_size(container, limits)
    if container.defect:
        raise UnreadableImageError(container.defect)
    orientation = read_orientation(container.exif)
    width, height = container.width, container.height
    if swaps_sides(orientation):
        width, height = height, width
    return Upload(
        data=data,
        format=container.format,
        width=width,
        height=height,
        mode=container.mode,
        frames=container.frames,
        orientation=orientation,
        container=container,
    )


def _read_container(data: bytes) -> Container:
    if data.startswith(PNG_SIGNATURE):
        return read_png(data)
    if data.startswith(JPEG_SIGNATURE):
        return read_jpeg(data)
    if is_webp(data):
        return read_webp(data)
    guesses = (name for at, starts, name in _UNSUPPORTED_FORMATS if data[at:].lstrip().startswith(starts))
    found = f"is {guess}" if (guess := next(guesses, None)) else f"begins with {data[:8]!r}, an unknown format"
    raise UnknownFormatError(f"The upload {found}. Send a JPEG, PNG or WebP.")


def _check_size(container: Container, limits: UploadLimits) -> None:
    width, height = container.width, container.height
    if width * height > limits.max_pixels:
        raise TooManyPixelsError(
            f"The image has {width} x {height} = {width * height:,} pixels; {limits.max_pixels:,} is the limit. "
            "Send a smaller image or a part of it."
        )
    if max(width, height) > limits.max_side:
        raise SideTooLongError(
            f"The image has {width} x {height} pixels; {limits.max_side:,} is the limit per side. "
            "Send a smaller image or a part of it."
        )
