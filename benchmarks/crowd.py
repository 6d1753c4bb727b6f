"""A crowd at the doors: many clients at once, each with a picture of its own, against a backend that takes its time.

    python -m benchmarks.crowd [--clients 50] [--seconds 60] [--takes 1.0]

The gateway is the real one, in a process of its own; the backend is the tests' fake, which repeats pixels, so that each
client knows what its own picture must become. Clients wait as long as Retry-After says. Writes
benchmarks/results/crowd.json and the table of docs/reference/rate-limits.md.
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

RESULTS = Path(__file__).parent / "results" / "crowd.json"
PAGE = Path(__file__).parent.parent / "docs/reference/rate-limits.md"
BEGIN, END = "<!-- measured: python -m benchmarks.crowd -->\n", "<!-- end of measured -->"
ANSWER_LIMIT_S = 120.0
REFUSALS = (429, 503)


@dataclass
class CrowdClient:
    """One visitor: how it behaves, and what it met."""

    key: str
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    connections: int = 1
    most_patience_s: float = 60.0
    """Comes again after this at the latest, whatever Retry-After says."""
    waits_s: list[float] = field(default_factory=list)
    """Of the pictures it got."""
    refusals: Counter[int] = field(default_factory=Counter)
    told_to_wait_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What must not happen, in words."""
    longest_s: float = 0.0
    """Of any answer, refusals included."""

    def ask(self, port: int, upload: bytes) -> float:
        """Ask for the picture once, note what comes, and return the seconds to wait before the next time."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_LIMIT_S)
        try:
            connection.request("POST", "/api/v1/upscale", upload, {"X-API-Key": self.key})
            answer = connection.getresponse()
            body = answer.read()
        except OSError as error:
            self.wrong.append(f"no answer: {error!r}")
            return 1.0
        finally:
            connection.close()
        seconds = time.monotonic() - began
        self.longest_s = max(self.longest_s, seconds)
        if answer.status == http.client.OK:
            if not np.array_equal(np.array(Image.open(BytesIO(body))), enlarge(self.pixels, DEFAULT_VARIANT)):
                self.wrong.append("somebody else's picture")
            self.waits_s.append(seconds)
            return 0.0
        retry_after = answer.headers["Retry-After"]
        if answer.status not in REFUSALS or not retry_after:
            self.wrong.append(f"{answer.status} with Retry-After {retry_after}: {body[:200]!r}")
            return 1.0
        self.refusals[answer.status] += 1
        self.told_to_wait_s.append(float(retry_after))
        return min(float(retry_after), self.most_patience_s)


def make_client(keys: ApiKeyStore, number: int, **behaviour: Any) -> CrowdClient:
    """Return a client with a key and a picture that nobody else has."""
    return CrowdClient(keys.new(f"client {number}"), draw_photo(16 + number % 7, 24, seed=number), **behaviour)


def crowd(port: int, clients: list[CrowdClient], seconds: float, pictures: float = math.inf) -> None:
    """Let all of them ask, again and again, until the time is over or they have so many pictures together.

    What was asked by then is waited for.
    """
    end, is_over = time.monotonic() + seconds, threading.Event()

    def run(client: CrowdClient) -> None:
        upload = encode_png(client.pixels)
        while not is_over.is_set():
            is_over.wait(client.ask(port, upload))

    threads = [threading.Thread(target=run, args=(client,)) for client in clients for _ in range(client.connections)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end and sum(len(client.waits_s) for client in clients) < pictures:
        time.sleep(0.05)
    is_over.set()
    for thread in threads:
        thread.join()


def gateway_for_a_crowd(folder: Path, takes_s: float, **variables: str) -> Any:
    """Serve the real gateway, with a backend that takes so long for an image, and no limits but the queue's."""
    return serving(
        folder,
        f"takes={takes_s}",
        SUPERRES_CLIENT_REQUESTS="",
        SUPERRES_CLIENT_MEGAPIXELS="",
        SUPERRES_BAN_AFTER="",
        **variables,
    )


def describe(clients: list[CrowdClient], seconds: float) -> dict[str, Any]:
    """Return the figures of a crowd."""
    waits = sorted(wait for client in clients for wait in client.waits_s)
    refusals = sum((client.refusals for client in clients), Counter[int]())
    told = [wait for client in clients for wait in client.told_to_wait_s]
    served = [len(client.waits_s) for client in clients]
    return {
        "clients": len(clients),
        "seconds": seconds,
        "results": len(waits),
        "results_a_second": round(len(waits) / seconds, 2),
        "refusals": {str(status): count for status, count in sorted(refusals.items())},
        "wrong": [words for client in clients for words in client.wrong],
        "wait_median_s": round(statistics.median(waits), 2),
        "wait_p90_s": round(waits[int(0.9 * (len(waits) - 1))], 2),
        "wait_longest_s": round(max(client.longest_s for client in clients), 2),
        "results_a_client": {"least": min(served), "median": statistics.median(served), "most": max(served)},
        "retry_after_s": {"least": min(told, default=None), "most": max(told, default=None)},
    }


def describe_in_words(result: dict[str, Any]) -> str:
    """Return the table of docs/reference/rate-limits.md."""
    machine, refusals = result["machine"], result["refusals"]
    each, told = result["results_a_client"], result["retry_after_s"]
    rows = {
        "results, each of the client's own image": f"{result['results']} ({result['results_a_second']:.2f} per second)",
        "rejected, all with Retry-After": ", ".join(f"{count} x {status}" for status, count in refusals.items()) or "0",
        "other, lost or mixed-up responses": str(len(result["wrong"])),
        "wait for a result: median, 90th percentile": f"{result['wait_median_s']:.2f} s, {result['wait_p90_s']:.2f} s",
        "longest wait for any response": f"{result['wait_longest_s']:.2f} s (deadline {result['deadline_s']:g} s)",
        "results per client: minimum, median, maximum": f"{each['least']}, {each['median']:g}, {each['most']}",
        "Retry-After": f"{told['least']:g} to {told['most']:g} s" if refusals else "never",
    }
    lines = ["| quantity | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    when = machine["date"][:16].replace("T", " ")
    where = f"{machine['processor']}, {machine['cores']} cores, load {machine['load_before']} before it began"
    lines += ["", f"{where}; {when} UTC, commit {machine['commit']}."]
    return "\n".join(lines) + "\n"


def write_page() -> None:
    """Put the table of the results file into docs/reference/rate-limits.md."""
    text = PAGE.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(text[:begin] + describe_in_words(json.loads(RESULTS.read_text())) + text[end:])


def main() -> None:
    """Gather the crowd, keep the result, write the page."""
    parser = argparse.ArgumentParser(description="Many clients against a slow backend.")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--takes", type=float, default=1.0, help="Seconds that the backend takes an image.")
    arguments = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = ApiKeyStore(folder / "keys.json")
        clients = [make_client(keys, number) for number in range(arguments.clients)]
        served: Served
        with gateway_for_a_crowd(folder, arguments.takes) as served:
            crowd(served.port, clients, arguments.seconds)
    result = {
        "machine": machine,
        "takes_s": arguments.takes,
        "deadline_s": Settings().deadline_s,
        **describe(clients, arguments.seconds),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    write_page()
    print(describe_in_words(result))
    if result["wrong"]:
        sys.exit("\n".join(result["wrong"][:20]))


if __name__ == "__main__":
    main()
