"""The encoder: writes an image whose rows arrive band by band.

PNG and JPEG are written as the rows arrive, so memory follows the band and the file. WebP's encoder needs the whole
image: the rows are pasted into one Pillow image, 4 bytes per pixel, which goes to the encoder without another copy.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image as PilImage

from preprocessing.alpha import repeat_alpha, scale_alpha
from preprocessing.formats.jpeg import JpegStream
from preprocessing.formats.png import PngStream
from preprocessing.image import Image, Pixels
from preprocessing.output_formats import (
    DEFAULT_QUALITY,
    OutputFormat,
    check_output,
    join_channels,
    png_mode,
    profile_for,
)

# Rows encoded at once, a slice of a band: 2 MB of an RGBA image of 8,192 columns.
STEP_ROWS = 64
# From method 3 on libwebp keeps a token for every coefficient: noise at quality 92 takes 30 bytes per pixel. Method 2
# takes 13, and half the time. The file of a photo grows by 3 % (docs/explanation/codec.md).
WEBP_METHOD = 2


class BandEncoder:
    """Encodes one file: call `add` with each band from top to bottom, then `finish`."""

    def __init__(
        self,
        source: Image,
        scale: int,
        format: OutputFormat,  # noqa: A002
        quality: int,
        *,
        is_exact: bool = False,
    ) -> None:
        """`source` is the image before upscaling: the encoder scales its alpha and keeps its profile.

        With `is_exact`, alpha is repeated instead of interpolated. Raises UnsupportedOutputError.
        """
        self.width, self.height = source.width * scale, source.height * scale
        check_output(self.width, self.height, format, quality)
        self._source, self._scale, self._quality, self._is_exact = source, scale, quality, is_exact
        self._profile = profile_for(source, format)
        self._rows = 0
        self._file = BytesIO()  # grows in place; getvalue() needs no copy
        self._stream: PngStream | JpegStream | None = None
        self._canvas: PilImage.Image | None = None
        if format == "png":
            self._stream = PngStream(self.width, self.height, png_mode(source), self._profile)
            self._file.write(self._stream.header())
        elif format == "jpeg":
            mode = "L" if source.is_grey else "RGB"
            self._stream = JpegStream(self.width, self.height, mode, quality, self._profile)
        else:
            self._canvas = PilImage.new("RGB" if source.alpha is None else "RGBA", (self.width, self.height))

    def add(self, band: Pixels) -> None:
        """Encode the next rows, [h, width, 3] uint8; raises ValueError for a wrong width or too many rows."""
        top, bottom = self._rows, self._rows + len(band)
        if band.shape[1:] != (self.width, 3) or bottom > self.height:
            raise ValueError(f"rows {top} to {bottom} of shape {list(band.shape)} do not fit {self.width} columns")
        for start in range(0, len(band), STEP_ROWS):
            self._add(band[start : start + STEP_ROWS])

    def finish(self) -> bytes:
        """Return the file; raises ValueError while rows are missing."""
        if self._rows != self.height:
            raise ValueError(f"{self.height - self._rows} of {self.height} rows are missing")
        if self._stream is not None:
            self._file.write(self._stream.finish())
        elif self._canvas is not None:
            keywords = {} if self._profile is None else {"icc_profile": self._profile}
            self._canvas.save(self._file, "WEBP", quality=self._quality, method=WEBP_METHOD, **keywords)
        return self._file.getvalue()

    def _add(self, rows: Pixels) -> None:
        top, self._rows = self._rows, self._rows + len(rows)
        source = self._source
        scale = repeat_alpha if self._is_exact else scale_alpha
        alpha = None if source.alpha is None else scale(source.alpha, self._scale, top, self._rows)
        if self._canvas is not None:
            self._canvas.paste(PilImage.fromarray(join_channels(rows, alpha, is_grey=False)), (0, top))
        elif isinstance(self._stream, JpegStream):
            self._file.write(self._stream.rows(_flatten_on_white(rows, alpha, is_grey=source.is_grey)))
        elif self._stream is not None:
            self._file.write(self._stream.rows(join_channels(rows, alpha, is_grey=source.is_grey)))


def encode(image: Image, format: OutputFormat, quality: int = DEFAULT_QUALITY) -> bytes:  # noqa: A002
    """Return the image as a file. Greyscale is written as one channel where the format has it (not in WebP).

    `quality` applies to JPEG (4:4:4) and WebP (lossy). Raises UnsupportedOutputError when the format cannot hold the
    image.
    """
    encoder = BandEncoder(image, 1, format, quality)
    encoder.add(image.pixels)
    return encoder.finish()


def _flatten_on_white(pixels: Pixels, alpha: Pixels | None, *, is_grey: bool) -> Pixels:
    """Return rows as a JPEG stores them, [h, W, 1 or 3], composed onto a white background."""
    flat = PilImage.fromarray(pixels)
    if alpha is not None:
        white = PilImage.new("RGB", flat.size, (255, 255, 255))
        white.paste(flat, mask=PilImage.fromarray(alpha))
        flat = white
    return np.asarray(flat.convert("L"))[..., np.newaxis] if is_grey else np.asarray(flat)
