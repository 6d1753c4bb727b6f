"""Labelled crops: an input and what a teacher makes of it, a hundred crops in each .npz file.

Those of compact_photo_x4 have a damaged input and the true image too. A target is the teacher's output with the colours
of the true image there; crops in which the teacher invents another structure are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from training.degradations import Pixels, resize, to_grey
from training.evaluate import to_tensor

# Standard deviation, in output pixels, of the Gaussian below which the teacher gets the brightness and the colours of
# the true image; it shifts colours by 0.5 to 1.9 levels otherwise.
MATCHED_PX = 12
# The teacher may be this far from the true image at the size of the input, as a share of the true image's own
# contrast at that size, plus two levels for noise.
MAX_DISAGREEMENT = 0.25
NOISE_LEVELS = 2.0


@dataclass(frozen=True)
class Labels:
    """N crops, uint8."""

    given: Pixels
    """Inputs, [N, H, W, 3]."""

    truth: Pixels | None
    """True images, [N, 4 H, 4 W, 3]; None where there are none."""

    taught: Pixels
    """Targets made of the teacher's output, [N, 4 H, 4 W, 3]."""

    def __len__(self) -> int:
        return len(self.given)


def match_low_frequencies(taught: Pixels, truth: Pixels) -> Pixels:
    """The teacher's output with the low frequencies of the true image: uint8 [B, H, W, 3] each."""
    difference = to_tensor(truth) - to_tensor(taught)
    matched = (to_tensor(taught) + _blur(difference, MATCHED_PX)).mul_(255.0).round_().clamp_(0, 255)
    return matched.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def disagreement(taught: Pixels, truth: Pixels) -> float:
    """How far two images [H, W, 3] differ at a quarter of their size, as a share of the contrast of `truth` there.

    0 where they agree; about 1 where `taught` shows nothing of what `truth` does.
    """
    small = [
        to_grey(resize(image, image.shape[0] // 4, image.shape[1] // 4)).astype(np.float32) for image in (taught, truth)
    ]
    difference = float(np.sqrt(np.mean((small[0] - small[1]) ** 2)))
    return max(0.0, difference - NOISE_LEVELS) / (float(small[1].std()) + NOISE_LEVELS)


def keep_grey(taught: Pixels, given: Pixels) -> Pixels:
    """`taught` in grey where `given` is grey (R = G = B), else unchanged: images [H, W, 3]."""
    if (given == given[..., :1]).all():
        return to_grey(taught).repeat(3, axis=-1)
    return taught


def write_labels(path: Path, labels: Labels) -> None:
    """Write a file of labels by atomic rename."""
    columns = {field.name: getattr(labels, field.name) for field in fields(labels)}
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **{name: column for name, column in columns.items() if column is not None})
    partial.replace(path)


def read_labels(folder: Path, known: frozenset[str] = frozenset()) -> Iterator[tuple[str, Labels]]:
    """Yield (file name, labels) for the files under `folder` whose names are not in `known`."""
    for path in sorted(folder.glob("*.npz")):
        if path.name not in known:
            with np.load(path, allow_pickle=False) as arrays:
                yield path.name, Labels(**{field.name: arrays.get(field.name) for field in fields(Labels)})


def _blur(planes: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of [B, C, H, W], the border repeated."""
    radius = int(3 * sigma)
    taps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    b, c, h, w = planes.shape
    rows = functional.pad(planes.reshape(-1, 1, w), (radius, radius), mode="replicate")
    planes = functional.conv1d(rows, kernel).view(b, c, h, w).transpose(2, 3)
    columns = functional.pad(planes.reshape(-1, 1, h), (radius, radius), mode="replicate")
    return functional.conv1d(columns, kernel).view(b, c, w, h).transpose(2, 3)
