"""Every architecture of the zoo through the real Triton, against an independent network with the same weights.

Tests cannot download the official weights, so they install the deterministic weights of tests/data/parity as
checkpoints. The reference is the plain formulation of `benchmarks.plain`, which shares no code with swinir.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.plain import PlainSwinIR, make_shift_mask
from swinir.checks import summarise
from swinir.inference.engine import LUMINANCE
from swinir.network.windows import relative_position_index
from swinir.weights.fetch import Description, convert_local, import_checkpoint
from swinir.weights.load import build_network, write_weights
from swinir.zoo import VARIANTS, Variant
from testing.data import max_difference
from testing.images import draw_photo
from testing.networks import SMALL, reference_tensors
from testing.triton import TritonServer, run_server
from testing.triton_clients import upscale, upscale_with_checks

ARCHITECTURES = tuple({repr(dict(row.config)): name for name, row in reversed(list(VARIANTS.items()))}.values())[::-1]
"""The first variant of each architecture of the zoo; the others differ only in their weights."""
AS_PUBLISHED = "classical_x3"
"""Installed from a .pth as its authors would publish it, with buffers and the key `params`; its hash is not pinned."""
IMPORTED = "anime_x4"
TOLERANCE = 5e-4
"""Share of values that may differ by one level, because a sum in another order rounds differently.

Two float32 formulations differ by up to 2e-6 of a magnitude of 1, or 0.0005 levels:
one value in 1,000 is that close to a half.
"""


def make_damped_tensors(row: Variant) -> dict[str, Tensor]:
    """Return the parity weights with damped deep features, so that the output stays in range."""
    tensors = reference_tensors(dict(row.config))
    if row.config["upsampler"]:
        return tensors
    name = "conv_last.weight"
    return {**tensors, name: tensors[name] * 0.3}


def with_published_buffers(row: Variant, tensors: dict[str, Tensor], training_side: int) -> dict[str, Tensor]:
    state = dict(tensors)
    for group, depth in enumerate(row.config["depths"]):
        for block in range(depth):
            prefix = f"layers.{group}.residual_group.blocks.{block}"
            state[f"{prefix}.attn.relative_position_index"] = relative_position_index(row.window).clone()
            if block % 2:
                state[f"{prefix}.attn_mask"] = make_shift_mask(training_side, training_side, row.window)
    return state


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server with the parity weights for each architecture, and one custom variant."""
    folder = tmp_path_factory.mktemp("architectures")
    weights_dir = folder / "weights"
    weights_dir.mkdir()
    for name in ARCHITECTURES:
        row = VARIANTS[name]
        if name == AS_PUBLISHED:
            torch.save({"params": with_published_buffers(row, make_damped_tensors(row), 64)}, folder / row.file)
            convert_local(folder / row.file, name, weights_dir)
            (folder / row.file).unlink()
        else:
            network = build_network(row.config, make_damped_tensors(row), name)
            write_weights(network, weights_dir / f"{name}.safetensors", {"variant": name})
    torch.save(reference_tensors({**SMALL, "upscale": 4}), folder / "community.pth")
    import_checkpoint(
        folder / "community.pth",
        Description(name=IMPORTED, task="real_sr", img_range=1.0, summary="From elsewhere."),
        weights_dir,
        is_replacing=False,
    )
    try:
        environ = {"SUPERRES_WEIGHTS_DIR": str(weights_dir), "SUPERRES_PRECISION": "float32"}  # as the reference
        with run_server(folder, environ=environ) as running:
            yield running
    finally:
        shutil.rmtree(weights_dir)  # otherwise pytest keeps 600 MB


def reference(row: Variant, tensors: dict[str, Tensor], pixels: Any) -> Any:
    """Upscale with the plain formulation, margin included; a variant of one channel replaces only the luminance."""
    network = PlainSwinIR(**row.config, img_size=8 * row.window).eval()
    network.load_state_dict(tensors, strict=True)
    with torch.inference_mode():
        sides = [(row.margin, row.margin + -(side + 2 * row.margin) % row.window) for side in pixels.shape[:2]]
        padded = np.pad(pixels, (*sides, (0, 0)), mode="reflect")
        image = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255.0
        if row.channels == 3:
            restored = network(image)
        else:
            luminance = sum(share * image[:, index : index + 1] for index, share in enumerate(LUMINANCE))
            restored = image + network(luminance) - luminance
    levels = restored[0].mul(255.0).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    top = left = row.margin * row.scale
    height, width = (side * row.scale for side in pixels.shape[:2])
    return levels[top : top + height, left : left + width]


def assert_close(upscaled: Any, expected: Any) -> None:
    assert max_difference(upscaled, expected) <= 1
    off = int((upscaled != expected).sum())
    assert off <= max(1, TOLERANCE * upscaled.size), f"{off} of {upscaled.size} values are a level off"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_image_equals_the_reference_network(server: TritonServer, name: str) -> None:
    row = VARIANTS[name]
    pixels = draw_photo(21, 26, seed=3)  # no side is a multiple of the window

    upscaled, rows = upscale_with_checks(server, pixels, name)

    expected = reference(row, make_damped_tensors(row), pixels)
    assert expected.std() > 5, "this image is too flat to prove anything"
    assert upscaled.shape == (21 * row.scale, 26 * row.scale, 3)
    assert_close(upscaled, expected)
    assert summarise(rows).tiles == 1


def test_custom_variant_is_served_by_its_name(server: TritonServer) -> None:
    config = {**SMALL, "upscale": 4}
    row = Variant(IMPORTED, "real_sr", 4, "", config, halo=16, max_tile_px=64)
    pixels = draw_photo(24, 30, seed=4)
    assert_close(upscale(server, pixels, IMPORTED), reference(row, reference_tensors(config), pixels))


@pytest.mark.parametrize("name", ["gray_denoise_15", "gray_jpeg_10"])
def test_grey_variant_keeps_colour(server: TritonServer, name: str) -> None:
    pixels = (draw_photo(16, 16, seed=5) // 4 + 96).astype(np.uint8)
    upscaled = upscale(server, pixels, name).astype(int)
    inside = (upscaled > 0).all(axis=2) & (upscaled < 255).all(axis=2)
    assert inside.sum() > 50
    before = (pixels[..., 0].astype(int) - pixels[..., 2])[inside]
    after = (upscaled[..., 0] - upscaled[..., 2])[inside]
    assert np.abs(before - after).max() <= 1
    assert not np.array_equal(upscaled, pixels)


@pytest.mark.parametrize("name", ["gray_denoise_15", "gray_jpeg_10"])
def test_grey_variant_keeps_a_grey_image_grey(server: TritonServer, name: str) -> None:
    grey = np.repeat(draw_photo(20, 15, seed=6)[..., :1], 3, axis=2)
    upscaled = upscale(server, grey, name)
    assert np.array_equal(upscaled[..., 0], upscaled[..., 1])
    assert np.array_equal(upscaled[..., 0], upscaled[..., 2])
