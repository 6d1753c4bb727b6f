"""One `make run` for every page whose blocks need a running service."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from testing.data import ROOT
from testing.pages import reader_environ
from testing.stack import read_until_ready

BOOT_LIMIT_S = 180.0


@pytest.fixture(scope="session")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return reader_environ(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def service(environ: dict[str, str]) -> Iterator[list[str]]:
    """Start `make run` and yield what it printed until it was ready."""
    process = subprocess.Popen(
        ["make", "run"],
        cwd=ROOT,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield read_until_ready(process, BOOT_LIMIT_S)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=120)
