"""The engine: its results, and its behaviour when memory runs out, values overflow or the job is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from swinir.checks import FIELDS, summarise
from swinir.inference.engine import EngineError, InferenceCancelledError, NotFiniteError, OutOfMemoryError
from swinir.inference.memory import is_out_of_memory
from swinir.inference.precision import choose_autocast
from swinir.inference.torch_engine import TorchEngine
from swinir.network import fused
from swinir.zoo import UnknownVariantError
from testing.data import ROOT
from testing.networks import draw_tiles, install_small
from training.metrics import psnr

Forward = Callable[[Any, Tensor, torch.dtype], Tensor]


@pytest.fixture
def engine(tmp_path: Path) -> TorchEngine:
    install_small(tmp_path, "small_x2")
    return TorchEngine(tmp_path, "cpu", threads=1)


def column(rows: Any, field: str) -> list[float]:
    return rows[:, FIELDS.index(field)].tolist()


def break_forward(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Forward, int], Forward]
) -> None:
    """Replace every forward pass by `spoil(real forward, number of the pass)`."""
    real, calls = engine._forward, iter(range(1000))

    def forward(*given: Any) -> Tensor:
        return spoil(real, next(calls))(*given)

    monkeypatch.setattr(engine, "_forward", forward)


def test_result_is_the_output_clamped_rounded_and_cast(engine: TorchEngine, tmp_path: Path) -> None:
    row, tiles = install_small(tmp_path, "small_x2"), draw_tiles(2, 16, 24)

    restored = engine.restore(tiles, "small_x2").tiles

    with torch.inference_mode():
        values = engine.networks.get(row)(torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255.0) * 255.0
    assert (values < -0.5).any()
    assert (values > 255.5).any()  # otherwise clamping would not be tested
    expected = values.round().clamp(0, 255).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    assert restored.dtype == np.uint8
    assert np.array_equal(restored, expected)


def test_one_channel_variant_keeps_colour(tmp_path: Path) -> None:
    row = install_small(tmp_path, "grey", upscale=1, upsampler="", in_chans=1)
    engine, tiles = TorchEngine(tmp_path, "cpu", threads=1), (draw_tiles(1, 16, 16) // 4 + 96).astype(np.uint8)
    network = engine.networks.get(row)
    with torch.no_grad():
        network.get_parameter("conv_last.weight").zero_()
        network.get_parameter("conv_last.bias").fill_(20 / 255)  # 20 levels brighter than the input

    restored = engine.restore(tiles, "grey").tiles

    assert np.array_equal(restored, tiles + 20)


def test_grey_image_stays_grey_in_a_one_channel_variant(tmp_path: Path) -> None:
    install_small(tmp_path, "grey", upscale=1, upsampler="", in_chans=1)
    tiles = np.repeat(draw_tiles(1, 16, 16)[..., :1], 3, axis=3)
    restored = TorchEngine(tmp_path, "cpu", threads=1).restore(tiles, "grey").tiles
    assert np.array_equal(restored[..., 0], restored[..., 1])
    assert np.array_equal(restored[..., 0], restored[..., 2])
    assert not np.array_equal(restored, tiles)


def test_one_channel_upscaler_scales_colour_too(tmp_path: Path) -> None:
    row = install_small(tmp_path, "grey_x2", in_chans=1)
    engine, tiles = TorchEngine(tmp_path, "cpu", threads=1), np.full((1, 16, 16, 3), (200, 100, 50), np.uint8)
    tiles[:, 4::8, 4::8] = 0  # so that the tile is not flat: flat areas keep their colour
    last = engine.networks.get(row).get_submodule("upsample.0")
    with torch.no_grad():
        last.get_parameter("weight").zero_()
        last.get_parameter("bias").fill_(134.2 / 255)  # the input's luminance is 124.2

    restored = engine.restore(tiles, "grey_x2").tiles

    assert (restored[0, 16:18, 16:18] == (210, 110, 60)).all()


def test_out_of_memory_halves_the_micro_batch(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles, sizes = draw_tiles(5, 16, 16), []
    expected = engine.restore(tiles, "small_x2").tiles

    def spoil(real: Forward, call: int) -> Forward:
        def forward(network: Any, images: Tensor, precision: torch.dtype) -> Tensor:
            sizes.append(len(images))
            if call == 0:
                raise torch.OutOfMemoryError("CUDA out of memory (injected)")
            return real(network, images, precision)

        return forward

    break_forward(engine, monkeypatch, spoil)
    restored = engine.restore(tiles, "small_x2")

    assert sizes == [5, 2, 2, 1]
    assert np.abs(restored.tiles.astype(int) - expected).max() <= 1
    assert engine.counters.halvings == 1
    assert column(restored.checks, "halvings") == [1, 1, 1, 1, 1]


def test_permanent_out_of_memory_names_tile_and_variant(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(_real: Forward, _call: int) -> Forward:
        return lambda *_given: torch.empty(1 << 55)  # the CPU allocator's own words, not ours

    break_forward(engine, monkeypatch, spoil)
    with pytest.raises(OutOfMemoryError, match="one 16x24 tile of small_x2 does not fit in memory"):
        engine.restore(draw_tiles(8, 16, 24), "small_x2")
    assert engine.counters.halvings == 3  # 8, 4, 2, 1


def test_weights_too_large_for_memory_are_an_error(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.networks, "_load", lambda *_given: torch.empty(1 << 55))
    with pytest.raises(OutOfMemoryError, match="the weights of small_x2 do not fit in memory"):
        engine.restore(draw_tiles(1, 16, 16), "small_x2")


def test_unsupported_operation_is_not_out_of_memory(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(_real: Forward, _call: int) -> Forward:
        return lambda *_given: torch.ones(2) + torch.ones(3)

    break_forward(engine, monkeypatch, spoil)
    with pytest.raises(EngineError, match="small_x2 failed on 16x16 tiles: The size of tensor a"):
        engine.restore(draw_tiles(2, 16, 16), "small_x2")
    assert engine.counters.halvings == 0
    assert not is_out_of_memory(RuntimeError("size mismatch"))


def not_finite_in_tile(index: int, passes: int) -> Callable[[Forward, int], Forward]:
    def spoil(real: Forward, call: int) -> Forward:
        def forward(network: Any, images: Tensor, precision: torch.dtype) -> Tensor:
            restored = real(network, images, precision)
            if call < passes:
                restored[min(index, len(restored) - 1), 1, 3, 4] = torch.nan if call % 2 == 0 else torch.inf
            return restored

        return forward

    return spoil


def test_tile_that_is_not_finite_is_run_again_alone(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = draw_tiles(3, 16, 16)
    expected = engine.restore(tiles, "small_x2").tiles

    break_forward(engine, monkeypatch, not_finite_in_tile(1, passes=1))
    restored = engine.restore(tiles, "small_x2")

    assert np.abs(restored.tiles.astype(int) - expected).max() <= 1
    assert column(restored.checks, "rerun") == [0, 1, 0]
    assert engine.counters.reruns == 1


def test_tile_is_run_again_in_float32(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.precision = torch.bfloat16
    precisions = []

    def spoil(real: Forward, call: int) -> Forward:
        def forward(network: Any, images: Tensor, precision: torch.dtype) -> Tensor:
            precisions.append(precision)
            return not_finite_in_tile(0, passes=1)(real, call)(network, images, precision)

        return forward

    break_forward(engine, monkeypatch, spoil)
    engine.restore(draw_tiles(1, 16, 16), "small_x2")
    assert precisions == [torch.bfloat16, torch.float32]


def test_tile_not_finite_twice_is_an_error(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    break_forward(engine, monkeypatch, not_finite_in_tile(1, passes=2))
    with pytest.raises(
        NotFiniteError, match="small_x2 returned values that are not finite for a tile, also in float32"
    ):
        engine.restore(draw_tiles(3, 16, 16), "small_x2")


def test_bfloat16_is_close_and_returns_float32(engine: TorchEngine) -> None:
    """The GPU's path, run on the CPU: autocast must hold for every operation of the network."""
    tiles = draw_tiles(1, 24, 24)
    exact = engine.restore(tiles, "small_x2").tiles.astype(int)
    engine.precision = torch.bfloat16
    rough = engine.restore(tiles, "small_x2").tiles
    assert 0 < np.abs(rough - exact).mean() < 2.0


