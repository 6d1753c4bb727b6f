"""Training images: read once, split into those to train on and those held out, cropped and degraded at random.

Owns the random crops and their augmentation; the damage is that of `training.recipes`. Knows nothing of the optimiser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.degradations import Pixels, resize, to_grey
from training.recipes import Recipe

TRAINING_SETS = ("BSDS500_train", "BSDS500_test", "T91", "SunHays80")  # never BSDS500's val: that is BSD100

# Every tenth image is held out of training, to see whether the network remembers images instead of learning.
HELD_OUT_EVERY = 10
HELD_OUT_PATCH = 64  # input pixels of each held-out image that are judged

# Half of the crops are cut larger, up to twice the side, and shrunk: sharper than the photo, and never the same twice.
SHRUNK_SHARE = 0.5
MAX_SHRINK = 2.0
PERMUTED_SHARE = 0.5  # of crops in colour: red, green and blue exchanged


def read_images(folder: Path, *, grey: bool, extra: Path | None = None) -> list[Pixels]:
    """Every image of the training sets under `folder`, and of `extra`: uint8 [H, W, 3], or [H, W, 1] when `grey`.

    Raises FileNotFoundError when there are none.
    """
    paths = sorted(path for name in TRAINING_SETS for path in (folder / name).iterdir())
    paths += sorted(extra.iterdir()) if extra else []
    if not paths:
        raise FileNotFoundError(f"No images under {folder}; expected the folders {', '.join(TRAINING_SETS)}.")
    images = []
    for path in paths:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        images.append(to_grey(pixels) if grey else pixels)
    return images


def hold_out(images: Sequence[Pixels]) -> tuple[list[Pixels], list[Pixels]]:
    """Split into (images to train on, every tenth image)."""
    kept = [image for index, image in enumerate(images) if index % HELD_OUT_EVERY]
    return kept, list(images[::HELD_OUT_EVERY])


def held_out_pairs(images: Sequence[Pixels], recipe: Recipe, maximum: int = 40) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield (input, target) at the nominal strength: a corner of 64 input pixels of at most `maximum` images."""
    step = max(1, len(images) // maximum)
    for index, image in enumerate(images[::step][:maximum]):
        side = [min(HELD_OUT_PATCH, length // recipe.scale) * recipe.scale for length in image.shape[:2]]
        target = image[: side[0], : side[1]]
        yield recipe.degradation.nominal(target, np.random.default_rng(index)), target


class Crops:
    """Random aligned (input, target) crops of photos and drawings: shrunk, flipped, turned, colours exchanged."""

    def __init__(
        self,
        photos: Sequence[Pixels],
        recipe: Recipe,
        seed: int,
        drawings: Sequence[Pixels] = (),
        *,
        permuted_share: float | None = None,
    ) -> None:
        self._permuted_share = PERMUTED_SHARE if permuted_share is None else permuted_share
        self._images = [*photos, *drawings]
        self._photo_count = len(photos)
        self._recipe = recipe
        self._rng = np.random.default_rng(seed)

    def batches(self, patch: int, batch: int) -> Iterator[tuple[npt.NDArray[Any], Pixels]]:
        """Endless (input [B, patch, patch, C], target [B, patch * scale, patch * scale, C]); larger images more often.

        Inputs are uint8, or float32 of 0..255 where one of the batch is. Raises ValueError when no photo is as large
        as the target.
        """
        chances = self._chances(patch * self._recipe.scale)
        while True:
            pairs = [self._draw(patch, int(self._rng.choice(len(chances), p=chances))) for _ in range(batch)]
            yield np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])

    def _chances(self, side: int) -> npt.NDArray[np.float64]:
        sides = [image.shape[:2] for image in self._images]
        areas = np.array([height * width if min(height, width) >= side else 0 for height, width in sides], np.float64)
        photos, drawings = areas[: self._photo_count], areas[self._photo_count :]
        if not photos.any():
            raise ValueError(
                f"None of {len(photos)} photos has {side} pixels on both sides, as crops of "
                f"{side // self._recipe.scale} pixels at scale {self._recipe.scale} need. "
                "Train on larger photos or with a smaller patch."
            )
        share = self._recipe.drawn_share if drawings.any() else 0.0
        drawings = drawings * (share / drawings.sum()) if share else drawings * 0.0
        return np.concatenate([photos * ((1.0 - share) / photos.sum()), drawings])

    def _draw(self, patch: int, index: int) -> tuple[npt.NDArray[Any], Pixels]:
        rng, scale = self._rng, self._recipe.scale
        border = self._recipe.degradation.border_px
        available = min(self._images[index].shape[:2]) // scale
        # An image hardly larger than the crop has less around it.
        border = min(border, (available - patch) // 2)
        target = self._cut(self._images[index], (patch + 2 * border) * scale)
        if target.shape[-1] == 3 and rng.random() < self._permuted_share:
            target = target[..., rng.permutation(3)]
        if self._recipe.grey_share and target.shape[-1] == 3 and rng.random() < self._recipe.grey_share:
            target = to_grey(target).repeat(3, axis=-1)
        given = self._recipe.degradation.draw(target, rng)
        given = given[border : border + patch, border : border + patch]
        target = target[border * scale : (border + patch) * scale, border * scale : (border + patch) * scale]
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        given, target = np.rot90(given, turns), np.rot90(target, turns)
        return (given[:, ::-1], target[:, ::-1]) if mirrored else (given, target)

    def _cut(self, image: Pixels, side: int) -> Pixels:
        """Cut a square of `side` pixels out at random, half of the time shrunk from up to twice the side."""
        rng = self._rng
        largest = min(*image.shape[:2], int(side * MAX_SHRINK))
        cut = int(rng.integers(side, largest + 1)) if rng.random() < SHRUNK_SHARE else side
        top, left = (int(rng.integers(0, length - cut + 1)) for length in image.shape[:2])
        region = np.ascontiguousarray(image[top : top + cut, left : left + cut])
        return region if cut == side else resize(region, side, side)
