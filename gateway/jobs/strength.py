"""The strength of a restoration that an image needs, by the damage that was measured in it.

A 1x variant removes more than the damage from an image that has little of it, so the strength falls to 0 with it.
docs/reference/variants.md has the measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocessing.damage import find_jpeg_quality, measure_noise
from preprocessing.image import Image
from preprocessing.mixing import FULL_STRENGTH_PERCENT

_Curve = tuple[tuple[float, ...], tuple[int, ...]]

# Qualities of JPEG and noise in levels, and the strength in percent at each; straight lines between them.
_BY_QUALITY = ((88, 95), (100, 0))
# Level between 2.2 and 3.2: weak noise measures that, and so does grain, which should stay.
_BY_GREY_NOISE = ((1.6, 2.2, 3.2, 4.2, 8), (0, 50, 50, 85, 100))
# The colour network separates noise that differs between the channels from texture better.
_BY_COLOUR_NOISE = ((1, 2), (0, 100))
# Less is "no noise": the texture of clean photos alone measures this much.
_MIN_NAMED_NOISE = 1.5


@dataclass(frozen=True)
class ChosenStrength:
    """A strength that was chosen by the damage of an image."""

    percent: int
    """Share of the network's change that the result keeps, 0 to 100."""
    reason: str
    """Why it is below full strength, for the user: "the JPEG damage is weak (quality 93)"."""


_FULL = ChosenStrength(FULL_STRENGTH_PERCENT, "")


def find_strength(task: str, image: Image, file_quality: int | None) -> ChosenStrength:
    """Return the strength for a variant of this task (`swinir.zoo.Variant.task`).

    `file_quality` is that of the uploaded JPEG, None for other formats. The strength is full if the damage is unknown:
    scaled JPEGs and WebP show no quality, and tiny images too little noise to measure.
    """
    if task.endswith("_denoise"):
        is_grey = task.startswith("gray_")
        return _find_by_noise(measure_noise(image, of_luma=is_grey), _BY_GREY_NOISE if is_grey else _BY_COLOUR_NOISE)
    if task.endswith("_jpeg"):
        if file_quality is not None and file_quality <= _BY_QUALITY[0][0]:
            return _FULL  # a worse one in the pixels would not change it
        of_pixels = find_jpeg_quality(image)
        return _find_by_quality(min((q for q in (file_quality, of_pixels) if q is not None), default=None))
    return _FULL


def _find_by_noise(noise: float | None, curve: _Curve) -> ChosenStrength:
    if noise is None:
        return _FULL
    reason = f"the noise is weak (about {noise:.0f} levels)" if noise >= _MIN_NAMED_NOISE else "no noise was found"
    return ChosenStrength(round(float(np.interp(noise, *curve))), reason)


def _find_by_quality(quality: int | None) -> ChosenStrength:
    if quality is None:
        return _FULL
    percent = round(float(np.interp(quality, *_BY_QUALITY)))
    return ChosenStrength(percent, f"the JPEG damage is weak (quality {quality})")
