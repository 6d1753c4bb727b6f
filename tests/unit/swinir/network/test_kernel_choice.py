"""Kernels are used where they agree with PyTorch and are quicker; otherwise blocks run in PyTorch, as the log says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from swinir.inference import torch_engine
from swinir.inference.torch_engine import TorchEngine
from swinir.network.blocks import SwinBlock
from swinir.network.cuda import archive, choose
from swinir.network.cuda.block import Launch
from swinir.network.cuda.choose import Find, use_kernels
from swinir.network.cuda.shapes import BlockShape
from swinir.network.swinir import SwinIR
from testing.kernels import InterpretedLaunch
from testing.networks import SMALL, draw_images, draw_tiles, install_small, reference_network

CONFIG = {**SMALL, "embed_dim": 48, "num_heads": [4, 4]}
WARNING = "the blocks of small run in PyTorch: "


@pytest.fixture(autouse=True)
def small_timed_block(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(choose, "TIMED_WINDOWS", 1)
    caplog.set_level(logging.INFO)


def interpret(shape: BlockShape, _device: torch.device) -> Launch:
    return InterpretedLaunch(shape, 90)


def clock_of(pytorch_s: float, kernels_s: float) -> Callable[[], float]:
    """Return a clock for which the blocks, which run in turn, take these times."""
    readings = iter([0.0, pytorch_s, 0.0, kernels_s] * 100)
    return lambda: next(readings)


def rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def run_in_bfloat16(network: SwinIR, images: Tensor) -> Tensor:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        return network(images)


def has_kernels(network: SwinIR) -> bool:
    found = [module.kernels is not None for module in network.modules() if isinstance(module, SwinBlock)]
    assert len(set(found)) == 1
    return found[0]


def test_network_by_kernels_is_as_close_to_float32_as_autocast(caplog: pytest.LogCaptureFixture) -> None:
    network, images = reference_network(CONFIG), draw_images(1, 3, 20, 16)
    with torch.inference_mode():
        exact = network(images)
    autocast = run_in_bfloat16(network, images)

    use_kernels(network, "small", interpret, clock_of(2.0, 1.0))

    actual = run_in_bfloat16(network, images)
    assert caplog.messages == ["the blocks of small run as kernels"]
    assert not torch.equal(actual, autocast)
    assert rms(actual - exact) <= rms(autocast - exact)
    with torch.inference_mode():
        assert torch.equal(network(images), exact), "without autocast the blocks run in float32"


def test_memory_of_packed_weights_is_counted() -> None:
    network = reference_network(CONFIG)
    before = network.prepare()
    use_kernels(network, "small", interpret, clock_of(2.0, 1.0))
    parameters = sum(each.nbytes for each in network.parameters())
    dim, blocks, inner, kinds = 48, 4, 64, 2 * (1 + 4)
    weights = 2 * (3 * inner * dim + inner * dim + 2 * 96 * dim) * blocks
    assert parameters + weights < network.prepare() < before
    assert network.prepare() > parameters + weights + 2 * kinds * 4 * 64**2


@pytest.mark.parametrize("kernels_s", [1.0, 1.5], ids=["equal", "slower"])
def test_slower_kernels_are_not_used(kernels_s: float, caplog: pytest.LogCaptureFixture) -> None:
    network = reference_network(CONFIG)
    use_kernels(network, "small", interpret, clock_of(1.0, kernels_s))
    assert not has_kernels(network)
    assert caplog.messages == [f"{WARNING}the kernels take {1e3 * kernels_s:.2f} ms, PyTorch 1000.00 ms"]


class WrongLaunch(InterpretedLaunch):
    """Kernels of which one writes a constant to one column of its result."""

    def __init__(self, shape: BlockShape, kernel: str, value: float) -> None:
        super().__init__(shape, 90)
        self._kernel = kernel
        self._value = value

    def __call__(self, kernel: str, grid: tuple[int, int], *arguments: Tensor | int) -> None:
        super().__call__(kernel, grid, *arguments)
        if kernel == self._kernel:
            result = {"project_qkv": 4, "attend_windows": 2, "finish_block": 9}[kernel]
            tensor = arguments[result]
            assert isinstance(tensor, Tensor)
            tensor[..., 0] = self._value


@pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:All-NaN slice")  # NumPy's, of the interpreter
@pytest.mark.parametrize("value", [0.0, float("nan")])
@pytest.mark.parametrize("kernel", ["project_qkv", "attend_windows", "finish_block"])
def test_kernels_that_differ_are_not_used(kernel: str, value: float, caplog: pytest.LogCaptureFixture) -> None:
    network = reference_network(CONFIG)
    use_kernels(network, "small", lambda shape, _: WrongLaunch(shape, kernel, value), clock_of(2.0, 1.0))
    assert not has_kernels(network)
    (message,) = caplog.messages
    assert message.startswith(f"{WARNING}the kernels differ from float32 by ")


def fail_in_driver(_shape: BlockShape, _device: torch.device) -> Launch:
    raise RuntimeError("CUDA error: invalid device function")


def find_for_90(shape: BlockShape, device: torch.device) -> Launch:
    return archive.CompiledKernels(shape, 90, device)


@pytest.mark.parametrize(
    ("find", "config", "reason"),
    [
        (choose.find_compiled, CONFIG, "cpu is not a GPU"),
        (fail_in_driver, CONFIG, "the kernels failed: CUDA error: invalid device function"),
        (find_for_90, CONFIG, "no kernels are compiled for compute capability 9.0; to compile them, run: "),
        (interpret, SMALL, "BlockShape(dim=12, heads=2, window=8, hidden=24) is not a shape that kernels"),
    ],
    ids=["no-gpu", "driver-fails", "not-compiled", "other-shape"],
)
def test_missing_kernels_leave_the_blocks_in_pytorch(
    find: Find,
    config: dict[str, object],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(archive, "COMPILED", tmp_path)
    network, images = reference_network(config), draw_images(1, 3, 16, 16)
    before = run_in_bfloat16(network, images)

    use_kernels(network, "small", find, clock_of(2.0, 1.0))

    (message,) = caplog.messages
    assert message.startswith(WARNING + reason)
    assert torch.equal(run_in_bfloat16(network, images), before)


def test_engine_uses_kernels_where_it_runs_in_bfloat16(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = install_small(tmp_path, "small", embed_dim=48, num_heads=[4, 4])
    tiles = draw_tiles(1, 16, 16)
    expected = TorchEngine(tmp_path, "cpu", threads=1).restore(tiles, "small").tiles
    monkeypatch.setattr(
        torch_engine, "use_kernels", lambda network, name: use_kernels(network, name, interpret, clock_of(2.0, 1.0))
    )
    engine = TorchEngine(tmp_path, "cpu", threads=1)
    engine.precision = torch.bfloat16

    restored = engine.restore(tiles, "small").tiles

    assert has_kernels(engine.networks.get(row))
    assert np.abs(restored.astype(int) - expected).max() <= 3
    deep = engine.restore((tiles.astype(np.uint16) * 257).astype(np.uint16), "small").tiles
    assert np.abs(deep / 257.0 - expected).max() <= 0.51, "16 bits are computed in float32, without the kernels"
