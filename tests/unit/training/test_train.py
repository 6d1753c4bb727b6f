"""A run that is stopped continues, its options take effect, and what it writes is served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from swinir.inference.torch_engine import TorchEngine
from swinir.network.swinir import SwinIR
from swinir.weights.find import find_weights
from swinir.weights.load import load_network
from swinir.zoo import VARIANTS
from training import swin_block
from training.data import TRAINING_SETS
from training.evaluate import judge, judge_held_out
from training.labels import Labels, write_labels
from training.losses import LOSSES
from training.measure import benchmarks_of, score
from training.recipes import RECIPES
from training.train import train
from training.trainer import choose_block, choose_precision, make_optimisers

VARIANT = "compact_gray_jpeg_20"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out like the training data, of noise: nothing can be learnt from it."""
    monkeypatch.setattr("training.train.DRAWINGS", 5)
    monkeypatch.setattr("training.train.DRAWING_SIDE", 64)
    rng = np.random.default_rng(5)
    for folder in (*(Path("train") / name for name in TRAINING_SETS), Path("bench/classic5")):
        (tmp_path / folder).mkdir(parents=True)
        pixels = rng.integers(0, 256, (64, 72), np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / "noise.png")
    return tmp_path


def run(data: Path, run_folder: Path, *options: str) -> str:
    arguments = [VARIANT, "--data", str(data), "--run", str(run_folder), "--patch", "14", "--batch", "1"]
    result = CliRunner().invoke(train, [*arguments, "--save-every", "1", *options])
    assert result.exit_code == 0, result.output
    return result.output


def read_log(run_folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_folder / "log.jsonl").read_text().splitlines()]


