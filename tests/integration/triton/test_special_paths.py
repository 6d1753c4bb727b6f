"""A real Triton starts with its models, its log and TMPDIR in folders whose names are special to a shell."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from testing.data import ROOT
from testing.triton import run_server


def test_models_in_a_folder_with_spaces_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a folder" / "with spaces (R&D) it's $HOME"
    shutil.copytree(ROOT / "model_repository", folder / "models", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    with run_server(folder, environ={}, model_repository=folder / "models") as server:
        assert server.process.is_ready()
