"""The decoder: turns an upload into an image. Of this process, the only module that passes uploaded bytes to Pillow.

JPEG, PNG and WebP are decoded here, all other formats in a separate process (`preprocessing.sandbox`). Pillow gets
`Container.required_chunks` only and one plugin, and each of its failures becomes an ImageError.
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
from preprocessing.depth import Depth, depth_of, max_level, to_depth
from preprocessing.errors import ImageError, TooManyPixelsError, UnreadableImageError
from preprocessing.formats.container import SANDBOXED_FORMATS
from preprocessing.formats.exif import TRANSPOSITIONS, read_dpi, swaps_sides
from preprocessing.formats.icc import keep_profile
from preprocessing.formats.jpeg_scans import Segments, has_all_blocks
from preprocessing.formats.png import InflatedPng
from preprocessing.grey import is_nearly_grey, to_grey
from preprocessing.image import Image, Pixels
from preprocessing.kept_metadata import select_metadata
from preprocessing.sandbox.decode import convert_cmyk, decode_sandboxed
from preprocessing.sandbox.process import DecoderStartError
from preprocessing.upload import Upload

# The transparent colour of a PNG: one sample for a grey, three for a colour.
ColourKey = npt.NDArray[Any]

# Formats that never add colour to grey. In all others near-grey pixels become grey.
_LOSSLESS_FORMATS = ("PNG", "BMP", "GIF", "TIFF")

# Imported so that Pillow finds them registered; otherwise it imports all of its sixty plugins to look for WebP.
PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin)

# A second line of defence: the required chunks hold neither text nor more pixels than were probed.
warnings.filterwarnings("error", category=PilImage.DecompressionBombWarning)
PngImagePlugin.MAX_TEXT_CHUNK = 65_536
PngImagePlugin.MAX_TEXT_MEMORY = 65_536


def decode(upload: Upload, *, keeps_metadata: bool = False, bleeds_colour: bool = True, depth: Depth = 8) -> Image:
    """Decode the first frame of an upload, upright, to pixels [H, W, 3] and alpha [H, W] of this depth.

    16 bits are read from PNG and TIFF; samples of any other file are spread over 0..65,535.
    With `keeps_metadata`, `Image.metadata` holds the EXIF, XMP, IPTC and texts of the upload. Pixels under alpha 0 get
    the colour of visible neighbours, unless `bleeds_colour` is false.

    Raises UnreadableImageError when the bytes are truncated or corrupt, for every kind of error that Pillow raises, and
    TooManyPixelsError when Pillow sees a decompression bomb. DecoderStartError means that the decoder process could
    not start, which is not the image's fault.
    """
    hides_colours, cmyk_note = False, ""
    with _decoder_errors(upload):
        if upload.format in SANDBOXED_FORMATS:
            pixels, alpha, is_grey, cmyk_note = decode_sandboxed(upload, depth)
        elif upload.mode == "CMYK":
            pixels, alpha, is_grey, cmyk_note = convert_cmyk(_open(upload), upload)
        else:
            pixels, alpha, is_grey = _read_16_bits(upload) if _has_16_bits(upload, depth) else _read_pixels(upload)
        is_reduced = upload.container.bits > 8 and depth_of(pixels) == 8
        pixels, alpha = to_depth(pixels, depth), None if alpha is None else to_depth(alpha, depth)
        if alpha is not None and bleeds_colour:
            hides_colours = _hides_colours(pixels, alpha)
            pixels = bleed_colour(pixels, alpha)
    # A CMYK profile does not describe the converted RGB pixels.
    source_profile = None if upload.mode == "CMYK" else upload.container.icc_profile
    icc_profile, dropped = keep_profile(source_profile, is_grey=is_grey)
    dpi = _read_dpi(upload)
    metadata, not_kept = select_metadata(upload, dpi, keeps=keeps_metadata)
    notes = [
        *_notes(upload, is_reduced=is_reduced),
        cmyk_note,
        dropped,
        _describe_dropped(not_kept, hides_colours=hides_colours),
    ]
    return Image(
        pixels=pixels,
        alpha=alpha,
        is_grey=is_grey,
        icc_profile=icc_profile,
        colour_chunks=upload.container.colour_chunks,
        dpi=dpi,
        metadata=metadata,
        notes=tuple(note for note in notes if note),
    )


def _read_dpi(upload: Upload) -> tuple[float, float] | None:
    """Return the resolution of the upright pixels: that of the format itself, else of EXIF."""
    dpi = upload.container.dpi or read_dpi(upload.container.exif)
    return (dpi[1], dpi[0]) if dpi and swaps_sides(upload.orientation) else dpi


def _hides_colours(pixels: Pixels, alpha: Pixels) -> bool:
    """Return whether pixels under alpha 0 have different colours, as in textures of games; often all are black."""
    hidden = (alpha == 0)[..., np.newaxis]
    lowest = pixels.min(axis=(0, 1), where=hidden, initial=max_level(pixels))
    highest = pixels.max(axis=(0, 1), where=hidden, initial=0)
    return bool((lowest < highest).any())


def _describe_dropped(not_kept: list[str], *, hides_colours: bool) -> str:
    """Return one sentence with all that the upload holds and the result does not; empty when there is nothing."""
    dropped = [*not_kept, "the colours under full transparency" if hides_colours else ""]
    names = ", ".join(name for name in dropped if name)
    return f"Not in the result: {names}." if names else ""


@contextmanager
def _decoder_errors(upload: Upload) -> Iterator[None]:
    """Turn every error of a decoder into an ImageError; Pillow's parsers raise errors of many classes."""
    try:
        yield
    except (ImageError, DecoderStartError):
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


