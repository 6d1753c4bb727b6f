"""Training: a killed run continues from its checkpoint, and the engine loads the result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from swinir.inference.engine import Engine
from swinir.network.swinir import SwinIR
from swinir.weights.load import find_weights, load_network
from swinir.zoo import VARIANTS
from training.data import TRAINING_SETS
from training.measure import benchmarks_of, score
from training.recipes import RECIPES
from training.train import judge, make_optimisers, train

VARIANT = "compact_gray_jpeg_20"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of noise with the layout of the training data."""
    rng = np.random.default_rng(5)
    for folder in (*(Path("train") / name for name in TRAINING_SETS), Path("bench/classic5")):
        (tmp_path / folder).mkdir(parents=True)
        pixels = rng.integers(0, 256, (64, 72), np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / "noise.png")
    return tmp_path


def run(data: Path, run_folder: Path, *options: str) -> str:
    arguments = [VARIANT, "--data", str(data), "--run", str(run_folder), "--patch", "14", "--batch", "1"]
    result = CliRunner().invoke(train, [*arguments, "--save-every", "1", "--threads", "1", *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_run_that_ended_goes_on_from_its_checkpoint(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", "--steps", "2")
    output = run(data, tmp_path / "run", "--steps", "3")

    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert "resumed at step 2" in output
    assert [line["step"] for line in lines] == [1, 2, 3]
    served = load_network(VARIANTS[VARIANT], tmp_path / "run/weights.safetensors")
    average = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["average"]
    assert all(torch.equal(parameter, average[name]) for name, parameter in served.named_parameters())


def test_run_by_the_clock_ends_by_it(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", "--minutes", "0.0001")
    output = run(data, tmp_path / "run", "--minutes", "0.0001")

    assert "resumed at step 1" in output
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 1


def test_run_is_judged_as_the_shipped_weights_are_measured(data: Path) -> None:
    row = VARIANTS[VARIANT]
    (_, pairs), *_ = benchmarks_of(row, data / "bench")
    before, after = score(Engine(device="cpu"), row, pairs)

    judged = judge(load_network(row, find_weights(row, None)), RECIPES[VARIANT], data / "bench")

    assert judged == {"plain_db": before, "db": pytest.approx(after, abs=0.01)}


def test_every_parameter_has_one_optimiser() -> None:
    network = SwinIR(**RECIPES["compact_x4"].variant.config)

    muon, adam = make_optimisers(network, 1e-3)

    held = [id(p) for optimiser in (muon, adam) for group in optimiser.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in network.parameters())
    assert isinstance(muon, torch.optim.Muon)
    assert len(muon.param_groups[0]["params"]) == 2 * 4 * 4, "qkv, proj, fc1, fc2 of every block"
