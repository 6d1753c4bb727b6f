"""The C library of the network, compiled for a test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from swinir.inference import tiles
from swinir.network import library


def forget_library() -> None:
    """Let the process look for the library again."""
    for cached in (library.load_library, library.find_library, library.has_bfloat16, tiles.are_usable):
        cached.cache_clear()


def compile_changed(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, change: tuple[str, str]) -> None:
    """Compile the library from sources in ``folder`` of which the file ``name`` is changed, and let it be found.

    Optimised less than the real one: what it computes must only be wrong, and it is compiled in half the time.
    """
    before, after = change
    sources = {path.name: folder / path.name for path in (library.SOURCE, *library.OTHER_SOURCES, *library.HEADERS)}
    for path in (library.SOURCE, *library.OTHER_SOURCES, *library.HEADERS):
        shutil.copy(path, folder)
    text = sources[name].read_text()
    assert before in text
    sources[name].write_text(text.replace(before, after))
    monkeypatch.setattr(library, "SOURCE", sources[library.SOURCE.name])
    for names in ("OTHER_SOURCES", "HEADERS"):
        monkeypatch.setattr(library, names, tuple(sources[path.name] for path in getattr(library, names)))
    monkeypatch.setattr(library, "FLAGS", tuple("-O1" if flag == "-O3" else flag for flag in library.FLAGS))
    monkeypatch.setattr(library, "COMPILED", folder / "compiled")
    library.compile_library()
    forget_library()


def compile_with(monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str) -> Any:
    """Compile the library into ``folder`` with these flags as well, and return it."""
    monkeypatch.setattr(library, "COMPILED", folder)
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS, *flags))
    library.compile_library()
    forget_library()
    return library.load_library()
