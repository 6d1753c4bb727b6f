"""Peak memory of the gateway for images of the maximum size, with a backend that sends bands (VmHWM above idle).

The images have one colour: a few kilobytes that pass every limit and become 67 megapixels.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gateway.access.api_keys import ApiKeyStore
from gateway.config.settings import Settings
from gateway.jobs.limits import max_result_pixels
from testing import images
from testing.server import Served, read_memory_bytes, read_worker_pid, serving

MAX_GROWTH_BYTES = 300_000_000
MAX_BANDED_GROWTH_BYTES = 200_000_000
"""43 to 105 MB measured, most of it in the decoder; an encoder that holds all pixels needs at least 201 MB."""
SIDE = 2_048
CONCURRENT_REQUESTS = 3
LIMIT_S = 120.0
HIGH_RATE = "100000 per minute"


@pytest.fixture(scope="module")
def banded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the default limits on images, with a key that has no rate limits."""
    with serving(tmp_path_factory.mktemp("banded"), "bands") as server:
        yield server


@pytest.fixture(scope="module")
def banded_key(banded: Served) -> str:
    return ApiKeyStore(banded.state_dir / "keys.json").new("tests", requests=HIGH_RATE, megapixels=HIGH_RATE)


def flat(side: int, *, is_transparent: bool) -> bytes:
    """Return an image of one colour whose every second row is half transparent."""
    channels = 4 if is_transparent else 3
    pixels = np.zeros((side, side, channels), np.uint8)
    pixels[::2, ::2, channels - 1] = 255
    return images.encode_png(pixels)


def post(server: Served, key: str, query: str, data: bytes) -> tuple[int, int, str]:
    """Send an image and return (status, bytes of the response, detail of the problem)."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
    connection.request("POST", f"/api/v1/upscale{query}", data, {"X-API-Key": key})
    response = connection.getresponse()
    head = response.read(1_048_576)
    n_bytes = len(head) + sum(len(part) for part in iter(lambda: response.read(1_048_576), b""))
    connection.close()
    return response.status, n_bytes, json.loads(head)["detail"] if response.status >= 400 else ""


def measure_growth(
    server: Served, key: str, query: str, data: bytes, at_once: int
) -> tuple[list[tuple[int, int, str]], int]:
    """Send the image several times at once; return the responses and the peak memory above idle."""
    post(server, key, "", images.encode_png(images.draw_photo(8, 8)))  # loads what the first upscale needs
    pid = read_worker_pid(server)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak, see proc(5)
    idle = read_memory_bytes(pid, "VmRSS")
    with ThreadPoolExecutor(at_once) as pool:
        responses = list(pool.map(lambda _: post(server, key, query, data), range(at_once)))
    return responses, read_memory_bytes(pid, "VmHWM") - idle


@pytest.mark.parametrize("format_", ["png", "jpeg"])
@pytest.mark.parametrize("is_transparent", [False, True])
def test_several_full_size_images_need_little_memory(
    banded: Served, banded_key: str, format_: str, is_transparent: bool
) -> None:
    data = flat(SIDE, is_transparent=is_transparent)

    responses, growth = measure_growth(banded, banded_key, f"?format={format_}", data, CONCURRENT_REQUESTS)

    assert [status for status, _, _ in responses] == [200] * CONCURRENT_REQUESTS
    assert growth < MAX_BANDED_GROWTH_BYTES, f"{growth / 1e6:.0f} MB for {CONCURRENT_REQUESTS} times {len(data)} bytes"


@pytest.mark.parametrize("is_flat", [True, False])
def test_12_megapixel_photos_at_scale_1_need_little_memory(banded: Served, banded_key: str, is_flat: bool) -> None:
    pixels = np.zeros((3_024, 4_032, 3), np.uint8)
    if not is_flat:  # 11 MB
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    data = images.encode_jpeg(pixels, quality=90, subsampling=2)

    responses, growth = measure_growth(
        banded, banded_key, "?variant=compact_color_denoise_25&format=jpeg", data, CONCURRENT_REQUESTS
    )

    assert [status for status, _, _ in responses] == [200] * CONCURRENT_REQUESTS
    assert growth < MAX_GROWTH_BYTES, f"{growth / 1e6:.0f} MB for {CONCURRENT_REQUESTS} times {len(data)} bytes"


@pytest.mark.parametrize("is_transparent", [False, True])
def test_results_that_are_shrunk_need_little_memory(banded: Served, banded_key: str, is_transparent: bool) -> None:
    data = flat(SIDE, is_transparent=is_transparent)

    responses, growth = measure_growth(
        banded, banded_key, "?variant=compact_x4&scale=3&format=jpeg", data, CONCURRENT_REQUESTS
    )

    assert [status for status, _, _ in responses] == [200] * CONCURRENT_REQUESTS
    assert growth < MAX_BANDED_GROWTH_BYTES, f"{growth / 1e6:.0f} MB for {CONCURRENT_REQUESTS} times {len(data)} bytes"


@pytest.mark.parametrize("is_transparent", [False, True])
def test_full_size_webp_is_rejected_before_decoding(banded: Served, banded_key: str, is_transparent: bool) -> None:
    data = flat(SIDE, is_transparent=is_transparent)

    responses, growth = measure_growth(banded, banded_key, "?format=webp", data, CONCURRENT_REQUESTS)

    kind = "WebP with transparency" if is_transparent else "WebP"
    limit = f"{7_142_857 if is_transparent else 18_750_000:,}"
    for status, _, detail in responses:
        assert status == 413
        assert f"8192 x 8192 = 67,108,864 pixels; the maximum for {kind} is {limit}, " in detail
        assert "Choose PNG" in detail
    assert growth < 20_000_000, f"{growth / 1e6:.0f} MB"


@pytest.mark.parametrize("is_transparent", [False, True])
def test_largest_webp_stays_within_working_memory(banded: Served, banded_key: str, is_transparent: bool) -> None:
    side = int(max_result_pixels("webp", Settings(), is_transparent=is_transparent) ** 0.5) // 4

    responses, growth = measure_growth(
        banded, banded_key, "?format=webp", flat(side, is_transparent=is_transparent), CONCURRENT_REQUESTS
    )

    assert [status for status, _, _ in responses] == [200] * CONCURRENT_REQUESTS
    assert growth < MAX_GROWTH_BYTES, f"{growth / 1e6:.0f} MB"
