"""How long the arbiter waits for its worker, and what its documents say about it."""

from __future__ import annotations

import inspect
import re

from gateway.backend.triton_process import STUBS_GRACE_S, TritonProcess
from gateway.server import max_shutdown_s
from gateway.usage.meter import CLOSE_LIMIT_S
from gateway.wsgi.arbiter import CLOSE_S
from testing.data import ROOT


def test_worker_has_time_to_close_the_meter_and_the_embedded_triton() -> None:
    triton_s = float(inspect.signature(TritonProcess.stop).parameters["grace_s"].default) + STUBS_GRACE_S
    last_write_s = 2.0  # Redis: look-up, connection and response have limits of 1 s together

    assert CLOSE_LIMIT_S + last_write_s + triton_s <= CLOSE_S


def test_documents_have_the_time_of_a_stop() -> None:
    beyond_drain = f"{max_shutdown_s(0):g}"

    for name in ("docs/how-to/operate.md", "docs/how-to/deploy-kubernetes.md"):
        assert re.findall(r"`drain_s` \+ (\d+)", (ROOT / name).read_text()) == [beyond_drain], name
    assert f"SUPERRES_DRAIN_S and the {beyond_drain} s" in (ROOT / "docs/how-to/systemd.md").read_text()
