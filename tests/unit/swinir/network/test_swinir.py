"""The network gives the output of the published one, and every code path gives the same output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.plain import PlainSwinIR, make_shift_mask
from swinir.network import blocks, fused, library
from swinir.network.swinir import SwinIR, pad_to_window
from swinir.network.windows import relative_position_index
from testing.networks import (
    CASES,
    PARITY,
    PARITY_CASES,
    PUBLISHED_NAMES,
    SMALL,
    draw_images,
    parity_config,
    reference_network,
    reference_tensors,
    relative_error,
)

TOLERANCE = 1e-5
"""Maximum difference for parity, relative to the output's largest magnitude."""
VARIATIONS: dict[str, dict[str, Any]] = {
    "x2 direct": {},
    "x3 direct": {"upscale": 3},
    "x8 direct": {"upscale": 8},
    "x2 shuffled": {"upsampler": "pixelshuffle"},
    "x3 shuffled": {"upsampler": "pixelshuffle", "upscale": 3},
    "x8 shuffled": {"upsampler": "pixelshuffle", "upscale": 8},
    "x2 nearest": {"upsampler": "nearest+conv"},
    "x4 nearest, three convolutions": {"upsampler": "nearest+conv", "upscale": 4, "resi_connection": "3conv"},
    "denoise, one channel": {"upsampler": "", "upscale": 1, "in_chans": 1},
    "JPEG, window 7": {"upsampler": "", "upscale": 1, "window_size": 7, "img_range": 255.0},
    "window 5, unequal groups": {"window_size": 5, "depths": [3, 1], "num_heads": [2, 3]},
    "mlp ratio 4": {"mlp_ratio": 4},
}


