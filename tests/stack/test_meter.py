"""The meter against Triton's own counters, on the real stack: what it charges for work is what Triton counts."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import builders
from tests.stack.running import Stack

AGREEMENT = 0.05


def triton_metrics(stack: Stack) -> dict[str, float]:
    """Return the counters of `swinir` by name, from the port that the server's command line names."""
    command = Path(f"/proc/{stack.triton_pid()}/cmdline").read_bytes().decode().split("\0")
    port = next(part.partition("=")[2] for part in command if part.startswith("--metrics-port="))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = re.findall(r'^(\w+)\{[^}]*model="swinir"[^}]*\} (\S+)$', text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def work_s(stack: Stack) -> float:
    with urllib.request.urlopen(f"{stack.url}/api/v1/status", timeout=30) as answer:
        month: dict[str, Any] = json.load(answer)["month"]
    return float(month["work_s"])


def pictures(height: int, width: int, count: int) -> list[bytes]:
    """Pictures that no cache has seen."""
    seed = int.from_bytes(os.urandom(4), "big")
    return [builders.encode_png(builders.draw_photo(height, width, seed=seed + number)) for number in range(count)]


def send(stack: Stack, data: bytes) -> None:
    with stack.post(data) as answer:
        assert answer.headers["X-Superres-Cache"] == "miss"
        answer.read()


def test_small_pictures_one_by_one_cost_what_triton_says_it_computed(stack: Stack) -> None:
    """Without shared passes Triton's built-in counter is right. Status rounds to 0.1 s, so some 4 s are worked."""
    before, charged = triton_metrics(stack), work_s(stack)
    for data in pictures(104, 104, 8):
        send(stack, data)
    after = triton_metrics(stack)

    name = "nv_inference_compute_infer_duration_us"
    computed_s = (after[name] - before[name]) / 1e6
    assert after["nv_inference_exec_count"] - before["nv_inference_exec_count"] == 8, "passes were shared"
    assert work_s(stack) - charged == pytest.approx(computed_s, rel=AGREEMENT, abs=0.11)


def test_large_pictures_at_once_cost_what_the_engine_worked(stack: Stack) -> None:
    before, charged = triton_metrics(stack), work_s(stack)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda data: send(stack, data), [*pictures(200, 260, 2), *pictures(72, 72, 2)]))
    after = triton_metrics(stack)

    worked_s = after["superres_seconds_total"] - before["superres_seconds_total"]
    assert worked_s > 1.0
    assert work_s(stack) - charged == pytest.approx(worked_s, rel=AGREEMENT, abs=0.11)


def test_the_months_seconds_add_up_and_awake_is_no_less_than_work(stack: Stack) -> None:
    with urllib.request.urlopen(f"{stack.url}/api/v1/status", timeout=30) as answer:
        month = json.load(answer)["month"]

    assert month["boot_s"] > 0
    assert month["gpu_s"] == pytest.approx(month["boot_s"] + month["work_s"] + month["idle_s"], abs=0.2)
    assert np.isfinite(month["gpu_s"])