def test_convolutions_use_tf32_only_in_passes_in_bfloat16(
    engine: TorchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = engine.networks.get(install_small(tmp_path, "small_x2"))
    allowed = []
    network.conv_first.register_forward_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    tiles = draw_tiles(1, 16, 16)
    engine.restore(tiles, "small_x2")
    engine.precision = torch.bfloat16
    engine.restore(tiles, "small_x2")
    break_forward(engine, monkeypatch, not_finite_in_tile(0, passes=1))
    engine.restore(tiles, "small_x2")
    assert allowed == [False, True, True, False]


def test_bfloat16_difference_is_invisible() -> None:
    """With the shipped weights: 57 dB if convolutions also run in low precision."""
    engine = TorchEngine(device="cpu")
    with Image.open(ROOT / "tests" / "data" / "Set5" / "x4" / "butterfly.png") as image:
        tiles = np.array(image.convert("RGB"))[np.newaxis]
    exact = engine.restore(tiles, "compact_x4").tiles
    engine.precision = torch.bfloat16
    assert psnr(engine.restore(tiles, "compact_x4").tiles[0], exact[0]) > 59, (
        "60.7 dB on processors with and without bfloat16"
    )


def test_precision_is_never_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_autocast(torch.device("cpu"), "bfloat16") is torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert choose_autocast(torch.device("cuda"), "auto") is torch.bfloat16
    assert choose_autocast(torch.device("cuda"), "float32") is torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert choose_autocast(torch.device("cuda"), "auto") is torch.float32


def test_checks_report_range_clamping_and_back_psnr(engine: TorchEngine) -> None:
    restored = engine.restore(draw_tiles(2, 16, 16), "small_x2")
    checks = summarise(restored.checks)
    assert checks.tiles == 2
    assert checks.lowest < 0
    assert checks.highest > 255
    assert 0 < checks.clamped < 1
    assert 0 < checks.back_db < 30  # the reference weights restore nothing


def test_result_that_downscales_to_its_input_has_high_back_db(tmp_path: Path) -> None:
    """The shipped weights on a smooth image: downscaled again, the result must equal the input except for rounding."""
    ramp = np.linspace(30, 220, 48).round().astype(np.uint8)
    tiles = np.repeat((ramp[:, None] // 2 + ramp[None, :] // 2)[None, :, :, None], 3, axis=3).astype(np.uint8)
    checks = summarise(TorchEngine(tmp_path, "cpu", threads=1).restore(tiles, "compact_x4").checks)
    assert checks.back_db > 45, checks.to_header()
    assert checks.clamped == 0


def test_back_error_is_that_of_antialiased_bicubic_shrinking(engine: TorchEngine) -> None:
    tiles = draw_tiles(2, 16, 24)
    restored = engine.restore(tiles, "small_x2")

    results, images = (torch.from_numpy(each).permute(0, 3, 1, 2).float() for each in (restored.tiles, tiles))
    shrunk = torch.nn.functional.interpolate(results, (16, 24), mode="bicubic", antialias=True).clamp(0, 255)
    expected = (shrunk - images).square().flatten(1).mean(dim=1)
    assert restored.checks[:, FIELDS.index("back_error")] == pytest.approx(expected.numpy(), rel=0.01, abs=0.2)


def test_cancelled_work_ends_between_micro_batches(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "micro_batch_pixels", 2 * 16 * 16)
    asked: list[int] = []

    def is_cancelled() -> bool:
        asked.append(engine.counters.tiles)
        return len(asked) == 3

    with pytest.raises(InferenceCancelledError, match="after 4 of 7 tiles"):
        engine.restore(draw_tiles(7, 16, 16), "small_x2", is_cancelled)
    assert asked == [0, 2, 4]


def test_unknown_variant_lists_the_available_ones(engine: TorchEngine) -> None:
    with pytest.raises(UnknownVariantError, match=r"Unknown variant 'nope'.*compact_x4.*real_x4.*small_x2"):
        engine.restore(draw_tiles(1, 16, 16), "nope")


@pytest.mark.parametrize("name", ["../small_x2", "small_x2.safetensors", "", "SMALL_X2", "a/../small_x2"])
def test_name_that_is_a_path_is_unknown(engine: TorchEngine, name: str) -> None:
    with pytest.raises(UnknownVariantError):
        engine.restore(draw_tiles(1, 16, 16), name)


def test_description_names_device_and_precision(engine: TorchEngine) -> None:
    how = "fused" if fused.is_available() else "in PyTorch"
    assert engine.describe() == f"engine on cpu, torch.float32, 1 threads, blocks {how}"


def test_it_counts_tiles_seconds_and_loads(engine: TorchEngine) -> None:
    engine.warm_up("small_x2")
    engine.restore(draw_tiles(3, 16, 16), "small_x2")
    assert engine.counters.tiles == 4
    assert engine.counters.seconds > 0
    assert engine.networks.loads == 1
