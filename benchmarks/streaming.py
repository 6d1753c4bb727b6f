"""Measures streaming on the real stack: waiting times of small images behind a large one, and peak memory.

`python -m benchmarks.streaming` writes the tables of docs/explanation/streaming.md. Waiting times are measured through
the gateway's API, so they include its queue, codec and backend client.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.report import ROOT, replace_part
from gateway.backend.triton_stubs import find_stubs
from testing.images import draw_photo, encode_png
from testing.stack import Stack, start_stack, stop_stack

SMALL_PX = 64
SMALL_COUNT = 10
LARGE = (1280, 1632)
"""2.1 megapixels."""
HUGE = (2048, 2048)
"""4.2 megapixels: the maximum by default."""
LARGEST = (("?format=png", "a 2048x2048 image as PNG"), ("?format=jpeg", "one as JPEG"))
SETTINGS = {
    "SUPERRES_CACHE_MAX_BYTES": "0",
    "SUPERRES_CLIENT_REQUESTS": "none",
    "SUPERRES_CLIENT_MEGAPIXELS": "none",
    "SUPERRES_DEADLINE_S": "3600",
    "SUPERRES_IDLE_TIMEOUT_S": "3600",
}


def measure_waits(stack: Stack) -> list[str]:
    """Return a table of the waiting times of small images, alone and behind a large one."""
    small = [encode_png(draw_photo(SMALL_PX, SMALL_PX, seed=seed)) for seed in range(SMALL_COUNT)]
    large = encode_png(draw_photo(*LARGE, seed=99))
    stack.post(small[0]).close()
    idle, idle_together = _one_by_one(stack, small), _together(stack, small)
    with _LargeJob(stack, large):
        busy, busy_together = _one_by_one(stack, small), _together(stack, small)
    rows = (("one after another", idle, busy), ("ten at once", idle_together, busy_together))
    lines = [
        "| ten 64x64 images | idle: median s | during a large one: median s | longest s | median ratio | of longest |",
        "|---|---|---|---|---|---|",
    ]
    for name, alone, behind in rows:
        median, maximum = statistics.median(behind), max(behind)
        reference = statistics.median(alone) if alone is idle else max(alone)
        median_ratio = median / statistics.median(alone)
        lines.append(
            f"| {name} | {statistics.median(alone):.3f} | {median:.3f} | {maximum:.3f} "
            f"| {median_ratio:.2f} | {maximum / reference:.2f} |"
        )
    return lines


ENLARGER = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            tiles = pb_utils.get_input_tensor_by_name(request, "TILES").as_numpy()
            large = tiles.repeat(4, axis=1).repeat(4, axis=2)
            noise = np.random.default_rng(0).integers(0, 64, large.shape, np.uint8)
            made = {
                "UPSCALED_TILES": large // 2 + noise,
                "CHECKS": np.zeros((len(tiles), 6), np.float32),
                "WORK_US": np.zeros((len(tiles), 1), np.int64),
            }
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(*each) for each in made.items()]))
        return responses
"""
"""Replaces the network for memory measurements. Its results are noisy, which gives the largest PNG files."""


def measure_memory(stack: Stack) -> list[str]:
    """Return a table of the peak memory of each process, idle and after an image of the maximum size."""
    server = stack.triton_pid()
    gateway = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
    stream = next(stub.pid for stub in find_stubs(server) if _find_model(stub.pid) == "upscale_stream")
    processes = {"gateway": gateway, "upscale_stream": stream, "tritonserver": server}
    stack.post(encode_png(draw_photo(SMALL_PX, SMALL_PX))).close()
    before = {name: _peak_mib(pid) for name, pid in processes.items()}
    lines = ["| process | before | " + " | ".join(f"after {words}" for _, words in LARGEST) + " |"]
    after = []
    sizes = []
    for query, _ in LARGEST:
        with stack.post(encode_png(draw_photo(*HUGE, seed=1)), query) as response:
            sizes.append(len(response.read()) / 2**20)
        after.append({name: _peak_mib(pid) for name, pid in processes.items()})
    lines.append("|---|---|" + "---|" * len(LARGEST))
    lines += [
        f"| {name} | {before[name]:.0f} | {' | '.join(f'{each[name]:.0f}' for each in after)} |" for name in before
    ]
    files = ", ".join(f"{size:.0f} MiB" for size in sizes)
    return [
        *lines,
        "",
        f"Peak memory in MiB, one image after the other. The files have {files}, the result's pixels 192 MiB.",
    ]


class _LargeJob:
    """Upscales a large image during a `with` block and cancels it at the end."""

    def __init__(self, stack: Stack, image: bytes) -> None:
        self._stack, self._image = stack, image

    def __enter__(self) -> None:
        headers = {"Accept": "text/event-stream"}
        self._response = self._stack.post(self._image, headers=headers)
        for line in self._response:
            if line.startswith(b"event: state"):
                state = json.loads(next(self._response).removeprefix(b"data: "))
                if state["state"] == "up":
                    break
        time.sleep(2.0)  # until its tiles are being processed

    def __exit__(self, *_: object) -> None:
        self._response.close()


def _one_by_one(stack: Stack, images: list[bytes]) -> list[float]:
    return [_ask(stack, image) for image in images]


def _together(stack: Stack, images: list[bytes]) -> list[float]:
    with ThreadPoolExecutor(len(images)) as pool:
        return list(pool.map(lambda image: _ask(stack, image), images))


def _ask(stack: Stack, image: bytes) -> float:
    began = time.monotonic()
    with stack.post(image) as response:
        response.read()
    return time.monotonic() - began


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _find_model(pid: int) -> str:
    """Return the model that a stub runs; its command line names the model's file."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return next(word for word in words if word.endswith("/1/model.py")).split("/")[-3]


def main() -> None:
    """Measure the parts in the arguments (`waits`, `memory`; default both) and write the page."""
    machine = describe_machine()
    about = (
        f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}; "
        f"{str(machine['date'])[:16].replace('T', ' ')} UTC, commit {machine['commit']}, load {machine['load_before']} "
        f"before, niceness {os.getpriority(os.PRIO_PROCESS, 0)}"
        + ("." if machine["quiet"] else " (other processes were running).")
    )
    measures = {"waits": measure_waits, "memory": measure_memory}
    for name in sys.argv[1:] or measures:
        with tempfile.TemporaryDirectory() as folder:
            models = Path(folder) / "models"
            shutil.copytree(ROOT / "model_repository", models)
            if name == "memory":
                (models / "swinir" / "1" / "model.py").write_text(ENLARGER)
            stack = start_stack(Path(folder) / "state", **SETTINGS, SUPERRES_MODEL_REPOSITORY=str(models))
            try:
                lines = measures[name](stack)
            finally:
                stop_stack(stack)
        print("\n".join(lines))
        replace_part(ROOT / "docs/explanation/streaming.md", name, [*lines, "", about])


if __name__ == "__main__":
    main()
