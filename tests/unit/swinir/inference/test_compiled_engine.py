"""The compiled engine gives the results and checks of the engine in PyTorch, and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from swinir.checks import FIELDS
from swinir.inference import flats, neutrals, pixel_rules
from swinir.inference.compiled_engine import CompiledEngine
from swinir.inference.compiled_tiles import measure_back_errors
from swinir.inference.engine import InferenceCancelledError, NotFiniteError, OutOfMemoryError, Restored
from swinir.inference.torch_engine import TorchEngine
from swinir.network import library
from swinir.network.compiled_network import CompiledNetwork
from swinir.settings import Precision
from swinir.weights.find import BUNDLED
from swinir.zoo import VARIANTS
from testing.compiled_library import forget_library
from testing.networks import draw_tiles, install_small
from testing.tile_kinds import draw_kinds

BUNDLED_VARIANTS = [name for name, row in VARIANTS.items() if row.is_bundled]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    library.compile_library()
    forget_library()


def create(weights_dir: Path | None = None, precision: Precision = "float32") -> CompiledEngine:
    return CompiledEngine(library.find_library(), weights_dir, threads=2, precision=precision)


@pytest.fixture
def engine(tmp_path: Path) -> CompiledEngine:
    install_small(tmp_path, "small_x2")
    return create(tmp_path)


def assert_equal(actual: Restored, expected: Restored) -> None:
    """Compare tiles, of which single samples may be rounded differently, and checks."""
    assert actual.tiles.dtype == expected.tiles.dtype
    difference = np.abs(actual.tiles.astype(int) - expected.tiles)
    assert difference.max() <= 1
    limit = 0.001 if actual.tiles.dtype == np.uint8 else 0.05
    assert (difference > 0).mean() <= limit
    assert actual.checks == pytest.approx(expected.checks, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("kind", draw_kinds())
@pytest.mark.parametrize("variant", BUNDLED_VARIANTS)
def test_results_are_those_of_pytorch(variant: str, kind: str) -> None:
    tiles = draw_kinds()[kind]
    expected = TorchEngine(device="cpu", threads=2, precision="float32").restore(tiles, variant)
    assert_equal(create().restore(tiles, variant), expected)


@pytest.mark.parametrize("upscale", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_imported_variants_give_the_results_of_pytorch(tmp_path: Path, channels: int, upscale: int) -> None:
    install_small(
        tmp_path, "small", in_chans=channels, upscale=upscale, upsampler="pixelshuffledirect" if upscale > 1 else ""
    )
    for tiles in draw_kinds().values():
        expected = TorchEngine(tmp_path, "cpu", threads=2, precision="float32").restore(tiles, "small")
        actual = create(tmp_path).restore(tiles, "small")
        assert_equal(actual, expected)


def test_rules_have_the_numbers_of_pytorch() -> None:
    assert pixel_rules.FLAT_REACH_PX == flats.REACH_PX
    for ours, theirs in {
        "NEUTRAL_REACH_PX": "_REACH_PX",
        "NEUTRAL_RAMP_PX": "_RAMP_PX",
        "EQUAL": "_EQUAL",
        "CORNER_PX": "_CORNER_PX",
        "CORNER_RAMP_PX": "_CORNER_RAMP_PX",
        "MAX_CORNER_RANGE": "_MAX_CORNER_RANGE",
    }.items():
        assert getattr(pixel_rules, ours) == getattr(neutrals, theirs), ours


@pytest.mark.parametrize("radius", [0, 1, 5, 40])
def test_box_sums_are_those_of_pytorch(radius: int) -> None:
    values = np.random.default_rng(0).random((2, 9, 14)) > 0.5
    expected = flats.box_sum(torch.from_numpy(values), radius).numpy()
    assert np.array_equal(pixel_rules.box_sum(values, radius), expected)


@pytest.mark.parametrize("radius", [0, 1, 5, 40])
def test_pixels_spread_where_their_box_sum_is_positive(radius: int) -> None:
    for shape in ((1, 1, 5), (2, 33, 19), (1, 90, 97)):
        holds = np.random.default_rng(radius).random(shape) < 0.02
        assert (pixel_rules.spread(holds, radius) == (pixel_rules.box_sum(holds, radius) > 0)).all()


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_enlarging_is_that_of_pytorch(scale: int) -> None:
    images = np.random.default_rng(0).random((2, 7, 9, 3), np.float32)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(tensor, scale_factor=scale, mode="bicubic").permute(0, 2, 3, 1).numpy()
    assert pixel_rules.enlarge(images, scale) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_corners_are_enlarged_as_images(scale: int) -> None:
    for block in np.random.default_rng(scale).random((20, 8, 8, 3), np.float32):
        # Products of other shapes may add up in another order: which ones depends on NumPy's library for the processor.
        expected = pixel_rules.enlarge(block[None], scale)[0]
        assert pixel_rules._enlarge_corner(block, scale) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("sides", [(1, 1), (3, 17), (24, 8)], ids=str)
def test_way_back_is_that_of_pytorch(sides: tuple[int, int], scale: int) -> None:
    random = np.random.default_rng(0)
    height, width = sides
    levels = random.integers(0, 256, (2, height * scale, width * scale, 3), np.uint8)
    images = random.random((2, height, width, 3), np.float32)
    tensor = torch.from_numpy(levels).permute(0, 3, 1, 2)
    shrunk = torch.nn.functional.interpolate(tensor, sides, mode="bicubic", antialias=True).permute(0, 2, 3, 1)
    expected = ((shrunk.numpy() - images * 255.0) ** 2).mean(axis=(1, 2, 3))
    assert measure_back_errors(library.load_library(), 2, levels, images) == pytest.approx(expected, rel=1e-5)


def spoil(monkeypatch: pytest.MonkeyPatch, passes: Iterator[float | None]) -> list[bool]:
    """Put the next value of `passes` into the last tile of each pass; return a list of whether each was in float32."""
    forward, precisions = CompiledNetwork.forward, []

    def run(network: CompiledNetwork, images: Any, *, in_float32: bool = False) -> Any:
        output, value = forward(network, images, in_float32=in_float32), next(passes)
        precisions.append(in_float32)
        if value is not None:
            output[-1, 3, 4, 1] = value
        return output

    monkeypatch.setattr(CompiledNetwork, "forward", run)
    return precisions


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_tile_that_is_not_finite_is_run_again_in_float32(
    engine: CompiledEngine, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    tiles = draw_tiles(3, 16, 16)
    expected = engine.restore(tiles, "small_x2").tiles
    precisions = spoil(monkeypatch, iter([value, None]))
    restored = engine.restore(tiles, "small_x2")
    assert np.array_equal(restored.tiles, expected)
    assert precisions == [False, True]
    assert restored.checks[:, FIELDS.index("rerun")].tolist() == [0, 0, 1]
    assert engine.counters.reruns == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("at", [(0, 0), (40, 40), (60, 60), (127, 127)], ids=["corner", "flat", "ramp", "edge"])
def test_no_rule_hides_a_value_that_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: tuple[int, int], channels: int, value: float
) -> None:
    """Flat and neutral areas and corners have colours that do not come from the network."""
    install_small(tmp_path, "small", in_chans=channels, upscale=2, upsampler="pixelshuffledirect")
    engine = create(tmp_path)
    tiles = np.full((2, 64, 64, 3), 90, np.uint8)
    tiles[:, 56:, 56:] = (200, 30, 30)
    forward = CompiledNetwork.forward

    def run(network: CompiledNetwork, images: Any, *, in_float32: bool = False) -> Any:
        output = forward(network, images, in_float32=in_float32)
        if not in_float32:
            output[1, *at, 0] = value
        return output

    expected = engine.restore(tiles, "small")
    monkeypatch.setattr(CompiledNetwork, "forward", run)
    restored = engine.restore(tiles, "small")
    assert restored.checks[:, FIELDS.index("rerun")].tolist() == [0, 1]
    assert np.array_equal(restored.tiles, expected.tiles)
    assert np.array_equal(restored.checks[:, 1:], expected.checks[:, 1:])


def test_tile_not_finite_twice_is_an_error(engine: CompiledEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, iter([np.nan, np.inf]))
    with pytest.raises(NotFiniteError, match="small_x2 returned values that are not finite for a tile"):
        engine.restore(draw_tiles(1, 16, 16), "small_x2")


def test_out_of_memory_halves_the_micro_batch(engine: CompiledEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, sizes = CompiledNetwork.forward, []

    def run(network: CompiledNetwork, images: Any, **named: Any) -> Any:
        sizes.append(len(images))
        if len(images) > 2:
            raise MemoryError("injected")
        return forward(network, images, **named)

    monkeypatch.setattr(CompiledNetwork, "forward", run)
    restored = engine.restore(draw_tiles(5, 16, 16), "small_x2")
    assert sizes == [5, 2, 2, 1]
    assert restored.checks[:, FIELDS.index("halvings")].tolist() == [1, 1, 1, 1, 1]


def test_memory_that_the_library_cannot_get_is_out_of_memory(engine: CompiledEngine) -> None:
    class Full:
        def run_convolution(self, *_given: Any) -> int:
            return 1

    engine.load("small_x2")
    engine.networks.get(install_small(engine._weights_dir or Path(), "small_x2"))._library = Full()
    with pytest.raises(OutOfMemoryError, match="one 16x16 tile of small_x2 does not fit in memory"):
        engine.restore(draw_tiles(1, 16, 16), "small_x2")


def test_cancelled_work_ends_between_micro_batches(engine: CompiledEngine) -> None:
    engine.micro_batch_pixels = 16 * 16
    with pytest.raises(InferenceCancelledError, match="after 2 of 3 tiles"):
        engine.restore(draw_tiles(3, 16, 16), "small_x2", lambda: engine.counters.tiles == 2)


def test_uncovered_architecture_runs_in_pytorch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Heads longer than MAX_HEAD_DIM."""
    install_small(tmp_path, "wide", embed_dim=1028, num_heads=[1, 1], depths=[1, 1], mlp_ratio=1)
    engine, tiles = create(tmp_path), draw_tiles(1, 16, 16)
    expected = TorchEngine(tmp_path, "cpu", threads=2, precision="float32").restore(tiles, "wide")
    caplog.clear()
    assert_equal(engine.restore(tiles, "wide"), expected)
    assert engine.counters.tiles == 1
    assert caplog.messages == ["wide runs in PyTorch: its heads have 1028 channels, more than 1024"]


@pytest.mark.parametrize("damage", ["half", "nan", "missing"])
def test_damaged_weights_are_the_error_of_pytorch(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "compact_x4.safetensors"
    arrays = dict(load_file(BUNDLED / "compact_x4.safetensors"))
    if damage == "nan":
        arrays["conv_first.bias"][0] = np.nan
    elif damage == "missing":
        del arrays["conv_first.bias"]
    save_file(arrays, path)
    if damage == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    errors = []
    for engine in (TorchEngine(tmp_path, "cpu"), create(tmp_path)):
        with pytest.raises(Exception, match="compact_x4") as caught:
            engine.load("compact_x4")
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_description_names_device_and_threads(engine: CompiledEngine) -> None:
    assert engine.describe() == "engine on cpu, float32, 2 threads, network compiled"
    assert engine.device_name == "cpu"


def test_replaced_weights_are_loaded_again(engine: CompiledEngine, tmp_path: Path) -> None:
    tiles = draw_tiles(1, 16, 16)
    before = engine.restore(tiles, "small_x2").tiles
    install_small(tmp_path, "small_x2", embed_dim=24)
    assert not np.array_equal(engine.restore(tiles, "small_x2").tiles, before)
    assert engine.networks.loads == 2
