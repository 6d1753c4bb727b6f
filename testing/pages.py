"""Run the code blocks of README and docs the way a reader would."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from testing.data import ROOT
from testing.ports import find_free_port

SECRET = "our-secret"
_SHOWN_PORTS = {":8080": "PORT", ":8001": "SUPERRES_TRITON_GRPC_PORT"}


def read_code_blocks(page: str) -> list[tuple[str, str]]:
    """Return (language, text) of every fenced block of a page, given by its path from the project's root."""
    return re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def reader_environ(state_dir: Path) -> dict[str, str]:
    """Return what the README sets, on free ports, with a state folder of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SUPERRES_", "MAKE"))}
    return clean | {
        "PORT": str(find_free_port()),
        "SUPERRES_TRITON_GRPC_PORT": str(find_free_port()),
        "SUPERRES_MODEL_KEY": SECRET,
        "SUPERRES_STATE_DIR": str(state_dir),
    }


def run_block(command: list[str], text: str, environ: dict[str, str], folder: Path) -> str:
    """Run `command` with the block as its last argument, in a folder that looks like the clone; return its output."""
    for name in (".venv", "tests", "README.md"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    for shown, variable in _SHOWN_PORTS.items():
        text = text.replace(shown, f":{environ[variable]}")
    done = subprocess.run([*command, text], cwd=folder, env=environ, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout
