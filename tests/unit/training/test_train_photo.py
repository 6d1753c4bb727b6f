"""A run of compact_photo_x4 with all parts of its loss continues, and writes weights that load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from swinir.network.swinir import SwinIR
from swinir.weights.load import load_network
from swinir.zoo import VARIANTS
from training.adversarial import PatchDiscriminator
from training.labels import Labels, write_labels
from training.train_photo import train_photo
from training.vgg import VGGFeatures


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labels of noise, one benchmark image, and a network of features with random weights."""
    monkeypatch.setattr("training.train_photo.load_features", VGGFeatures)
    monkeypatch.setattr("training.train_photo.DRAWINGS", 5)
    monkeypatch.setattr("training.train_photo.DRAWING_SIDE", 64)
    rng = np.random.default_rng(0)
    (tmp_path / "labels").mkdir()
    small, large = (rng.integers(0, 256, (2, side, side, 3), np.uint8) for side in (16, 64))
    write_labels(tmp_path / "labels" / "0000.npz", Labels(small, large, large))
    (tmp_path / "bench/Set5/HR").mkdir(parents=True)
    Image.fromarray(large[0]).save(tmp_path / "bench/Set5/HR/noise.png")
    return tmp_path


def run(data: Path, *options: str) -> list[dict[str, float]]:
    arguments = ["--labels", str(data / "labels"), "--data", str(data), "--run", str(data / "run")]
    arguments += ["--patch", "8", "--photos", "1", "--adversarial-after", "1", "--save-every", "1", *options]
    result = CliRunner().invoke(train_photo, arguments)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in (data / "run/log.jsonl").read_text().splitlines()]


def test_a_run_continues_with_its_discriminator_and_writes_weights_that_load(data: Path) -> None:
    run(data, "--steps", "2")
    before = torch.load(data / "run/checkpoint.pt", weights_only=True)["photo_loss"]
    lines = run(data, "--steps", "3", "--rate", "1e-12")

    after = torch.load(data / "run/checkpoint.pt", weights_only=True)["photo_loss"]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert "adversarial_loss" not in lines[0]
    assert {"pixel_loss", "feature_loss", "adversarial_loss", "discriminator_loss"} <= set(lines[2])
    assert (before["calls"], after["calls"]) == (2, 3)
    assert len(after["optimiser"]["state"]) == len(list(PatchDiscriminator().parameters()))
    assert after["optimiser"]["state"][0]["step"] == 2, "the discriminator's optimiser continues"
    assert isinstance(load_network(VARIANTS["compact_photo_x4"], data / "run/weights.safetensors"), SwinIR)
