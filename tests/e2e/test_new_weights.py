"""Weights that appear, change and disappear while the service runs: nothing is restarted, and no request fails."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from gateway.backend.interface import BackendMisconfiguredError, BackendVariantMissingError
from gateway.backend.triton_client import TritonClient
from gateway.cancellation import CancelToken
from swinir.zoo import VARIANTS
from testing.data import decode_pixels
from testing.file_server import Behaviour, serve
from testing.images import draw_photo, encode_png
from testing.networks import SMALL, reference_tensors
from testing.ports import find_free_port
from testing.stack import Stack, start_stack, stop_stack, superres

LIGHT = "lightweight_x3"
"""A published variant whose hash nobody pins, so that a file of its architecture with other weights is accepted."""
KEY = "key-of-the-tests"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service with bundled weights alone, also without those of its default; its Triton takes direct requests."""
    port = str(find_free_port())
    state_dir = tmp_path_factory.mktemp("weights")
    running = start_stack(
        state_dir, SUPERRES_TRITON_GRPC_PORT=port, SUPERRES_MODEL_KEY=KEY, SUPERRES_DEFAULT_VARIANT=LIGHT
    )
    try:
        yield running
    finally:
        stop_stack(running)


def offered(stack: Stack, name: str) -> tuple[bool, bool]:
    """Return whether the API and the page offer a variant."""
    with urllib.request.urlopen(f"{stack.url}/api/v1/variants", timeout=120) as response:
        names = {row["name"] for row in json.load(response)["variants"]}
    with urllib.request.urlopen(stack.url, timeout=120) as response:
        page = response.read().decode()
    return name in names, f'value="{name}"' in page


def reject(stack: Stack, name: str) -> tuple[int, str, str]:
    """Return (status, type, detail) of a request for a variant that must fail."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        stack.post(encode_png(draw_photo(8, 8)), f"?variant={name}")
    with caught.value as response:
        body = json.load(response)
    return response.code, body["type"], body["detail"]


def upscale(stack: Stack, name: str, seed: int = 0) -> tuple[int, ...]:
    """Return the shape of a result; each seed is another image, so that no cache serves it."""
    with stack.post(encode_png(draw_photo(8, 10, seed=seed)), f"?variant={name}") as response:
        assert response.headers["X-Superres-Variant"] == name
        return decode_pixels(response.read()).shape


def ask_triton(stack: Stack, name: str) -> None:
    """Send an image to Triton itself, as the gateway does for a request that it accepted earlier."""
    client = TritonClient(f"127.0.0.1:{stack.environ['SUPERRES_TRITON_GRPC_PORT']}", [KEY])
    try:
        deadline = time.monotonic() + 120
        bands = client.upscale_bands(
            draw_photo(8, 8), name, deadline=deadline, request_id="direct", cancel_token=CancelToken()
        )
        list(bands)
    finally:
        client.close()


def save_checkpoint(path: Path, name: str) -> bytes:
    torch.save({"params": reference_tensors(dict(VARIANTS[name].config))}, path)
    return path.read_bytes()


def test_weights_come_and_go_without_a_restart(running: Stack, tmp_path: Path) -> None:
    weights, pid = running.state_dir / "weights", running.triton_pid()
    data = save_checkpoint(tmp_path / "light.pth", LIGHT)
    assert offered(running, LIGHT) == (False, False)
    status, kind, detail = reject(running, LIGHT)
    assert (status, kind) == (400, "/problems/bad-parameter")
    assert f"superres weights fetch {LIGHT}" in detail
    with pytest.raises(BackendVariantMissingError):
        ask_triton(running, LIGHT)

    # Fetched, removed, copied by halves and fetched again, while others upscale images without a pause.
    is_done = threading.Event()

    def work(worker: int) -> int:
        count = 0
        while not is_done.is_set():
            count += 1
            assert upscale(running, "compact_x2", seed=1000 * worker + count) == (16, 20, 3)
        return count

    with serve(Behaviour(data=data, break_after=[len(data) // 2])) as base_url, ThreadPoolExecutor(2) as pool:
        others = [pool.submit(work, worker) for worker in (1, 2)]
        try:
            ended = superres("weights", "fetch", "lightweight-x3", "--from", base_url, environ=running.environ)
            assert ended.returncode == 0, ended.stderr
            assert offered(running, LIGHT) == (True, True)
            assert upscale(running, LIGHT) == (24, 30, 3)

            path = weights / f"{LIGHT}.safetensors"
            whole = path.read_bytes()
            path.unlink()
            assert offered(running, LIGHT) == (False, False)
            assert reject(running, LIGHT)[:2] == (400, "/problems/bad-parameter")
            with pytest.raises(BackendVariantMissingError):  # Triton dropped the network, too
                ask_triton(running, LIGHT)

            path.write_bytes(whole[: len(whole) // 2])
            assert offered(running, LIGHT) == (False, False)
            assert "are incomplete" in reject(running, LIGHT)[2]
            with pytest.raises(BackendMisconfiguredError, match=f"superres weights verify {LIGHT}"):
                ask_triton(running, LIGHT)

            path.write_bytes(whole)
            assert offered(running, LIGHT) == (True, True)
            assert upscale(running, LIGHT, seed=1) == (24, 30, 3)
        finally:
            is_done.set()
        assert all(worker.result() > 0 for worker in others)
    assert running.triton_pid() == pid


def test_default_variant_is_served_once_its_weights_are_here(running: Stack) -> None:
    image = encode_png(draw_photo(8, 10, seed=2))
    assert f"default_variant {LIGHT} has no weights here" in running.log()
    path = running.state_dir / "weights" / f"{LIGHT}.safetensors"
    path.rename(path.with_suffix(".aside"))
    with pytest.raises(urllib.error.HTTPError) as caught:
        running.post(image)
    with caught.value as response:
        assert response.code == 400
    path.with_suffix(".aside").rename(path)
    with running.post(image) as response:
        assert response.headers["X-Superres-Variant"] == LIGHT


def test_wrong_hash_is_refused_and_never_offered(running: Stack, tmp_path: Path) -> None:
    (tmp_path / "other.pth").write_bytes(b"not the published file")
    with serve(Behaviour(data=(tmp_path / "other.pth").read_bytes())) as base_url:
        ended = superres("weights", "fetch", "classical_x4", "--from", base_url, environ=running.environ)
    assert ended.returncode == 1
    assert "the zoo requires 4e78e33f22c1aa8a" in ended.stderr
    assert offered(running, "classical_x4") == (False, False)


def test_imported_variant_is_offered_and_replaced_at_once(running: Stack, tmp_path: Path) -> None:
    pid = running.triton_pid()
    for upscaling in (2, 4):
        torch.save(reference_tensors({**SMALL, "upscale": upscaling}), tmp_path / "mine.pth")
        ended = superres(
            *("weights", "import", str(tmp_path / "mine.pth"), "--name", "mine", "--task", "real_sr"),
            *("--img-range", "1", "--replace"),
            environ=running.environ,
        )
        assert ended.returncode == 0, ended.stderr
        assert offered(running, "mine") == (True, True)
        assert upscale(running, "mine") == (8 * upscaling, 10 * upscaling, 3)
    (running.state_dir / "weights" / "mine.safetensors").unlink()
    assert offered(running, "mine") == (False, False)
    assert "Unknown variant 'mine'" in reject(running, "mine")[2]
    assert running.triton_pid() == pid
