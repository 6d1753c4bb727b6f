"""The embedded backend on a real Triton: a boot that fails, its message, and the next boot, with the limits it gets."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gateway.backend.embedded import READY_LIMIT_S, EmbeddedBackend
from gateway.backend.interface import BackendNotStartedError, BackendRejectedError, BackendStillBootingError
from gateway.cancellation import CancelledError, CancelToken
from gateway.config.settings import Settings
from preprocessing.image import Pixels
from testing.data import ROOT

LIMIT_S = 120.0
PIXELS = np.zeros((8, 8, 3), np.uint8)


def wait_for(condition: Callable[[], bool], description: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT_S:.0f} s in vain for {description}"
        time.sleep(0.02)


def ask(
    backend: EmbeddedBackend,
    limit_s: float = LIMIT_S,
    cancel_token: CancelToken | None = None,
    pixels: Pixels = PIXELS,
) -> int:
    bands = backend.upscale_bands(
        pixels,
        "compact_x4",
        deadline=time.monotonic() + limit_s,
        request_id="id",
        cancel_token=cancel_token or CancelToken(),
    )
    return len(list(bands))


def test_failed_boot_is_reported_and_the_next_succeeds(tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(ROOT / "model_repository", models)
    step = models / "swinir" / "1" / "model.py"
    sound = step.read_text()
    step.write_text("raise RuntimeError('a step that cannot be loaded')\n")
    settings = Settings(state_dir=str(tmp_path / "state"), model_repository=str(models), max_pixels=70)
    backend = EmbeddedBackend(settings)
    backend.start()
    try:
        with pytest.raises(BackendStillBootingError):
            ask(backend, limit_s=0.1)
        assert backend.state_tracker.current().name == "booting", "slow is not failed"
        with pytest.raises(BackendNotStartedError, match="did not start"):
            backend.wait_until_ready(time.monotonic() + READY_LIMIT_S)
        assert backend.state_tracker.current().name == "failed"
        assert backend.state_tracker.current().usual_boot_s is None
        log = (tmp_path / "state" / "triton.log").read_text()
        assert "a step that cannot be loaded" in log

        step.write_text(sound)
        backend.wake()
        assert backend.state_tracker.current().name == "booting"
        cancel_token = CancelToken()
        cancel_token.cancel()
        with pytest.raises(CancelledError):
            ask(backend, cancel_token=cancel_token)
        assert ask(backend) == 1
        assert backend.state_tracker.current().name == "up"

        with pytest.raises(BackendRejectedError, match=r"72 pixels .* the limit for compact_x4 is 70"):
            ask(backend, pixels=np.zeros((9, 8, 3), np.uint8))
    finally:
        backend.close()
