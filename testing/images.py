"""Builds images and uploads of every kind, small and seeded, so that none has to be stored.

Uses numpy and Pillow, nothing of the packages under test. Pixels are uint8 [H, W, 3] unless noted.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

Pixels = npt.NDArray[np.uint8]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, step down, step right of each pass of an interlaced PNG (W3C PNG section 8.1)."""

# How upright pixels are stored for each EXIF orientation (EXIF 2.32 section 4.6.4), so that a viewer turns them back.
_STORE: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def draw_photo(height: int, width: int, seed: int = 0) -> Pixels:
    """Draw the content of a photo: smooth gradients, hard edges and fine texture, in colour."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = y / max(height, width, 2), x / max(height, width, 2)
    image = np.empty((height, width, 3))
    for channel in range(3):
        slope_y, slope_x, phase = random.uniform(-1, 1, 3)
        image[..., channel] = 128 + 70 * np.sin(3 * (slope_y * y + slope_x * x + phase))
    for _ in range(6):  # discs and half-planes with sharp borders
        centre_y, centre_x, radius = random.uniform(0, 1, 3) * (1, 1, 0.3)
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
        image[inside] = 0.3 * image[inside] + 0.7 * random.uniform(0, 255, 3)
    texture = np.sin(90 * x + 40 * y) * (x > 0.5) + random.normal(0, 0.3, (height, width))
    image += 12 * texture[..., np.newaxis]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def draw_grey(height: int, width: int, seed: int = 0) -> Pixels:
    """Draw one channel of `draw_photo`, [H, W]."""
    return draw_photo(height, width, seed)[..., 1].copy()


def draw_alpha(height: int, width: int) -> Pixels:
    """Draw an alpha channel [H, W]: a soft-edged disc, opaque inside, 0 outside."""
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot((y - height / 2) / max(height, 1), (x - width / 2) / max(width, 1))
    return np.clip(np.rint((0.4 - distance) * 2000), 0, 255).astype(np.uint8)


def save(drawn: PilImage.Image, format: str, **options: Any) -> bytes:  # noqa: A002 - Pillow's own word
    """Encode a Pillow image."""
    target = BytesIO()
    drawn.save(target, format, **options)
    return target.getvalue()


def encode_png(pixels: npt.NDArray[Any], **options: Any) -> bytes:
    """Encode [H, W], [H, W, 2], [H, W, 3] or [H, W, 4] pixels as PNG."""
    return save(PilImage.fromarray(pixels), "PNG", **options)


def encode_jpeg(pixels: Pixels, **options: Any) -> bytes:
    """Encode pixels as JPEG, quality 95 and 4:4:4 by default."""
    return save(PilImage.fromarray(pixels), "JPEG", **{"quality": 95, "subsampling": 0, **options})


def encode_webp(pixels: Pixels, **options: Any) -> bytes:
    """Encode pixels as WebP, lossless by default."""
    return save(PilImage.fromarray(pixels), "WEBP", **{"lossless": True, **options})


def exif_with_orientation(orientation: int, *, byte_order: str = "<", gps: bool = False) -> bytes:
    """Return a TIFF block with an orientation and optionally a GPS tag, which must never reach a result."""
    start = b"II*\0" if byte_order == "<" else b"MM\0*"
    entries = [struct.pack(f"{byte_order}HHIHH", 0x0112, 3, 1, orientation, 0)]
    if gps:
        entries.append(struct.pack(f"{byte_order}HHI4s", 0x8825, 2, 4, b"HOME"))
    return start + struct.pack(f"{byte_order}IH", 8, len(entries)) + b"".join(entries) + b"\0\0\0\0"


def xmp_with_orientation(orientation: int, *, as_element: bool = False) -> bytes:
    """Return an XMP packet with tiff:Orientation, as an attribute (macOS) or as an element (Adobe)."""
    attribute, element = (
        ("", f"<tiff:Orientation>{orientation}</tiff:Orientation>")
        if as_element
        else (f' tiff:Orientation="{orientation}"', "")
    )
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{attribute}>{element}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def png_with_xmp(pixels: Pixels, xmp: bytes, *, is_compressed: bool = False) -> bytes:
    """Encode pixels as PNG with an XMP packet in an iTXt chunk."""
    flags, text = (b"\1\0", zlib.compress(xmp)) if is_compressed else (b"\0\0", xmp)
    return insert_png_chunk(encode_png(pixels), b"iTXt", b"XML:com.adobe.xmp\0" + flags + b"\0\0" + text)


def raw_profile(exif: bytes) -> bytes:
    """Return EXIF as the text of ImageMagick's "Raw profile type exif"."""
    block = b"Exif\0\0" + exif
    digits = block.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return f"\nexif\n{len(block):8}\n{lines}\n".encode()


def store_for_orientation(upright: Pixels, orientation: int) -> Pixels:
    """Return the pixels to store so that a viewer that applies the orientation shows them upright."""
    return np.ascontiguousarray(_STORE[orientation](upright))


def encode_jpeg_with_orientation(upright: Pixels, orientation: int) -> bytes:
    """Encode a JPEG as a rotated camera does: stored rotated, with the orientation tag that undoes it."""
    exif = b"Exif\0\0" + exif_with_orientation(orientation)
    return encode_jpeg(store_for_orientation(upright, orientation), exif=exif)


