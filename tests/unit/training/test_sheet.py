"""A sheet shows what a user would see, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from swinir.inference.torch_engine import TorchEngine
from testing import images
from training.degradations import resize
from training.sheet import CROP_PX, TITLE_PX, crop, draw_sheet

VARIANT, SCALE = "compact_x2", 2
SIDE = CROP_PX * SCALE


def test_each_photo_has_a_row_of_bicubic_and_of_each_variant(tmp_path: Path) -> None:
    photos = [images.draw_photo(CROP_PX + 4, CROP_PX + 20, seed=1), images.draw_photo(CROP_PX, CROP_PX, seed=2)]
    paths = [str(tmp_path / f"{number}.png") for number in range(len(photos))]
    for photo, path in zip(photos, paths, strict=True):
        Image.fromarray(photo).save(path)
    out = tmp_path / "new" / "sheet.png"

    result = CliRunner().invoke(draw_sheet, [*paths, "--out", str(out), "--variant", VARIANT])

    assert result.exit_code == 0, result.output
    with Image.open(out) as opened:
        sheet = np.asarray(opened)
    assert sheet.shape == (TITLE_PX + 2 * SIDE, 2 * SIDE, 3)
    assert (sheet[:TITLE_PX] != 255).any(), "the columns have titles"
    engine = TorchEngine(device="cpu")
    for row, photo in enumerate(photos):
        cells = sheet[TITLE_PX + row * SIDE :][:SIDE]
        bicubic = resize(photo, photo.shape[0] * SCALE, photo.shape[1] * SCALE)
        made = engine.restore(photo[None].copy(), VARIANT).tiles[0]
        assert np.array_equal(cells[:, :SIDE], crop(bicubic, SIDE))
        assert np.array_equal(cells[:, SIDE:], crop(made, SIDE))


def test_an_image_smaller_than_its_cell_is_whole_on_white() -> None:
    image = images.draw_photo(3, 9)
    cut = crop(image, 5)
    assert np.array_equal(cut[:3], image[:, 2:7])
    assert (cut[3:] == 255).all()