def _open(upload: Upload, *, raw_mode: str = "") -> PilImage.Image:
    """Open an upload with Pillow and return it upright.

    Of 16-bit colour Pillow reads the high bytes only. With a `raw_mode` of Pillow, the samples are read as these
    instead: those that end in L, for the reverse byte order, give the low bytes.
    """
    container = upload.container
    inflated: InflatedPng | None = None
    if container.format == "PNG" and not raw_mode:
        inflated = InflatedPng(container.required_chunks, must_end=container.has_cut_pixels)
    file = inflated or BytesIO(b"".join(container.required_chunks))
    opened = PilImage.open(file, formats=[container.format])  # type: ignore[arg-type]
    if opened.size != (container.width, container.height):
        raise UnreadableImageError(
            f"Corrupt {container.format}: {container.width} x {container.height} pixels in its header "
            f"and {opened.width} x {opened.height} in its data. Send the original file."
        )
    if raw_mode:
        opened._mode = raw_mode.partition(";")[0]  # noqa: SLF001
        opened.tile = [tile._replace(args=raw_mode) for tile in opened.tile]
    opened.load()
    if inflated is not None:
        inflated.finish()
    if container.format == "JPEG" and not has_all_blocks(container.required_chunks, opened, _open_jpeg):
        raise UnreadableImageError("Truncated or corrupt JPEG: its last scan lacks blocks. Send the whole file.")
    if upload.orientation in TRANSPOSITIONS:
        return opened.transpose(TRANSPOSITIONS[upload.orientation])
    return opened


def _open_jpeg(segments: Segments) -> PilImage.Image:
    return PilImage.open(BytesIO(b"".join(segments)), formats=["JPEG"])


def _read_pixels(upload: Upload) -> tuple[Pixels, Pixels | None, bool]:
    """Return (pixels [H, W, 3], alpha [H, W] or None, is_grey) of an upload in any mode."""
    opened = _open(upload)
    alpha: Pixels | None = None
    is_grey = upload.mode in ("1", "L", "LA", "I;16")
    if opened.mode == "P":
        is_grey = upload.container.icc_profile is None and _has_grey_palette(opened)  # a profile of a palette is RGB
        opened = opened.convert("RGBA")  # applies the tRNS of the palette too
    if upload.mode == "I;16":
        samples = np.asarray(opened).astype(np.uint16)
        alpha = _alpha_from_key(samples, _read_colour_key(upload)) if upload.container.transparent else None
        opened = PilImage.fromarray(to_depth(samples, 8))
    elif opened.mode in ("LA", "RGBA"):
        alpha = np.array(opened.getchannel("A"))
    elif upload.container.transparent and upload.container.bits == 16:
        key = _read_colour_key(upload)
        alpha = _alpha_from_key(np.asarray(opened), key >> 8)
        np.maximum(alpha, _alpha_from_key(np.asarray(_open(upload, raw_mode="RGB;16L")), key & 0xFF), out=alpha)
    elif upload.container.transparent:
        alpha = _alpha_from_key(
            np.asarray(opened.convert("L") if opened.mode == "1" else opened), _read_colour_key(upload)
        )
    pixels: Pixels = np.array(opened if opened.mode == "RGB" else opened.convert("RGB"))
    if alpha is not None and alpha.min() == 255:
        alpha = None
    if upload.format not in _LOSSLESS_FORMATS and not is_grey and is_nearly_grey(pixels):
        pixels = to_grey(pixels)
    return pixels, alpha, is_grey


def _has_16_bits(upload: Upload, depth: Depth) -> bool:
    return depth == 16 and upload.format == "PNG" and upload.container.bits == 16


def _read_16_bits(upload: Upload) -> tuple[Pixels, Pixels | None, bool]:
    """Return what `_read_pixels` returns, in 16 bits, of a PNG of 16 bits."""
    opened = _open(upload)
    if upload.mode == "I;16":
        samples = np.asarray(opened).astype(np.uint16)[..., np.newaxis]
    elif upload.mode == "LA":  # Pillow has the high bytes only; these are all bytes of a pixel, as four channels
        samples = np.ascontiguousarray(_open(upload, raw_mode="RGBA")).view(">u2").astype(np.uint16)
    else:
        samples = np.asarray(opened).astype(np.uint16) << np.uint16(8)
        samples |= np.asarray(_open(upload, raw_mode=f"{upload.mode};16L"))
    is_grey = samples.shape[2] < 3
    alpha: Pixels | None = None
    if upload.mode in ("LA", "RGBA"):
        samples, alpha = samples[..., :-1], samples[..., -1].copy()
    elif upload.container.transparent:
        opaque = _alpha_from_key(samples[..., 0] if is_grey else samples, _read_colour_key(upload))
        alpha = to_depth(opaque, 16)
    if alpha is not None and alpha.min() == max_level(alpha):
        alpha = None
    return samples.repeat(3, axis=2) if is_grey else np.ascontiguousarray(samples), alpha, is_grey


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


def _notes(upload: Upload, *, is_reduced: bool) -> tuple[str, ...]:
    notes = [*upload.container.notes]
    if upload.frames > 1:
        notes.append(f"The image is animated: only the first of its {upload.frames:,} frames was used.")
    if upload.container.pages > 1:
        notes.append(f"The file has {upload.container.pages:,} pages: only the first was used.")
    if is_reduced:
        notes.append(f"The image has {upload.container.bits} bits per channel: it was reduced to 8.")
    if upload.mode == "P":
        notes.append("The image has a palette: it was converted to RGB.")
    return tuple(notes)