@pytest.fixture(autouse=True, params=["fused", "in PyTorch"])
def block_implementation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test of this file with the fused blocks and with those in PyTorch."""
    if request.param == "fused":
        library.compile_library()
        if not fused.is_available():  # a test of another file looked for the library before it was compiled
            for cached in (library.load_library, library.find_library, library.has_bfloat16):
                cached.cache_clear()
        assert fused.is_available()
        yield
    else:
        with fused.disabled():
            yield


def run(network: torch.nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(images)


def published_state(config: dict[str, Any], training_side: int) -> dict[str, Tensor]:
    """Return a state dict like the published files: parameters, and buffers for the training size."""
    window = config["window_size"]
    state = reference_tensors(config)
    for group, depth in enumerate(config["depths"]):
        for block in range(depth):
            prefix = f"layers.{group}.residual_group.blocks.{block}"
            state[f"{prefix}.attn.relative_position_index"] = relative_position_index(window).clone()
            if block % 2:
                state[f"{prefix}.attn_mask"] = make_shift_mask(training_side, training_side, window)
    return state


@pytest.mark.parametrize("case", PARITY_CASES)
def test_output_is_that_of_the_published_network(case: str) -> None:
    stored = np.load(PARITY / f"{case}.npz")

    output = run(reference_network(parity_config(case)), torch.from_numpy(stored["input"]))

    assert relative_error(output, torch.from_numpy(stored["output"])) <= TOLERANCE


@pytest.mark.parametrize("case", PARITY_CASES)
def test_parameter_count_equals_the_published_network(case: str) -> None:
    with torch.device("meta"):
        network = SwinIR(**parity_config(case))
    assert sum(parameter.numel() for parameter in network.parameters()) == CASES[case]["parameters"]


@pytest.mark.parametrize("case", PUBLISHED_NAMES)
def test_names_and_shapes_are_the_published_ones(case: str) -> None:
    side = CASES[case]["config"]["img_size"]
    state = published_state(parity_config(case), side)
    assert {name: list(tensor.shape) for name, tensor in state.items()} == PUBLISHED_NAMES[case]


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize(("height", "width"), [(16, 24), (37, 21), (35, 40)])
def test_every_configuration_equals_the_plain_formulation(variation: str, height: int, width: int) -> None:
    config = {**SMALL, **VARIATIONS[variation]}
    plain = PlainSwinIR(**config, img_size=8 * config["window_size"]).eval()
    plain.load_state_dict(reference_tensors(config), strict=True)
    images = draw_images(1, config["in_chans"], height, width)

    assert relative_error(run(reference_network(config), images), run(plain, images)) <= TOLERANCE


@pytest.mark.parametrize(("side", "window"), [(64, 8), (48, 8), (128, 8), (126, 7)])
def test_state_dict_of_any_training_size_loads(side: int, window: int) -> None:
    config = {**SMALL, "window_size": window}
    network = SwinIR(**config)

    network.load_state_dict(published_state(config, side), strict=True)

    images = draw_images(1, 3, 20, 30)
    assert torch.equal(run(network.eval(), images), run(reference_network(config), images))


def test_relative_position_index_of_another_window_is_rejected() -> None:
    state = published_state(SMALL, 64)
    name = "layers.1.residual_group.blocks.0.attn.relative_position_index"
    state[name] = relative_position_index(7)
    with pytest.raises(RuntimeError, match=r"layers\.1.*relative_position_index does not match window 8"):
        SwinIR(**SMALL).load_state_dict(state, strict=True)


def test_relative_position_index_with_one_wrong_entry_is_rejected() -> None:
    state = published_state(SMALL, 64)
    state["layers.0.residual_group.blocks.0.attn.relative_position_index"][3, 5] += 1
    with pytest.raises(RuntimeError, match="does not match window 8"):
        SwinIR(**SMALL).load_state_dict(state, strict=True)


def test_attention_mask_of_another_window_is_rejected() -> None:
    state = published_state(SMALL, 64)
    state["layers.0.residual_group.blocks.1.attn_mask"] = make_shift_mask(70, 70, 7)
    with pytest.raises(RuntimeError, match=r"attn_mask has shape \(100, 49, 49\)"):
        SwinIR(**SMALL).load_state_dict(state, strict=True)


def test_attention_mask_where_no_block_is_shifted_is_rejected() -> None:
    state = published_state(SMALL, 64)
    state["layers.0.residual_group.blocks.0.attn_mask"] = make_shift_mask(64, 64, 8)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*blocks\.0\.attn_mask"):
        SwinIR(**SMALL).load_state_dict(state, strict=True)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (5, 3), (7, 8), (9, 4), (2, 17)])
def test_sides_below_the_window_and_off_it_keep_their_size(height: int, width: int) -> None:
    output = run(reference_network(SMALL), draw_images(1, 3, height, width))
    assert output.shape == (1, 3, 2 * height, 2 * width)
    assert torch.isfinite(output).all()


def test_padding_reflects_then_repeats_the_last_pixel() -> None:
    row = torch.arange(3.0).view(1, 1, 1, 3)
    padded = pad_to_window(row, 8)
    assert padded.shape == (1, 1, 8, 8)
    assert padded[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 0, 0, 0]


def test_legal_size_is_not_padded() -> None:
    images = draw_images(1, 3, 16, 24)
    assert pad_to_window(images, 8) is images


def test_batch_equals_its_images_one_by_one() -> None:
    network, images = reference_network(SMALL), draw_images(3, 3, 21, 34)

    together = run(network, images)

    alone = torch.cat([run(network, image[None]) for image in images])
    assert relative_error(together, alone) <= TOLERANCE


def test_training_computes_what_serving_computes() -> None:
    """With gradients a block runs whole and without caches; without them, in chunks with a cached bias."""
    network, images = reference_network(SMALL).requires_grad_(), draw_images(2, 3, 24, 40)

    trained = network(images)

    assert trained.requires_grad
    assert relative_error(trained.detach(), run(network, images)) <= TOLERANCE


def test_every_parameter_gets_a_gradient() -> None:
    network = reference_network(SMALL).requires_grad_()
    network(draw_images(1, 3, 16, 16)).square().mean().backward()
    without = [name for name, each in network.named_parameters() if each.grad is None or not each.grad.abs().any()]
    assert not without


@pytest.mark.parametrize("tokens", [1, 64, 100, 256, 1 << 20])
def test_size_of_a_chunk_of_windows_changes_nothing(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    network, images = reference_network(SMALL), draw_images(1, 3, 40, 56)
    expected = run(network, images)
    monkeypatch.setattr(blocks, "CPU_CHUNK_TOKENS", tokens)
    assert relative_error(run(network, images), expected) <= TOLERANCE


def test_cached_bias_follows_an_update_of_its_table_in_place() -> None:
    network, images = reference_network(SMALL), draw_images(1, 3, 24, 24)
    before = run(network, images)

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("relative_position_bias_table"):
                parameter.mul_(-2.0)

    after = run(network, images)
    fresh = SwinIR(**SMALL)
    fresh.load_state_dict(network.state_dict())
    assert relative_error(after, before) > 1e-3
    assert torch.equal(after, run(fresh.eval(), images))


def test_cached_bias_follows_new_weights_and_another_precision() -> None:
    network, images = reference_network(SMALL), draw_images(1, 3, 24, 24)
    expected = run(network, images)
    network.double()
    assert relative_error(run(network, images.double()).float(), expected) <= TOLERANCE
    network.float().load_state_dict({name: tensor * 0.5 for name, tensor in reference_tensors(SMALL).items()})
    assert relative_error(run(network, images), expected) > 1e-3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"upsampler": "bicubic"}, "upsampler is 'bicubic'"),
        ({"depths": [2, 2, 2]}, "depths names 3 groups but num_heads names 2"),
        ({"embed_dim": 13}, "embed_dim 13 is not a multiple of 2 heads"),
        ({"upsampler": "nearest+conv", "upscale": 3}, "scale 2 or 4, not 3"),
        ({"upsampler": "pixelshuffle", "upscale": 6}, "scale 3 or a power of two, not 6"),
        ({"resi_connection": "2conv"}, "resi_connection is '2conv'"),
    ],
)
def test_configuration_that_makes_no_network_is_rejected(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SwinIR(**{**SMALL, **change})
