"""The network in C gives the output of the published network, and that of ours in PyTorch for all covered layers."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from swinir.network import library
from swinir.network.agreement import measure_network_error
from swinir.network.compiled_network import CompiledNetwork
from swinir.network.reference import run_network
from swinir.network.shapes import parameter_shapes
from swinir.network.swinir import SwinIR
from swinir.zoo import VARIANTS
from testing.compiled_library import compile_changed, forget_library
from testing.networks import PARITY, PARITY_CASES, SMALL, parity_config, reference_network, reference_tensors

TOLERANCE = 1e-5
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "x3": {"upscale": 3},
    "x2 with pixel shuffles": {"upsampler": "pixelshuffle"},
    "x3 with pixel shuffles": {"upsampler": "pixelshuffle", "upscale": 3},
    "x8 with pixel shuffles": {"upsampler": "pixelshuffle", "upscale": 8},
    "x2 nearest": {"upsampler": "nearest+conv"},
    "x4 nearest, three convolutions": {"upsampler": "nearest+conv", "upscale": 4, "resi_connection": "3conv"},
    "denoise, one channel": {"upsampler": "", "upscale": 1, "in_chans": 1},
    "x2, one channel": {"in_chans": 1},
    "JPEG, window 7": {"upsampler": "", "upscale": 1, "window_size": 7, "img_range": 255.0},
    "window 5, unequal groups": {"window_size": 5, "depths": [3, 1], "num_heads": [2, 3]},
    "mlp ratio 1.5": {"mlp_ratio": 1.5},
}


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compile as `make setup` does; without a C compiler these tests fail, they are not skipped."""
    library.compile_library()
    forget_library()
    assert library.find_library() is not None


def build(config: dict[str, Any], threads: int = 2) -> CompiledNetwork:
    weights = {name: tensor.numpy() for name, tensor in reference_tensors(config).items()}
    return CompiledNetwork(config, weights, library.load_library(), threads)


def difference(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return the maximum difference, relative to the maximum expected magnitude."""
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def draw(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize("case", PARITY_CASES)
def test_network_agrees_with_the_published_one(case: str) -> None:
    with np.load(PARITY / f"{case}.npz") as arrays:
        images, expected = (np.ascontiguousarray(arrays[name].transpose(0, 2, 3, 1)) for name in ("input", "output"))
    assert difference(build(parity_config(case)).forward(images), expected) <= TOLERANCE


@pytest.mark.parametrize("sides", [(16, 24), (13, 10), (3, 40)], ids=str)
@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_network_agrees_with_pytorch(changes: dict[str, Any], sides: tuple[int, int]) -> None:
    config = SMALL | changes
    images = draw(2, *sides, config["in_chans"])
    with torch.inference_mode():
        expected = reference_network(config)(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert difference(build(config).forward(images), expected.numpy()) <= TOLERANCE


@pytest.mark.parametrize("changes", [*ARCHITECTURES.values(), {"resi_connection": "3conv"}])
def test_reference_agrees_with_pytorch(changes: dict[str, Any]) -> None:
    config = SMALL | changes
    side = 2 * config["window_size"]
    images, weights = draw(1, side, side, config["in_chans"]), reference_tensors(config)
    with torch.inference_mode():
        expected = reference_network(config)(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    assert difference(run_network(config, arrays, images), expected.numpy()) <= TOLERANCE


@pytest.mark.parametrize("config", [*(row.config for row in VARIANTS.values()), *ARCHITECTURES.values()])
def test_shapes_are_those_of_the_network_in_pytorch(config: dict[str, Any]) -> None:
    with torch.device("meta"):
        network = SwinIR(**{**SMALL, **config})
    expected = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert parameter_shapes({**SMALL, **config}) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"upsampler": "other"},
        {"resi_connection": "2conv"},
        {"num_heads": [5, 5]},
        {"num_heads": [2]},
        {"upsampler": "pixelshuffle", "upscale": 6},
        {"upsampler": "nearest+conv", "upscale": 3},
    ],
    ids=str,
)
def test_configuration_of_no_network_has_no_shapes(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|must agree|has scale|not a multiple|argument 2 is shorter"):
        parameter_shapes({**SMALL, **changes})


def test_number_of_threads_changes_no_bit() -> None:
    images = draw(2, 20, 28, 3)
    results = [build(SMALL, threads).forward(images) for threads in (1, 2, 3, 100)]
    assert all(np.array_equal(result, results[0]) for result in results)


def test_value_that_is_not_finite_stays_in_its_image() -> None:
    images = draw(2, 16, 16, 3)
    sound = build(SMALL).forward(images)
    images[0, 3, 4, 1] = np.nan
    actual = build(SMALL).forward(images)
    assert np.isnan(actual[0]).any()
    assert np.array_equal(actual[1], sound[1])


def test_size_is_that_of_the_packed_weights() -> None:
    weights_bytes = sum(tensor.nbytes for tensor in reference_tensors(SMALL).values())
    assert weights_bytes < build(SMALL).size_bytes < 8 * weights_bytes  # rows of 12 channels are padded to 16


def test_pass_holds_two_arrays_of_features() -> None:
    network, images = (
        build({**SMALL, "embed_dim": 48, "depths": [2, 2], "num_heads": [4, 4], "upscale": 1}),
        draw(1, 64, 64, 3),
    )
    network.forward(images)  # keeps the orders of this shape
    tracemalloc.start()
    try:
        network.forward(images)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    features_bytes = images.nbytes // 3 * 48
    assert peak_bytes < 2 * features_bytes + 4 * images.nbytes


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("fused_block.c", ("work->scatter ? work->scatter[j] : j", "j")),
        ("convolution.c", ("(x + 1 - reach)", "(x + 2 - reach)")),
        ("convolution.c", ("sums[i] * l->slope", "sums[i]")),
        ("convolution.c", ("y / u", "y")),
        ("vectors.h", ("1e-5f", "1e-2f")),
    ],
    ids=["order", "neighbours", "leaky ReLU", "upsampling", "layer norm"],
)
def test_wrong_layer_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, name: str, change: tuple[str, str]
) -> None:
    assert measure_network_error(library.load_library()) <= TOLERANCE
    with monkeypatch.context() as patch:
        compile_changed(patch, tmp_path, name, change)
        error = measure_network_error(library.load_library())
    forget_library()
    assert not error <= TOLERANCE
