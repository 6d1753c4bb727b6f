"""The decoder: turns an upload into an image. The only module that passes uploaded bytes to Pillow.

Pillow gets `Container.required_chunks` only and one plugin, and each of its failures becomes an ImageError.
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
from preprocessing.formats.jpeg import have_same_pixels, lengthen_last_scan
from preprocessing.formats.png import check_pixels
from preprocessing.image import Image, Pixels
from preprocessing.upload import Upload

# The transparent colour of a PNG: one sample for a grey, three for a colour.
ColourKey = npt.NDArray[Any]

# Imported so that Pillow finds them registered; otherwise it imports all of its sixty plugins to look for WebP.
PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin)

# A second line of defence: the required chunks hold neither text nor more pixels than were probed.
warnings.filterwarnings("error", category=PilImage.DecompressionBombWarning)
PngImagePlugin.MAX_TEXT_CHUNK = 65_536
PngImagePlugin.MAX_TEXT_MEMORY = 65_536

# The operation that undoes each EXIF orientation (EXIF 2.32 section 4.6.4).
_TRANSPOSITIONS = {
    2: PilImage.Transpose.FLIP_LEFT_RIGHT,
    3: PilImage.Transpose.ROTATE_180,
    4: PilImage.Transpose.FLIP_TOP_BOTTOM,
    5: PilImage.Transpose.TRANSPOSE,
    6: PilImage.Transpose.ROTATE_270,
    7: PilImage.Transpose.TRANSVERSE,
    8: PilImage.Transpose.ROTATE_90,
}


def decode(upload: Upload) -> Image:
    """Decode the first frame of an upload, upright, to pixels [H, W, 3] and alpha [H, W].

    Raises UnreadableImageError when the bytes are truncated or corrupt, for every kind of error that Pillow raises, and
    TooManyPixelsError when Pillow sees a decompression bomb.
    """
    with _decoder_errors(upload):
        pixels, alpha, is_grey = _read_pixels(upload)
        if alpha is not None:
            pixels = bleed_colour(pixels, alpha)
    # A CMYK profile does not describe the converted RGB pixels.
    source_profile = None if upload.mode == "CMYK" else upload.container.icc_profile
    icc_profile, dropped = keep_profile(source_profile, is_grey=is_grey)
    notes = (*_notes(upload), dropped) if dropped else _notes(upload)
    return Image(pixels=pixels, alpha=alpha, is_grey=is_grey, icc_profile=icc_profile, notes=notes)


@contextmanager
def _decoder_errors(upload: Upload) -> Iterator[None]:
    """Turn every error of a decoder into an ImageError; Pillow's parsers raise errors of many classes."""
    try:
        yield
    except ImageError:
        raise
    except (PilImage.DecompressionBombError, PilImage.DecompressionBombWarning) as error:
        raise TooManyPixelsError(
            f"The image has {upload.width} x {upload.height} pixels, too many to decode safely: {error}. "
            "Send a smaller image."
        ) from error
    except MemoryError as error:
        raise UnreadableImageError(
            f"Not enough memory to decode {upload.width} x {upload.height} pixels. Send a smaller image."
        ) from error
    except UnidentifiedImageError as error:  # its text holds a memory address and nothing useful
        raise UnreadableImageError(
            f"Corrupt {upload.format}: its headers contradict each other. Send the original file."
        ) from error
    except Exception as error:  # OSError, SyntaxError, struct.error, zlib.error ...
        reason = str(error)[:120] or type(error).__name__
        raise UnreadableImageError(f"Truncated or corrupt {upload.format} ({reason}). Send the whole file.") from error


