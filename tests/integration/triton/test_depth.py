"""16 bits through the real models: pairs of bytes in, pairs of bytes out, and more levels than 8 bits have."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client

from gateway.backend.triton_client import TritonClient
from gateway.cancellation import CancelToken
from preprocessing.depth import from_bytes, to_bytes, to_depth
from preprocessing.grey import is_grey
from swinir.image_grid import tile_grid
from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import DEFAULT_VARIANT, VARIANTS
from testing.deep_images import draw_gradient
from testing.images import draw_photo
from testing.triton import TritonServer
from testing.triton_clients import swinir_request, upscale

LIMIT_S = 120.0
# Of 65,535: float32 in another order of sums.
NOISE_LEVELS = 2


@pytest.fixture(scope="module")
def backend(triton_server: TritonServer) -> Iterator[TritonClient]:
    backend = TritonClient(triton_server.grpc_address, [triton_server.model_key])
    yield backend
    backend.close()


def stream(backend: TritonClient, pixels: Any, variant: str = DEFAULT_VARIANT) -> Any:
    bands = backend.upscale_bands(
        pixels, variant, deadline=time.monotonic() + LIMIT_S, request_id="tests", cancel_token=CancelToken()
    )
    return np.concatenate([band.pixels for band in bands])


def levels_apart(one: Any, other: Any) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(np.int64) - other.astype(np.int64)).max())


def test_gradient_has_the_levels_of_the_float_engine_on_both_paths(
    triton_server: TritonServer, backend: TritonClient
) -> None:
    pixels = draw_gradient(72, 96)
    expected = restore_image(TorchEngine(), pixels, VARIANTS[DEFAULT_VARIANT])

    streamed = stream(backend, pixels)
    unary = from_bytes(upscale(triton_server, to_bytes(pixels)))

    assert streamed.dtype == unary.dtype == np.uint16
    assert len(np.unique(streamed[..., 0])) > 10_000
    assert levels_apart(streamed, expected) <= NOISE_LEVELS
    assert levels_apart(unary, expected) <= NOISE_LEVELS


@pytest.mark.parametrize("variant", ["compact_real_x4", "compact_color_denoise_25", "compact_gray_jpeg_20"])
def test_high_bytes_agree_with_the_result_of_8_bits(backend: TritonClient, variant: str) -> None:
    """In several tiles, whose cores and borders must be the same."""
    pixels = draw_photo(300, 140, seed=6)
    assert tile_grid(VARIANTS[variant], 300, 140).rows > 1

    shallow, deep = stream(backend, pixels, variant), stream(backend, to_depth(pixels, 16), variant)

    assert levels_apart(deep >> 8, shallow) <= 1
    assert len(np.unique(deep)) > 1_000


def test_grey_and_flat_areas_stay_exact(triton_server: TritonServer, backend: TritonClient) -> None:
    grey = draw_gradient(72, 72)[..., :1].repeat(3, axis=2)
    flat = np.full((72, 72, 3), (0x1234, 0x4321, 0xFFFE), np.uint16)
    for restored in (stream(backend, grey, "compact_real_x4"), from_bytes(upscale(triton_server, to_bytes(grey)))):
        assert is_grey(restored)
    assert (stream(backend, flat, "compact_real_x4") == flat[:1, :1]).all()


def test_both_depths_at_once_get_their_own_type(triton_server: TritonServer) -> None:
    """Tiles of both depths wait together, and only those of one depth may share a forward pass."""
    images = [draw_photo(64, 64, seed=seed) for seed in range(8)]
    packed = [to_bytes(to_depth(pixels, 16)) if index % 2 else pixels for index, pixels in enumerate(images)]
    alone = [swinir_request(triton_server, tiles[np.newaxis], DEFAULT_VARIANT) for tiles in packed]

    together = swinir_requests(triton_server, packed)

    for one, other, tiles in zip(together, alone, packed, strict=True):
        assert one.shape == (1, 256, 256, tiles.shape[2])
        assert levels_apart(from_bytes(one), from_bytes(other)) <= NOISE_LEVELS


def swinir_requests(server: TritonServer, images: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(len(images)) as pool:
        return list(pool.map(lambda tiles: swinir_request(server, tiles[np.newaxis], DEFAULT_VARIANT), images))


def test_other_bytes_per_pixel_are_rejected_in_words(triton_server: TritonServer) -> None:
    with pytest.raises(grpc_client.InferenceServerException, match=r"TILES has 5 bytes per pixel; send 3 .* or 6"):
        swinir_request(triton_server, np.zeros((1, 8, 8, 5), np.uint8), DEFAULT_VARIANT)
