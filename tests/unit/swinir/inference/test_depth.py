"""Tiles of 16 bits: rounded once, from float32, and never in a forward pass with tiles of 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from preprocessing.depth import to_depth
from swinir.inference.batching import TileJob, run_jobs
from swinir.inference.torch_engine import TorchEngine
from swinir.zoo import DEFAULT_VARIANT, find_variant
from testing.deep_images import draw_gradient
from testing.images import draw_photo


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(precision="float32")


def test_result_is_the_output_of_the_network_rounded_to_16_bits(engine: TorchEngine) -> None:
    tiles = to_depth(draw_photo(64, 64, seed=2), 16)[np.newaxis] + np.uint16(100)
    network = engine.networks.get(find_variant(DEFAULT_VARIANT))
    with torch.inference_mode():
        images = torch.from_numpy(tiles.astype(np.float32) / np.float32(65_535)).permute(0, 3, 1, 2)
        expected = network(images).clamp(0, 1).permute(0, 2, 3, 1).numpy() * 65_535

    restored = engine.restore(tiles, DEFAULT_VARIANT).tiles

    inner = (slice(None), slice(40, -40), slice(40, -40))  # without the corners, which have a rule of their own
    assert restored.dtype == np.uint16
    assert np.abs(restored[inner] - expected[inner]).max() < 0.52
    assert len(np.unique(restored)) > 10_000


def test_16_bits_are_computed_in_float32_where_8_are_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, used = TorchEngine(precision="float32"), []
    engine.precision = torch.bfloat16
    forward = engine._forward

    def record(network: Any, images: Any, precision: torch.dtype) -> Any:
        used.append(precision)
        return forward(network, images, torch.float32)

    monkeypatch.setattr(engine, "_forward", record)
    tiles = draw_photo(16, 16)[np.newaxis]
    engine.restore(tiles, DEFAULT_VARIANT)
    engine.restore(to_depth(tiles, 16), DEFAULT_VARIANT)
    assert used == [torch.bfloat16, torch.float32]


def test_checks_are_in_levels_of_255(engine: TorchEngine) -> None:
    tiles = draw_photo(32, 32, seed=4)[np.newaxis]
    shallow, deep = (engine.restore(to_depth(tiles, depth), DEFAULT_VARIANT).checks for depth in (8, 16))
    assert deep == pytest.approx(shallow, abs=0.01)


def test_jobs_of_both_depths_keep_their_own(engine: TorchEngine) -> None:
    tiles = draw_photo(16, 16)[np.newaxis]
    jobs = [TileJob(each, {DEFAULT_VARIANT}) for each in (tiles, to_depth(tiles, 16), tiles)]

    run_jobs(engine, jobs)

    results = [job.restored.tiles for job in jobs if job.restored is not None]
    assert [result.dtype for result in results] == [np.uint8, np.uint16, np.uint8]
    assert np.abs(results[1] / 257 - results[0]).max() < 0.51


@pytest.mark.parametrize("variant", ["compact_real_x4", "compact_color_denoise_25"])
def test_grey_with_differences_in_its_last_bits_stays_neutral(engine: TorchEngine, variant: str) -> None:
    grey = draw_gradient(48, 48)[..., :1].repeat(3, axis=2) // 2
    tiles = (grey + np.random.default_rng(3).integers(0, 60, grey.shape, np.uint16))[np.newaxis]

    restored = engine.restore(tiles, variant).tiles.astype(int)

    assert (restored.max(axis=3) - restored.min(axis=3)).max() <= 1
