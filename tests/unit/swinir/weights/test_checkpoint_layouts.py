"""Checkpoints in the layouts of other projects are imported; what cannot be served is refused in words."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from swinir.cli import import_
from swinir.errors import InvalidWeightsError
from swinir.weights.architecture import infer_config
from swinir.weights.load import CHECKPOINT_KEYS, read_checkpoint
from testing.networks import SMALL, reference_tensors

TENSORS = reference_tensors(SMALL)
PREFIXES = ("module.", "netG.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "model.netG.module.")


def save(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in TENSORS.items()}


def is_read(path: Path, key: str = "") -> bool:
    read = read_checkpoint(path, key)
    config = infer_config(read, img_range=1.0, source=path.name)
    assert config["depths"] == SMALL["depths"]
    return read.keys() == TENSORS.keys() and all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
@pytest.mark.parametrize("key", [*CHECKPOINT_KEYS, ""])
def test_state_dict_is_found_under_any_key_and_prefix(tmp_path: Path, key: str, prefix: str) -> None:
    state = prefixed(prefix)
    assert is_read(save(tmp_path / "odd.pth", {key: state, "epoch": 3} if key else state))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefix_in_safetensors_is_removed(tmp_path: Path, prefix: str) -> None:
    save_file({name: tensor.contiguous() for name, tensor in prefixed(prefix).items()}, tmp_path / "a.safetensors")
    assert is_read(tmp_path / "a.safetensors")


def test_state_dict_below_two_keys_is_found(tmp_path: Path) -> None:
    assert is_read(save(tmp_path / "a.pth", {"state_dict": {"params_ema": TENSORS}}))
    assert is_read(save(tmp_path / "b.pth", {"mine": {"params": TENSORS}}), "mine")


def test_other_parts_of_a_lightning_module_are_left_out(tmp_path: Path) -> None:
    state = {**prefixed("model."), "loss.vgg.weight": torch.ones(3), "steps": torch.tensor(7)}
    assert is_read(save(tmp_path / "a.ckpt", {"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.5"}))


@pytest.mark.parametrize(
    ("state", "key", "words"),
    [
        ({"mine": TENSORS, "theirs": TENSORS}, "", r"Name its key with --key: 'mine', 'theirs'$"),
        ({"mine": TENSORS}, "ours", r"no key 'ours'. Name its key with --key: 'mine'$"),
        ({f"k{number}": {} for number in range(20)}, "", r"'k7' and 12 more$"),
        (
            {**prefixed("module."), **prefixed("netG.")},
            "",
            r"holds 2 networks, under 'module\.', 'netG\.'; expected one",
        ),
    ],
)
def test_ambiguous_file_is_refused_in_words(tmp_path: Path, state: Any, key: str, words: str) -> None:
    with pytest.raises(InvalidWeightsError, match=words):
        read_checkpoint(save(tmp_path / "odd.pth", state), key)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_pixel_unshuffle_is_refused_in_words(tmp_path: Path, prefix: str) -> None:
    state = prefixed(prefix)
    state[f"{prefix}conv_first.1.weight"] = state.pop(f"{prefix}conv_first.weight").repeat(1, 4, 1, 1)
    tensors = read_checkpoint(save(tmp_path / "odd.pth", {"params": state}))
    with pytest.raises(InvalidWeightsError, match=r"odd\.pth folds pixels into 12 channels \(pixel-unshuffle\)"):
        infer_config(tensors, img_range=1.0, source="odd.pth")


def nested(depth: int) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for _ in range(depth):
        state = {"state_dict": state}
    return state


@pytest.mark.parametrize(
    "build",
    [
        lambda: nested(100),
        lambda: {"state_dict": {"model": {"net": {"params": {"module": TENSORS}}}}},
        lambda: {"module." * 9_000 + "conv_first.weight": torch.ones(1), "x" * 9_000: {}},
        lambda: {1: {}, ("a", 2): {}, None: {}},
    ],
)
def test_hostile_layouts_are_refused(tmp_path: Path, build: Callable[[], object]) -> None:
    with pytest.raises(InvalidWeightsError) as caught:
        is_read(save(tmp_path / "evil.pth", build()))
    assert len(str(caught.value)) < 800


def test_pickle_in_a_known_layout_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"state_dict": {"model.conv_first.weight": Path}}))
    with pytest.raises(InvalidWeightsError, match=r"was rejected|cannot be read"):
        read_checkpoint(path)


def test_help_names_the_keys_in_their_order() -> None:
    option = next(each for each in import_.params if each.name == "key")
    assert ", ".join(CHECKPOINT_KEYS) in getattr(option, "help", "")
