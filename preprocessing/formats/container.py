"""The facts in an upload's headers, and the chunks that a decoder needs, read before any decoder runs.

Each format has a reader (`read_png`, `read_jpeg`, ...) that walks its chunks or segments without touching a pixel and
returns a `Container`. Pillow is given `Container.required_chunks` only. Of JPEG, PNG and WebP these hold no text,
thumbnails, further frames, EXIF, XMP or compressed profiles, so a decompression bomb in them cannot explode. Files of
`SANDBOXED_FORMATS` are decoded in another process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from preprocessing.metadata.texts import Texts

InputFormat = Literal["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "GIF"]

INPUT_FORMAT_NAMES: dict[InputFormat, str] = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WEBP": "WebP",
    "AVIF": "AVIF",
    "HEIF": "HEIC",
    "TIFF": "TIFF",
    "BMP": "BMP",
    "GIF": "GIF",
}

INPUT_MEDIA_TYPES: dict[InputFormat, tuple[str, ...]] = {
    **{name: (f"image/{name.lower()}",) for name in INPUT_FORMAT_NAMES},
    # Windows and Linux know no media type of these by default, so browsers need the suffixes.
    "HEIF": ("image/heic", "image/heif", ".heic", ".heif"),
    "TIFF": ("image/tiff", ".tif", ".tiff"),
}
"""What file dialogs accept for each format: media types, and suffixes where systems lack the media type."""

# Decoded in a separate process with limits (`preprocessing.sandbox`): these decoders are less tested.
SANDBOXED_FORMATS: tuple[InputFormat, ...] = ("AVIF", "HEIF", "TIFF", "BMP", "GIF")
# Not shown by Chromium and Firefox.
UNSHOWN_FORMATS: tuple[InputFormat, ...] = ("HEIF", "TIFF")

# Chunks or segments read from one upload. Encoders write 8 KiB and more per chunk, so 512 MiB of normal PNG pass.
# Reading 65,536 empty chunks takes 0.1 to 0.2 s here; the 2.8 million that fit into 32 MiB took 4.8 s.
MAX_PARTS = 65_536

# The largest ICC profile kept. sRGB-like profiles have 0.5 to 4 kB, RGB table profiles up to some 600 kB.
MAX_ICC_BYTES = 1_048_576
# Maximum bytes of XMP that are read. XMP of editors has 2 to 60 kB.
MAX_XMP_BYTES = 1_048_576


@dataclass(frozen=True, eq=False)
class Container:
    """The facts in an upload's headers; `width` and `height` as stored, before the orientation is applied."""

    format: InputFormat
    width: int
    height: int
    mode: str
    """Pillow's name of the stored pixels: 1, L, LA, I;16, P, RGB, RGBA or CMYK."""
    required_chunks: Sequence[bytes | memoryview] = field(repr=False)
    """The chunks (JPEG: segments) that a decoder needs, in order; joined, a valid file without any metadata."""
    bits: int = 8
    """Bits per sample; fewer than 8 are spread over 0..255."""
    frames: int = 1
    """Frames of an animation; 1 for a still image."""
    pages: int = 1
    """Pages of a TIFF; only the first is decoded."""
    orientation: int | None = None
    """Orientation 1..8 where the format itself has one; None when it is in EXIF or XMP."""
    exif: bytes = field(default=b"", repr=False)
    """The EXIF block as found, unchecked; empty when there is none."""
    xmp: bytes = field(default=b"", repr=False)
    """The XMP packet as found, unchecked; empty when there is none."""
    iptc: bytes = field(default=b"", repr=False)
    """Datasets of IPTC-IIM; empty when there are none."""
    texts: Texts = field(default_factory=Texts, repr=False)
    """Comments and text chunks, up to a limit."""
    is_exif_read_by_browsers: bool = True
    """Whether the EXIF block is where browsers look for it."""
    icc_profile: bytes | None = field(default=None, repr=False)
    """The ICC profile as found, unchecked, at most MAX_ICC_BYTES + 1 bytes."""
    colour_chunks: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    """Type and body of the colour chunks of a PNG: see `preprocessing.formats.colour_chunks`."""
    transparent: bytes = b""
    """The one transparent grey or colour of a PNG (tRNS, big-endian 16-bit samples); empty when there is none."""
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical resolution of the stored pixels, per inch; None when the file has none."""
    dropped: tuple[str, ...] = ()
    """What else the file holds and no result has, in words; EXIF, XMP, IPTC and texts not counted."""
    has_end: bool = True
    """Whether the file has its end; without one, `required_chunks` have it nevertheless."""
    has_cut_pixels: bool = False
    """Whether the last chunk of pixels was cut, so that its checksum is missing."""
    notes: tuple[str, ...] = ()
    """What the user should know about the container, one sentence each."""
    defect: str = ""
    """Why these bytes cannot be decoded, as a sentence; empty when no defect was found."""
