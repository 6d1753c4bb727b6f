"""Starts the whole service as a user does: `superres serve` in its own process, with a real Triton."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testing.images import draw_photo, encode_png

READY = re.compile(r"ready at (http://\S+)")
BOOT_LIMIT_S = 120.0


@dataclass
class Stack:
    """A gateway with its embedded Triton, started from the command line."""

    state_dir: Path
    environ: dict[str, str]
    process: subprocess.Popen[str]
    url: str
    key: str
    printed: list[str] = field(default_factory=list)

    def post(self, image: bytes, query: str = "", headers: dict[str, str] | None = None) -> Any:
        """Send a raw body to the API; return http.client's response."""
        request = urllib.request.Request(
            f"{self.url}/api/v1/upscale{query}",
            image,
            {"X-API-Key": self.key, "Content-Type": "application/octet-stream", **(headers or {})},
        )
        return urllib.request.urlopen(request, timeout=300)

    def log(self) -> str:
        return (self.state_dir / "gateway.log").read_text()

    def triton_pid(self) -> int:
        """Return the process id of the current Triton, from the gateway's log."""
        return int(re.findall(r"Triton (\d+) is up", self.log())[-1])


def await_up(stack: Stack) -> None:
    """Wait until the current Triton responds. The image is new, so that no cache serves it."""
    seed = int.from_bytes(os.urandom(4), "big")
    stack.post(encode_png(draw_photo(8, 8, seed=seed))).close()


def superres(*arguments: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the command line and wait for its end."""
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(command, env=environ, text=True, capture_output=True, timeout=300, check=False)


def start_stack(state_dir: Path, **variables: str) -> Stack:
    """Start `superres serve` on a free port and wait until it is ready; fail with its output if it exits."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SUPERRES_")}
    environ |= {"SUPERRES_STATE_DIR": str(state_dir), "PORT": "0", **variables}
    # Without rate limits: a fast machine sends more requests than the default limits allow.
    key = superres("keys", "new", "tests", "--requests", "10000 per minute", environ=environ).stdout.strip()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve"],
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    stack = Stack(state_dir, environ, process, "", key)
    try:
        stack.printed = read_until_ready(process, BOOT_LIMIT_S)
        stack.url = READY.findall(stack.printed[-1])[0]
    except AssertionError as error:
        process.kill()
        process.wait()
        raise AssertionError(f"{error}\nIts log:\n{stack.log()}") from error
    except BaseException:
        process.kill()
        process.wait()
        raise
    return stack


def stop_stack(stack: Stack) -> int:
    """Send SIGTERM, as an operator does; return the exit code."""
    stack.process.send_signal(signal.SIGTERM)
    stack.printed += (stack.process.communicate(timeout=120)[0] or "").splitlines()
    return stack.process.returncode


def read_until_ready(process: subprocess.Popen[str], limit_s: float) -> list[str]:
    """Return the lines that a service prints up to its address; fail with the lines if there is none in time.

    Reads the pipe directly: `select` does not see lines that the text layer has already buffered.
    """
    assert process.stdout is not None
    text, pipe, deadline = "", process.stdout.fileno(), time.monotonic() + limit_s
    while not (READY.search(text) and text.endswith("\n")):
        assert time.monotonic() < deadline, f"it did not become ready in {limit_s:.0f} s. It printed:\n{text}"
        if select.select([pipe], [], [], 1.0)[0]:
            chunk = os.read(pipe, 65_536)
            assert chunk, f"it ended before it was ready. It printed:\n{text}"
            text += chunk.decode(errors="replace")
    return text.splitlines()


def wait_for(condition: Callable[[], bool], description: str, limit_s: float = 120.0) -> None:
    """Wait until a condition holds; fail with `description` after the limit."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s:.0f} s in vain for {description}"
        time.sleep(0.05)


def triton_metrics(stack: Stack) -> dict[str, float]:
    """Return Triton's counters for `swinir` by name, from the metrics port in Triton's command line."""
    command = Path(f"/proc/{stack.triton_pid()}/cmdline").read_bytes().decode().split("\0")
    port = next(part.partition("=")[2] for part in command if part.startswith("--metrics-port="))
    texts: list[str] = []

    def read() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as response:
                texts.append(response.read().decode())
        except urllib.error.URLError:  # Triton opens this port last, after it reports ready
            return False
        return True

    wait_for(read, "Triton's metrics")
    found = re.findall(r'^(\w+)\{[^}]*model="swinir"[^}]*\} (\S+)$', texts[0], re.MULTILINE)
    return {name: float(value) for name, value in found}


def wait_until_no_job_runs(stack: Stack) -> None:
    """Wait until the gateway has ended its last job, also one whose client has disconnected."""

    def is_idle() -> bool:
        with urllib.request.urlopen(f"{stack.url}/api/v1/status", timeout=120) as response:
            return bool(json.load(response)["queue"]["running"] == 0)

    wait_for(is_idle, "the end of the gateway's jobs")


def count_tiles(stack: Stack) -> float:
    """Return Triton's counter of restored tiles of all variants."""
    return triton_metrics(stack)["superres_tiles_total"]


def wait_until_stable(count: Callable[[], float], stable_s: float, limit_s: float = 120.0) -> float:
    """Wait until a count has not changed for `stable_s` seconds and return it; fail after the limit."""
    deadline = time.monotonic() + limit_s
    value, since = -1.0, time.monotonic()
    while time.monotonic() - since < stable_s:
        assert time.monotonic() < deadline, f"it went on being counted: {value:.0f}"
        if (now := count()) != value:
            value, since = now, time.monotonic()
        time.sleep(0.02)
    return value


def wait_until_quiet(stack: Stack) -> float:
    """Return the tile count after 5 s without a new tile; a tile takes up to 1.4 s on two busy cores."""
    return wait_until_stable(lambda: count_tiles(stack), 5.0)
