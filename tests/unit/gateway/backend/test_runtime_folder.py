"""The temporary folder of an embedded Triton has a path that a shell reads as one word, wherever the project lies."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

import pytest

from gateway.backend import runtime_folder
from gateway.backend.runtime_folder import FOLDER_PREFIX, RuntimeFolder
from gateway.backend.triton_install import EmbeddedServerError, TritonPaths

SPECIAL_NAMES = [
    "with spaces",
    "tab\there",
    "line\nbreak",
    "(copy)",
    "R&D",
    "it's",
    'a "quote"',
    "$HOME",
    "a;b",
    "*",
    "ü",
]


@pytest.fixture
def triton(tmp_path: Path) -> TritonPaths:
    """Paths of a wheel; the folder links to them and never opens them."""
    return TritonPaths(tmp_path / "tritonserver", tmp_path / "python", tmp_path / "the_stub", tmp_path / "libs")


@pytest.mark.parametrize("name", SPECIAL_NAMES)
def test_models_are_linked_under_a_plain_path(tmp_path: Path, triton: TritonPaths, name: str) -> None:
    models = tmp_path / name / "models"
    models.mkdir(parents=True)
    (models / "config.pbtxt").touch()

    folder = RuntimeFolder(triton, models)

    try:
        assert (folder.models / "config.pbtxt").exists()
        for path in (folder.models, folder.backends / "python" / "the_stub"):
            assert shlex.quote(str(path)) == str(path)
    finally:
        folder.remove()
    assert not folder.path.exists()
    assert (models / "config.pbtxt").exists(), "only the link is removed"


@pytest.mark.parametrize("name", SPECIAL_NAMES)
def test_temporary_folder_with_special_characters_is_skipped(
    tmp_path: Path, triton: TritonPaths, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "plain").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    monkeypatch.setattr(runtime_folder, "_FALLBACKS", (str(tmp_path / "missing"), str(tmp_path / "plain")))

    folder = RuntimeFolder(triton, tmp_path)

    try:
        assert folder.path.parent == tmp_path / "plain"
        assert folder.path.name.startswith(FOLDER_PREFIX)
    finally:
        folder.remove()


def test_start_without_usable_temporary_folder_names_tmpdir(
    tmp_path: Path, triton: TritonPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with spaces").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "with spaces"))
    monkeypatch.setattr(runtime_folder, "_FALLBACKS", (str(tmp_path / "missing"),))

    with pytest.raises(EmbeddedServerError, match=r"no spaces or special characters.*with spaces.*Set TMPDIR"):
        RuntimeFolder(triton, tmp_path)
