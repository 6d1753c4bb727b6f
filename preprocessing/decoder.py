"""Decodes an upload into an image; the only place that gives uploaded bytes to Pillow.

Pillow is given the essence of the upload (see `container`), one plugin, and no way to fail but an ImageError.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import JpegImagePlugin, PngImagePlugin, UnidentifiedImageError, WebPImagePlugin

from preprocessing.alpha import bleed_colour
from preprocessing.errors import ImageError, TooManyPixelsError, UnreadableImageError
from preprocessing.formats.icc import keep_profile
from preprocessing.formats.jpeg_pixels import are_alike, lengthen_last_scan
from preprocessing.formats.png_pixels import check_pixels
from preprocessing.image import Image, Pixels
from preprocessing.upload import Upload

Key = npt.NDArray[Any]
"""One sample for a grey, three for a colour."""

PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin)
"""Imported so that Pillow finds them registered: otherwise it imports all of its sixty plugins to look for WebP."""

# Second locks; the first is that the essence holds neither text nor more pixels than were probed.
warnings.filterwarnings("error", category=PilImage.DecompressionBombWarning)
PngImagePlugin.MAX_TEXT_CHUNK = 65_536
PngImagePlugin.MAX_TEXT_MEMORY = 65_536

_TRANSPOSITIONS = {
    2: PilImage.Transpose.FLIP_LEFT_RIGHT,
    3: PilImage.Transpose.ROTATE_180,
    4: PilImage.Transpose.FLIP_TOP_BOTTOM,
    5: PilImage.Transpose.TRANSPOSE,
    6: PilImage.Transpose.ROTATE_270,
    7: PilImage.Transpose.TRANSVERSE,
    8: PilImage.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation (EXIF 2.32 section 4.6.4)."""


def decode(upload: Upload) -> Image:
    """Decode the first frame of an upload, upright, as [H, W, 3] pixels with alpha beside them.

    Raises UnreadableImage when the bytes are truncated or corrupt, and nothing else of what Pillow may raise.
    """
    with _failures_named(upload):
        pixels, alpha, is_grey = _read_pixels(upload)
        if alpha is not None:
            pixels = bleed_colour(pixels, alpha)
    found = None if upload.mode == "CMYK" else upload.container.icc_profile  # no profile describes converted pixels
    icc_profile, dropped = keep_profile(found, is_grey=is_grey)
    notes = (*_notes(upload), dropped) if dropped else _notes(upload)
    return Image(pixels=pixels, alpha=alpha, is_grey=is_grey, icc_profile=icc_profile, notes=notes)


@contextmanager
def _failures_named(upload: Upload) -> Iterator[None]:
    """Turn every failure of a decoder into an ImageError: Pillow raises whatever its parsers stumble over."""
    try:
        yield
    except ImageError:
        raise
    except (PilImage.DecompressionBombError, PilImage.DecompressionBombWarning) as error:
        raise TooManyPixelsError(
            f"{upload.width} x {upload.height} pixels are more than is decoded safely: {error}."
        ) from error
    except MemoryError as error:
        raise UnreadableImageError(
            f"Decoding {upload.width} x {upload.height} pixels needs more memory than is free. Send a smaller image."
        ) from error
    except UnidentifiedImageError as error:  # its text holds an address, nothing more
        raise UnreadableImageError(f"The {upload.format} is corrupt: its headers contradict each other.") from error
    except Exception as error:  # OSError, SyntaxError, struct.error, zlib.error ...
        reason = str(error)[:120] or type(error).__name__
        raise UnreadableImageError(
            f"The {upload.format} is truncated or corrupt ({reason}). Send the whole file."
        ) from error


