"""The contract of the model `upscale_stream`: the pixels of `upscale`, one band per response, small jobs first."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client

from gateway.backend.interface import (
    BackendMisconfiguredError,
    BackendRejectedError,
    BackendTimeoutError,
    BackendUnavailableError,
    BackendVariantMissingError,
    Band,
)
from gateway.backend.triton_client import TritonClient
from gateway.cancellation import CancelledError, CancelToken
from preprocessing.grey import is_grey
from swinir.checks import summarise
from swinir.image_grid import tile_grid
from swinir.zoo import DEFAULT_VARIANT, VARIANTS
from testing.data import max_difference
from testing.images import draw_photo
from testing.stack import wait_until_stable
from testing.triton import TritonServer, tiles_in_flight
from testing.triton_clients import metric, stable_metric, upscale

LIMIT_S = 120.0
LARGE = (300, 520)
"""Two rows of three tiles."""
LONG, LONG_ROWS = draw_photo(1000, 500, seed=6), 5
"""Has so many rows of tiles that most are not in flight when the first is done."""


@pytest.fixture(scope="module")
def backend(triton_server: TritonServer) -> Iterator[TritonClient]:
    backend = TritonClient(triton_server.grpc_address, [triton_server.model_key])
    yield backend
    backend.close()


def ask(backend: TritonClient, pixels: Any, variant: str = DEFAULT_VARIANT, **others: Any) -> list[Band]:
    """Return every band of one image."""
    arguments = {"deadline": time.monotonic() + LIMIT_S, "request_id": "tests", "cancel_token": CancelToken(), **others}
    return list(backend.upscale_bands(pixels, variant, **arguments))


def join(bands: list[Band]) -> Any:
    return np.concatenate([band.pixels for band in bands])


def share_that_differs(a: Any, b: Any) -> float:
    """Return the share of differing values, which the contract limits to 1 in 10,000; none may differ by 2 levels."""
    assert max_difference(a, b) <= 1
    return float((a != b).any(axis=2).mean())


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 2), (7, 9), (72, 64), (130, 257)])
def test_bands_equal_the_result_of_upscale(
    triton_server: TritonServer, backend: TritonClient, shape: tuple[int, int]
) -> None:
    pixels = draw_photo(*shape, seed=1)

    bands = ask(backend, pixels)

    assert share_that_differs(join(bands), upscale(triton_server, pixels)) <= 1e-4


@pytest.mark.parametrize("variant", [name for name, row in VARIANTS.items() if row.is_bundled])
def test_every_bundled_variant_streams(triton_server: TritonServer, backend: TritonClient, variant: str) -> None:
    pixels = draw_photo(40, 56, seed=2)

    bands = ask(backend, pixels, variant)

    assert share_that_differs(join(bands), upscale(triton_server, pixels, variant)) <= 1e-4


@pytest.mark.parametrize("variant", ["compact_real_x4", "compact_color_denoise_25"])
def test_grey_image_stays_grey_on_both_paths(triton_server: TritonServer, backend: TritonClient, variant: str) -> None:
    """The network itself colours it: in 300 x 140 px it has several tiles, each with a band of its own."""
    grey = draw_photo(300, 140, seed=6)[..., :1].repeat(3, axis=2)

    bands, upscaled = ask(backend, grey, variant), upscale(triton_server, grey, variant)

    assert len(bands) > 1
    assert is_grey(join(bands))
    assert is_grey(upscaled)
    assert share_that_differs(join(bands), upscaled) <= 1e-4


def test_large_image_arrives_in_one_band_per_tile_row(triton_server: TritonServer, backend: TritonClient) -> None:
    pixels, row = draw_photo(*LARGE, seed=3), VARIANTS[DEFAULT_VARIANT]
    grid = tile_grid(row, *LARGE)
    assert grid.rows > 1, "this image has only one band"

    bands = ask(backend, pixels)

    assert [band.top for band in bands] == [row.scale * edge for edge in grid.row_edges[:-1]]
    assert share_that_differs(join(bands), upscale(triton_server, pixels)) <= 1e-4
    rows = np.concatenate([band.checks for band in bands if band.checks is not None])
    assert summarise(rows).tiles == grid.rows * grid.columns


def test_concurrent_streams_share_batches(triton_server: TritonServer, backend: TritonClient) -> None:
    images = [draw_photo(64, 64, seed=seed) for seed in range(24)]
    alone = [join(ask(backend, pixels)) for pixels in images]
    before = [
        stable_metric(triton_server, name) for name in ("nv_inference_request_success", "nv_inference_exec_count")
    ]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pixels: join(ask(backend, pixels)), images))

    requests = stable_metric(triton_server, "nv_inference_request_success") - before[0]
    executions = metric(triton_server, "nv_inference_exec_count") - before[1]
    assert requests == len(images)
    assert executions < requests, f"{requests:.0f} requests took {executions:.0f} executions: no batch was shared"
    for own, got in zip(alone, together, strict=True):
        assert share_that_differs(own, got) <= 1e-4


def test_ten_small_images_overtake_a_large_one(triton_server: TritonServer, backend: TritonClient) -> None:
    """Checked by order and counters, not by time: the small jobs end while the large one still has tiles."""
    small, began, ended = draw_photo(64, 64, seed=4), threading.Event(), threading.Event()
    row = VARIANTS[DEFAULT_VARIANT]
    grid = tile_grid(row, 1000, 760)

    def ask_large() -> int:
        began.set()
        try:
            return len(ask(backend, draw_photo(1000, 760, seed=5)))
        finally:
            ended.set()

    before = metric(triton_server, "superres_tiles_total")
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(ask_large)
        assert began.wait(LIMIT_S)
        while metric(triton_server, "superres_tiles_total") < before + 1:  # its first tile is done
            time.sleep(0.02)
        for _ in range(10):
            ask(backend, small)
        tiles = metric(triton_server, "superres_tiles_total") - before - 10
        assert not ended.is_set(), "the small ones waited for the large one"
        assert tiles < grid.rows * grid.columns, f"{tiles:.0f} of {grid.rows * grid.columns} tiles were done"
        assert large.result() == grid.rows


def test_cancel_stops_after_the_tiles_in_flight(triton_server: TritonServer, backend: TritonClient) -> None:
    cancel_token = CancelToken()
    before, bands = metric(triton_server, "superres_tiles_total"), ask_long(backend, "s", cancel_token)
    band = next(bands)
    cancel_token.cancel()
    with pytest.raises(CancelledError):
        list(bands)

    assert_ends_soon(triton_server, before, band)


def test_closing_the_stream_stops_the_work(triton_server: TritonServer, backend: TritonClient) -> None:
    before, bands = metric(triton_server, "superres_tiles_total"), ask_long(backend, "c", CancelToken())
    band = next(bands)
    bands.close()  # type: ignore[attr-defined]  # a generator

    assert_ends_soon(triton_server, before, band)


def ask_long(backend: TritonClient, request_id: str, cancel_token: CancelToken) -> Iterator[Band]:
    deadline = time.monotonic() + LIMIT_S
    return backend.upscale_bands(
        LONG, DEFAULT_VARIANT, deadline=deadline, request_id=request_id, cancel_token=cancel_token
    )


def assert_ends_soon(server: TritonServer, before: float, first: Band) -> None:
    """Check that after a cancelled image only the tiles in flight are finished."""
    at_end = metric(server, "superres_tiles_total")
    assert first.checks is not None
    columns = len(first.checks)
    # Longer than a tile takes on a busy machine.
    at_rest = wait_until_stable(lambda: metric(server, "superres_tiles_total"), 4.0)
    assert at_rest - at_end <= tiles_in_flight(first.work_s / columns)
    assert at_rest - before < LONG_ROWS * columns, "all tiles of this image"


REFUSED = {
    "too many pixels": (
        np.zeros((2049, 2049, 3), np.uint8),
        DEFAULT_VARIANT,
        BackendRejectedError,
        "limit .* is 4194304",
    ),
    "too many pixels at scale 1": (
        np.zeros((3073, 4096, 3), np.uint8),
        "compact_color_denoise_25",
        BackendRejectedError,
        "limit .* is 12582912",
    ),
    "too many tiles": (
        np.zeros((1, 4_000_000, 3), np.uint8),
        DEFAULT_VARIANT,
        BackendRejectedError,
        "tiles for a band; the limit is 1024",
    ),
    "no pixels": (np.zeros((0, 5, 3), np.uint8), DEFAULT_VARIANT, BackendRejectedError, "no pixels|byte size"),
    "four channels": (
        np.zeros((8, 8, 4), np.uint8),
        DEFAULT_VARIANT,
        BackendRejectedError,
        "4 bytes per pixel; send 3",
    ),
    "an unknown variant": (np.zeros((8, 8, 3), np.uint8), "swin_ultra", BackendVariantMissingError, "compact_x4"),
    "a variant without weights": (
        np.zeros((8, 8, 3), np.uint8),
        "real_x4",
        BackendVariantMissingError,
        "weights fetch",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_rejected_and_the_model_continues(backend: TritonClient, case: str) -> None:
    pixels, variant, kind, text = REFUSED[case]

    with pytest.raises(kind, match=text):
        ask(backend, pixels, variant)

    assert join(ask(backend, draw_photo(8, 8, seed=7))).shape == (32, 32, 3)


def test_deadline_ends_a_stream(backend: TritonClient) -> None:
    with pytest.raises(BackendTimeoutError):
        ask(backend, draw_photo(500, 500, seed=8), deadline=time.monotonic() + 0.1)
    with pytest.raises(BackendTimeoutError, match="before the request was sent"):
        ask(backend, draw_photo(8, 8), deadline=time.monotonic() - 1)


def test_rotated_keys_are_both_tried(triton_server: TritonServer) -> None:
    for keys in (["old", triton_server.model_key], [triton_server.model_key, "new"]):
        rotating = TritonClient(triton_server.grpc_address, keys)
        assert len(ask(rotating, draw_photo(8, 8))) == 1
        rotating.close()
    for keys in (["old"], []):
        wrong = TritonClient(triton_server.grpc_address, keys)
        with pytest.raises(BackendMisconfiguredError):
            ask(wrong, draw_photo(8, 8))
        wrong.close()


def test_missing_server_is_unavailable() -> None:
    nobody = TritonClient("127.0.0.1:9", ["key"])
    with pytest.raises(BackendUnavailableError):
        ask(nobody, draw_photo(8, 8))
    with pytest.raises(BackendUnavailableError):
        nobody.wait_until_ready(time.monotonic() + LIMIT_S, CancelToken())
    nobody.close()


def test_closed_channel_is_unavailable(triton_server: TritonServer) -> None:
    """A dead server may be replaced between a request's check and its call; the call is then retried."""
    closed = TritonClient(triton_server.grpc_address, [triton_server.model_key])
    closed.close()
    with pytest.raises(BackendUnavailableError, match="closed"):
        ask(closed, draw_photo(8, 8))
    with pytest.raises(BackendUnavailableError, match="closed"):
        closed.wait_until_ready(time.monotonic() + LIMIT_S, CancelToken())


def test_readiness_needs_no_key(backend: TritonClient) -> None:
    backend.wait_until_ready(time.monotonic() + LIMIT_S, CancelToken())


def test_request_id_is_in_the_log_of_triton(triton_server: TritonServer, backend: TritonClient) -> None:
    ask(backend, draw_photo(8, 8), request_id="find-me-in-the-log")
    end = time.monotonic() + LIMIT_S
    while "find-me-in-the-log" not in triton_server.process.log_path.read_text():
        assert time.monotonic() < end, "the line follows the last band"
        time.sleep(0.02)


def test_unary_call_of_the_stream_model_is_rejected(triton_server: TritonServer) -> None:
    image = grpc_client.InferInput("IMAGE", [8, 8, 3], "UINT8")
    image.set_data_from_numpy(draw_photo(8, 8))
    headers = {"triton-grpc-protocol-model-key": triton_server.model_key}
    with (
        grpc_client.InferenceServerClient(triton_server.grpc_address) as client,
        pytest.raises(grpc_client.InferenceServerException, match="decoupled"),
    ):
        client.infer("upscale_stream", [image], headers=headers)
