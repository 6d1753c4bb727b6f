"""The encoder: writes an image whose rows arrive band by band.

PNG and JPEG are written as the rows arrive, so memory follows the band and the file. WebP's encoder needs the whole
image: the rows are pasted into one Pillow image, 4 bytes per pixel, which goes to the encoder without another copy.
AVIF is written in cells of 512 x 512 pixels, as soon as the rows of one are there. Only PNG keeps 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as PilImage

from preprocessing.alpha import repeat_alpha, scale_alpha
from preprocessing.depth import depth_of, to_depth
from preprocessing.formats.avif import AvifStream
from preprocessing.formats.jpeg import STRIP_ROWS, JpegStream
from preprocessing.formats.png_stream import PngStream
from preprocessing.image import Image, Pixels
from preprocessing.metadata.metadata import jpeg_segments, metadata_chunks, pillow_keywords
from preprocessing.metadata.xmp import Origin
from preprocessing.output_formats import (
    DEFAULT_QUALITY,
    OutputFormat,
    avif_colours,
    check_output,
    join_channels,
    png_chunks,
    png_mode,
    profile_for,
)
from preprocessing.resampling import STEP_ROWS, BandResampler

# From method 3 on libwebp keeps a token for every coefficient: noise at quality 92 takes 30 bytes per pixel. Method 2
# takes 13, and half the time. The file of a photo grows by 3 % (docs/explanation/codec.md).
WEBP_METHOD = 2
# Method and quality (here an effort) of lossless WebP: 0.11 s per megapixel of a photo, and at most 36 bytes
# of memory per pixel. Method 0 takes 0.05 s and 25 bytes, but its files are a third larger; method 4 at quality 80
# takes 0.63 s for 0.4 % less.
LOSSLESS_WEBP_METHOD, LOSSLESS_WEBP_EFFORT = 1, 0
# Pixels that are encoded at once, in at least `STEP_ROWS` rows: a JPEG of 2048 x 2048 in steps of 128 rows takes 0.96
# of the time in steps of 64 (2-core AMD EPYC). Steps of 256 rows take 0.91, but 16 MB more memory for noise.
STEP_PIXELS = 1 << 18


class BandEncoder:
    """Encodes one file: call `add` with each band from top to bottom, then `finish`."""

    def __init__(
        self,
        source: Image,
        scale: int,
        format: OutputFormat,  # noqa: A002
        quality: int,
        *,
        alpha_rows: Callable[[int, int], Pixels] | None = None,
        is_exact: bool = False,
        is_lossless: bool = False,
        shrink_to: tuple[int, int] | None = None,
        origin: Origin | None = None,
    ) -> None:
        """`source` is the image before upscaling: the encoder keeps its profile and metadata.

        `alpha_rows` returns rows `top` to `bottom` of the upscaled alpha; without it, alpha is interpolated (bicubic).
        With `is_exact`, alpha is repeated instead. With `is_lossless`, WebP keeps every pixel. With `shrink_to`, the
        upscaled rows are shrunk to this width and height. `origin` is written into the metadata. Raises
        UnsupportedOutputError, and ValueError for a size that is larger.
        """
        upscaled = (source.width * scale, source.height * scale)
        self._upscaled_width, self._upscaled_height = upscaled
        self.width, self.height = shrink_to or upscaled
        self._resampler = BandResampler(upscaled, shrink_to, is_exact=is_exact) if shrink_to else None
        check_output(self.width, self.height, format, quality)
        self._source, self._quality, self._is_lossless = source, quality, is_lossless
        if source.alpha is not None and alpha_rows is None:
            alpha_rows = partial(repeat_alpha if is_exact else scale_alpha, source.alpha, scale)
        self._alpha_rows = alpha_rows
        self._profile = profile_for(source, format)
        self._metadata = source.metadata.rewrite(self.width, self.height, source.dpi, origin)
        self._rows = 0  # upscaled rows that were added
        self._written = 0  # rows of the file
        self._file = BytesIO()  # grows in place; getvalue() needs no copy
        self._stream: PngStream | JpegStream | AvifStream | None = None
        self._canvas: PilImage.Image | None = None
        if format == "png":
            self._stream = PngStream(
                self.width,
                self.height,
                png_mode(source),
                self._profile,
                png_chunks(source),
                metadata_chunks(self._metadata),
                depth=depth_of(source.pixels),
            )
            self._file.write(self._stream.header())
        elif format == "jpeg":
            mode = "L" if source.is_grey else "RGB"
            self._stream = JpegStream(
                self.width, self.height, mode, quality, self._profile, source.dpi, jpeg_segments(self._metadata)
            )
        elif format == "avif":
            blocks = pillow_keywords(self._metadata, source.dpi)
            self._stream = AvifStream(
                self.width, self.height, png_mode(source), quality, avif_colours(source), **blocks
            )
        else:
            self._canvas = PilImage.new("RGB" if source.alpha is None else "RGBA", (self.width, self.height))

    def add(self, band: Pixels) -> Pixels:
        """Encode the next upscaled rows, [h, width, 3] of the source's type, and return those that the file gets now.

        These are the band itself, or with `shrink_to` the rows that are finished, perhaps none. Raises ValueError for a
        wrong width or type, or too many rows.
        """
        top, bottom = self._rows, self._rows + len(band)
        sample = self._source.pixels.dtype
        if band.shape[1:] != (self._upscaled_width, 3) or bottom > self._upscaled_height or band.dtype != sample:
            raise ValueError(
                f"{band.dtype} rows {top} to {bottom} of shape {list(band.shape)} do not fit {self.width} columns of "
                f"{sample}"
            )
        step = STEP_ROWS
        if self._alpha_rows is None and self._resampler is None:
            step = max(step, STEP_PIXELS // self.width // STRIP_ROWS * STRIP_ROWS)
        steps = [self._add(band[start : start + step]) for start in range(0, len(band), step)]
        return band if self._resampler is None else np.concatenate([band[:0, : self.width], *steps])

    def finish(self) -> bytes:
        """Return the file; raises ValueError while rows are missing."""
        if self._rows != self._upscaled_height:
            raise ValueError(f"{self._upscaled_height - self._rows} of {self._upscaled_height} rows are missing")
        if isinstance(self._stream, AvifStream):
            self._file.writelines(self._stream.finish())
        elif self._stream is not None:
            self._file.write(self._stream.finish())
        elif self._canvas is not None:
            keywords: dict[str, Any] = {**pillow_keywords(self._metadata, self._source.dpi)}
            if self._profile is not None:
                keywords["icc_profile"] = self._profile
            if self._is_lossless:
                keywords |= {"lossless": True, "method": LOSSLESS_WEBP_METHOD, "quality": LOSSLESS_WEBP_EFFORT}
            else:
                keywords |= {"method": WEBP_METHOD, "quality": self._quality}
            self._canvas.save(self._file, "WEBP", **keywords)
        return self._file.getvalue()

    def _add(self, rows: Pixels) -> Pixels:
        """Encode upscaled rows and return those that were written."""
        top, self._rows = self._rows, self._rows + len(rows)
        alpha = self._alpha_rows(top, self._rows) if self._alpha_rows else None
        if self._resampler is not None:
            rows, alpha = self._resampler.add(rows, alpha)
        if len(rows):
            self._write(rows, alpha)
        return rows

    def _write(self, rows: Pixels, alpha: Pixels | None) -> None:
        top, self._written = self._written, self._written + len(rows)
        is_grey = self._source.is_grey
        if not isinstance(self._stream, PngStream):  # all others have 8 bits
            rows, alpha = to_depth(rows, 8), None if alpha is None else to_depth(alpha, 8)
        if self._canvas is not None:
            self._canvas.paste(PilImage.fromarray(join_channels(rows, alpha, is_grey=False)), (0, top))
        elif isinstance(self._stream, JpegStream):
            self._file.write(self._stream.rows(_flatten_on_white(rows, alpha, is_grey=is_grey)))
        elif isinstance(self._stream, AvifStream):
            self._stream.rows(join_channels(rows, alpha, is_grey=is_grey))
        elif self._stream is not None:
            self._file.write(self._stream.rows(join_channels(rows, alpha, is_grey=is_grey)))


def encode(
    image: Image,
    format: OutputFormat,  # noqa: A002
    quality: int = DEFAULT_QUALITY,
    *,
    is_lossless: bool = False,
) -> bytes:
    """Return the image as a file. Greyscale is written as one channel where the format has it (not in WebP).

    `quality` applies to JPEG and AVIF (4:4:4) and lossy WebP. Raises UnsupportedOutputError when the format cannot
    hold the image.
    """
    encoder = BandEncoder(image, 1, format, quality, is_lossless=is_lossless)
    encoder.add(image.pixels)
    return encoder.finish()


def _flatten_on_white(pixels: Pixels, alpha: Pixels | None, *, is_grey: bool) -> Pixels:
    """Return rows as a JPEG stores them, [h, W, 1 or 3], composed onto a white background; copied only if changed."""
    if alpha is None and not is_grey:
        return pixels
    flat = PilImage.fromarray(pixels)
    if alpha is not None:
        white = PilImage.new("RGB", flat.size, (255, 255, 255))
        white.paste(flat, mask=PilImage.fromarray(alpha))
        flat = white
    return np.asarray(flat.convert("L"))[..., np.newaxis] if is_grey else np.asarray(flat)
