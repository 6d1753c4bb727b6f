"""Label crops for compact_photo_x4: ``python -m training.label --data DIR --labels LABELS``.

Draws damaged crops of the photos that are trained on, runs the teacher on them and writes files of a hundred crops
each. A run that is stopped continues with the next file when it is started again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from training.data import Crops, hold_out, read_images
from training.degradations import Pixels
from training.labels import MAX_DISAGREEMENT, Labels, disagreement, keep_grey, match_low_frequencies, write_labels
from training.recipes import RECIPES
from training.schedule import TimeOfDay
from training.teacher import Teacher, load_teacher
from training.trainer import choose_precision

# 80 input pixels: the largest square of the photos of BSDS500, so that crops for training have image around them.
PATCH = 80
BATCH = 4


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Holds train/.")
@click.option("--extra", type=click.Path(path_type=Path, exists=True), help="Folder of more photos to train on.")
@click.option("--labels", type=click.Path(path_type=Path), required=True, help="Folder of the labels.")
@click.option("--files", default=20, show_default=True, help="Number of files that there are at the end.")
@click.option("--until", type=TimeOfDay(), help="Start no file after HH:MM (UTC).")
@click.option("--per-file", default=100, show_default=True, help="Crops in a file.")
@click.option("--patch", default=PATCH, show_default=True, help="Side of an input crop, pixels.")
def label(data: Path, extra: Path | None, labels: Path, until: float | None, **sizes: Any) -> None:
    """Write labelled crops into LABELS until there are enough, or until the clock says so."""
    torch.set_num_threads(1)
    labels.mkdir(parents=True, exist_ok=True)
    model = load_teacher(half=choose_precision("cpu") == "bfloat16")
    photos, _ = hold_out(read_images(data / "train", grey=False, extra=extra))
    for number in range(sizes["files"]):
        path = labels / f"{number:04}.npz"
        if until is not None and time.time() >= until:
            break
        if not path.exists():
            left_out = write_file(path, model, photos, seed=number, count=sizes["per_file"], patch=sizes["patch"])
            print(f"{path.name}: {sizes['per_file']} crops, {left_out} left out", flush=True)


def write_file(path: Path, teacher: Teacher, photos: list[Pixels], *, seed: int, count: int, patch: int) -> int:
    """Write `count` labelled crops that depend on `seed` alone; return how many others were left out."""
    kept: list[tuple[Pixels, Pixels, Pixels]] = []
    left_out = 0
    for pair in labelled_crops(teacher, photos, seed, patch):
        if disagreement(pair[2], pair[1]) > MAX_DISAGREEMENT:
            left_out += 1
            continue
        kept.append(pair)
        if len(kept) == count:
            break
    names = [field.name for field in dataclasses.fields(Labels)]
    columns = [np.stack(column) for column in zip(*kept, strict=True)]
    write_labels(path, Labels(**dict(zip(names, columns, strict=True))))
    return left_out


def labelled_crops(
    teacher: Teacher, photos: list[Pixels], seed: int, patch: int
) -> Iterator[tuple[Pixels, Pixels, Pixels]]:
    """Endless (input, truth, target) crops, uint8 [H, W, 3], in natural colours, which the teacher was trained on."""
    crops = Crops(photos, RECIPES["compact_real_x4"], seed, permuted_share=0.0)
    for given, truth in crops.batches(patch, BATCH):
        taught = match_low_frequencies(teacher.upscale(given), truth)
        for index in range(len(given)):
            yield given[index], truth[index], keep_grey(taught[index], given[index])


if __name__ == "__main__":
    label()
