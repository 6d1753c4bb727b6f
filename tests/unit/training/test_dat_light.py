"""Attention of the teacher by its definition, and crops that are labelled without a true image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from training.dat_light import DatLight, attend
from training.data import TRAINING_SETS
from training.degradations import Pixels
from training.label_clean import label_clean, shrunk_crops
from training.labels import read_labels

ROWS, COLUMNS, HEADS, SIDE = 2, 4, 3, 8


class WindowAttention(torch.nn.Module):
    """The parts of the package's Spatial_Attention that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.H_sp, self.W_sp, self.num_heads, self.scale = ROWS, COLUMNS, HEADS, 0.5
        places = (2 * ROWS - 1) * (2 * COLUMNS - 1)
        y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(ROWS), torch.arange(COLUMNS), indexing="ij"))
        self.relative_position_index = (y[:, None] - y + ROWS - 1) * (2 * COLUMNS - 1) + (x[:, None] - x + COLUMNS - 1)
        self.rpe_biases = torch.randn(places, 2, generator=torch.Generator().manual_seed(1))
        self.pos = torch.nn.Linear(2, HEADS)


class Teacher(torch.nn.Module):
    """A network with a mask for images of other sides, as the package's blocks have; gives its input enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = WindowAttention()
        self.patches_resolution = 64
        self.register_buffer("attn_mask_0", torch.zeros(1))
        self.register_buffer("attn_mask_1", torch.zeros(1))

    def calculate_mask(self, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((height,), -100.0), torch.full((width,), -100.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert self.attn_mask_0.dtype == images.dtype
        return torch.nn.functional.interpolate(images, scale_factor=4, mode="nearest")


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_every_window_and_head_alone(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    attention, c, n = WindowAttention(), 2 * HEADS, ROWS * COLUMNS
    windows = (SIDE // ROWS) * (SIDE // COLUMNS)
    qkv = torch.randn(3, 2, SIDE * SIDE, c, generator=generator)
    mask = torch.randn(windows, n, n, generator=generator) if masked else None

    with torch.inference_mode():
        result = attend(attention, qkv, SIDE, SIDE, mask)
        bias = attention.pos(attention.rpe_biases)[attention.relative_position_index]

    images = qkv.view(3, 2, SIDE, SIDE, c)
    for window in range(windows):
        top, left = window // (SIDE // COLUMNS) * ROWS, window % (SIDE // COLUMNS) * COLUMNS
        place = (slice(top, top + ROWS), slice(left, left + COLUMNS))
        for image in range(2):
            for head in range(HEADS):
                q, k, v = (each[image][place].reshape(n, c)[:, 2 * head : 2 * head + 2] for each in images)
                scores = q @ k.T * 0.5 + bias[..., head] + (mask[window] if mask is not None else 0)
                expected = (scores.softmax(-1) @ v).view(ROWS, COLUMNS, 2)
                torch.testing.assert_close(result[image][place][..., 2 * head : 2 * head + 2], expected)


@pytest.mark.parametrize("half", [False, True])
def test_masks_fit_the_crops_and_the_precision(half: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    network = Teacher()

    result = DatLight(network, 32, half=half).upscale(pixels)

    assert np.abs(result.astype(int) - pixels.repeat(4, axis=1).repeat(4, axis=2)).max() <= half
    assert network.patches_resolution == 32
    assert network.attn_mask_1.shape == (32,)
    assert network.attention.forward.func is attend  # type: ignore[attr-defined]


def test_a_side_that_would_be_padded_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        DatLight(Teacher(), 80, half=False)


def test_crops_are_shrunk_by_two_to_four_and_small_photos_are_left_out() -> None:
    steps = np.arange(200, dtype=np.uint8)
    photo = np.broadcast_to(steps[:, None, None], (200, 200, 3)).copy()
    small = np.full((40, 300, 3), 255, np.uint8)

    crops = shrunk_crops([photo, small], seed=3, count=40, patch=32)

    assert crops.shape == (40, 32, 32, 3)
    slopes = (crops[:, -4, 0, 0].astype(float) - crops[:, 4, 0, 0]) / 24
    assert slopes.min() >= 1.9
    assert slopes.max() <= 4.1
    assert slopes.max() - slopes.min() > 1
    assert np.array_equal(crops, shrunk_crops([photo, small], seed=3, count=40, patch=32))
    with pytest.raises(ValueError, match="None of 1 photos has 64 pixels"):
        shrunk_crops([small], seed=3, count=1, patch=32)


def doubling(pixels: Pixels) -> Pixels:
    return pixels.repeat(4, axis=1).repeat(4, axis=2)


def test_labelling_continues_with_the_files_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher: Any = SimpleNamespace(upscale=doubling)
    monkeypatch.setattr("training.label_clean.load_dat_light", lambda *_, **__: teacher)
    rng = np.random.default_rng(0)
    for name in TRAINING_SETS:
        (tmp_path / "train" / name).mkdir(parents=True)
        for index in range(3):
            pixels = rng.integers(0, 256, (80, 90, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{index}.png")
    folder = tmp_path / "labels"
    arguments = ["--data", str(tmp_path), "--labels", str(folder), "--files", "2", "--per-file", "5", "--patch", "32"]

    assert CliRunner().invoke(label_clean, arguments).exit_code == 0
    first, second = ((folder / name).read_bytes() for name in ("0000.npz", "0001.npz"))
    (folder / "0001.npz").unlink()
    result = CliRunner().invoke(label_clean, arguments)

    assert "0001.npz: 5 crops" in result.output
    assert "0000.npz" not in result.output
    assert (folder / "0001.npz").read_bytes() == second != first
    for _, labels in read_labels(folder):
        assert labels.truth is None
        assert np.array_equal(labels.taught, doubling(labels.given))
