"""Loads docker/triton/alive, the health check of Triton's image, as a module."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from testing.data import ROOT

ALIVE = ROOT / "docker" / "triton" / "alive"


def load_alive(monkeypatch: pytest.MonkeyPatch, folder: Path, key_file: Path, **environ: str) -> ModuleType:
    """Return the script with these variables. `folder` has its note, and links to the processes that it sees.

    It must not see this machine's, because other tests run servers and kill stubs.
    """
    variables = {
        "MODEL_KEY_FILE": str(key_file),
        "PROCESSES": str(folder),
        "NOTE": str(folder / "note.json"),
        **environ,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    loader = importlib.machinery.SourceFileLoader("alive", str(ALIVE))
    spec = importlib.util.spec_from_loader("alive", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    return module


def link_processes(folder: Path, pids: list[int]) -> None:
    """Let the script see these processes of this machine."""
    for pid in pids:
        (folder / str(pid)).symlink_to(f"/proc/{pid}")