def _open(upload: Upload, *, low_bytes: bool = False) -> PilImage.Image:
    """Open an upload with Pillow and return it upright.

    Of 16-bit colour Pillow reads the high bytes only; with `low_bytes`, the low bytes are read instead.
    """
    container = upload.container
    opened = PilImage.open(BytesIO(b"".join(container.required_chunks)), formats=[container.format])
    if opened.size != (container.width, container.height):
        raise UnreadableImageError(
            f"Corrupt {container.format}: {container.width} x {container.height} pixels in its header "
            f"and {opened.width} x {opened.height} in its data. Send the original file."
        )
    if low_bytes:
        opened.tile = [tile._replace(args="RGB;16L") for tile in opened.tile]  # byte order swapped
    elif container.format == "PNG":
        check_pixels(container.required_chunks)
    opened.load()
    if container.format == "JPEG" and (lengthened := lengthen_last_scan(container.required_chunks)):
        reopened = PilImage.open(BytesIO(b"".join(lengthened)), formats=["JPEG"])
        if not have_same_pixels(opened, reopened):
            raise UnreadableImageError("Truncated or corrupt JPEG: its last scan lacks blocks. Send the whole file.")
    if upload.orientation in _TRANSPOSITIONS:
        return opened.transpose(_TRANSPOSITIONS[upload.orientation])
    return opened


def _read_pixels(upload: Upload) -> tuple[Pixels, Pixels | None, bool]:
    """Return (pixels [H, W, 3], alpha [H, W] or None, is_grey) of an upload in any mode."""
    opened = _open(upload)
    alpha: Pixels | None = None
    is_grey = upload.mode in ("1", "L", "LA", "I;16")
    if opened.mode == "P":
        is_grey = upload.container.icc_profile is None and _has_grey_palette(opened)  # a profile of a palette is RGB
        opened = opened.convert("RGBA")  # applies the tRNS of the palette too
    if upload.mode == "I;16":
        samples = np.asarray(opened).astype(np.uint32)
        alpha = _alpha_from_key(samples, _read_colour_key(upload)) if upload.container.transparent else None
        opened = PilImage.fromarray(((samples * 255 + 32_895) >> 16).astype(np.uint8))  # = round(v / 257), for every v
    elif opened.mode in ("LA", "RGBA"):
        alpha = np.array(opened.getchannel("A"))
    elif upload.container.transparent and upload.container.bits == 16:
        key = _read_colour_key(upload)
        alpha = _alpha_from_key(np.asarray(opened), key >> 8)
        np.maximum(alpha, _alpha_from_key(np.asarray(_open(upload, low_bytes=True)), key & 0xFF), out=alpha)
    elif upload.container.transparent:
        alpha = _alpha_from_key(
            np.asarray(opened.convert("L") if opened.mode == "1" else opened), _read_colour_key(upload)
        )
    pixels: Pixels = np.array(opened if opened.mode == "RGB" else opened.convert("RGB"))
    if alpha is not None and alpha.min() == 255:
        alpha = None
    return pixels, alpha, is_grey


def _has_grey_palette(opened: PilImage.Image) -> bool:
    colours = np.array(opened.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _read_colour_key(upload: Upload) -> ColourKey:
    """Return the transparent grey or colour of a PNG in the range of the decoded samples.

    tRNS stores it in the depth of the file, in 16 bits (W3C PNG section 11.3.1.1). Pillow spreads samples of fewer than
    8 bits over 0..255, so the key is spread too.
    """
    key: ColourKey = np.frombuffer(upload.container.transparent, dtype=">u2").astype(np.uint32)
    bits = upload.container.bits
    return key * 255 // (2**bits - 1) if bits < 8 else key


def _alpha_from_key(samples: npt.NDArray[Any], key: ColourKey) -> Pixels:
    """Return alpha [H, W]: 0 where the samples equal the key, 255 elsewhere."""
    if samples.ndim == 2:
        return np.where(samples == key[0], 0, 255).astype(np.uint8)
    if key.size < 3:
        raise UnreadableImageError(
            "Corrupt PNG: its transparent colour has fewer than three samples. Send the original file."
        )
    return np.where((samples == key[:3]).all(axis=2), 0, 255).astype(np.uint8)


def _notes(upload: Upload) -> tuple[str, ...]:
    notes = []
    if upload.frames > 1:
        notes.append(f"The image is animated: only the first of its {upload.frames:,} frames was used.")
    if upload.container.bits == 16:
        notes.append("The image has 16 bits per channel: it was reduced to 8.")
    if upload.mode == "CMYK":
        notes.append(
            "The image is in CMYK, for print: it was converted to RGB without its profile; colours may differ."
        )
    if upload.mode == "P":
        notes.append("The image has a palette: it was converted to RGB.")
    return tuple(notes)