def _open(upload: Upload, *, low_bytes: bool = False) -> PilImage.Image:
    """Return the image upright; 16-bit colour by its high bytes, which is all that Pillow gives, or by the low ones."""
    container = upload.container
    opened = PilImage.open(BytesIO(b"".join(container.essence)), formats=[container.format])
    if opened.size != (container.width, container.height):
        raise UnreadableImageError(
            f"The {container.format} says {container.width} x {container.height} pixels in its header "
            f"and {opened.width} x {opened.height} in its data: it is corrupt."
        )
    if low_bytes:
        opened.tile = [tile._replace(args="RGB;16L") for tile in opened.tile]  # as if the other byte were the high one
    elif container.format == "PNG":
        check_pixels(container.essence)
    opened.load()
    if container.format == "JPEG" and (longer := lengthen_last_scan(container.essence)):
        again = PilImage.open(BytesIO(b"".join(longer)), formats=["JPEG"])
        if not are_alike(opened, again):
            raise UnreadableImageError(
                "The JPEG is truncated or corrupt: its last scan lacks blocks. Send the whole file."
            )
    if upload.orientation in _TRANSPOSITIONS:
        return opened.transpose(_TRANSPOSITIONS[upload.orientation])
    return opened


def _read_pixels(upload: Upload) -> tuple[Pixels, Pixels | None, bool]:
    """Return (pixels [H, W, 3], alpha [H, W] or None, is_grey) of an upload in any mode that the plugins give."""
    opened = _open(upload)
    alpha: Pixels | None = None
    is_grey = upload.mode in ("1", "L", "LA", "I;16")
    if opened.mode == "P":
        is_grey = upload.container.icc_profile is None and _has_grey_palette(opened)  # palettes have RGB profiles
        opened = opened.convert("RGBA")  # applies a palette's tRNS too
    if upload.mode == "I;16":
        wide = np.asarray(opened).astype(np.uint32)
        alpha = _alpha_of_key(wide, _read_key(upload)) if upload.container.transparent else None
        opened = PilImage.fromarray(((wide * 255 + 32_895) >> 16).astype(np.uint8))  # = round(v / 257), for every v
    elif opened.mode in ("LA", "RGBA"):
        alpha = np.array(opened.getchannel("A"))
    elif upload.container.transparent and upload.container.bits == 16:
        key = _read_key(upload)
        alpha = _alpha_of_key(np.asarray(opened), key >> 8)
        np.maximum(alpha, _alpha_of_key(np.asarray(_open(upload, low_bytes=True)), key & 0xFF), out=alpha)
    elif upload.container.transparent:
        alpha = _alpha_of_key(np.asarray(opened.convert("L") if opened.mode == "1" else opened), _read_key(upload))
    pixels: Pixels = np.array(opened if opened.mode == "RGB" else opened.convert("RGB"))
    if alpha is not None and alpha.min() == 255:
        alpha = None
    return pixels, alpha, is_grey


def _has_grey_palette(opened: PilImage.Image) -> bool:
    colours = np.array(opened.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _read_key(upload: Upload) -> Key:
    """Return the PNG's one transparent grey or colour, as its samples come: in the file's own depth, 8 at the least.

    In the file it has that depth in 16 bits (W3C PNG section 11.3.1.1); samples of fewer than 8 bits are spread.
    """
    key: Key = np.frombuffer(upload.container.transparent, dtype=">u2").astype(np.uint32)
    bits = upload.container.bits
    return key * 255 // (2**bits - 1) if bits < 8 else key


def _alpha_of_key(samples: npt.NDArray[Any], key: Key) -> Pixels:
    """Return alpha 0 where the samples are the key, 255 elsewhere."""
    if samples.ndim == 2:
        return np.where(samples == key[0], 0, 255).astype(np.uint8)
    if key.size < 3:
        raise UnreadableImageError("The PNG's transparent colour has fewer than three samples: it is corrupt.")
    return np.where((samples == key[:3]).all(axis=2), 0, 255).astype(np.uint8)


def _notes(upload: Upload) -> tuple[str, ...]:
    notes = []
    if upload.frames > 1:
        notes.append(f"The image is animated: the first of its {upload.frames:,} frames was taken.")
    if upload.container.bits == 16:
        notes.append("The image has 16 bits a channel: it was reduced to 8.")
    if upload.mode == "CMYK":
        notes.append("The image is in CMYK, for print: converted to RGB without its profile; colours may differ.")
    if upload.mode == "P":
        notes.append("The image has a palette: its colours were taken as RGB.")
    return tuple(notes)
