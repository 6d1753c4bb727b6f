"""Serves the real gateway with a fake backend: `python -m testing.serve_fake [HOW]`.

HOW is slow (responds once the file `go` is in the state folder), takes=SECONDS (per image), bands (of 48 rows, made
on demand), broken, killed (at the start), never-ready or redis-timeouts (those of the product, not long ones).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from gateway.backend.interface import Backend, Band
from gateway.cancellation import CancelToken
from gateway.config.environment import read_settings
from gateway.config.settings import Settings
from gateway.server import ServeError, serve
from preprocessing.codec import Pixels
from testing.backend import FakeBackend, enlarge


class FileGate(threading.Event):
    """A gate that opens when a file exists, for a test in another process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether the gate is open, after at most `timeout` seconds."""
        return self._path.exists() or super().wait(timeout)


class ClosingBackend(FakeBackend):
    """Writes a file when it is closed."""

    def __init__(self, marker: Path, gate: threading.Event | None, work_s: float) -> None:
        super().__init__(gate=gate)
        self._marker = marker
        self._work_s = work_s

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        """Yield the bands after the set time; end early if the job is cancelled."""
        stopped = threading.Event()
        with cancel_token.on_cancel(stopped.set):
            stopped.wait(self._work_s)
        cancel_token.raise_if_cancelled()
        yield from super().upscale_bands(
            pixels, variant, deadline=deadline, request_id=request_id, cancel_token=cancel_token
        )

    def close(self) -> None:
        """Write the file."""
        self._marker.write_text("closed")


class BandBackend(FakeBackend):
    """Holds one band at a time, as a remote backend does."""

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        """Yield the enlarged image in bands of 48 rows of the upload."""
        del deadline, request_id
        self.state_tracker.mark_up()
        top = 0
        for first in range(0, len(pixels), 48):
            cancel_token.raise_if_cancelled()
            rows = enlarge(pixels[first : first + 48], variant)
            yield Band(top, rows)
            top += len(rows)


def make_backend(settings: Settings) -> Backend:
    """Return the backend that the arguments ask for."""
    if "broken" in sys.argv:
        raise RuntimeError("No Triton to be had. Install one.")
    if "killed" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    if "bands" in sys.argv:
        return BandBackend()
    work_s = sum(float(argument.removeprefix("takes=")) for argument in sys.argv if argument.startswith("takes="))
    gate = FileGate(Path(settings.state_dir) / "go") if "slow" in sys.argv else None
    return ClosingBackend(Path(settings.state_dir) / "closed", gate, work_s)


def await_ready(_upscaler: Backend) -> None:
    """Return at once, or never become ready."""
    if "never-ready" in sys.argv:
        raise RuntimeError("Triton does not start: it has no legs.")


if "SUPERRES_REDIS_URL" in os.environ and "redis-timeouts" not in sys.argv:
    from testing.redis_server import raise_timeouts  # only where it is needed: Redis' package takes time to import

    raise_timeouts()
try:
    sys.exit(serve(read_settings().settings, make_backend, await_ready))
except ServeError as error:
    sys.exit(f"superres: {error}")
