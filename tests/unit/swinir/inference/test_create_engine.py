"""Which engine runs: the compiled one on CPUs, else the one in PyTorch. Only the latter imports torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from swinir.inference import create_engine
from swinir.inference.compiled_engine import CompiledEngine
from swinir.inference.torch_engine import TorchEngine
from swinir.network import library
from swinir.settings import read_settings
from testing.compiled_library import compile_changed, forget_library
from testing.data import ROOT
from testing.networks import draw_tiles, install_small

# The modules that the models of Triton import, without Triton's own.
START = """
import ast, importlib, pathlib, sys, types
import numpy as np

sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
for model in ("tile", "swinir", "stitch", "upscale_stream"):
    for node in ast.walk(ast.parse(pathlib.Path(f"model_repository/{model}/1/model.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            importlib.import_module(node.module)
assert "torch" not in sys.modules, "imported with the models"

from swinir.inference.create_engine import create_engine
from swinir.settings import read_settings

engine = create_engine(read_settings())
engine.load("compact_x4")
engine.warm_up("compact_x4")
engine.restore(np.zeros((1, 40, 40, 3), np.uint16), "compact_gray_jpeg_20")
print("torch" in sys.modules)
"""


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A compiled library, no GPU, and afterwards the library of the package again."""
    library.compile_library()
    forget_library()
    (tmp_path / "dev").mkdir()
    monkeypatch.setattr(create_engine, "DEVICES", tmp_path / "dev")
    yield
    monkeypatch.undo()
    forget_library()


def create(tmp_path: Path, **environ: str) -> CompiledEngine | TorchEngine:
    """Return the engine for these settings, with a small network; it must give the pixels of PyTorch."""
    install_small(tmp_path, "small_x2")
    engine = create_engine.create_engine(read_settings({"SUPERRES_WEIGHTS_DIR": str(tmp_path), **environ}))
    tiles = draw_tiles(2, 16, 24)
    expected = TorchEngine(tmp_path, "cpu").restore(tiles, "small_x2").tiles
    assert np.abs(engine.restore(tiles, "small_x2").tiles.astype(int) - expected).max() <= 1
    assert isinstance(engine, CompiledEngine | TorchEngine)
    return engine


def test_cpu_runs_the_compiled_engine(tmp_path: Path) -> None:
    assert isinstance(create(tmp_path), CompiledEngine)


def test_setting_chooses_pytorch(tmp_path: Path) -> None:
    assert isinstance(create(tmp_path, SUPERRES_ENGINE="torch"), TorchEngine)


@pytest.mark.parametrize("name", ["nvidiactl", "nvidia0", "nvhost-gpu", "nvmap", "dxg", "kfd"])
def test_machine_with_a_gpu_runs_pytorch(tmp_path: Path, name: str) -> None:
    (tmp_path / "dev" / name).touch()
    assert isinstance(create(tmp_path), TorchEngine)


def test_without_a_library_pytorch_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No C compiler, or another processor than that of the build."""
    monkeypatch.setattr(library, "COMPILED", tmp_path / "nothing")
    monkeypatch.setattr(library, "CACHE", tmp_path / "nothing")
    forget_library()
    assert isinstance(create(tmp_path), TorchEngine)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("blocks run in PyTorch, about half as fast: ")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vectors.h", ("0.39894214272499084f", "0.41894214272499084f")),
        ("convolution.c", ("(x + 1 - reach)", "(x + 2 - reach)")),
        ("pixels.c", ("0.587f", "0.687f")),
        ("pixels.c", ("v > all(255.5f)", "v > all(285.5f)")),
        (
            "way_back.c",
            ("4 * j % scale / step * pitch + 4 * j / scale * 3", "4 * j % scale / step * pitch + 4 * j / scale"),
        ),
        ("pixels.c", ("values[i] * 65535.0f", "values[i] * 65280.0f")),
        ("areas.c", ("box = 2 * radius + 1", "box = 2 * radius")),
    ],
    ids=["block", "convolution", "luminance", "range", "way back", "16 bits", "areas"],
)
def test_library_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    change: tuple[str, str],
) -> None:
    compile_changed(monkeypatch, tmp_path, name, change)
    monkeypatch.setattr(library, "CACHE", tmp_path / "nothing")
    assert isinstance(create(tmp_path, SUPERRES_PRECISION="float32"), TorchEngine)
    assert len(caplog.messages) == 1
    assert "PyTorch" in caplog.messages[0]
    assert "differs from the reference by" in caplog.messages[0]


@pytest.mark.parametrize("name", ["measure_network_error", "measure_tile_error"])
def test_library_that_returns_nan_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setattr(create_engine, name, lambda _: float("nan"))
    assert isinstance(create(tmp_path, SUPERRES_PRECISION="float32"), TorchEngine)


@pytest.mark.parametrize(("choice", "has_torch"), [("auto", "False"), ("torch", "True")])
def test_torch_is_imported_only_for_its_engine(choice: str, has_torch: str) -> None:
    if any(any(Path("/dev").glob(name)) for name in create_engine.GPU_FILES):
        has_torch = "True"
    environ = {**os.environ, "SUPERRES_ENGINE": choice, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", START], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == has_torch, done.stderr
