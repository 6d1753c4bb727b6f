"""Label crops for compact_photo_x4: ``python -m training.label --data DIR --labels LABELS``.

Draws damaged crops of the photos that are trained on, runs the teacher on them and writes files of a hundred crops
each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import click
import numpy as np

from training.data import Crops
from training.degradations import Pixels
from training.labelling import labelling_options, write_missing
from training.labels import MAX_DISAGREEMENT, Labels, disagreement, keep_grey, match_low_frequencies
from training.recipes import RECIPES
from training.teacher import Teacher, load_teacher
from training.trainer import choose_precision

# 80 input pixels: the largest square of the photos of BSDS500, so that crops for training have image around them.
PATCH = 80
BATCH = 4


@click.command()
@labelling_options(PATCH)
def label(**options: Any) -> None:
    """Write labelled crops into LABELS until there are enough, or until the clock says so."""
    teacher = load_teacher(half=choose_precision("cpu") == "bfloat16")

    def label_crops(photos: Sequence[Pixels], seed: int, count: int, patch: int) -> tuple[Labels, int]:
        return agreeing(labelled_crops(teacher, photos, seed, patch), count)

    write_missing(label_crops, **options)


def agreeing(crops: Iterator[tuple[Pixels, Pixels, Pixels]], count: int) -> tuple[Labels, int]:
    """The first `count` crops whose target agrees with the truth, and how many others were left out."""
    kept: list[tuple[Pixels, Pixels, Pixels]] = []
    left_out = 0
    while len(kept) < count:
        crop = next(crops)
        if disagreement(crop[2], crop[1]) > MAX_DISAGREEMENT:
            left_out += 1
        else:
            kept.append(crop)
    names = [field.name for field in dataclasses.fields(Labels)]
    columns = [np.stack(column) for column in zip(*kept, strict=True)]
    return Labels(**dict(zip(names, columns, strict=True))), left_out


def labelled_crops(
    teacher: Teacher, photos: Sequence[Pixels], seed: int, patch: int
) -> Iterator[tuple[Pixels, Pixels, Pixels]]:
    """Endless (input, truth, target) crops, uint8 [H, W, 3], in natural colours, which the teacher was trained on."""
    crops = Crops(photos, RECIPES["compact_real_x4"], seed, permuted_share=0.0)
    for given, truth in crops.batches(patch, BATCH):
        taught = match_low_frequencies(teacher.upscale(given), truth)
        for index in range(len(given)):
            yield given[index], truth[index], keep_grey(taught[index], given[index])


if __name__ == "__main__":
    label()
