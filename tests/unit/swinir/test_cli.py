"""The commands `superres weights ...`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from gateway.cli.main import cli
from swinir.zoo import VARIANTS
from testing.file_server import Behaviour, serve
from testing.networks import SMALL, install_small, reference_tensors
from testing.weights_files import write_weights_file

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `superres weights` on the folder `tmp_path/weights` and check the exit status."""
    monkeypatch.setenv("SUPERRES_STATE_DIR", str(tmp_path))

    def run(*arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["weights", *arguments])
        assert result.exit_code == status, result.output
        return result

    return run


def test_list_has_every_variant_with_its_table_row(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert set(rows) == set(VARIANTS)
    for name, variant in VARIANTS.items():
        row = rows[name]
        assert (row["task"], row["scale"], row["window"]) == (variant.task, variant.scale, variant.window)
        assert (row["url"], row["sha256"], row["licence"]) == (variant.url, variant.sha256, variant.licence)
    assert rows["compact_x4"]["here"] == "bundled"
    assert rows["classical_x2"]["hash"] == "pinned by many projects"
    assert rows["real_x4_psnr"]["hash"] == "pinned by 1 project"
    assert rows["classical_x3"]["hash"] == "trusted on first use"
    assert rows["real_x4"]["checkpoint_key"] == "params_ema"


def test_list_for_people_has_a_line_a_variant(run: Run, tmp_path: Path) -> None:
    install_small(tmp_path / "weights", "mine_x2")
    lines = run("list").stdout.splitlines()
    assert len(lines) == 1 + len(VARIANTS) + 1
    assert lines[0].split() == ["name", "task", "scale", "architecture", "window", "here", "megabytes", "hash"]
    assert any(line.startswith("real_x4 ") and " no " in line and "67.1" in line for line in lines)
    assert any(line.startswith("mine_x2 ") and " imported " in line for line in lines)


def test_verify_fails_for_a_damaged_file(run: Run, tmp_path: Path) -> None:
    install_small(tmp_path / "weights", "mine_x2")
    lines = run("verify").stdout.splitlines()
    assert "compact_x4: OK (bundled)" in lines
    assert "mine_x2: OK (no known hash: not in the lock file)" in lines

    path = tmp_path / "weights" / "mine_x2.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    result = run("verify", "mine_x2", "compact_x4", status=1)
    assert "compact_x4: OK" in result.stdout
    assert "mine_x2.safetensors cannot be used: it has " in result.stderr
    assert "compact_x2: OK (bundled)" in run("verify", status=1).stdout
    write_weights_file(tmp_path / "weights", "real_x4", missing=1)
    assert "real_x4: real_x4.safetensors cannot be read as safetensors" in run("verify", status=1).stderr
    assert any(line.startswith("real_x4 ") and " damaged " in line for line in run("list").stdout.splitlines())


def test_verify_names_missing_variants(run: Run) -> None:
    result = run("verify", "real_x4", "nope", status=1)
    assert "superres weights fetch real_x4" in result.stderr
    assert "Unknown variant 'nope'" in result.stderr


def test_fetch_reports_the_fault_of_a_server(run: Run) -> None:
    with serve(Behaviour(statuses=[404])) as base_url:
        result = run("fetch", "classical_x3", "--from", base_url, status=1)
    assert result.stderr.startswith("superres: Download failed: http://127.0.0.1:")
    assert "returned 404" in result.stderr


def test_fetch_rejects_a_file_that_is_not_the_variants(run: Run, tmp_path: Path) -> None:
    torch.save(reference_tensors(SMALL), tmp_path / "small.pth")
    with serve(Behaviour(data=(tmp_path / "small.pth").read_bytes())) as base_url:
        result = run("fetch", "lightweight_x3", "--from", base_url, status=1)
    assert "002_lightweightSR_DIV2K_s64w8_SwinIR-S_x3.pth lacks" in result.stderr


def test_fetch_prints_hash_and_trust(run: Run, tmp_path: Path) -> None:
    torch.save({"params": reference_tensors(dict(VARIANTS["lightweight_x3"].config))}, tmp_path / "light.pth")
    with serve(Behaviour(data=(tmp_path / "light.pth").read_bytes())) as base_url:
        result = run("fetch", "lightweight_x3", "--from", base_url)
    assert "(first use)" in result.stdout
    assert run("verify", "lightweight_x3").stdout == "lightweight_x3: OK (hash trusted on first use)\n"
    rows = json.loads(run("list", "--json").stdout)
    assert next(row for row in rows if row["name"] == "lightweight_x3")["here"] == "fetched"


def test_convert_takes_a_file_at_hand(run: Run, tmp_path: Path) -> None:
    torch.save({"params": reference_tensors(dict(VARIANTS["lightweight_x3"].config))}, tmp_path / "light.pth")
    assert "lightweight_x3: " in run("convert", str(tmp_path / "light.pth"), "lightweight_x3").stdout
    assert "File not found" in run("convert", str(tmp_path / "none.pth"), "lightweight_x3", status=1).stderr


def test_import_prints_the_row_and_asks_for_the_rest(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "community.pth"
    torch.save(reference_tensors(SMALL), source)
    assert "--img-range" in run("import", str(source), "--name", "mine_x2", "--task", "real_sr", status=2).stderr
    assert "--task" in run("import", str(source), "--name", "mine_x2", "--img-range", "1", status=2).stderr

    result = run("import", str(source), "--name", "mine_x2", "--task", "real_sr", "--img-range", "1")

    assert "mine_x2: real_sr, 2x, read from the tensors: " in result.stdout
    assert "window_size=8" in result.stdout
    assert "embed_dim=12" in result.stdout
    assert run("verify", "mine_x2").stdout == "mine_x2: OK (imported, hash unchanged)\n"
