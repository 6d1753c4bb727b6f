"""Serves the real gateway with the fake backend: `python -m tests.gateway.serve_fake [slow|broken|never-ready]`."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from gateway.server import ServeError, serve
from gateway.settings import Settings, read_settings
from gateway.upscaler import Upscaler
from tests.fakes import FakeUpscaler


class Marked(FakeUpscaler):
    """Leaves a file when it is closed."""

    def __init__(self, marker: Path, gate: threading.Event | None) -> None:
        super().__init__(gate=gate)
        self._marker = marker

    def close(self) -> None:
        """Leave the file."""
        self._marker.write_text("closed")


def make_backend(settings: Settings) -> Upscaler:
    """Return the backend that the first argument names."""
    if "broken" in sys.argv:
        raise RuntimeError("No Triton to be had. Install one.")
    return Marked(Path(settings.state_dir) / "closed", threading.Event() if "slow" in sys.argv else None)


def await_ready(_upscaler: Upscaler) -> None:
    """Return at once, or never become ready."""
    if "never-ready" in sys.argv:
        raise RuntimeError("Triton does not start: it has no legs.")


try:
    sys.exit(serve(read_settings().settings, make_backend, await_ready))
except ServeError as error:
    sys.exit(f"superres: {error}")
