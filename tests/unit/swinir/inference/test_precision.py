"""bfloat16 on CPUs. The library is compiled with it on every processor; without AVX512-BF16 it is only slower."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from swinir.inference import bfloat16
from swinir.inference.bfloat16 import _is_quicker as compare_speed
from swinir.inference.bfloat16 import make_test_images, measure_bfloat16
from swinir.inference.precision import run_in, set_block_precision
from swinir.inference.torch_engine import TorchEngine
from swinir.network import fused, library
from swinir.network.blocks import SwinBlock, blocks_in_float32
from swinir.network.packing import PackedBlock
from swinir.network.swinir import SwinIR
from swinir.network.windows import window_orders
from swinir.settings import Precision
from swinir.weights.find import find_weights
from swinir.weights.load import load_network
from swinir.zoo import find_variant
from testing.clock import ManualClock
from testing.compiled_library import compile_changed, forget_library
from testing.data import ROOT
from testing.networks import SMALL, reference_network, relative_error

CLOSE = "compact_gray_jpeg_20"
COARSE = "compact_x4"


@pytest.fixture(scope="module")
def compiled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True)
def with_bfloat16(request: pytest.FixtureRequest, compiled_folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Compile the library with bfloat16, once, and let the processor count as quicker with it."""
    flags = getattr(request, "param", ("-DHAS_BFLOAT16=1", "-DVECTOR_WIDTH=16"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "FLAGS", (*library.FLAGS, *flags))
        patch.setattr(library, "COMPILED", compiled_folder / "-".join(flags).replace("=", ""))
        patch.setattr(bfloat16, "_is_quicker", lambda: True)
        library.compile_library()
        forget_library()
        yield patch
    forget_library()


def load(variant: str) -> SwinIR:
    row = find_variant(variant)
    return load_network(row, find_weights(row, None)).eval()


def measure(network: SwinIR) -> float:
    return measure_bfloat16(network.in_chans, lambda images, half: run_in(network, images, in_bfloat16=half))


def photo(channels: int) -> Tensor:
    with Image.open(ROOT / "tests/data/Set5/x4/butterfly.png") as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))[:64, :64])
    return pixels.permute(2, 0, 1)[None, :channels].float() / 255


def precisions(network: SwinIR) -> set[torch.dtype]:
    return {block.fused_precision for block in network.modules() if isinstance(block, SwinBlock)}


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("dim", "heads", "window", "ratio"), [(48, 4, 8, 2.0), (180, 6, 7, 2.0), (20, 5, 3, 1.5)])
def test_block_in_bfloat16_agrees_within_its_precision(
    dim: int, heads: int, window: int, ratio: float, *, shifted: bool
) -> None:
    generator = torch.Generator().manual_seed(7)
    block = SwinBlock(dim, heads, window, ratio, shifted=shifted)
    tokens = torch.randn(6 * window**2, dim, generator=generator)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    orders = window_orders(1, 3 * window, 2 * window, window, tokens.device)
    to, of = ("plain", "shifted") if shifted else ("shifted", "plain")
    gather, kinds = orders.gather[to, of], orders.kinds[of]

    rough = fused.FusedBlock(block, torch.bfloat16).run(tokens, gather, kinds, threads=2)

    exact = fused.FusedBlock(block).run(tokens, gather, kinds, threads=2)
    assert 1e-5 < relative_error(rough, exact) <= library.BFLOAT16_TOLERANCE
    assert torch.equal(rough, fused.FusedBlock(block, torch.bfloat16).run(tokens, gather, kinds, threads=1))


