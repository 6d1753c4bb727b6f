"""Label crops for compact_x4: ``python -m training.label_clean --data DIR --labels LABELS``.

Shrinks parts of the photos that are trained on, runs DAT-light on them and writes files of a hundred crops each. No
true image is needed, so photos of twice the side of a crop are large enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from training.dat_light import DatLight, load_dat_light
from training.degradations import Pixels, resize
from training.labelling import labelling_options, write_missing
from training.labels import Labels
from training.trainer import choose_precision

PATCH = 96
BATCH = 4
# Shrunk to a half, the blocks and the softness of a JPEG photo are gone; the benchmark shrinks to a quarter.
MIN_SHRINK, MAX_SHRINK = 2, 4


@click.command()
@labelling_options(PATCH, multiple=32)
def label_clean(**options: Any) -> None:
    """Write labelled crops into LABELS until there are enough, or until the clock says so."""
    teacher = load_dat_light(options["patch"], half=choose_precision("cpu") == "bfloat16")

    def label_crops(photos: Sequence[Pixels], seed: int, count: int, patch: int) -> tuple[Labels, int]:
        given = shrunk_crops(photos, seed=seed, count=count, patch=patch)
        return Labels(given, None, upscale_all(teacher, given)), 0

    write_missing(label_crops, **options)


def shrunk_crops(photos: Sequence[Pixels], *, seed: int, count: int, patch: int) -> Pixels:
    """`count` crops, uint8 [N, patch, patch, 3], that depend on `seed` alone; from larger photos more often.

    Each is a square of two to four times the side, shrunk. Raises ValueError when all photos are smaller.
    """
    rng = np.random.default_rng(seed)
    least = MIN_SHRINK * patch
    areas = np.array([photo[..., 0].size if min(photo.shape[:2]) >= least else 0 for photo in photos], np.float64)
    if not areas.any():
        raise ValueError(f"None of {len(photos)} photos has {least} pixels on both sides. Use a smaller patch.")
    crops = []
    for index in rng.choice(len(photos), count, p=areas / areas.sum()):
        photo = photos[index]
        side = int(rng.integers(least, min(*photo.shape[:2], MAX_SHRINK * patch) + 1))
        top, left = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
        crops.append(resize(np.ascontiguousarray(photo[top : top + side, left : left + side]), patch, patch))
    return np.stack(crops)


def upscale_all(teacher: DatLight, given: Pixels) -> Pixels:
    """What the teacher makes of crops [N, H, W, 3], a few at a time: [N, 4 H, 4 W, 3]."""
    return np.concatenate([teacher.upscale(given[start : start + BATCH]) for start in range(0, len(given), BATCH)])


if __name__ == "__main__":
    label_clean()
