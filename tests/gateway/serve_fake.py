"""Serves the real gateway with the fake backend: `python -m tests.gateway.serve_fake [slow|broken|never-ready]`."""

from __future__ import annotations

import sys
import threading

from gateway.server import ServeError, serve
from gateway.settings import Settings, read_settings
from gateway.upscaler import Upscaler
from tests.fakes import FakeUpscaler


def make_backend(settings: Settings) -> Upscaler:
    """Return the backend that the first argument names."""
    del settings
    if "broken" in sys.argv:
        raise RuntimeError("No Triton to be had. Install one.")
    return FakeUpscaler(gate=threading.Event() if "slow" in sys.argv else None)


def await_ready(_upscaler: Upscaler) -> None:
    """Return at once, or never become ready."""
    if "never-ready" in sys.argv:
        raise RuntimeError("Triton does not start: it has no legs.")


try:
    sys.exit(serve(read_settings().settings, make_backend, await_ready))
except ServeError as error:
    sys.exit(f"superres: {error}")
