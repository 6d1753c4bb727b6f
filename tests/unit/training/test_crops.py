"""The twenty crops are cut where the list says, and their table has the mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from testing import images
from training.crops import CROPS, DEGRADED, Crop, crop_table, read_crops, score_crops


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """Photos of just the size that the crops need, each pixel (row, column, 7), and Set5 of 160 x 192."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "Set5/HR").mkdir(parents=True)
    for file in {crop.file for crop in CROPS}:
        height = max(crop.top + crop.side for crop in CROPS if crop.file == file)
        width = max(crop.left + crop.side for crop in CROPS if crop.file == file)
        rows, columns = np.mgrid[0:height, 0:width]
        pixels = np.stack([rows % 256, columns % 256, np.full_like(rows, 7)], axis=-1).astype(np.uint8)
        path = (tmp_path / "photos" / file).with_suffix(".png")
        Image.fromarray(pixels).save(path)
        path.rename(tmp_path / "photos" / file)  # a PNG by its bytes, so nothing is lost, also under a .jpg name
    for name in DEGRADED:
        Image.fromarray(images.draw_photo(160, 192)).save(tmp_path / "Set5/HR" / f"{name}.png")
    return tmp_path


def test_twenty_crops_with_titles_of_their_own(bench: Path) -> None:
    crops = dict(read_crops(bench))

    assert len(crops) == 20
    for crop in CROPS:
        assert crops[crop.title].shape == (crop.side, crop.side, 3)
        assert tuple(crops[crop.title][0, 0]) == (crop.top % 256, crop.left % 256, 7)
    for name in DEGRADED:
        assert crops[f"{name}, damaged"].shape == (40, 48, 3)


def test_crop_outside_its_photo_is_refused() -> None:
    crop = Crop("too low", "small.png", left=0, top=10, side=96)
    with pytest.raises(ValueError, match=r"too low ends at 96 x 106, small\.png is 100 x 100"):
        crop.cut(np.zeros((100, 100, 3), np.uint8))


def test_each_method_is_scored_on_its_own_result_of_each_crop(bench: Path) -> None:
    methods = {"whole": lambda pixels: pixels, "half": lambda pixels: pixels // 2}

    scores = score_crops(methods, bench, lambda image: float(image.mean()))

    crops = dict(read_crops(bench))
    assert scores["whole"] == {title: round(float(pixels.mean()), 2) for title, pixels in crops.items()}
    assert scores["half"] == {title: round(float((pixels // 2).mean()), 2) for title, pixels in crops.items()}


def test_table_ends_with_the_means() -> None:
    lines = crop_table({"bicubic": {"cat": 60.0, "dog": 50.5}, "ours": {"cat": 40.0, "dog": 31.0}})
    assert lines[0] == "| crop | bicubic | ours |"
    assert lines[2:] == ["| cat | 60.0 | 40.0 |", "| dog | 50.5 | 31.0 |", "| **mean** | 55.2 | 35.5 |"]
