"""Products on the tiles of AMX. The library is compiled with tiles in plain C, which run on every processor."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from swinir.inference import tiles
from swinir.inference.compiled_engine import CompiledEngine
from swinir.inference.tiles import are_quicker as compare_speed
from swinir.network import library
from swinir.network.agreement import measure_network_error
from swinir.network.compiled_network import CompiledNetwork, PackedConvolution
from swinir.network.packing import MIN_TILE_INPUTS, PackedBlock, pack_tiles
from swinir.network.reference import draw_block_weights
from swinir.network.shapes import parameter_shapes
from swinir.network.window_order import order_windows
from swinir.weights.arrays import read_arrays
from swinir.weights.find import find_weights
from swinir.zoo import find_variant
from testing.clock import ManualClock
from testing.compiled_library import compile_changed, forget_library
from testing.data import ROOT, read_pixels
from testing.networks import PARITY, PARITY_CASES, parity_config
from testing.reference_weights import fill

Floats = npt.NDArray[np.float32]
EMULATED = ("-DHAS_TILES=1", "-DEMULATED_TILES=1", "-DVECTOR_WIDTH=16")
BUTTERFLY = ROOT / "tests/data/Set5/x4/butterfly.png"
# Relative to the largest magnitude, as for float32.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def compiled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True)
def emulated(request: pytest.FixtureRequest, compiled_folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Compile the library with tiles in plain C, once, and let the processor count as quicker with them."""
    flags = getattr(request, "param", EMULATED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "FLAGS", (*library.FLAGS, *flags))
        patch.setattr(library, "COMPILED", compiled_folder / "-".join(flags).replace("=", ""))
        patch.setattr(tiles, "are_quicker", lambda _: True)
        library.compile_library()
        forget_library()
        yield patch
    forget_library()


def draw(*shape: int) -> Floats:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def difference(actual: Floats, expected: Floats) -> float:
    """Return the maximum difference, relative to the maximum expected magnitude."""
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def run_block(block: PackedBlock, tokens: Floats, window: int, order: str = "shifted", threads: int = 2) -> Floats:
    orders = order_windows(1, 3 * window, 2 * window, window)
    return block.run(library.load_library(), tokens, orders.gather["image", order], orders.kinds[order], threads)


@pytest.mark.parametrize("order", ["plain", "shifted"])
@pytest.mark.parametrize(
    ("dim", "heads", "window", "ratio"),
    [(48, 4, 8, 2.0), (60, 6, 8, 2.0), (180, 6, 7, 2.0), (32, 1, 4, 2.0), (66, 2, 8, 1.5), (21, 3, 5, 1.0)],
)
def test_block_agrees_with_float32(dim: int, heads: int, window: int, ratio: float, order: str) -> None:
    weights = draw_block_weights(dim, int(dim * ratio), heads, window)
    tokens = draw(6 * window**2, dim)
    exact, split = (
        PackedBlock(weights, heads, shifted=order == "shifted", products=products)
        for products in ("float32", "bfloat16x3")
    )

    actual = run_block(split, tokens, window, order)

    assert 0 < difference(actual, run_block(exact, tokens, window, order)) <= TOLERANCE
    assert np.array_equal(actual, run_block(split, tokens, window, order, threads=1))


