"""Sleep, boot, events, a closed tab and a killed Triton, on the whole stack."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.backend.triton_stubs import find_stubs
from testing.images import draw_photo, encode_png
from testing.stack import (
    Stack,
    await_up,
    count_tiles,
    start_stack,
    stop_stack,
    triton_metrics,
    wait_for,
    wait_until_no_job_runs,
    wait_until_quiet,
)
from testing.triton import tiles_in_flight

IDLE_S = 3.0
TILES, SECONDS = "superres_tiles_total", "superres_seconds_total"


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service that sleeps after a short time and stores no results."""
    running = start_stack(
        tmp_path_factory.mktemp("sleeper"),
        SUPERRES_SCALE_TO_ZERO_AFTER_S=str(IDLE_S),
        SUPERRES_CACHE_MAX_BYTES="0",
    )
    try:
        yield running
    finally:
        code = stop_stack(running)
    assert code == 0, f"superres serve ended with {code}:\n{running.log()}"


def status(stack: Stack) -> dict[str, Any]:
    with urllib.request.urlopen(f"{stack.url}/api/v1/status", timeout=120) as response:
        backend: dict[str, Any] = json.loads(response.read())["backend"]
        return backend


def is_in(stack: Stack, name: str) -> Callable[[], bool]:
    return lambda: bool(status(stack)["state"] == name)


def stream(stack: Stack, image: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Post an image and return its events."""
    with stack.post(image, headers={"Accept": "text/event-stream"}) as response:
        blocks = response.read().decode().strip().split("\n\n")
    pairs = [block.split("\n", 1) for block in blocks if not block.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


def test_backend_sleeps_when_idle_and_only_a_request_wakes_it(sleeper: Stack) -> None:
    wait_for(is_in(sleeper, "asleep"), "sleep")
    server = sleeper.triton_pid()
    wait_for(lambda: not Path(f"/proc/{server}").exists(), "the end of its process")

    for path in ("/", "/healthz", "/readyz", "/api/v1/status", "/api/v1/variants", "/static/x/page.css"):
        urllib.request.urlopen(f"{sleeper.url}{path}", timeout=120).close()
    assert status(sleeper)["state"] == "asleep"

    request = urllib.request.Request(f"{sleeper.url}/api/v1/wake", b"", {"X-API-Key": sleeper.key})
    with urllib.request.urlopen(request, timeout=120) as response:
        assert (response.status, json.loads(response.read())) == (202, {"state": "booting"})
    wait_for(lambda: sleeper.triton_pid() != server, "the boot")  # it is up for a short time only
    assert status(sleeper)["usual_boot_s"]["p50"] > 0
    assert json.loads((sleeper.state_dir / "boots.json").read_text()), "kept for the next start"


def test_image_wakes_the_backend_and_the_events_report_the_boot(sleeper: Stack) -> None:
    wait_for(is_in(sleeper, "asleep"), "sleep")
    image = encode_png(draw_photo(64, 80, seed=1))

    events = stream(sleeper, image)

    states = [data["state"] for name, data in events if name == "state"]
    assert states[0] in ("asleep", "booting")
    assert "booting" in states
    assert states[-1] == "up"
    booting = [data for name, data in events if name == "state" and data["state"] == "booting"]
    assert booting[0]["usual_s"]["p50"] > 0
    assert events[-1][0] == "result"
    with sleeper.post(image) as plain:
        url = sleeper.url + events[-1][1]["url"]
        with urllib.request.urlopen(url, timeout=120) as stored:
            assert stored.read() == plain.read()


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
def test_closed_tab_ends_the_work_after_the_tiles_in_flight(stack: Stack, accept: str) -> None:
    await_up(stack)
    image, before = encode_png(draw_photo(1300, 800, seed=2)), triton_metrics(stack)
    host, port = stack.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=90) as tab:
        head = f"POST /api/v1/upscale HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {stack.key}\r\nAccept: {accept}\r\n"
        tab.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image)
        wait_for(lambda: count_tiles(stack) >= before[TILES] + 2, "its first tiles")

    wait_until_no_job_runs(stack)  # when the gateway notices the disconnect depends on the machine
    at_cancel = count_tiles(stack)
    settled = wait_until_quiet(stack)

    tile_s = (triton_metrics(stack)[SECONDS] - before[SECONDS]) / (settled - before[TILES])
    assert settled - at_cancel <= tiles_in_flight(tile_s)
    assert settled - before[TILES] < 24, "all tiles of this image"
    assert stack.post(encode_png(draw_photo(8, 8))).status == 200


def test_kill_9_during_ten_images_gives_each_its_result_or_a_503(sleeper: Stack) -> None:
    # Larger than SMALL_PIXELS: each has its own forward pass, so its bytes do not depend on other requests.
    images = [encode_png(draw_photo(200, 240, seed=seed)) for seed in range(10)]
    expected = [sleeper.post(image).read() for image in images]
    server = sleeper.triton_pid()
    stub = next(stub.pid for stub in find_stubs(server) if stub.model == "swinir")

    def ask(image: bytes) -> bytes | dict[str, Any]:
        try:
            with sleeper.post(image) as response:
                data: bytes = response.read()
                return data
        except urllib.error.HTTPError as refused:
            with refused:
                return {**json.loads(refused.read()), "retry_after": refused.headers["Retry-After"]}

    with ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(ask, image) for image in images]
        time.sleep(0.3)
        os.kill(stub, signal.SIGKILL)
        wait_for(lambda: sleeper.triton_pid() != server, "another Triton")
        os.kill(sleeper.triton_pid(), signal.SIGKILL)
        outcomes = [future.result() for future in futures]

    for own, outcome in zip(expected, outcomes, strict=True):
        if isinstance(outcome, bytes):
            assert outcome == own
        else:
            assert outcome["status"] == 503, outcome
            assert int(outcome["retry_after"]) >= 1
    assert any(isinstance(outcome, bytes) for outcome in outcomes)
    assert sleeper.post(images[0]).read() == expected[0]
