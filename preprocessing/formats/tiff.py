"""TIFF 6.0: read the first directory without decoding a pixel."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import zip_longest

from preprocessing.errors import UnreadableImageError
from preprocessing.formats.container import MAX_ICC_BYTES, MAX_XMP_BYTES, Container
from preprocessing.formats.exif import MAKER_NOTE, find_parts, sound_dpi
from preprocessing.metadata.exif_rewrite import rewrite_exif
from preprocessing.metadata.iptc import MAX_IPTC_BYTES, read_iptc, write_iptc

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BIG_TIFF = SIGNATURES[2:]

# Directories that are counted as pages; each is visited once.
_MAX_PAGES = 1_024
# Entries of a directory that are read; cameras write some 60.
_MAX_ENTRIES = 4_096
# Values of a tag that are read, and strips or tiles: one per row of the highest image that is accepted.
_MAX_VALUES = 16
_MAX_STRIPS = 65_536

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 259, 262, 274
_SAMPLES, _X_RESOLUTION, _Y_RESOLUTION, _UNIT, _EXTRA, _FORMAT = 277, 282, 283, 296, 338, 339
_TEXTS = {270, 271, 272, 285, 305, 306, 315, 316, 33432}  # description, make, model, ... copyright
_STRIPS, _STRIP_ROWS, _STRIP_BYTES, _PLANES, _TILES, _TILE_BYTES = 273, 278, 279, 284, 324, 325
_XMP, _IPTC, _PHOTOSHOP, _EXIF, _GPS, _ICC, _DNG = 700, 33723, 34377, 34665, 34853, 34675, 50706
_SUB_IMAGES, _LAYERS, _C2PA = 330, 37724, 0xCD41  # C2PA specification 2.2, annex A.3.4

# Struct code and bytes of BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED.
_TYPES = {1: ("B", 1), 2: ("c", 1), 3: ("H", 2), 4: ("I", 4), 5: ("II", 8), 7: ("B", 1)}
_GREY, _RGB, _PALETTE, _SEPARATED, _YCBCR = (0, 1), 2, 3, 5, 6
_RAW_PHOTOMETRICS = (32803, 34892)  # colour filter array and linear raw, of cameras
_MODES = {_RGB: ("RGB", "RGBA"), _PALETTE: ("P", "P"), _SEPARATED: ("CMYK", "CMYK"), _YCBCR: ("RGB", "RGB")}
_MAX_BITS = 16
_SAMPLE_FORMATS = {2: "signed integers", 3: "floating point", 5: "complex numbers", 6: "complex numbers"}


@dataclass(eq=False)
class _Directory:
    """The tags of one image: what can be read of them without following more than one offset each."""

    data: bytes = field(repr=False)
    order: str
    entries: dict[int, tuple[int, int, int]]
    """Tag -> (type, count, offset of the value)."""
    following: int
    """Offset of the next directory; 0 when there is none."""

    def numbers(self, tag: int, maximum: int = _MAX_VALUES) -> tuple[int, ...]:
        """Return the values of a tag, at most `maximum`; empty without a sound one."""
        kind, count, at = self.entries.get(tag, (0, 0, 0))
        code, size = _TYPES.get(kind, ("", 0))
        if code not in ("B", "H", "I", "II"):
            return ()
        count = min(count, maximum)
        if at + count * size > len(self.data):
            return ()
        return struct.unpack_from(f"{self.order}{code * count}", self.data, at)

    def number(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        return next(iter(self.numbers(tag)), default)

    def ratio(self, tag: int) -> float:
        """Return the first RATIONAL of a tag; 0 without a sound one."""
        values = self.numbers(tag)
        return values[0] / values[1] if len(values) >= 2 and values[1] else 0.0

    def blob(self, tag: int, max_bytes: int) -> bytes:
        """Return the bytes of a tag; empty when they lie outside of the file."""
        kind, count, at = self.entries.get(tag, (0, 0, 0))
        length = count * _TYPES.get(kind, ("", 0))[1]
        return self.data[at : at + min(length, max_bytes)] if at + length <= len(self.data) else b""


def read_tiff(data: bytes) -> Container:
    """Return the facts in the first directory of a TIFF.

    Raises UnreadableImageError when the size of the image is missing. Any other defect is returned in
    `Container.defect`, so that the caller can check the size first.
    """
    if data[:4] in _BIG_TIFF:
        raise UnreadableImageError("BigTIFF (for files over 4 GB) is not supported. Save it as TIFF or PNG.")
    order = "<" if data[:2] == b"II" else ">"
    start = int.from_bytes(data[4:8], "little" if order == "<" else "big")
    first = _read_directory(data, order, start)
    width, height = (first.number(tag, 0) for tag in (_WIDTH, _HEIGHT)) if first else (0, 0)
    if first is None or width < 1 or height < 1:
        raise UnreadableImageError("Invalid or truncated TIFF: no image size found. Send the whole file.")
    bits = first.numbers(_BITS) or (1,)
    photometric = first.number(_PHOTOMETRIC, _GREY[0])
    defect = _find_defect(first, photometric, bits)
    per_inch = {2: 1.0, 3: 2.54}.get(first.number(_UNIT, 2), 0.0)
    orientation = first.number(_ORIENTATION, 1)
    iptc = read_iptc(write_iptc(first.blob(_IPTC, MAX_IPTC_BYTES + 1)))
    exif = rewrite_exif(data, width, height, None)  # without the tags that describe the pixels
    return Container(
        format="TIFF",
        width=width,
        height=height,
        mode=_find_mode(first, photometric, bits),
        required_chunks=(data,),
        bits=max(bits),
        pages=_count_pages(first, start),
        # Without the tag, XMP counts, as in Pillow.
        orientation=(orientation if 1 <= orientation <= 8 else 1) if _ORIENTATION in first.entries else None,
        is_exif_read_by_browsers=False,
        icc_profile=first.blob(_ICC, MAX_ICC_BYTES + 1) or None,
        dpi=sound_dpi(first.ratio(_X_RESOLUTION) * per_inch, first.ratio(_Y_RESOLUTION) * per_inch),
        exif=exif,
        xmp=first.blob(_XMP, MAX_XMP_BYTES),
        iptc=iptc,
        dropped=_name_dropped(data, first, exif, iptc),
        defect=defect,
    )


def _read_directory(data: bytes, order: str, at: int) -> _Directory | None:
    """Return the directory at an offset; None when it is not inside the file."""
    if at < 8 or at + 2 > len(data):
        return None
    (count,) = struct.unpack_from(f"{order}H", data, at)
    end = at + 2 + 12 * count
    if count > _MAX_ENTRIES or end + 4 > len(data):
        return None
    entries: dict[int, tuple[int, int, int]] = {}
    for place in range(at + 2, end, 12):
        tag, kind, number, offset = struct.unpack_from(f"{order}HHII", data, place)
        is_inline = number * _TYPES.get(kind, ("", 8))[1] <= 4
        entries.setdefault(tag, (kind, number, place + 8 if is_inline else offset))
    (following,) = struct.unpack_from(f"{order}I", data, end)
    return _Directory(data, order, entries, following)


def _count_pages(first: _Directory, start: int) -> int:
    """Return the number of images in the file, each directory counted once, at most `_MAX_PAGES`."""
    visited, following = {start}, first.following
    while following and following not in visited and len(visited) < _MAX_PAGES:
        page = _read_directory(first.data, first.order, following)
        if page is None:
            break
        visited.add(following)
        following = page.following
    return len(visited)


def _find_mode(first: _Directory, photometric: int, bits: tuple[int, ...]) -> str:
    colours = {_RGB: 3, _YCBCR: 3, _SEPARATED: 4}.get(photometric, 1)
    has_alpha = first.number(_SAMPLES, 1) > colours and first.number(_EXTRA, 2) in (1, 2)
    if photometric in _MODES:
        return _MODES[photometric][has_alpha]
    return "LA" if has_alpha else "1" if max(bits) == 1 else "I;16" if max(bits) > 8 else "L"


def _find_defect(first: _Directory, photometric: int, bits: tuple[int, ...]) -> str:
    sample_format = max(first.numbers(_FORMAT) or (1,))
    if photometric in _RAW_PHOTOMETRICS or _DNG in first.entries:
        return "This TIFF is a camera's raw file (DNG), which is not supported. Export it as TIFF or JPEG."
    if sample_format in _SAMPLE_FORMATS:
        return (
            f"This TIFF has samples in {_SAMPLE_FORMATS[sample_format]}; only whole numbers of 1 to 16 bits are "
            "supported. Save it with 8 or 16 bits per channel."
        )
    if max(bits) > _MAX_BITS:
        return f"This TIFF has {max(bits)} bits per sample; at most {_MAX_BITS} are supported. Save it with 8 or 16."
    if photometric not in (*_GREY, *_MODES):
        return (
            f"This TIFF has colours of a kind (photometric interpretation {photometric}) that is not supported. "
            "Save it as RGB, CMYK or greyscale."
        )
    return _find_missing_rows(first)


def _find_missing_rows(first: _Directory) -> str:
    """Return which rows the file lacks, as a sentence: decoders leave those of missing strips black."""
    height = first.number(_HEIGHT, 0)
    is_tiled = _TILES in first.entries
    starts = first.numbers(_TILES if is_tiled else _STRIPS, _MAX_STRIPS)
    sizes = first.numbers(_TILE_BYTES if is_tiled else _STRIP_BYTES, _MAX_STRIPS)
    planes = first.number(_SAMPLES, 1) if first.number(_PLANES, 1) == 2 else 1
    rows = min(first.number(_STRIP_ROWS, height), height) * len(starts) // max(planes, 1)
    if not is_tiled and rows < height:
        return f"Truncated or corrupt TIFF: its strips hold {rows:,} of {height:,} rows. Send the whole file."
    ends = [start + size for start, size in zip_longest(starts, sizes, fillvalue=0)]
    if max(ends, default=0) > len(first.data):
        return (
            f"Truncated or corrupt TIFF: its pixels lie outside of the file, which has {len(first.data):,} bytes. "
            "Send the whole file."
        )
    return ""


def _name_dropped(data: bytes, first: _Directory, exif: bytes, iptc: bytes) -> tuple[str, ...]:
    """Return what no result has, in words. EXIF and IPTC that cannot be written again are not kept at all."""
    found = first.entries.keys()
    x_resolution, y_resolution = first.ratio(_X_RESOLUTION), first.ratio(_Y_RESOLUTION)
    names = {
        "EXIF": not exif and bool(found & {_EXIF, _GPS, *_TEXTS}),
        "the maker's note in EXIF": MAKER_NOTE in find_parts(data),
        "IPTC": not iptc and _IPTC in found,
        "data of Photoshop": bool(found & {_PHOTOSHOP, _LAYERS}),
        "further images": _SUB_IMAGES in found,
        "the C2PA manifest": _C2PA in found,
        "the shape of the pixels": first.number(_UNIT, 2) == 1 and x_resolution != y_resolution,
    }
    return tuple(name for name, is_there in names.items() if is_there)
