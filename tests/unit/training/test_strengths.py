"""The table of strengths has a row each, and tells weights that move flat colours from those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image as PilImage

from preprocessing.content import ImageKind, classify
from preprocessing.image import Image
from swinir.network.swinir import SwinIR
from swinir.zoo import VARIANTS
from testing import images
from training import degradations
from training.initialise import start_as_upsampler
from training.recipes import RECIPES
from training.strengths import QUALITIES, flat_change, halve, measure_strengths

VARIANT = "compact_gray_jpeg_20"


@pytest.fixture
def unchanged() -> SwinIR:
    """A network that returns its input."""
    network = SwinIR(**VARIANTS[VARIANT].config)
    start_as_upsampler(network, [], RECIPES[VARIANT], keep_features=False)
    return network


def test_each_strength_has_a_row(tmp_path: Path) -> None:
    folder = tmp_path / "bench/classic5"
    folder.mkdir(parents=True)
    PilImage.fromarray(images.draw_grey(40, 48)).save(folder / "one.png")

    result = CliRunner().invoke(measure_strengths, [VARIANT, "--data", str(tmp_path)])

    assert result.exit_code == 0, result.output
    rows = [line.split("|")[1].strip() for line in result.output.splitlines() if line.startswith("| ")]
    assert rows == ["strength", *map(str, QUALITIES)]
    assert "Largest change of a flat colour" in result.output


def test_halved_images_keep_no_blocks_of_an_old_jpeg() -> None:
    worn = degradations.jpeg(images.draw_photo(320, 256), 20)

    halved = halve(worn)

    assert halved.shape == (165, 133, 3)
    assert classify(Image(pixels=worn)).kind == ImageKind.WORN_PHOTO
    assert classify(Image(pixels=halved)).kind == ImageKind.CLEAN_PHOTO


def test_the_largest_change_of_flat_colours_is_in_levels(unchanged: SwinIR) -> None:
    row = VARIANTS[VARIANT]
    assert flat_change(unchanged, row) == 0
    with torch.no_grad():
        dict(unchanged.named_parameters())["conv_last.bias"].fill_(3.0)  # of 255, the input range of the JPEG networks
    assert flat_change(unchanged, row) == 3
