"""Label crops for compact_x4: ``python -m training.label_clean --data DIR --labels LABELS``.

Shrinks parts of the photos that are trained on, runs DAT-light on them and writes files of a hundred crops each. No
true image is needed, so photos of twice the side of a crop are large enough. A run that is stopped continues with the
next file when it is started again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from training.dat_light import DatLight, load_dat_light
from training.data import hold_out, read_images
from training.degradations import Pixels, resize
from training.labels import Labels, write_labels
from training.schedule import TimeOfDay
from training.trainer import choose_precision

PATCH = 96
BATCH = 4
# Shrunk to a half, the blocks and the softness of a JPEG photo are gone; the benchmark shrinks to a quarter.
MIN_SHRINK, MAX_SHRINK = 2, 4


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Holds train/.")
@click.option("--extra", type=click.Path(path_type=Path, exists=True), help="Folder of more photos to train on.")
@click.option("--labels", type=click.Path(path_type=Path), required=True, help="Folder of the labels.")
@click.option("--files", default=20, show_default=True, help="Number of files that there are at the end.")
@click.option("--until", type=TimeOfDay(), help="Start no file after HH:MM (UTC).")
@click.option("--per-file", default=100, show_default=True, help="Crops in a file.")
@click.option("--patch", default=PATCH, show_default=True, help="Side of an input crop, pixels: a multiple of 32.")
def label_clean(data: Path, extra: Path | None, labels: Path, until: float | None, **sizes: Any) -> None:
    """Write labelled crops into LABELS until there are enough, or until the clock says so."""
    torch.set_num_threads(1)
    labels.mkdir(parents=True, exist_ok=True)
    teacher = load_dat_light(sizes["patch"], half=choose_precision("cpu") == "bfloat16")
    photos, _ = hold_out(read_images(data / "train", grey=False, extra=extra))
    for number in range(sizes["files"]):
        path = labels / f"{number:04}.npz"
        if until is not None and time.time() >= until:
            break
        if not path.exists():
            given = shrunk_crops(photos, seed=number, count=sizes["per_file"], patch=sizes["patch"])
            write_labels(path, Labels(given, None, upscale_all(teacher, given)))
            print(f"{path.name}: {len(given)} crops", flush=True)


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