def test_a_run_that_ended_continues_from_its_checkpoint(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", "--steps", "2")
    output = run(data, tmp_path / "run", "--steps", "3")

    lines = read_log(tmp_path / "run")
    assert "resumed at step 2" in output
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [line["megapixels"] for line in lines] == [
        pytest.approx(14 * 14 * steps / 1e6, abs=1e-5) for steps in (1, 2, 3)
    ]
    served = load_network(VARIANTS[VARIANT], tmp_path / "run/weights.safetensors")
    average = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["average"]
    assert all(torch.equal(parameter, average[name]) for name, parameter in served.named_parameters())


def test_run_by_the_clock_ends_by_it(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", "--minutes", "0.0001")
    output = run(data, tmp_path / "run", "--minutes", "0.0001")

    assert "resumed at step 1" in output
    assert len(read_log(tmp_path / "run")) == 1


def test_a_run_until_a_time_of_day_ends_then_and_saves(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = 20_000 * 86_400 + 3_600  # 01:00 UTC of a day: the test must not depend on the hour at which it runs
    hours = iter(range(1000))
    monkeypatch.setattr("time.time", lambda: began + 3600 * next(hours))  # an hour passes at every look

    run(data, tmp_path / "run", "--until", "00:00", "--save-every", "1000")

    (line,) = read_log(tmp_path / "run")
    assert 1 <= line["step"] <= 24, "the last steps are saved"


def test_a_run_starts_from_the_shipped_weights(data: Path, tmp_path: Path) -> None:
    output = run(data, tmp_path / "run", "--start", "shipped", "--steps", "1", "--rate", "1e-12", "--warm-up", "1")

    assert "tensors loaded from" in output
    made = load_network(VARIANTS[VARIANT], tmp_path / "run/weights.safetensors").state_dict()
    shipped = load_network(VARIANTS[VARIANT], find_weights(VARIANTS[VARIANT], None)).state_dict()
    for name, tensor in shipped.items():
        torch.testing.assert_close(made[name], tensor, atol=1e-6, rtol=1e-6)


def test_a_run_learns_from_labelled_crops(data: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    given = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    write_labels(tmp_path / "labels/0000.npz", Labels(given, None, given.repeat(4, axis=1).repeat(4, axis=2)))
    (data / "bench/Set5").mkdir()
    (data / "bench/classic5").rename(data / "bench/Set5/HR")
    (data / "bench/Set5/x4").mkdir()
    Image.fromarray(given[0]).save(data / "bench/Set5/x4/noise.png")
    arguments = ["compact_x4", "--data", str(data), "--run", str(tmp_path / "run"), "--patch", "8", "--batch", "2"]
    arguments += ["--labels", str(tmp_path / "labels"), "--save-every", "1", "--steps", "1"]

    refused = CliRunner().invoke(train, [*arguments, "--labelled", "3"])
    taught = CliRunner().invoke(train, [*arguments, "--labelled", "1"])

    assert refused.exit_code == 2
    assert "3 of 2 crops per step" in refused.output
    assert taught.exit_code == 0, taught.output
    assert "3 labelled crops" in taught.output
    (line,) = read_log(tmp_path / "run")
    assert np.isfinite(line["loss"])


def test_weights_that_are_not_there_are_refused(data: Path, tmp_path: Path) -> None:
    arguments = [VARIANT, "--data", str(data), "--run", str(tmp_path / "run"), "--start", "nowhere.safetensors"]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 2
    assert "The weights nowhere.safetensors were not found." in result.output


def test_an_invalid_time_of_day_is_refused(data: Path, tmp_path: Path) -> None:
    arguments = [VARIANT, "--data", str(data), "--run", str(tmp_path / "run"), "--until", "noon"]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 2
    assert "Invalid time of day 'noon'" in result.output


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_run_of_each_loss_and_precision_trains(data: Path, tmp_path: Path, loss: str, precision: str) -> None:
    options = ("--start", "shipped", "--steps", "2", "--loss", loss, "--precision", precision)
    run(data, tmp_path / "run", *options, "--rate", "1e-4", "--warm-up", "1", "--average", "0.5")

    lines = read_log(tmp_path / "run")
    assert all(np.isfinite([line["loss"], line["db"], line["held_out_db"]]).all() for line in lines)
    made = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["network"]
    shipped = load_network(VARIANTS[VARIANT], find_weights(VARIANTS[VARIANT], None)).state_dict()
    assert all(not torch.equal(made[name], tensor) for name, tensor in shipped.items() if name.endswith("fc1.weight"))


@pytest.mark.parametrize(
    ("device", "flags", "precision"),
    [("cuda", (), "bfloat16"), ("cpu", ("avx512_bf16",), "bfloat16"), ("cpu", ("avx2",), "float32")],
)
def test_bfloat16_is_chosen_where_the_hardware_has_it(
    monkeypatch: pytest.MonkeyPatch, device: str, flags: tuple[str, ...], precision: str
) -> None:
    monkeypatch.setattr(swin_block, "cpu_flags", lambda: frozenset(flags))
    assert choose_precision(device) == precision


@pytest.mark.parametrize(
    ("device", "precision", "available", "block"),
    [
        ("cpu", "bfloat16", {"bfloat16", "float32"}, "bfloat16"),
        ("cpu", "float32", {"bfloat16", "float32"}, "float32"),
        ("cpu", "bfloat16", {"float32"}, None),
        ("cpu", "float32", set[str](), None),
        ("cuda", "float32", {"float32"}, None),
    ],
)
def test_blocks_are_compiled_where_they_have_the_precision_of_the_run(
    monkeypatch: pytest.MonkeyPatch, device: str, precision: str, available: set[str], block: str | None
) -> None:
    monkeypatch.setattr(swin_block, "is_available", available.__contains__)
    network = SwinIR(**RECIPES["compact_x4"].variant.config)
    assert choose_block(network, device, precision) == block


def test_a_run_is_judged_as_the_bundled_weights_are_measured(data: Path) -> None:
    row = VARIANTS[VARIANT]
    (_, pairs), *_ = benchmarks_of(row, data / "bench")
    before, after = score(TorchEngine(device="cpu"), row, pairs)

    judged = judge(load_network(row, find_weights(row, None)), RECIPES[VARIANT], data / "bench")

    assert judged == {"plain_db": before, "db": pytest.approx(after, abs=0.01)}


def test_held_out_images_are_judged_at_the_nominal_strength() -> None:
    row, recipe = VARIANTS[VARIANT], RECIPES[VARIANT]
    network = load_network(row, find_weights(row, None))
    noise = np.random.default_rng(1).integers(0, 256, (40, 44, 1), np.uint8)

    assert judge_held_out(network, recipe, []) == {}
    assert 8 < judge_held_out(network, recipe, [noise])["held_out_db"] < 30


def test_every_parameter_has_one_optimiser() -> None:
    network = SwinIR(**RECIPES["compact_x4"].variant.config)

    muon, adam = make_optimisers(network, 1e-3)

    held = [id(p) for optimiser in (muon, adam) for group in optimiser.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in network.parameters())
    assert isinstance(muon, torch.optim.Muon)
    assert len(muon.param_groups[0]["params"]) == 2 * 4 * 4, "qkv, proj, fc1, fc2 of every block"
