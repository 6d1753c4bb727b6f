"""What the backend's process reads from its environment; the one place in this room that does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swinir.zoo import DEFAULT_VARIANT

MAX_WEIGHTS_BYTES = 1_000_000_000
"""All the bundled variants, and ten of the published M networks (95 MB each on a CPU: 47 as in the file, 48 packed)."""


@dataclass(frozen=True)
class EngineSettings:
    """The engine's settings, as the launcher or the container's manifest gives them."""

    weights_dir: Path | None
    """Where fetched and imported weights lie; none: the bundled ones alone."""
    default_variant: str
    """Loaded and warmed up before the server says ready."""
    threads: int | None
    """Of torch on a CPU; none: one a core that this process may use and its container grants."""
    max_weights_bytes: int
    """Memory for weights; beyond it the variant that was used least recently is put away."""


def read_settings(environ: Mapping[str, str] = os.environ) -> EngineSettings:
    """Read SUPERRES_WEIGHTS_DIR, SUPERRES_DEFAULT_VARIANT, SUPERRES_ENGINE_THREADS and SUPERRES_MAX_WEIGHTS_BYTES."""
    weights_dir = environ.get("SUPERRES_WEIGHTS_DIR")
    threads = environ.get("SUPERRES_ENGINE_THREADS")
    return EngineSettings(
        weights_dir=Path(weights_dir) if weights_dir else None,
        default_variant=environ.get("SUPERRES_DEFAULT_VARIANT") or DEFAULT_VARIANT,
        threads=int(threads) if threads else None,
        max_weights_bytes=int(environ.get("SUPERRES_MAX_WEIGHTS_BYTES") or MAX_WEIGHTS_BYTES),
    )