def test_window_with_nan_changes_no_other() -> None:
    block = PackedBlock(draw_block_weights(48, 96, 4, 8), 4, shifted=False, products="bfloat16x3")
    tokens = draw(6 * 64, 48)
    sound = run_block(block, tokens, 8, "plain", threads=1)
    tokens[0, 5] = np.nan  # the first window of six; the others use the same memory after it

    actual = run_block(block, tokens, 8, "plain", threads=1)

    assert np.isnan(actual[:64]).any()
    assert np.array_equal(actual[64:], sound[64:])


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "options"),
    [
        (48, 48, (1, 5, 33), {}),
        (48, 48, (2, 9, 64), {"shuffle": 4}),
        (16, 3, (1, 4, 1), {"slope": 0.2}),
        (20, 64, (1, 6, 70), {"upsample": 2}),
        (180, 60, (1, 3, 17), {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_agrees_with_float32(
    inputs: int, outputs: int, size: tuple[int, int, int], options: dict[str, Any], kernel: int
) -> None:
    weight, bias = draw(outputs, inputs, kernel, kernel) / inputs, draw(outputs)
    images = draw(*size, inputs)
    exact, split = (PackedConvolution(weight, bias, on_tiles=choice, **options) for choice in (False, True))

    def run(layer: PackedConvolution, threads: int = 2, **given: Any) -> Floats:
        return layer.run(library.load_library(), threads, images, size, **given)

    assert 0 < difference(run(split), run(exact)) <= TOLERANCE
    assert np.array_equal(run(split), run(split, threads=1))
    kept = size[1], max(size[2] - 1, 1)
    assert difference(run(split, kept=kept), run(exact, kept=kept)) <= TOLERANCE
    if options == {}:
        residual = draw(*size, outputs)
        assert difference(run(split, residual=residual), run(exact, residual=residual)) <= TOLERANCE


def test_convolution_with_few_channels_stays_in_float32() -> None:
    weight, image = draw(8, MIN_TILE_INPUTS - 1, 3, 3), draw(1, 4, 5, MIN_TILE_INPUTS - 1)
    exact, split = (PackedConvolution(weight, weight[:, 0, 0, 0], on_tiles=choice) for choice in (False, True))
    expected, actual = (layer.run(library.load_library(), 1, image, (1, 4, 5)) for layer in (exact, split))
    assert np.array_equal(actual, expected)


def test_weights_are_split_into_the_nearest_halves() -> None:
    weight = np.array([[1.0, 1.0 + 2**-12, -3.14159274]], np.float32)
    packed = pack_tiles(weight)
    assert packed.shape == (1, 1, 2, 16, 16, 2)
    assert packed.ctypes.data % 64 == 0
    high, low = ((packed[0, 0, half].astype(np.uint32) << 16).view(np.float32) for half in (0, 1))
    assert high[:2, 0].ravel().tolist() == [1.0, 1.0, -3.140625, 0.0]
    assert low[:2, 0].ravel().tolist() == [0.0, 2**-12, -0.00096893310546875, 0.0]
    assert not packed[0, 0, :, :, 1:].any()


@pytest.mark.parametrize("case", PARITY_CASES)
def test_network_agrees_with_the_published_one(case: str) -> None:
    with np.load(PARITY / f"{case}.npz") as arrays:
        images, expected = (np.ascontiguousarray(arrays[name].transpose(0, 2, 3, 1)) for name in ("input", "output"))
    config = parity_config(case)
    weights = fill(parameter_shapes(config))

    network = CompiledNetwork(config, weights, library.load_library(), 2, on_tiles=True)

    assert difference(network.forward(images), expected) <= TOLERANCE


@pytest.mark.parametrize("variant", ["compact_real_x4", "compact_gray_jpeg_20"])
def test_network_stays_within_a_16_bit_level_of_float32(variant: str) -> None:
    row = find_variant(variant)
    weights = read_arrays(row.config, find_weights(row, None))
    image = read_pixels(BUTTERFLY)[None, :24, :32, : row.channels].astype(np.float32) / 255

    exact, split = (
        CompiledNetwork(row.config, weights, library.load_library(), 2, on_tiles=choice).forward(image)
        for choice in (False, True)
    )

    assert 0 < np.abs(split - exact).max() <= 1.5 / 65535


def test_engine_uses_tiles_and_keeps_its_pixels() -> None:
    image = read_pixels(BUTTERFLY)[None, :32, :24]
    split, exact = (CompiledEngine(library.load_library(), precision=choice) for choice in ("auto", "float32"))

    assert "on AMX" in split.describe()
    assert "on AMX" not in exact.describe()
    expected = exact.restore(image, "compact_x4").tiles.astype(int)
    changed = np.abs(split.restore(image, "compact_x4").tiles - expected)
    assert changed.max() <= 1
    assert changed.mean() <= 0.001


@pytest.mark.parametrize("emulated", [("-DHAS_TILES=0",)], indirect=True)
def test_processor_without_tiles_runs_without_them(caplog: pytest.LogCaptureFixture) -> None:
    assert not tiles.uses_tiles("auto")
    assert caplog.messages == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_setting_decides_against_tiles(precision: Any) -> None:
    assert tiles.uses_tiles("auto")
    assert not tiles.uses_tiles(precision)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tiles.h", ("TILE_LOAD(6, right + BLOCK_VALUES, 64)", "TILE_LOAD(6, right, 64)")),
        ("fused_tiles.h", ("odd_high << 16", "even_high << 16")),
        ("convolution.c", ("int64_t at = (x + 1 - reach)", "int64_t at = (x + 2 - reach)")),
    ],
    ids=["halves", "values", "neighbours"],
)
def test_tiles_that_compute_something_else_are_not_used(
    emulated: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    change: tuple[str, str],
) -> None:
    caplog.set_level(logging.INFO)
    compile_changed(emulated, tmp_path, name, change)

    assert not tiles.uses_tiles("auto")

    assert measure_network_error(library.load_library(), on_tiles=True) > tiles.TOLERANCE
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("networks run without AMX: on its tiles they differ from the reference by ")


def test_tiles_that_are_not_quicker_are_not_used(emulated: pytest.MonkeyPatch) -> None:
    emulated.setattr(tiles, "are_quicker", lambda _: False)
    assert not tiles.uses_tiles("auto")


@pytest.mark.parametrize(("float32_s", "is_quicker"), [(1.5, True), (1.1, False), (0.5, False)])
def test_best_times_of_both_decide_which_is_quicker(
    monkeypatch: pytest.MonkeyPatch, float32_s: float, *, is_quicker: bool
) -> None:
    clock = ManualClock()

    def run(layer: PackedConvolution, *_: object, **__: object) -> None:
        clock.now += 1.0 if layer.is_on_tiles else float32_s

    monkeypatch.setattr(PackedConvolution, "run", run)
    monkeypatch.setattr(time, "thread_time", clock)
    assert compare_speed(library.load_library()) == is_quicker
