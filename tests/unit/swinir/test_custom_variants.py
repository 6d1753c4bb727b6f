"""The available variants: those of the zoo and custom ones, with weights or by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.config.settings import Settings
from swinir.cli import describe_rows, list_
from swinir.custom_variants import ROW_KEY, CustomVariantError, find_offered, has_weights, read_row, read_rows
from swinir.zoo import VARIANTS
from testing.networks import install_small
from testing.weights_files import write_weights_file

BUNDLED = [name for name, row in VARIANTS.items() if row.is_bundled]


def test_all_installed_variants_are_offered_by_default(tmp_path: Path) -> None:
    install_small(tmp_path, "mine_x2")
    write_weights_file(tmp_path, "real_x4")
    (tmp_path / "downloads").mkdir()
    assert set(find_offered((), tmp_path)) == {*BUNDLED, "real_x4", "mine_x2"}
    assert list(find_offered((), None)) == BUNDLED
    assert list(find_offered((), tmp_path / "none")) == BUNDLED


def test_names_are_offered_in_their_order_once_their_weights_are_here(tmp_path: Path) -> None:
    install_small(tmp_path, "mine_x2")
    names = ("real_x4", "mine_x2", "nope", "compact_x4")
    assert list(find_offered(names, tmp_path)) == ["mine_x2", "compact_x4"]
    write_weights_file(tmp_path, "real_x4")
    assert list(find_offered(names, tmp_path)) == ["real_x4", "mine_x2", "compact_x4"]


def test_names_are_offered_without_a_known_folder() -> None:
    assert list(find_offered(("real_x4", "nope", "compact_x4"), None)) == ["real_x4", "compact_x4"]


def test_bundled_weights_and_weights_in_the_folder_are_found(tmp_path: Path) -> None:
    assert has_weights(VARIANTS["compact_x4"], None)
    assert not has_weights(VARIANTS["real_x4"], tmp_path)
    write_weights_file(tmp_path, "real_x4")
    assert has_weights(VARIANTS["real_x4"], tmp_path)


def test_remote_backend_offers_only_bundled_variants_unless_the_folder_is_shared(tmp_path: Path) -> None:
    install_small(tmp_path / "weights", "mine_x2")
    remote = "elsewhere:8001"
    assert "mine_x2" in Settings(state_dir=str(tmp_path)).offered()
    assert "mine_x2" in Settings(state_dir=str(tmp_path), variants="compact_x4,mine_x2").offered()
    assert list(Settings(state_dir=str(tmp_path), backend_address=remote).offered()) == [*BUNDLED, "nearest_x4"]
    shared = str(tmp_path / "weights")
    assert list(Settings(weights_dir=shared, backend_address=remote).offered()) == [*BUNDLED, "mine_x2", "nearest_x4"]


def write_header(path: Path, row: Any) -> None:
    """Write a safetensors file without tensors and with this metadata."""
    header = json.dumps({"__metadata__": {ROW_KEY: row if isinstance(row, str) else json.dumps(row)}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def good_row(folder: Path) -> dict[str, Any]:
    path = folder / "odd.safetensors"
    install_small(folder, "odd")
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, Any] = json.loads(header["__metadata__"][ROW_KEY])
    return found


ODD_VALUES: list[Any] = ["x", None, float("inf"), float("nan"), [[3]], {}, True, -1, 0, [], [None], 10**30]
ODD_CONFIG: list[tuple[str, Any]] = [
    (name, value)
    for name in ("upscale", "in_chans", "window_size", "img_range", "depths", "embed_dim", "num_heads", "mlp_ratio")
    for value in ODD_VALUES
] + [("depths", 5), ("num_heads", [2]), ("resi_connection", 3), ("upsampler", ["x"]), ("in_chans", [3])]


@pytest.mark.parametrize(("name", "value"), ODD_CONFIG)
def test_file_with_an_invalid_header_is_ignored(tmp_path: Path, name: str, value: Any) -> None:
    row = good_row(tmp_path)
    row["config"][name] = value
    write_header(tmp_path / "odd.safetensors", row)
    install_small(tmp_path, "sound")

    assert list(read_rows(tmp_path)) == ["sound"]
    assert "odd" not in Settings(weights_dir=str(tmp_path)).offered()
    assert "sound" in CliRunner().invoke(list_, obj=tmp_path, catch_exceptions=False).output
    assert describe_rows(tmp_path)[-1]["name"] == "sound"


@pytest.mark.parametrize("name", ["task", "scale", "halo", "max_tile_px", "summary", "config", "licence", "name"])
@pytest.mark.parametrize("value", [None, 1e400, [], {}, [{}], 10**30, True])
def test_row_with_a_value_of_another_kind_is_rejected(tmp_path: Path, name: str, value: Any) -> None:
    write_header(tmp_path / "odd.safetensors", {**good_row(tmp_path), name: value})
    with pytest.raises(CustomVariantError, match=r"^odd\.safetensors describes"):
        read_row(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("text", ["[" * 100_000, "1e400", "null", '"', "[]"])
def test_invalid_description_is_rejected(tmp_path: Path, text: str) -> None:
    write_header(tmp_path / "odd.safetensors", text)
    with pytest.raises(CustomVariantError, match=r"^odd\.safetensors describes"):
        read_row(tmp_path / "odd.safetensors")
