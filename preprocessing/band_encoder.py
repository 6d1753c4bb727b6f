"""Encodes a picture whose rows arrive band by band: a PNG is written as they come, other formats when all are there.

So a PNG's memory follows the band and its file; JPEG and WebP encoders want the whole picture at once.
"""

from __future__ import annotations

import numpy as np

from preprocessing.alpha import scale_alpha
from preprocessing.encoder import OutputFormat, check_output, encode, join_channels, png_mode, profile_for
from preprocessing.image import Image, Pixels
from preprocessing.png_stream import PngStream


class BandEncoder:
    """One file in the making: `add` each band from top to bottom, then `finish`."""

    def __init__(self, given: Image, scale: int, format: OutputFormat, quality: int) -> None:  # noqa: A002
        """`given` is the image before it was enlarged: its alpha is scaled here, its profile kept.

        Raises UnsupportedOutput.
        """
        self.width, self.height = given.width * scale, given.height * scale
        check_output(self.width, self.height, format, quality)
        self._given, self._format, self._quality = given, format, quality
        self._alpha = None if given.alpha is None else scale_alpha(given.alpha, scale)
        self._rows = 0
        self._parts: list[bytes] = []
        self._png: PngStream | None = None
        self._pixels: Pixels | None = None
        if format == "png":
            self._png = PngStream(self.width, self.height, png_mode(given), profile_for(given, format))
            self._parts.append(self._png.header())
        else:
            self._pixels = np.empty((self.height, self.width, 3), np.uint8)

    def add(self, band: Pixels) -> None:
        """Take the next rows, [h, width, 3] uint8; raises ValueError for rows that do not belong here."""
        top, self._rows = self._rows, self._rows + len(band)
        if band.shape[1:] != (self.width, 3) or self._rows > self.height:
            raise ValueError(f"rows {top} to {self._rows} of shape {list(band.shape)} do not fit {self.width} columns")
        if self._png is not None:
            alpha = None if self._alpha is None else self._alpha[top : self._rows]
            self._parts.append(self._png.rows(join_channels(band, alpha, is_grey=self._given.is_grey)))
        elif self._pixels is not None:
            self._pixels[top : self._rows] = band

    def finish(self) -> bytes:
        """Return the file; raises ValueError while rows are missing."""
        if self._rows != self.height:
            raise ValueError(f"{self.height - self._rows} of {self.height} rows are missing")
        if self._pixels is not None:
            given = self._given
            made = Image(self._pixels, alpha=self._alpha, is_grey=given.is_grey, icc_profile=given.icc_profile)
            return encode(made, self._format, self._quality)
        assert self._png is not None  # noqa: S101 - one of the two was made
        return b"".join((*self._parts, self._png.finish()))
