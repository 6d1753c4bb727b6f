"""Image files for tests of the command line."""

from __future__ import annotations

from pathlib import Path

from testing import images


def draw_file(path: Path, seed: int, side: int = 8) -> Path:
    """Write a small PNG, whose folder is made, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(images.encode_png(images.draw_photo(side, side, seed)))
    return path