def icc_profile(space: bytes = b"RGB ", *, n_bytes: int = 180) -> bytes:
    """Return a minimal valid ICC profile for a colour space: b"RGB ", b"GRAY" or b"CMYK"."""
    profile = bytearray(n_bytes)
    struct.pack_into(">I4sI4s4s4s", profile, 0, n_bytes, b"none", 0x04300000, b"mntr", space, b"XYZ ")
    profile[36:40] = b"acsp"
    struct.pack_into(">I4sII", profile, 128, 1, b"desc", 144, 20)
    profile[144:148] = b"mluc"
    return bytes(profile)


def cmyk_jpeg(pixels: Pixels, **options: Any) -> bytes:
    """Encode RGB pixels as an Adobe CMYK JPEG (stored inverted)."""
    return save(PilImage.fromarray(pixels).convert("CMYK"), "JPEG", quality=95, subsampling=0, **options)


def ycck_jpeg(pixels: Pixels) -> bytes:
    """Encode RGB pixels as an Adobe YCCK JPEG, as Photoshop writes CMYK."""
    inks = np.asarray(PilImage.fromarray(pixels).convert("CMYK"))
    luma = np.asarray(PilImage.fromarray(np.ascontiguousarray(inks[..., :3])).convert("YCbCr"))
    planes = np.dstack((255 - luma, inks[..., 3]))  # Pillow inverts CMYK on writing
    data = save(PilImage.fromarray(planes, mode="CMYK"), "JPEG", quality=95, subsampling=0)
    adobe = data.index(b"Adobe")
    return data[: adobe + 11] + b"\2" + data[adobe + 12 :]  # the transform byte: 2 is YCCK


def palette_png(pixels: Pixels, colours: int = 16) -> bytes:
    """Encode pixels reduced to a palette."""
    return save(PilImage.fromarray(pixels).quantize(colours), "PNG")


def palette_png_with_transparency(pixels: Pixels, colours: int = 16) -> bytes:
    """Encode pixels reduced to a palette whose first entry is transparent and whose second is half transparent."""
    return save(
        PilImage.fromarray(pixels).quantize(colours), "PNG", transparency=bytes([0, 128] + [255] * (colours - 2))
    )


def png_with_transparent_colour(pixels: Pixels, key: tuple[int, ...]) -> bytes:
    """Encode opaque pixels [H, W] or [H, W, 3] with one transparent grey or colour (tRNS)."""
    return insert_png_chunk(encode_png(pixels), b"tRNS", struct.pack(f">{len(key)}H", *key))


def grey16_png(samples: npt.NDArray[np.uint16]) -> bytes:
    """Encode 16-bit grey samples [H, W]."""
    return save(PilImage.fromarray(samples), "PNG")


def raw_png(height: int, width: int, depth: int, colour_type: int, rows: bytes, chunks: Iterable[bytes] = ()) -> bytes:
    """Build a PNG of any depth from packed, unfiltered rows and the chunks that precede them."""
    row_bytes = len(rows) // height
    filtered = b"".join(b"\0" + rows[at : at + row_bytes] for at in range(0, len(rows), row_bytes))
    size = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(filtered)) + png_chunk(b"IEND", b"")
    return PNG_SIGNATURE + size + b"".join(chunks) + pixels


def interlaced_png(pixels: Pixels) -> bytes:
    """Encode RGB pixels with Adam7 interlacing (W3C PNG section 8.1), which Pillow cannot write."""
    parts = [pixels[top::down, left::right] for top, left, down, right in ADAM7]
    filtered = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(filtered)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(png_chunk(kind, body) for kind, body in chunks)


def one_bit_png(bits: npt.NDArray[np.bool_]) -> bytes:
    """Encode black and white [H, W]."""
    return save(PilImage.fromarray(bits), "PNG")


def animated_webp(frames: Iterable[Pixels]) -> bytes:
    """Encode frames of one size as a lossless animated WebP."""
    return _animate(frames, "WEBP", lossless=True)


def animated_png(frames: Iterable[Pixels]) -> bytes:
    """Encode frames of one size as an APNG."""
    return _animate(frames, "PNG")


def png_header_only(height: int, width: int) -> bytes:
    """Return a PNG of 45 bytes that declares a size and contains no pixels."""
    size = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return PNG_SIGNATURE + size + png_chunk(b"IEND", b"")


def truncated(data: bytes, keep: float = 0.6) -> bytes:
    """Return the first part of a file, as after an interrupted transfer."""
    return data[: int(len(data) * keep)]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def insert_png_chunk(png: bytes, kind: bytes, body: bytes, *, copies: int = 1) -> bytes:
    """Return a PNG with a chunk inserted right before its first IDAT."""
    at = png.index(b"IDAT") - 4
    return png[:at] + png_chunk(kind, body) * copies + png[at:]


def insert_jpeg_segment(jpeg: bytes, marker: int, body: bytes, *, copies: int = 1) -> bytes:
    """Return a JPEG with a segment inserted right after its start marker."""
    return jpeg[:2] + (bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body) * copies + jpeg[2:]


def add_webp_chunk(webp: bytes, kind: bytes, body: bytes, *, copies: int = 1) -> bytes:
    """Return a WebP with a chunk appended inside its RIFF."""
    chunk = (struct.pack("<4sI", kind, len(body)) + body + b"\0" * (len(body) % 2)) * copies
    return webp[:4] + struct.pack("<I", len(webp) - 8 + len(chunk)) + webp[8:] + chunk


def _animate(frames: Iterable[Pixels], format: str, **options: Any) -> bytes:  # noqa: A002 - Pillow's own word
    first, *others = [PilImage.fromarray(frame) for frame in frames]
    return save(first, format, save_all=True, append_images=others, duration=100, loop=0, **options)
