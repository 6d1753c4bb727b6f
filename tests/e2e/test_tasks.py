"""Every task on the whole stack: sizes, colours, notes, output checks and offered variants."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from preprocessing.mixing import mix
from swinir.credits import GAN_NOTICE
from swinir.weights.load import build_network, write_weights
from swinir.zoo import VARIANTS
from testing import images
from testing.data import decode_pixels
from testing.networks import install_small, reference_tensors
from testing.stack import Stack, start_stack, stop_stack

INSTALLED = ("real_x2", "gray_jpeg_10")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service with two published variants, which have the parity weights, and a custom variant."""
    state_dir = tmp_path_factory.mktemp("tasks")
    weights_dir = state_dir / "weights"
    weights_dir.mkdir()
    for name in INSTALLED:
        row = VARIANTS[name]
        network = build_network(row.config, reference_tensors(dict(row.config)), name)
        write_weights(network, weights_dir / f"{name}.safetensors", {"variant": name})
    install_small(weights_dir, "mine_x3", upscale=3)
    running = start_stack(state_dir)
    try:
        yield running
    finally:
        stop_stack(running)


def fetch_result(stack: Stack, pixels: Any, variant: str, others: str = "") -> tuple[Any, Any]:
    """Return (pixels of the response, its headers)."""
    with stack.post(images.encode_png(pixels), f"?variant={variant}{others}") as response:
        return decode_pixels(response.read()), response.headers


@pytest.mark.parametrize(
    ("variant", "scale"),
    [("real_x2", 2), ("gray_jpeg_10", 1), ("mine_x3", 3), ("compact_x2", 2), ("compact_color_denoise_25", 1)],
)
def test_result_has_the_size_of_its_task_and_the_checks(tasks: Stack, variant: str, scale: int) -> None:
    upscaled, headers = fetch_result(tasks, images.draw_photo(21, 30, seed=1), variant)
    assert upscaled.shape == (21 * scale, 30 * scale, 3)
    assert headers["X-Superres-Variant"] == variant
    assert headers["X-Superres-Checks"].startswith("finite; tiles=1; reruns=0; halvings=0; range=")


@pytest.mark.parametrize(("size", "expected"), [("scale=2", (84, 400)), ("width=533", (112, 533))])
def test_photo_variant_serves_any_size_with_the_pixels_of_its_result_shrunk(
    tasks: Stack, size: str, expected: tuple[int, int]
) -> None:
    photo = images.draw_photo(42, 200, seed=3)

    whole, _ = fetch_result(tasks, photo, "compact_photo_x4")
    shrunk, headers = fetch_result(tasks, photo, "compact_photo_x4", f"&{size}")

    reference = PilImage.fromarray(whole).resize(expected[::-1], PilImage.Resampling.LANCZOS)
    differences = abs(shrunk.astype(int) - np.asarray(reference))
    assert shrunk.shape == (*expected, 3)
    assert differences.max() <= 1
    assert (differences > 0).mean() < 0.001
    assert headers["X-Superres-Size"] == f"{expected[1]}x{expected[0]}"
    assert f"shrunk to {expected[1]} x {expected[0]} pixels." in headers["X-Superres-Notes"]


def test_variant_that_invents_texture_says_so_in_a_header(tasks: Stack) -> None:
    _, headers = fetch_result(tasks, images.draw_photo(16, 16, seed=2), "real_x2")
    assert GAN_NOTICE in headers["X-Superres-Notes"]
    _, headers = fetch_result(tasks, images.draw_photo(16, 16, seed=2), "compact_x2")
    assert "invents" not in headers.get("X-Superres-Notes", "")


def test_grey_variant_adds_a_note_for_colour(tasks: Stack) -> None:
    upscaled, headers = fetch_result(
        tasks, (images.draw_photo(16, 16, seed=3) // 4 + 96).astype(np.uint8), "gray_jpeg_10"
    )
    assert not np.array_equal(upscaled[..., 0], upscaled[..., 2])
    assert "luminance" in headers["X-Superres-Notes"]


def test_grey_image_stays_grey_without_a_note(tasks: Stack) -> None:
    upscaled, headers = fetch_result(tasks, images.draw_grey(16, 16, seed=4), "gray_jpeg_10")
    assert np.array_equal(upscaled[..., 0], upscaled[..., 2])
    assert "luminance" not in headers.get("X-Superres-Notes", "")


def test_api_lists_all_variants_and_offers_the_installed_ones(tasks: Stack) -> None:
    with urllib.request.urlopen(f"{tasks.url}/api/v1/variants", timeout=120) as response:
        status = json.load(response)
    offered = {row["name"] for row in status["variants"]}
    ready = {name for name, row in VARIANTS.items() if row.is_bundled} | {"nearest_x4"}
    assert offered == ready | {*INSTALLED, "mine_x3"}
    assert offered | {row["name"] for row in status["not_offered"]} == {*VARIANTS, "nearest_x4", "mine_x3"}


@pytest.mark.parametrize("variant", ["compact_color_denoise_25", "gray_jpeg_10"])
def test_strength_mixes_the_restoration_with_the_upload(tasks: Stack, variant: str) -> None:
    """The image has several bands of tiles, and its colours stay under the variant that restores luminance only."""
    photo = images.draw_photo(300, 70, seed=5)
    restored, _ = fetch_result(tasks, photo, f"{variant}&strength=1")
    assert not np.array_equal(restored, photo)

    unchanged, _ = fetch_result(tasks, photo, f"{variant}&strength=0")
    mixed, headers = fetch_result(tasks, photo, f"{variant}&strength=0.3")

    assert np.array_equal(unchanged, photo)
    assert np.array_equal(mixed, mix(photo, restored, 30))
    assert (headers["X-Superres-Strength"], headers["X-Superres-Cache"]) == ("0.3", "miss")
