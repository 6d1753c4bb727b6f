"""Load test: many concurrent clients, each with its own image, and a backend that takes a fixed time per image.

    python -m benchmarks.load [--clients 50] [--seconds 60] [--takes 1.0]

The gateway is real and runs in a separate process. The backend is the tests' fake, which repeats pixels, so that each
client can check its own result. Clients wait as long as Retry-After says. Writes benchmarks/results/load.json and the
table of docs/reference/rate-limits.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import describe_machine
from gateway.access.api_keys import ApiKeyStore
from gateway.config.settings import Settings
from swinir.zoo import DEFAULT_VARIANT
from testing.backend import enlarge
from testing.images import draw_photo, encode_png
from testing.server import Served, serving

RESULTS = Path(__file__).parent / "results" / "load.json"
PAGE = Path(__file__).parent.parent / "docs/reference/rate-limits.md"
BEGIN, END = "<!-- measured: python -m benchmarks.load -->\n", "<!-- end of measured -->"
RESPONSE_LIMIT_S = 120.0
REFUSALS = (429, 503)


@dataclass
class LoadClient:
    """One client with its behavior and its results."""

    key: str
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    connections: int = 1
    max_wait_s: float = 60.0
    """Maximum seconds until it sends the next request, even if Retry-After is larger."""
    waits_s: list[float] = field(default_factory=list)
    """Seconds until each result."""
    refusals: Counter[int] = field(default_factory=Counter)
    retry_after_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Descriptions of responses that must not happen."""
    longest_s: float = 0.0
    """Maximum seconds until any response, including rejections."""

    def send(self, port: int, upload: bytes) -> float:
        """Send the image once, record the response, and return the seconds to wait before the next request."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=RESPONSE_LIMIT_S)
        try:
            connection.request("POST", "/api/v1/upscale", upload, {"X-API-Key": self.key})
            response = connection.getresponse()
            body = response.read()
        except OSError as error:
            self.errors.append(f"no response: {error!r}")
            return 1.0
        finally:
            connection.close()
        seconds = time.monotonic() - began
        self.longest_s = max(self.longest_s, seconds)
        if response.status == http.client.OK:
            if not np.array_equal(np.array(Image.open(BytesIO(body))), enlarge(self.pixels, DEFAULT_VARIANT)):
                self.errors.append("a result of another client's image")
            self.waits_s.append(seconds)
            return 0.0
        retry_after = response.headers["Retry-After"]
        if response.status not in REFUSALS or not retry_after:
            self.errors.append(f"{response.status} with Retry-After {retry_after}: {body[:200]!r}")
            return 1.0
        self.refusals[response.status] += 1
        self.retry_after_s.append(float(retry_after))
        return min(float(retry_after), self.max_wait_s)


def make_client(keys: ApiKeyStore, number: int, **behaviour: Any) -> LoadClient:
    """Return a client with its own API key and image."""
    return LoadClient(keys.new(f"client {number}"), draw_photo(16 + number % 7, 24, seed=number), **behaviour)


def run_load(port: int, clients: list[LoadClient], seconds: float, max_results: float = math.inf) -> None:
    """Let all clients send requests until the time is over or they have `max_results` results in total.

    Waits for the responses to all requests.
    """
    end, is_over = time.monotonic() + seconds, threading.Event()

    def run(client: LoadClient) -> None:
        upload = encode_png(client.pixels)
        while not is_over.is_set():
            is_over.wait(client.send(port, upload))

    threads = [threading.Thread(target=run, args=(client,)) for client in clients for _ in range(client.connections)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end and sum(len(client.waits_s) for client in clients) < max_results:
        time.sleep(0.05)
    is_over.set()
    for thread in threads:
        thread.join()


def serving_for_load(folder: Path, work_s: float, **variables: str) -> Any:
    """Serve the real gateway with a backend of this speed and without limits other than the queue's."""
    return serving(
        folder,
        f"takes={work_s}",
        SUPERRES_CLIENT_REQUESTS="none",
        SUPERRES_CLIENT_MEGAPIXELS="none",
        SUPERRES_BAN_AFTER="none",
        **variables,
    )


def describe(clients: list[LoadClient], seconds: float) -> dict[str, Any]:
    """Return the figures of a load test."""
    waits = sorted(wait for client in clients for wait in client.waits_s)
    refusals = sum((client.refusals for client in clients), Counter[int]())
    retry_after_s = [wait for client in clients for wait in client.retry_after_s]
    served = [len(client.waits_s) for client in clients]
    return {
        "clients": len(clients),
        "seconds": seconds,
        "results": len(waits),
        "results_per_second": round(len(waits) / seconds, 2),
        "refusals": {str(status): count for status, count in sorted(refusals.items())},
        "errors": [words for client in clients for words in client.errors],
        "wait_median_s": round(statistics.median(waits), 2),
        "wait_p90_s": round(waits[int(0.9 * (len(waits) - 1))], 2),
        "wait_longest_s": round(max(client.longest_s for client in clients), 2),
        "results_per_client": {"minimum": min(served), "median": statistics.median(served), "maximum": max(served)},
        "retry_after_s": {"minimum": min(retry_after_s, default=None), "maximum": max(retry_after_s, default=None)},
    }


def describe_in_words(result: dict[str, Any]) -> str:
    """Return the table of docs/reference/rate-limits.md."""
    machine, refusals = result["machine"], result["refusals"]
    rate, per_client, retry_after = (
        result[name] for name in ("results_per_second", "results_per_client", "retry_after_s")
    )
    rows = {
        "results, each of the client's own image": f"{result['results']} ({rate:.2f} per second)",
        "rejected, all with Retry-After": ", ".join(f"{count} x {status}" for status, count in refusals.items()) or "0",
        "other, lost or mixed-up responses": str(len(result["errors"])),
        "wait for a result: median, 90th percentile": f"{result['wait_median_s']:.2f} s, {result['wait_p90_s']:.2f} s",
        "longest wait for any response": f"{result['wait_longest_s']:.2f} s (deadline {result['deadline_s']:g} s)",
        "results per client: minimum, median, maximum": ", ".join(
            f"{per_client[name]:g}" for name in ("minimum", "median", "maximum")
        ),
        "Retry-After": f"{retry_after['minimum']:g} to {retry_after['maximum']:g} s" if refusals else "never",
    }
    lines = ["| quantity | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    when = machine["date"][:16].replace("T", " ")
    where = f"{machine['processor']}, {machine['cores']} cores, load {machine['load_before']} before it began"
    lines += ["", f"{where}; {when} UTC, commit {machine['commit']}."]
    return "\n".join(lines) + "\n"


def write_page() -> None:
    """Write the table of the results file into docs/reference/rate-limits.md."""
    text = PAGE.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(text[:begin] + describe_in_words(json.loads(RESULTS.read_text())) + text[end:])


def main() -> None:
    """Run the load test, store the result and write the page."""
    parser = argparse.ArgumentParser(description="Many clients and a slow backend.")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--takes", type=float, default=1.0, help="Seconds that the backend takes per image.")
    arguments = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = ApiKeyStore(folder / "keys.json")
        clients = [make_client(keys, number) for number in range(arguments.clients)]
        served: Served
        with serving_for_load(folder, arguments.takes) as served:
            run_load(served.port, clients, arguments.seconds)
    result = {
        "machine": machine,
        "takes_s": arguments.takes,
        "deadline_s": Settings().deadline_s,
        **describe(clients, arguments.seconds),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    write_page()
    print(describe_in_words(result))
    if result["errors"]:
        sys.exit("\n".join(result["errors"][:20]))


if __name__ == "__main__":
    main()
