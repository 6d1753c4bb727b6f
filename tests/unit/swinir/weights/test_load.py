"""Checkpoints: which are loaded, and which are rejected with the name of the problem."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.plain import make_shift_mask
from swinir.errors import InvalidWeightsError, MissingWeightsError
from swinir.network.windows import relative_position_index
from swinir.weights.architecture import infer_config, infer_ratio
from swinir.weights.find import BUNDLED, find_weights
from swinir.weights.load import build_network, convert, load_network, read_checkpoint
from swinir.zoo import VARIANTS, Variant
from testing.networks import SMALL, reference_tensors

ROW = Variant(name="small", task="lightweight_sr", scale=2, summary="", config=SMALL, halo=16, max_tile_px=64)
FIRST = "conv_first.weight"


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def with_buffers(tensors: dict[str, Tensor], training_side: int = 64) -> dict[str, Tensor]:
    buffers: dict[str, Tensor] = {}
    for group in range(2):
        prefix = f"layers.{group}.residual_group.blocks"
        for block in range(2):
            buffers[f"{prefix}.{block}.attn.relative_position_index"] = relative_position_index(8).clone()
        buffers[f"{prefix}.1.attn_mask"] = make_shift_mask(training_side, training_side, 8)
    return {**tensors, **buffers}


def test_sound_weights_become_a_network_that_needs_no_gradient(tmp_path: Path) -> None:
    tensors = reference_tensors(SMALL)
    network = load_network(ROW, write(tmp_path / "small.safetensors", tensors))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(network.conv_first.weight, tensors[FIRST])


def test_overwritten_file_does_not_change_loaded_weights(tmp_path: Path) -> None:
    """Memory-mapped weights would change with the file, and a truncated file would kill the process."""
    path = write(tmp_path / "small.safetensors", reference_tensors(SMALL))
    network = load_network(ROW, path)
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}

    with path.open("r+b") as file:
        file.write(b"\x01" * path.stat().st_size)

    assert all(torch.equal(tensor, before[name]) for name, tensor in network.named_parameters())


def spoil(kind: str) -> dict[str, Tensor]:
    tensors = reference_tensors(SMALL)
    if kind == "one extra tensor":
        tensors["conv_second.weight"] = torch.ones(3)
    elif kind == "one tensor too few":
        del tensors["norm.bias"]
    elif kind == "one wrong shape":
        tensors[FIRST] = tensors[FIRST][:, :2]
    elif kind == "a NaN":
        tensors[FIRST][0, 0, 1, 1] = torch.nan
    elif kind == "an infinity":
        tensors["norm.weight"][3] = torch.inf
    elif kind == "whole numbers":
        tensors[FIRST] = tensors[FIRST].int()
    elif kind == "a buffer of another window":
        tensors["layers.0.residual_group.blocks.0.attn.relative_position_index"] = relative_position_index(7)
    elif kind == "a mask where there is none":
        tensors["layers.0.residual_group.blocks.0.attn_mask"] = make_shift_mask(64, 64, 8)
    return tensors


SPOILT = {
    "one extra tensor": "has unknown tensors: 1, the first is conv_second.weight",
    "one tensor too few": "lacks tensors: 1, the first is norm.bias",
    "one wrong shape": r"conv_first.weight has shape \[12, 2, 3, 3\], expected \[12, 3, 3, 3\]",
    "a NaN": "conv_first.weight holds values that are not finite",
    "an infinity": "norm.weight holds values that are not finite",
    "whole numbers": "conv_first.weight holds torch.int32, expected floating point",
    "a buffer of another window": "does not fit its network.*does not match window 8",
    "a mask where there is none": r"does not fit its network.*blocks\.0\.attn_mask",
}


@pytest.mark.parametrize("kind", SPOILT)
def test_spoilt_weights_are_rejected_by_name(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "small.safetensors", spoil(kind))
    with pytest.raises(InvalidWeightsError, match=rf"(?s)^small\.safetensors:? {SPOILT[kind]}"):
        load_network(ROW, path)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_truncated_safetensors_file_is_rejected_by_name(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path / "small.safetensors", reference_tensors(SMALL))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if 0 < keep < 1 else int(keep)])
    with pytest.raises(InvalidWeightsError, match=r"^small\.safetensors cannot be read as safetensors"):
        load_network(ROW, path)


class RunsCode:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("way", ["torch.save", "pickle"])
def test_pickle_with_code_is_rejected_without_running_it(tmp_path: Path, way: str) -> None:
    state = {"params": {**reference_tensors(SMALL), "evil": RunsCode(tmp_path / "owned")}}
    path = tmp_path / "evil.pth"
    if way == "torch.save":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps({"params": {"evil": RunsCode(tmp_path / "owned")}}))
    with pytest.raises(
        InvalidWeightsError, match=r"^evil\.pth (was rejected: it holds more than tensors|cannot be read)"
    ):
        convert(path, tmp_path / "small.safetensors", ROW)
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "small.safetensors").exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, -30])
def test_truncated_pth_is_rejected_by_name(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "cut.pth"
    torch.save(reference_tensors(SMALL), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if 0 < keep < 1 else int(keep)])
    with pytest.raises(InvalidWeightsError, match=r"^cut\.pth"):
        convert(path, tmp_path / "small.safetensors", ROW)


@pytest.mark.parametrize("state", [[1, 2], {"params": 3}, {"a": {"b": torch.ones(1)}}, torch.ones(3)])
def test_pth_without_a_state_dict_is_rejected(tmp_path: Path, state: object) -> None:
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(InvalidWeightsError, match=r"odd\.pth holds no state dict"):
        read_checkpoint(tmp_path / "odd.pth")


@pytest.mark.parametrize("key", ["params", "params_ema", ""])
@pytest.mark.parametrize("side", [64, 48, 128])
def test_published_pth_is_converted_from_any_key(tmp_path: Path, key: str, side: int) -> None:
    tensors = reference_tensors(SMALL)
    state = with_buffers(tensors, side)
    torch.save({key: state} if key else state, tmp_path / "small.pth")

    convert(tmp_path / "small.pth", tmp_path / "small.safetensors", ROW)

    written = read_checkpoint(tmp_path / "small.safetensors")
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], tensors[name]) for name in tensors)


def test_key_of_the_row_wins_where_a_file_has_both(tmp_path: Path) -> None:
    tensors = reference_tensors(SMALL)
    other = {name: tensor * 2 for name, tensor in tensors.items()}
    torch.save({"params": tensors, "params_ema": other}, tmp_path / "both.pth")
    convert(tmp_path / "both.pth", tmp_path / "small.safetensors", ROW)
    assert ROW.checkpoint_key == "params"
    assert torch.equal(read_checkpoint(tmp_path / "small.safetensors")[FIRST], tensors[FIRST])


def test_weights_in_half_precision_are_served_in_float32(tmp_path: Path) -> None:
    torch.save({name: tensor.half() for name, tensor in reference_tensors(SMALL).items()}, tmp_path / "half.pth")
    convert(tmp_path / "half.pth", tmp_path / "small.safetensors", ROW)
    assert {tensor.dtype for tensor in read_checkpoint(tmp_path / "small.safetensors").values()} == {torch.float32}


def test_failed_conversion_keeps_the_good_file(tmp_path: Path) -> None:
    target = write(tmp_path / "small.safetensors", reference_tensors(SMALL))
    before = target.read_bytes()
    source = write(tmp_path / "bad.safetensors", spoil("a NaN"))
    with pytest.raises(InvalidWeightsError):
        convert(source, target, ROW)
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.safetensors", "small.safetensors"]


def test_weights_folder_precedes_bundled_weights(tmp_path: Path) -> None:
    row = VARIANTS["compact_x4"]
    assert find_weights(row, None) == BUNDLED / "compact_x4.safetensors"
    assert find_weights(row, tmp_path) == BUNDLED / "compact_x4.safetensors"
    (tmp_path / "compact_x4.safetensors").touch()
    assert find_weights(row, tmp_path) == tmp_path / "compact_x4.safetensors"
    with pytest.raises(MissingWeightsError, match="superres weights fetch gray_jpeg_10"):
        find_weights(VARIANTS["gray_jpeg_10"], tmp_path)


@pytest.mark.parametrize("row", [row for row in VARIANTS.values() if row.is_bundled], ids=lambda row: row.name)
def test_bundled_weights_load_and_are_small(row: Variant) -> None:
    path = find_weights(row, None)
    load_network(row, path)
    assert path.stat().st_size <= 2_000_000


@pytest.mark.parametrize("row", VARIANTS.values(), ids=lambda row: row.name)
def test_architecture_of_every_row_can_be_read_from_its_tensors(row: Variant) -> None:
    """Only shapes, as `meta` tensors of each network of the zoo."""
    from swinir.network.swinir import SwinIR  # noqa: PLC0415

    with torch.device("meta"):
        tensors = dict(SwinIR(**row.config).state_dict())
    config = infer_config(tensors, img_range=row.config["img_range"], source="it")
    assert config == dict(row.config)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (FIRST, "is not a SwinIR checkpoint: it lacks conv_first.weight"),
        ("layers.0.residual_group.blocks.0.mlp.fc1.weight", "lacks layers.0.residual_group.blocks.0.mlp.fc1.weight"),
        ("upsample.0.weight", "lacks conv_last.weight"),
    ],
)
def test_architecture_that_cannot_be_read_is_rejected(name: str, text: str) -> None:
    tensors = reference_tensors(SMALL)
    del tensors[name]
    with pytest.raises(InvalidWeightsError, match=text):
        infer_config(tensors, img_range=1.0, source="it")


def test_layers_with_a_gap_are_rejected() -> None:
    tensors = {name.replace("layers.1.", "layers.2."): each for name, each in reference_tensors(SMALL).items()}
    with pytest.raises(InvalidWeightsError, match="not numbered from 0 without a gap"):
        infer_config(tensors, img_range=1.0, source="it")


def test_bias_table_of_no_window_is_rejected() -> None:
    tensors = reference_tensors(SMALL)
    name = "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"
    tensors[name] = tensors[name][:200]
    with pytest.raises(InvalidWeightsError, match="a bias table of 200 rows fits no window size"):
        infer_config(tensors, img_range=1.0, source="it")


def test_invalid_configuration_names_the_file() -> None:
    with pytest.raises(
        InvalidWeightsError, match=r"it describes an invalid network: .*12 is not a multiple of 5 heads"
    ):
        build_network({**SMALL, "num_heads": [5, 5]}, {}, "it")


def test_hidden_width_is_read_from_the_checkpoint() -> None:
    lost = [
        (dim, hidden)
        for dim in range(1, 300)
        for hidden in range(1, 4 * dim + 2)
        if int(dim * infer_ratio(hidden, dim)) != hidden
    ]
    assert lost == []


@pytest.mark.parametrize("step", [0, 1])
def test_legacy_pth_cut_anywhere_is_rejected(tmp_path: Path, step: int) -> None:
    path = tmp_path / "old.pth"
    torch.save({"params": reference_tensors(SMALL)}, path, _use_new_zipfile_serialization=False)
    good = path.read_bytes()
    for length in [*range(step, 700, 2), *range(700 + step, len(good) - 1, 997)]:
        path.write_bytes(good[:length])
        with pytest.raises(InvalidWeightsError, match=r"^old\.pth (cannot be read as a checkpoint|was rejected)"):
            read_checkpoint(path)
