"""Uploads: encoded bytes with the facts of their headers, before any decoding.

`probe` detects the format from the bytes, reads the size from the headers and rejects an upload that is over a limit or
invalid. It never decodes a pixel.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from preprocessing.decoder_limits import DecoderLimits
from preprocessing.depth import Depth
from preprocessing.errors import (
    EmptyUploadError,
    SideTooLongError,
    TooManyBytesError,
    TooManyPixelsError,
    UnknownFormatError,
    UnreadableImageError,
)
from preprocessing.formats.bmp import SIGNATURE as BMP_SIGNATURE
from preprocessing.formats.bmp import read_bmp
from preprocessing.formats.container import INPUT_FORMAT_NAMES, Container, InputFormat
from preprocessing.formats.exif import Orientation, find_orientation, swaps_sides
from preprocessing.formats.gif import SIGNATURES as GIF_SIGNATURES
from preprocessing.formats.gif import read_gif
from preprocessing.formats.isobmff import is_image, read_isobmff
from preprocessing.formats.jpeg import SIGNATURE as JPEG_SIGNATURE
from preprocessing.formats.jpeg import read_jpeg
from preprocessing.formats.png import SIGNATURE as PNG_SIGNATURE
from preprocessing.formats.png import check_pixels, read_png
from preprocessing.formats.tiff import SIGNATURES as TIFF_SIGNATURES
from preprocessing.formats.tiff import read_tiff
from preprocessing.formats.webp import is_webp, read_webp

# Pillow's own limit (Image.MAX_IMAGE_PIXELS). Above it Pillow warns of a decompression bomb, which is an error here.
MAX_DECODED_PIXELS = 89_478_485

# Offset, first bytes and name of formats that are named in the error.
_UNSUPPORTED_FORMATS = (
    (4, (b"ftyp",), "a video"),
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
    formats: tuple[InputFormat, ...] = tuple(INPUT_FORMAT_NAMES)
    """Formats that are read, if they have a decoder."""
    decoder: DecoderLimits = field(default_factory=DecoderLimits)
    """Limits of the process that decodes formats other than JPEG, PNG and WebP, and converts CMYK."""

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
    """Orientation 1..8, from EXIF or XMP."""
    is_turned_by_browsers: bool
    """Whether a browser that shows `data` applies the same orientation."""
    container: Container = field(repr=False, compare=False)
    decoder_limits: DecoderLimits = field(default_factory=DecoderLimits)
    """Limits of the process that decodes it, if one does."""

    @property
    def depth(self) -> Depth:
        """Bits per sample that decoding can keep: 16 for PNG and TIFF with more than 8, except CMYK."""
        keeps = self.format in ("PNG", "TIFF") and self.mode != "CMYK"
        return 16 if keeps and self.container.bits > 8 else 8

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
        raise EmptyUploadError(f"The upload is empty (0 bytes). Choose an image: {describe_formats(limits.formats)}.")
    if len(data) > limits.max_bytes:
        raise TooManyBytesError(
            f"The upload has {len(data):,} bytes; {limits.max_bytes:,} is the limit. "
            "Send a smaller image, or save it as JPEG or WebP."
        )
    upload = probe_start(data, limits)
    container = upload.container
    if container.defect:
        raise UnreadableImageError(container.defect)
    if container.format == "PNG" and not container.has_end:
        _check_png_pixels(container)
    return upload


def probe_start(data: bytes, limits: UploadLimits) -> Upload:
    """Return the facts in the first bytes of an upload that is still being received; it may not be decoded.

    Raises UnknownFormatError, TooManyPixelsError or SideTooLongError for what these bytes show already, and
    UnreadableImageError when they do not reach to the size of the image.
    """
    container = _read_container(data, limits.formats)
    _check_size(container, limits)
    orientation = _find_orientation(container)
    width, height = container.width, container.height
    if swaps_sides(orientation.value):
        width, height = height, width
    return Upload(
        data=data,
        format=container.format,
        width=width,
        height=height,
        mode=container.mode,
        frames=container.frames,
        orientation=orientation.value,
        is_turned_by_browsers=orientation.is_shown_by_browsers,
        container=container,
        decoder_limits=limits.decoder,
    )


def readable_formats(formats: Iterable[InputFormat] = tuple(INPUT_FORMAT_NAMES)) -> list[InputFormat]:
    """Return those of `formats` that this installation decodes: HEIC needs the package pi-heif."""
    return [name for name in formats if name != "HEIF" or _has_heif_decoder()]


def describe_formats(formats: Sequence[InputFormat]) -> str:
    """Return formats for errors: "JPEG, PNG or WebP"."""
    names = [INPUT_FORMAT_NAMES[name] for name in formats]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _has_heif_decoder() -> bool:
    return find_spec("pi_heif") is not None


# Whether the first bytes are those of a format, and its reader.
_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Container]], ...] = (
    (lambda data: data.startswith(PNG_SIGNATURE), read_png),
    (lambda data: data.startswith(JPEG_SIGNATURE), read_jpeg),
    (is_webp, read_webp),
    (is_image, read_isobmff),
    (lambda data: data.startswith(TIFF_SIGNATURES), read_tiff),
    (lambda data: data.startswith(BMP_SIGNATURE), read_bmp),
    (lambda data: data.startswith(GIF_SIGNATURES), read_gif),
)


def _read_container(data: bytes, formats: Sequence[InputFormat]) -> Container:
    accepted = describe_formats(formats)
    reader = next((read for is_format, read in _READERS if is_format(data)), None)
    if reader is not None:
        container = reader(data)
        if container.format not in formats:
            name = INPUT_FORMAT_NAMES[container.format]
            raise UnknownFormatError(f"The upload is a {name}, which this service does not read. Send a {accepted}.")
        if container.format == "HEIF" and not _has_heif_decoder():
            raise UnknownFormatError(
                "The upload is a HEIC, and this service has no decoder for it (the operator adds it with: "
                "pip install pi-heif). Save it as JPEG or PNG."
            )
        return container
    guesses = (name for at, starts, name in _UNSUPPORTED_FORMATS if data[at:].lstrip().startswith(starts))
    found = f"is {guess}" if (guess := next(guesses, None)) else f"begins with {data[:8]!r}, an unknown format"
    raise UnknownFormatError(f"The upload {found}. Send a {accepted}.")


def _find_orientation(container: Container) -> Orientation:
    if container.orientation is not None:
        return Orientation(container.orientation)
    return find_orientation(container.exif, container.xmp, is_exif_read_by_browsers=container.is_exif_read_by_browsers)


def _check_png_pixels(container: Container) -> None:
    """Reject a PNG that was cut inside its pixels. Inflating in pieces takes little memory, and 16 ms per megapixel."""
    try:
        check_pixels(container.required_chunks, must_end=container.has_cut_pixels)
    except zlib.error as error:
        raise UnreadableImageError(f"Truncated or corrupt PNG ({error}). Send the whole file.") from error


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
