"""Training batches of compact_photo_x4: crops of labelled photos, and drawings whose target is the true drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from training.data import Crops
from training.degradations import Pixels
from training.labels import Labels, read_labels
from training.recipes import Recipe

# New files of labels are looked for after this many batches: a labelling run may run during the training.
LOOK_EVERY = 100


class PhotoCrops:
    """Random aligned (input, target) crops; in every batch photos come first and drawings last."""

    def __init__(
        self, folder: Path, drawings: Sequence[Pixels], recipe: Recipe, *, truth_share: float, seed: int
    ) -> None:
        self._folder = folder
        self._recipe = recipe
        self._truth_share = truth_share
        self._rng = np.random.default_rng(seed)
        self._drawings = Crops(drawings, recipe, seed)
        self._files: dict[str, Labels] = {}
        self.look()

    def look(self) -> None:
        """Read the files of labels that are new. Raises FileNotFoundError when there are none at all."""
        self._files |= dict(read_labels(self._folder, frozenset(self._files)))
        if not self._files:
            raise FileNotFoundError(f"No labels under {self._folder}. Make them with `python -m training.label`.")

    @property
    def count(self) -> int:
        """Number of labelled crops that are known."""
        return sum(len(labels) for labels in self._files.values())

    def batches(self, patch: int, photos: int, drawings: int) -> Iterator[tuple[Pixels, Pixels]]:
        """Endless (input [B, patch, patch, 3], target [B, 4 patch, 4 patch, 3]) of `photos` photos, then `drawings`."""
        drawn = self._drawings.batches(patch, drawings)
        while True:
            for _ in range(LOOK_EVERY):
                pairs = [self._cut(patch) for _ in range(photos)]
                given = [np.stack([pair[0] for pair in pairs])]
                target = [np.stack([pair[1] for pair in pairs])]
                if drawings:
                    drawn_given, drawn_target = next(drawn)
                    given.append(drawn_given)
                    target.append(drawn_target)
                yield np.concatenate(given), np.concatenate(target)
            self.look()

    def _cut(self, patch: int) -> tuple[Pixels, Pixels]:
        rng, scale = self._rng, self._recipe.scale
        files = list(self._files.values())
        labels = files[int(rng.integers(len(files)))]
        index = int(rng.integers(len(labels)))
        targets = labels.truth if rng.random() < self._truth_share else labels.taught
        given, target = labels.given[index], targets[index]
        top, left = (int(rng.integers(0, side - patch + 1)) for side in given.shape[:2])
        given = given[top : top + patch, left : left + patch]
        target = target[top * scale : (top + patch) * scale, left * scale : (left + patch) * scale]
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        given, target = np.rot90(given, turns), np.rot90(target, turns)
        return (given[:, ::-1], target[:, ::-1]) if mirrored else (given, target)
