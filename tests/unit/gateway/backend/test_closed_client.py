"""Calls of a client that was closed, as by another thread between a request's check and its call."""

from __future__ import annotations

import subprocess
import sys

ROUNDS = 3_000
PROGRAM = f"""
import time
from gateway.backend.interface import BackendUnavailableError
from gateway.backend.triton_client import TritonClient
from gateway.cancellation import CancelToken

for _ in range({ROUNDS}):
    client = TritonClient("127.0.0.1:9", ["key"])
    client.close()
    try:
        client.wait_until_ready(time.monotonic() + 60, CancelToken())
    except BackendUnavailableError as error:
        assert "closed" in str(error), error
    else:
        raise AssertionError("a closed client is ready")
print("survived")
"""


def test_calls_of_a_closed_client_never_end_the_process() -> None:
    """In a process of its own: a stub made for a closed channel ended it with a segmentation fault."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr
