"""Measures the stack around the network: milliseconds per megapixel of the result, by stage and by process.

    python -m benchmarks.stack [IMAGE...]

The network is replaced by a stand-in that returns its remembered outputs (`benchmarks.stand_in`), whose own CPU time is
left out. First each stage runs in this process, then whole requests go through the real gateway and its real Triton. In
the same rounds runs a floor: one gRPC message of the result's pixels between two processes, and Pillow's encoder for
the format (PNG: level 1).
Prints the tables as Markdown and writes benchmarks/results/stack.json for `benchmarks.goals`;
docs/measurements/stack.md has the tables of one run.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import grpc
import numpy as np
import psutil
from PIL import Image as PilImage

from benchmarks.machine import describe_machine
from benchmarks.report import ROOT, table
from benchmarks.stand_in import replace_network, write_adapter
from gateway.backend.channel import MAX_MESSAGE_BYTES
from gateway.backend.triton_stubs import find_stubs
from preprocessing.codec import Image, OutputFormat, Pixels, UploadLimits, decode, encode, probe
from preprocessing.tiling import split_band, stitch_band
from swinir.image_grid import tile_grid
from swinir.inference.create_engine import create_engine
from swinir.inference.memory import keep_freed_memory
from swinir.settings import read_settings
from swinir.zoo import DEFAULT_VARIANT, find_variant
from testing.images import encode_png
from testing.stack import Stack, start_stack, stop_stack

ROUNDS = 7
RESULTS = Path(__file__).parent / "results" / "stack.json"
VARIANT = DEFAULT_VARIANT
FORMATS: tuple[OutputFormat, ...] = ("png", "jpeg", "webp")
SIDES = (128, 512)
"""Sides of the uploads of whole requests: one tile, and nine."""
SETTINGS = {
    "SUPERRES_CACHE_MAX_BYTES": "0",
    "SUPERRES_CLIENT_MEGAPIXELS": "none",
    "SUPERRES_DEFAULT_VARIANT": VARIANT,
    "SUPERRES_SCALE_TO_ZERO_AFTER_S": "0",
}
EXAMPLES = tuple(ROOT / f"gateway/static/example-{name}.png" for name in ("harbour", "cat", "label"))
_FLOOR_METHOD = "/floor/Pixels"


def read_images(paths: list[Path], side: int) -> list[Pixels]:
    """Return each image in this size [side, side, 3], cut from its middle or repeated by reflection."""
    images = []
    for path in paths:
        pixels = np.asarray(PilImage.open(path).convert("RGB"))
        missing = [(0, max(0, side - length)) for length in pixels.shape[:2]]
        padded = np.pad(pixels, [*missing, (0, 0)], mode="symmetric")
        top, left = ((length - side) // 2 for length in padded.shape[:2])
        images.append(np.ascontiguousarray(padded[top : top + side, left : left + side]))
    return images


def measure_stages(image: Pixels) -> dict[str, float]:
    """Return the CPU milliseconds per megapixel of the result of each stage, in this process."""
    row, engine = find_variant(VARIANT), create_engine(read_settings({"SUPERRES_ENGINE_THREADS": "1"}))
    remembered, upload = replace_network(), encode_png(image)
    limits = UploadLimits(max_bytes=10**9, max_pixels=80_000_000, max_side=10**6)
    grid = tile_grid(row, *image.shape[:2])
    rows = [split_band(image, grid, number) for number in range(grid.rows)]
    restored = [engine.restore(tiles, VARIANT).tiles for tiles in rows]
    stitched = [stitch_band(tiles, grid, number, row.scale) for number, tiles in enumerate(restored)]
    result = Image(np.concatenate(stitched))
    stages: dict[str, Callable[[], object]] = {
        "decode the upload (PNG)": lambda: decode(probe(upload, limits)),
        "split into tiles": lambda: [split_band(image, grid, number) for number in range(grid.rows)],
        "swinir: checks and copies": lambda: [engine.restore(tiles, VARIANT) for tiles in rows],
        "stitch bands": lambda: [stitch_band(tiles, grid, at, row.scale) for at, tiles in enumerate(restored)],
        **{f"encode {name}": lambda name=name: encode(result, name) for name in FORMATS},  # type: ignore[misc]
    }
    spent: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(ROUNDS + 1):
        for name, run in stages.items():
            began, looked_up_s = time.process_time(), remembered.seconds
            run()
            spent[name].append(time.process_time() - began - (remembered.seconds - looked_up_s))
    megapixels = result.width * result.height / 1e6
    return {name: 1e3 * statistics.median(seconds[1:]) / megapixels for name, seconds in spent.items()}


class Processes:
    """The CPU time of the processes of a running stack."""

    def __init__(self, stack: Stack, stand_in_seconds: Path) -> None:
        """`stand_in_seconds` is the file of the stand-in, whose seconds do not count."""
        self._stand_in_seconds = stand_in_seconds
        server = psutil.Process(stack.triton_pid())
        self._processes = {"gateway": psutil.Process(server.ppid()), "tritonserver": server}
        self._processes |= {stub.model: stub.process for stub in find_stubs(server.pid)}

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds of each process so far."""
        seconds = {}
        for name, process in self._processes.items():
            with process.oneshot():
                times = process.cpu_times()
            seconds[name] = times.user + times.system
        if self._stand_in_seconds.exists():
            seconds["swinir"] -= float(self._stand_in_seconds.read_text())
        return seconds


