"""Uploads: encoded bytes with the facts of their header, before any decode.

`probe` is the door: it sniffs the format from the bytes, reads the size from the header and refuses what is over the
limits or cannot be read. It never decodes a pixel.
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

MAX_DECODED_PIXELS = 89_478_485
"""Pillow's own ceiling (Image.MAX_IMAGE_PIXELS), over which it warns of a decompression bomb: an error here."""

_LOOKALIKES = (
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
    """What an upload may at most be."""

    max_bytes: int
    max_pixels: int
    """Width times height; at most MAX_DECODED_PIXELS."""
    max_side: int
    """Pixels of the longer side."""

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.max_pixels, self.max_side) < 1:
            raise ValueError(f"{self}: every limit must be at least 1.")
        if self.max_pixels > MAX_DECODED_PIXELS:
            raise ValueError(
                f"{self}: max_pixels can be at most {MAX_DECODED_PIXELS:,}, which is all that Pillow decodes."
            )


@dataclass(frozen=True)
class Upload:
    """An upload that may be decoded: within its limits, of a known format, with nothing missing that a header tells."""

    data: bytes = field(repr=False)
    format: InputFormat
    width: int
    """As displayed, after the orientation is applied."""
    height: int
    mode: str
    """Pillow's name of the stored pixels: 1, L, LA, I;16, P, RGB, RGBA or CMYK."""
    frames: int
    """Frames of the animation, 1 for a still; only the first is decoded."""
    orientation: int
    """EXIF orientation 1..8."""
    container: Container = field(repr=False, compare=False)

    @property
    def may_be_transparent(self) -> bool:
        """Whether the header speaks of alpha; that every pixel is opaque all the same shows when it is decoded."""
        in_palette = self.mode == "P" and any(part[4:8] == b"tRNS" for part in self.container.essence)
        return in_palette or self.mode in ("LA", "RGBA") or bool(self.container.transparent)


def probe(data: bytes, limits: UploadLimits) -> Upload:
    """Read the header of an upload and refuse it by name, before any decode, when it is over a limit or broken.

    Raises EmptyUpload, TooManyBytes, UnknownFormat, TooManyPixels, SideTooLong or UnreadableImage.
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
    if container.flaw:
        raise UnreadableImageError(container.flaw)
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
    guesses = (name for at, starts, name in _LOOKALIKES if data[at:].lstrip().startswith(starts))
    seems = (
        f"is {guess}" if (guess := next(guesses, None)) else f"begins with {data[:8]!r}, which is no image known here"
    )
    raise UnknownFormatError(f"The upload {seems}. JPEG, PNG and WebP are read: save it as one of these.")


def _check_size(container: Container, limits: UploadLimits) -> None:
    width, height = container.width, container.height
    if width * height > limits.max_pixels:
        raise TooManyPixelsError(
            f"The image has {width} x {height} = {width * height:,} pixels; {limits.max_pixels:,} is the limit. "
            "Send a smaller image or a part of it."
        )
    if max(width, height) > limits.max_side:
        raise SideTooLongError(
            f"The image has {width} x {height} pixels; {limits.max_side:,} is the limit for a side. "
            "Send a smaller image or a part of it."
        )
