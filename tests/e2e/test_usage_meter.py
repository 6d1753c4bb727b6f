"""The usage meter charges what Triton counts, on the whole stack."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from testing import images
from testing.stack import Stack, start_stack, stop_stack, triton_metrics, wait_for, wait_until_stable

AGREEMENT = 0.05
HAND_OVER = 0.15
"""Maximum share of Triton's compute time in which the stub gets its input and is scheduled, on a busy machine."""
ENOUGH_S = 4.0
"""Minimum work time, so that the status, which rounds to 0.1 s, is exact enough."""
COMPUTED = "nv_inference_compute_infer_duration_us"
EXECUTIONS = "nv_inference_exec_count"


def work_s(stack: Stack) -> float:
    with urllib.request.urlopen(f"{stack.url}/api/v1/status", timeout=120) as response:
        month: dict[str, Any] = json.load(response)["month"]
    return float(month["work_s"])


def worked(stack: Stack, before: dict[str, float], name: str) -> float:
    return triton_metrics(stack)[name] - before[name]


def make_images(height: int, width: int, count: int) -> list[bytes]:
    """Return images that are not cached."""
    seed = int.from_bytes(os.urandom(4), "big")
    return [images.encode_png(images.draw_photo(height, width, seed=seed + number)) for number in range(count)]


def send(stack: Stack, data: bytes) -> None:
    with stack.post(data) as response:
        assert response.headers["X-Superres-Cache"] == "miss"
        response.read()


def test_images_one_by_one_cost_the_compute_time_of_triton(stack: Stack) -> None:
    """Triton's own counter is right only if requests share no forward pass."""
    wait_until_stable(lambda: triton_metrics(stack)[EXECUTIONS], 1.0)  # Triton counts some ms after its response
    before, charged, sent = triton_metrics(stack), work_s(stack), 0
    while worked(stack, before, COMPUTED) < ENOUGH_S * 1e6:
        for data in make_images(128, 128, 4):
            send(stack, data)
            sent += 1

    wait_for(lambda: worked(stack, before, EXECUTIONS) == sent, "a pass for each image")
    computed_s = worked(stack, before, COMPUTED) / 1e6
    assert work_s(stack) - charged == pytest.approx(computed_s, rel=HAND_OVER)


def test_concurrent_large_images_cost_the_compute_time_of_the_engine(stack: Stack) -> None:
    before, charged = triton_metrics(stack), work_s(stack)
    while worked(stack, before, "superres_seconds_total") < ENOUGH_S:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda data: send(stack, data), [*make_images(200, 260, 2), *make_images(72, 72, 2)]))

    worked_s = worked(stack, before, "superres_seconds_total")
    assert work_s(stack) - charged == pytest.approx(worked_s, rel=AGREEMENT)


def test_seconds_of_the_month_add_up_with_the_boot(tmp_path: Path) -> None:
    running = start_stack(tmp_path)
    for data in make_images(200, 200, 4):
        send(running, data)

    with urllib.request.urlopen(f"{running.url}/api/v1/status", timeout=120) as response:
        month = json.load(response)["month"]
    booted_s = float(re.findall(r"is up after (\S+) s", running.log())[0])
    assert stop_stack(running) == 0
    assert month["boot_s"] == pytest.approx(booted_s, abs=1.0)
    assert month["work_s"] > 0
    assert month["gpu_s"] == pytest.approx(month["boot_s"] + month["work_s"] + month["idle_s"], abs=0.2)
