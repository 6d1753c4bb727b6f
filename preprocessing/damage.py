"""How much an image is damaged, by JPEG and by noise: measured on the tiles that `preprocessing.content` looks at."""

from __future__ import annotations

import numpy as np

from preprocessing.content import choose_tiles, compose_tile, to_luma
from preprocessing.image import Image
from preprocessing.jpeg_history import JpegHistory
from preprocessing.noise import ChannelNoise, NoiseLevels

# docs/reference/variants.md has the measurement. Texture is the same in all channels too.
_MIN_SHARED_NOISE = 4.0
_MIN_CORRELATION = 0.75


def find_jpeg_quality(image: Image) -> int | None:
    """Return the worst quality of JPEG that the pixels show, 10 to 92; None if they show none."""
    history = JpegHistory()
    for top, left in choose_tiles(image.height, image.width):
        history.add(to_luma(compose_tile(image, top, left)))
    return history.quality()


def has_shared_noise(image: Image) -> bool:
    """Return whether the image has noise that is about the same in red, green and blue.

    Scans of tinted prints have such noise, and so have JPEGs, whose colours are coded at half the resolution.
    """
    noise = measure_noise(image, of_luma=True)
    if noise is None or noise < _MIN_SHARED_NOISE:
        return False
    channels = ChannelNoise()
    for top, left in choose_tiles(image.height, image.width):
        channels.add(compose_tile(image, top, left))
    return channels.correlation() >= _MIN_CORRELATION


def measure_noise(image: Image, *, of_luma: bool) -> float | None:
    """Return the noise in levels where the image is smoothest; None if it cannot be measured.

    That of the luminance, or of the noisiest channel: noise that differs between the channels loses a third in the
    luminance. Texture everywhere looks like noise.
    """
    channels = [NoiseLevels() for _ in range(1 if of_luma else 3)]
    for top, left in choose_tiles(image.height, image.width):
        tile = compose_tile(image, top, left)
        planes = [to_luma(tile)] if of_luma else [tile[..., index].astype(np.int32) for index in range(3)]
        for channel, plane in zip(channels, planes, strict=True):
            channel.add(plane)
    noises = [noise for channel in channels if (noise := channel.level()) is not None]
    return max(noises, default=None)
