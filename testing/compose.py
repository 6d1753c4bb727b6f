"""Reads docker-compose.yml with Docker Compose."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

from testing.data import ROOT


def compose(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Docker Compose on the project's file without starting anything."""
    binary = Path(sysconfig.get_path("scripts")) / "docker-compose"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "DOCKER_"))}
    return subprocess.run(
        [binary, "--project-directory", ROOT, *arguments],
        env={**clean, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@cache
def services() -> dict[str, dict[str, Any]]:
    done = compose("--profile", "*", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    read: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return read