class Floor:
    """A gRPC server in another process that sends messages of a requested size."""

    def __enter__(self) -> Floor:
        reading, writing = os.pipe()
        self._process = subprocess.Popen([sys.executable, "-m", "benchmarks.stack", "--floor"], stdout=writing)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            port = int(pipe.readline())
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
        )
        self._call = self._channel.unary_unary(_FLOOR_METHOD)
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def run(self, result: PilImage.Image, format: OutputFormat) -> None:  # noqa: A002
        """Receive the bytes of a result in one message and encode it."""
        self._call(str(result.width * result.height * 3).encode())
        keywords = {"png": {"compress_level": 1}, "jpeg": {"quality": 92, "subsampling": 0}, "webp": {"quality": 92}}
        result.save(BytesIO(), format.upper(), **keywords[format])


def serve_floor() -> None:
    """Serve `Floor` until killed."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, _: bytes(int(request)))
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_send_message_length", MAX_MESSAGE_BYTES)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("floor", {"Pixels": handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def measure_requests(
    stack: Stack, processes: Processes, floor: Floor, images: list[Pixels]
) -> tuple[list[list[str]], dict[str, float]]:
    """Return a row for each format, milliseconds per megapixel of the result, and the CPU milliseconds of all."""
    uploads = [encode_png(image) for image in images]
    results = {name: [_post(stack, upload, name) for upload in uploads] for name in FORMATS}  # the network runs here
    decoded = [PilImage.open(BytesIO(data)).convert("RGB") for data in results["png"]]
    megapixels = sum(image.width * image.height for image in decoded) / 1e6
    wall: dict[str, list[float]] = {name: [] for name in (*FORMATS, *(f"floor {name}" for name in FORMATS))}
    cpu: dict[str, dict[str, float]] = {name: dict.fromkeys(processes.cpu_s(), 0.0) for name in FORMATS}
    for _ in range(ROUNDS):
        for name in FORMATS:
            before, began = processes.cpu_s(), time.perf_counter()
            for upload in uploads:
                _post(stack, upload, name)
            wall[name].append(time.perf_counter() - began)
            for process, seconds in processes.cpu_s().items():
                cpu[name][process] += (seconds - before[process]) / ROUNDS
            began = time.perf_counter()
            for image in decoded:
                floor.run(image, name)
            wall[f"floor {name}"].append(time.perf_counter() - began)
    rows, all_cpu = list[list[str]](), dict[str, float]()
    for name in FORMATS:
        spent, least = (1e3 * statistics.median(wall[key]) / megapixels for key in (name, f"floor {name}"))
        low, _, high = (1e3 * part / megapixels for part in statistics.quantiles(wall[name], n=4))
        all_cpu[name] = 1e3 * sum(cpu[name].values()) / megapixels
        of_processes = [f"{1e3 * seconds / megapixels:.0f}" for seconds in cpu[name].values()]
        size = sum(map(len, results[name])) / megapixels / 1e6
        figures = [f"{spent:.0f} ({low:.0f}-{high:.0f})", f"{least:.0f}", f"{spent / least:.1f}", *of_processes]
        figures.append(f"{all_cpu[name]:.0f}")
        rows.append([name, *figures, f"{size:.2f}"])
    return rows, all_cpu


def _post(stack: Stack, upload: bytes, name: OutputFormat) -> bytes:
    with stack.post(upload, f"?format={name}&variant={VARIANT}") as response:
        data: bytes = response.read()
    return data


def main(paths: list[Path]) -> None:
    """Measure and print."""
    machine = describe_machine()
    keep_freed_memory()  # as in Triton's swinir model
    stages = [measure_stages(image) for image in read_images(paths, SIDES[-1])]
    means = {name: statistics.mean(each[name] for each in stages) for name in stages[0]}
    all_cpu: dict[str, float] = {}
    print("\n".join(table(["stage", "CPU ms/MP"], [[name, f"{mean:.1f}"] for name, mean in means.items()])))
    with tempfile.TemporaryDirectory() as folder, Floor() as floor:
        models, seconds_path = Path(folder) / "models", Path(folder) / "stand-in-seconds"
        shutil.copytree(ROOT / "model_repository", models)
        write_adapter(models, seconds_path)
        stack = start_stack(Path(folder) / "state", **SETTINGS, SUPERRES_MODEL_REPOSITORY=str(models))
        try:
            processes = Processes(stack, seconds_path)
            names = [*processes.cpu_s(), "all"]
            header = ["format", "ms/MP (quartiles)", "floor", "ratio", *(f"CPU {name}" for name in names), "MB/MP"]
            for side in SIDES:
                print(f"\n{side} x {side}:\n")
                rows, all_cpu = measure_requests(stack, processes, floor, read_images(paths, side))
                print("\n".join(table(header, rows)))
        finally:
            stop_stack(stack)
    RESULTS.write_text(json.dumps({"machine": machine, "cpu_ms_per_megapixel": all_cpu}, indent=1) + "\n")
    quiet = "quiet" if machine["quiet"] else "shared with other work"
    print(f"\n{machine['processor']}, {machine['cores']} cores ({quiet}), {machine['date']}, {machine['commit']}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--floor"]:
        serve_floor()
    else:
        main([Path(path) for path in sys.argv[1:]] or list(EXAMPLES))
