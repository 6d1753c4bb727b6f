"""Training batches with a teacher: crops of labelled photos, and others whose target is the true image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.data import Crops
from training.degradations import Pixels
from training.labels import Labels, read_labels

# New files of labels are looked for after this many batches: a labelling run may run during the training.
LOOK_EVERY = 100


class PhotoCrops:
    """Random aligned (input, target) crops; in every batch labelled ones come first and the others last.

    `truth_share` of the labelled crops have the true image as the target. In `permuted_share` of them red, green and
    blue are exchanged.
    """

    def __init__(
        self, folder: Path, others: Crops, scale: int, *, truth_share: float, seed: int, permuted_share: float = 0.0
    ) -> None:
        self._folder = folder
        self._others = others
        self._scale = scale
        self._truth_share = truth_share
        self._permuted_share = permuted_share
        self._rng = np.random.default_rng(seed)
        self._files: dict[str, Labels] = {}
        self.look()

    def look(self) -> None:
        """Read the files of labels that are new. Raises FileNotFoundError when there are none at all."""
        self._files |= dict(read_labels(self._folder, frozenset(self._files)))
        if not self._files:
            raise FileNotFoundError(
                f"No labels under {self._folder}. Make them with `python -m training.label` or `training.label_clean`."
            )

    @property
    def count(self) -> int:
        """Number of labelled crops that are known."""
        return sum(len(labels) for labels in self._files.values())

    def batches(self, patch: int, labelled: int, others: int) -> Iterator[tuple[Pixels, Pixels]]:
        """Endless (input [B, patch, patch, 3], target [B, scale * patch, scale * patch, 3]) of both kinds."""
        drawn = self._others.batches(patch, others)
        while True:
            for _ in range(LOOK_EVERY):
                pairs = [self._cut(patch) for _ in range(labelled)]
                given = [np.stack([pair[0] for pair in pairs])]
                target = [np.stack([pair[1] for pair in pairs])]
                if others:
                    other_given, other_target = next(drawn)
                    given.append(other_given)
                    target.append(other_target)
                yield np.concatenate(given), np.concatenate(target)
            self.look()

    def _cut(self, patch: int) -> tuple[Pixels, Pixels]:
        rng, scale = self._rng, self._scale
        files = list(self._files.values())
        labels = files[int(rng.integers(len(files)))]
        index = int(rng.integers(len(labels)))
        targets = labels.taught
        if labels.truth is not None and rng.random() < self._truth_share:
            targets = labels.truth
        given, target = labels.given[index], targets[index]
        top, left = (int(rng.integers(0, side - patch + 1)) for side in given.shape[:2])
        given = given[top : top + patch, left : left + patch]
        target = target[top * scale : (top + patch) * scale, left * scale : (left + patch) * scale]
        if rng.random() < self._permuted_share:
            order = rng.permutation(3)
            given, target = given[..., order], target[..., order]
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        given, target = np.rot90(given, turns), np.rot90(target, turns)
        return (given[:, ::-1], target[:, ::-1]) if mirrored else (given, target)
