"""Measures small images per second through three HTTP APIs next to each other: ours, LitServe with batching, and Flask.

    python -m pip install --no-deps -r benchmarks/packages.txt
    python -m benchmarks.throughput [--rounds 5] [--seconds 2]

All run the same network. In each round 1, 4, 8 and 16 clients send images of 64 x 64 to each server in turn, for
`--seconds`; the whole run takes 5 minutes. The other servers are idle meanwhile. "A slot each" is ours with
`small_jobs_per_slot` 1. The network alone, as ours serves it, restores one image after the other in the same rounds.
Prints two tables, the second with the CPU time per image of all processes of a server, which compares on a busy machine
too. Writes benchmarks/results/throughput.json for `benchmarks.goals`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.candidates import load_served_network
from benchmarks.machine import describe_machine, restart_with_sleeping_threads
from benchmarks.report import table
from swinir.network.compiled_network import CompiledNetwork
from swinir.zoo import DEFAULT_VARIANT
from testing.images import draw_photo, encode_png
from testing.stack import start_stack, stop_stack

Floats = npt.NDArray[np.float32]

SIDE_PX = 64
CLIENTS = (1, 4, 8, 16)
RESULTS = Path(__file__).parent / "results" / "throughput.json"
START_LIMIT_S = 120.0
SETTINGS = {
    "SUPERRES_CACHE_MAX_BYTES": "0",
    "SUPERRES_CLIENT_MEGAPIXELS": "none",
    "SUPERRES_SCALE_TO_ZERO_AFTER_S": "0",
    "SUPERRES_QUEUE_SIZE_PER_CLIENT": "24",
}
_BOUNDARY = "boundary-of-the-benchmark"


class MeasuredServer:
    """A server and how an image is sent to it."""

    def __init__(self, pid: int, port: int, path: str, headers: dict[str, str], *, is_form: bool) -> None:
        self.port, self._path, self._headers, self._is_form = port, path, headers, is_form
        self._process = psutil.Process(pid)

    def cpu_s(self) -> float:
        """Return the CPU seconds of its processes so far, Triton and its models included."""
        times = [each.cpu_times() for each in (self._process, *self._process.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def send(self, connection: http.client.HTTPConnection, image: bytes) -> None:
        """Send an image and read its result. Raises RuntimeError for any other response."""
        headers, body = dict(self._headers), image
        if self._is_form:
            head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
            body = head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
            headers["Content-Type"] = f"multipart/form-data; boundary={_BOUNDARY}"
        connection.request("POST", self._path, body, headers)
        response = connection.getresponse()
        data = response.read()
        if response.status != http.client.OK or not data.startswith(b"\x89PNG"):
            raise RuntimeError(f"port {self.port}: {response.status} {data[:200]!r}")


def run_clients(target: MeasuredServer, count: int, images: list[bytes], seconds: float) -> list[float]:
    """Let so many clients send images for so long, and return the seconds of each request."""
    end, waits, errors = time.monotonic() + seconds, list[float](), list[BaseException]()

    def run(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
        sent = number
        try:
            while time.monotonic() < end:
                began = time.monotonic()
                target.send(connection, images[sent % len(images)])
                waits.append(time.monotonic() - began)
                sent += 1
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return waits


@contextmanager
def serving_peer(module: str) -> Iterator[MeasuredServer]:
    """Start a peer and wait until it responds."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(port)], stderr=subprocess.DEVNULL, start_new_session=True
    )
    target, image, began = (
        MeasuredServer(process.pid, port, "/upscale", {}, is_form=True),
        encode_png(draw_photo(8, 8)),
        time.monotonic(),
    )
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                target.send(connection, image)
                break
            except (OSError, RuntimeError):
                if process.poll() is not None or time.monotonic() - began > START_LIMIT_S:
                    raise
                time.sleep(0.2)
            finally:
                connection.close()
        yield target
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # LitServe has processes of its own
        process.wait()


@contextmanager
def serving_ours(folder: Path, **variables: str) -> Iterator[MeasuredServer]:
    """Start `superres serve` with its real Triton."""
    stack = start_stack(folder, **SETTINGS, **variables)
    try:
        port = urlsplit(stack.url).port or 80
        yield MeasuredServer(stack.process.pid, port, "/api/v1/upscale", {"X-API-Key": stack.key}, is_form=False)
    finally:
        stop_stack(stack)