def test_auto_takes_bfloat16_only_if_it_is_close(
    caplog: pytest.LogCaptureFixture, with_bfloat16: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    network = load(CLOSE)
    distance_db = measure(network)  # differs by 2 dB between processors
    for min_db, expected in ((distance_db + 0.1, torch.float32), (distance_db - 0.1, torch.bfloat16)):
        with_bfloat16.setattr(bfloat16, "MIN_DB", min_db)
        set_block_precision(network, CLOSE, "auto")
        assert precisions(network) == {expected}
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{CLOSE} runs its blocks in bfloat16: ")


def test_auto_leaves_a_coarse_network_in_float32() -> None:
    network = load(COARSE)
    set_block_precision(network, COARSE, "auto")
    assert precisions(network) == {torch.float32}


def test_network_close_enough_for_auto_stays_within_80_db_on_a_photo() -> None:
    network = load(CLOSE)
    assert measure(network) >= 82  # 86 on some processors
    set_block_precision(network, CLOSE, "bfloat16")
    with torch.inference_mode():
        rough = network(photo(1))
        with blocks_in_float32():
            exact = network(photo(1))
    error = (rough - exact).double().square().mean().item()
    assert error > 0
    assert -10 * math.log10(error) >= 80


@pytest.mark.parametrize(("choice", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_setting_decides_for_every_network(choice: Precision, expected: torch.dtype) -> None:
    engine = TorchEngine(device="cpu", precision=choice)
    for variant in (CLOSE, COARSE):
        engine.load(variant)
        assert precisions(engine.networks.get(find_variant(variant))) == {expected}


@pytest.mark.parametrize("with_bfloat16", [("-DHAS_BFLOAT16=0",)], indirect=True)
def test_processor_without_bfloat16_runs_float32_and_says_so_if_it_was_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = load(CLOSE)
    set_block_precision(network, CLOSE, "auto")
    assert caplog.messages == []
    set_block_precision(network, CLOSE, "bfloat16")
    assert caplog.messages == [f"{CLOSE} runs in float32: this processor has no bfloat16 (AVX512-BF16)"]
    assert precisions(network) == {torch.float32}


def test_processor_that_is_not_quicker_with_bfloat16_runs_float32(with_bfloat16: pytest.MonkeyPatch) -> None:
    with_bfloat16.setattr(bfloat16, "_is_quicker", lambda: False)
    network = load(CLOSE)
    set_block_precision(network, CLOSE, "auto")
    assert precisions(network) == {torch.float32}


def test_bfloat16_that_computes_something_else_is_not_used(
    with_bfloat16: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compile_changed(with_bfloat16, tmp_path, "fused_bfloat16.h", ("low | high << 16", "low | low << 16"))

    network = load(CLOSE)
    set_block_precision(network, CLOSE, "bfloat16")

    assert precisions(network) == {torch.float32}
    assert "blocks run in float32: the fused block in bfloat16 differs from it by" in caplog.text


def test_block_of_odd_sizes_stays_in_float32() -> None:
    block = SwinBlock(21, 3, 4, 1.5, shifted=False)
    assert not fused.fits_bfloat16(block)
    network = reference_network({**SMALL, "embed_dim": 15, "num_heads": [3, 3]})
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = network(images)
        network.set_fused_precision(torch.bfloat16)
        assert torch.equal(network(images), exact)


def test_16_bits_are_computed_in_float32() -> None:
    tiles = np.random.default_rng(0).integers(0, 65536, (1, 16, 16, 3), np.uint16)
    rough, exact = (TorchEngine(device="cpu", precision=choice) for choice in ("bfloat16", "float32"))
    assert np.array_equal(rough.restore(tiles, COARSE).tiles, exact.restore(tiles, COARSE).tiles)
    assert precisions(rough.networks.get(find_variant(COARSE))) == {torch.bfloat16}


def test_tile_that_is_not_finite_runs_again_in_float32(with_bfloat16: pytest.MonkeyPatch) -> None:
    engine = TorchEngine(device="cpu", precision="bfloat16")
    engine.load(COARSE)
    network = engine.networks.get(find_variant(COARSE))
    tiles = np.zeros((1, 16, 16, 3), np.uint8)
    exact = TorchEngine(device="cpu", precision="float32").restore(tiles, COARSE).tiles
    forward = SwinIR.forward

    def overflow(self: SwinIR, images: Tensor) -> Tensor:
        in_bfloat16 = any(b._packed()._packed._block.products for b in self.modules() if isinstance(b, SwinBlock))
        return torch.full_like(forward(self, images), math.inf) if in_bfloat16 else forward(self, images)

    with_bfloat16.setattr(SwinIR, "forward", overflow)
    assert precisions(network) == {torch.bfloat16}
    assert np.array_equal(engine.restore(tiles, COARSE).tiles, exact)
    assert engine.counters.reruns == 1


@pytest.mark.parametrize(("float32_s", "is_quicker"), [(1.2, True), (1.0, False), (0.5, False)])
def test_best_times_of_both_decide_which_is_quicker(
    with_bfloat16: pytest.MonkeyPatch, float32_s: float, *, is_quicker: bool
) -> None:
    clock = ManualClock()

    def run(block: PackedBlock, *_: object, **__: object) -> None:
        clock.now += 1.0 if block._block.products else float32_s

    with_bfloat16.setattr(PackedBlock, "run", run)
    with_bfloat16.setattr(time, "thread_time", clock)
    assert compare_speed.__wrapped__() == is_quicker  # without its cache


@pytest.mark.parametrize("channels", [1, 3])
def test_test_images_are_always_the_same(channels: int) -> None:
    image = make_test_images(channels)
    assert image.shape == (2, 64, 64, channels)
    assert np.array_equal(image, make_test_images(channels))
    assert image.min() >= 0
    assert image.max() <= 1
