"""Starts the real gateway with a fake backend in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testing.data import ROOT

START_LIMIT_S = 120.0


@dataclass
class Served:
    """A running gunicorn with a fake backend."""

    process: subprocess.Popen[str]
    port: int
    state_dir: Path
    first_line: str
    front_port: int = 0
    """Port of the origin that may embed the page in an iframe; 0 if there is none."""

    def log(self) -> str:
        return (self.state_dir / "gateway.log").read_text()


@contextmanager
def serving(state_dir: Path, *arguments: str, **variables: str) -> Iterator[Served]:
    """Serve in a separate process until the block ends; `arguments` go to testing.serve_fake."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SUPERRES_", "PORT"))}
    environ |= {"SUPERRES_STATE_DIR": str(state_dir), "SUPERRES_PORT": "0", "SUPERRES_CACHE_MAX_BYTES": "0"}
    environ["SUPERRES_SMALL_JOBS_PER_SLOT"] = "1"  # the images of most tests are small
    environ |= variables
    process = subprocess.Popen(
        [sys.executable, "-m", "testing.serve_fake", *arguments],
        cwd=ROOT,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    limit = threading.Timer(START_LIMIT_S, process.kill)
    limit.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        limit.cancel()
        if "ready at" not in line:
            process.kill()
            raise AssertionError(f"the server did not start: {line!r} {process.communicate()[1]}")
        yield Served(process, int(line.rsplit(":", 1)[1]), state_dir, line)
    finally:
        limit.cancel()
        process.terminate()
        try:
            process.communicate(timeout=START_LIMIT_S)
        finally:
            process.kill()


def read_worker_pid(server: Served) -> int:
    """Return the process id of gunicorn's only worker."""
    pid = server.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def read_memory_bytes(pid: int, name: str) -> int:
    """Return VmRSS or VmHWM (the peak of VmRSS) of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