def run_network(network: CompiledNetwork, images: list[Floats], seconds: float) -> tuple[float, float]:
    """Return the images per second of the network alone, one after the other, and its CPU seconds per image."""
    count, began, began_cpu_s = 0, time.monotonic(), time.process_time()
    while time.monotonic() - began < seconds:
        network.forward(images[count % len(images)][None])
        count += 1
    return count / (time.monotonic() - began), (time.process_time() - began_cpu_s) / count


def make_tables(rows: list[dict[str, Any]], network_cpu_ms: float) -> list[str]:
    """Return the lines of two tables: speed, and CPU time per image."""
    names = list(rows[0]["images_per_s"])
    others = [name for name in names if name != "ours"]
    speeds, times = [], []
    for row in rows:
        mine = row["images_per_s"]["ours"]
        cells = [str(row["clients"]), f"{mine:.1f}", f"{row['of_network']:.2f}"]
        cells += [f"{row['images_per_s'][name] / mine:.2f}" for name in others]
        speeds.append([*cells, *(f"{1e3 * row['p99_s'][name]:.0f}" for name in names)])
        times.append([str(row["clients"]), *(f"{row['cpu_ms_per_image'][name]:.1f}" for name in names)])
    header = ["clients", "ours, images/s", "of the network alone", *(f"{name} / ours" for name in others)]
    lines = table([*header, *(f"p99 {name}, ms" for name in names)], speeds)
    lines += ["", f"CPU milliseconds per image; the network alone takes {network_cpu_ms:.1f}:", ""]
    return lines + table(["clients", *names], times)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description="Images per second of three HTTP APIs.")
    parser.add_argument("--rounds", type=int, default=5, help="Rounds that count, after one to warm up.")
    parser.add_argument("--seconds", type=float, default=2.0, help="Seconds of each server and number of clients.")
    parser.add_argument("--started", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    machine = describe_machine()
    pixels = [draw_photo(SIDE_PX, SIDE_PX, seed=seed) for seed in range(32)]
    uploads, inputs = [encode_png(each) for each in pixels], [each.astype(np.float32) / 255 for each in pixels]
    rates: dict[tuple[str, int], list[float]] = {}
    waits: dict[tuple[str, int], list[float]] = {}
    cpu_ms: dict[tuple[str, int], list[float]] = {}
    alone, alone_cpu_ms = list[float](), list[float]()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = {
            "ours": stack.enter_context(serving_ours(folder / "ours")),
            "a slot each": stack.enter_context(serving_ours(folder / "each", SUPERRES_SMALL_JOBS_PER_SLOT="1")),
            "LitServe": stack.enter_context(serving_peer("benchmarks.litserve_peer")),
            "Flask + torch": stack.enter_context(serving_peer("benchmarks.flask_peer")),
        }
        network = load_served_network(DEFAULT_VARIANT)
        for number in range(arguments.rounds + 1):
            speed, network_cpu_s = run_network(network, inputs, arguments.seconds)
            if number:
                alone.append(speed)
                alone_cpu_ms.append(1e3 * network_cpu_s)
            for count in CLIENTS:
                for name, target in targets.items():
                    began, began_cpu_s = time.monotonic(), target.cpu_s()
                    spent = run_clients(target, count, uploads, arguments.seconds)
                    if number:  # the first round is a warm-up
                        rates.setdefault((name, count), []).append(len(spent) / (time.monotonic() - began))
                        waits.setdefault((name, count), []).extend(spent)
                        spent_cpu_ms = 1e3 * (target.cpu_s() - began_cpu_s)
                        cpu_ms.setdefault((name, count), []).append(spent_cpu_ms / len(spent))
    stored = [
        {
            "clients": count,
            "of_network": statistics.median(rates["ours", count]) / statistics.median(alone),
            "images_per_s": {name: statistics.median(rates[name, count]) for name in targets},
            "p99_s": {name: float(np.quantile(waits[name, count], 0.99)) for name in targets},
            "cpu_ms_per_image": {name: statistics.median(cpu_ms[name, count]) for name in targets},
        }
        for count in CLIENTS
    ]
    network_cpu_ms = statistics.median(alone_cpu_ms)
    results = {"machine": machine, "rounds": arguments.rounds, "network_cpu_ms": network_cpu_ms, "rows": stored}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(make_tables(stored, network_cpu_ms)))
    quiet = "quiet" if machine["quiet"] else "shared with other work"
    print(f"\n{machine['processor']}, {machine['cores']} cores ({quiet}), {machine['date']}, {machine['commit']}")


if __name__ == "__main__":
    if "--started" in sys.argv[1:]:
        main()
    else:
        restart_with_sleeping_threads("benchmarks.throughput", sys.argv[1:])
