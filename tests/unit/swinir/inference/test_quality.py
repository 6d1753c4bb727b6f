"""Quality of the shipped weights with the engine, on images that were not in the training data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from swinir.inference.torch_engine import TorchEngine
from swinir.zoo import VARIANTS, Variant
from testing.data import ROOT, SET5
from training.degradations import resize
from training.measure import benchmarks_of, published_pairs, read, same_size_pairs, score
from training.metrics import psnr

BENCH = ROOT / "tests" / "data"
MIN_DB = {"compact_x4": 31.5}
"""PSNR of the luminance of Set5 that the docs claim; bicubic x4 has 28.43."""
MIN_GAIN_DB = {"classical_sr": 2.5, "lightweight_sr": 2.5, "denoise": 8.0, "jpeg": 0.7}
"""Gain over bicubic, or over the noisy or blocky input."""
BUNDLED = [row for row in VARIANTS.values() if row.is_bundled]


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in BUNDLED if row.task == "lightweight_sr"], ids=lambda row: row.name)
def test_set5_beats_interpolation(engine: TorchEngine, row: Variant) -> None:
    before, after = score(engine, row, list(published_pairs(BENCH, row.scale)))
    assert after - before >= MIN_GAIN_DB[row.task], f"{after:.2f} dB, bicubic {before:.2f} dB"
    assert after >= MIN_DB.get(row.name, 0)


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in BUNDLED if row.scale == 1], ids=lambda row: row.name)
def test_noise_and_jpeg_damage_are_taken_away(engine: TorchEngine, row: Variant) -> None:
    paths = [SET5 / "HR" / f"{name}.png" for name in ("butterfly", "head")]
    before, after = score(engine, row, list(same_size_pairs(row, paths)))
    assert after - before >= MIN_GAIN_DB[row.task.partition("_")[2]], f"{after:.2f} dB, given {before:.2f} dB"


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in BUNDLED if row.notice], ids=lambda row: row.name)
@pytest.mark.parametrize("name", ["butterfly", "head"])
def test_invented_texture_stays_that_of_the_photo(engine: TorchEngine, row: Variant, name: str) -> None:
    """Measured when it was added: 29.8 and 37.2 dB, and colours within 1.2 levels."""
    photo = read(SET5 / "HR" / f"{name}.png")
    given = resize(photo, photo.shape[0] // row.scale, photo.shape[1] // row.scale)
    shrunk = resize(engine.restore(given[None], row.name).tiles[0], given.shape[0], given.shape[1])
    assert psnr(shrunk, given) >= 28.0
    assert np.abs((shrunk.astype(int) - given).mean(axis=(0, 1))).max() <= 2.0, "colours are those of the photo"


def test_every_bundled_variant_has_a_benchmark(tmp_path: Path) -> None:
    for folder in ("Set5/HR", "Set12", "classic5"):
        (tmp_path / folder).mkdir(parents=True)

    def titles(row: Variant) -> Iterator[str]:
        return (title for title, _ in benchmarks_of(row, tmp_path))

    assert all(list(titles(row)) for row in BUNDLED)
