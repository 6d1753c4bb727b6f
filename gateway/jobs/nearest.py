"""The variant for pixel art, `nearest_x4`: each pixel becomes a square of equal pixels. Needs no backend."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.backend.interface import Band
from gateway.cancellation import CancelToken
from preprocessing.image import Pixels

# Rows of the upload in one band: 64 of 8,192 pixels at 4x are 25 MB, less than a band of a network.
BAND_ROWS = 64


def repeat_bands(pixels: Pixels, scale: int, cancel_token: CancelToken) -> Iterator[Band]:
    """Yield the bands of an image [H, W, 3] uint8 whose pixels are repeated `scale` times in both directions.

    Raises CancelledError.
    """
    for top in range(0, len(pixels), BAND_ROWS):
        cancel_token.raise_if_cancelled()
        rows = pixels[top : top + BAND_ROWS]
        yield Band(top=top * scale, pixels=rows.repeat(scale, axis=0).repeat(scale, axis=1))
