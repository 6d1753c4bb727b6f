"""Settings of the engine, read from the environment, and NumPy's; no other module of this package reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from swinir.networkless import AUTO, NEAREST
from swinir.zoo import DEFAULT_VARIANT

# Enough for all bundled variants and ten of the published medium networks (95 MB each on a CPU: 47 as in the file,
# 48 packed for the fused block).
MAX_WEIGHTS_BYTES = 1_000_000_000

Choice = TypeVar("Choice", bound=str)
Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
EngineChoice = Literal["auto", "torch"]
ENGINES: tuple[EngineChoice, ...] = get_args(EngineChoice)


@dataclass(frozen=True)
class EngineSettings:
    """Settings that the launcher or the container passes to the engine."""

    weights_dir: Path | None
    """Folder of fetched and imported weights; None: only the bundled weights."""
    default_variant: str
    """Variant that is loaded and run once before the server reports ready."""
    threads: int | None
    """Threads of torch on a CPU; None: one per core that this process may use and its container grants."""
    max_weights_bytes: int
    """Memory for weights; above it the least recently used variant is evicted."""
    engine: EngineChoice
    """torch: PyTorch, which GPUs always use; auto: on a CPU the compiled engine where it can be used."""
    precision: Precision
    """float32, bfloat16, or auto: bfloat16 where it is quicker and close enough."""
    image_limits: Mapping[str, int]
    """`max_pixels` and `max_output_pixels` of the model `upscale_stream`, where they differ from its configuration."""


def read_settings(environ: Mapping[str, str] = os.environ) -> EngineSettings:
    """Read the variables SUPERRES_ that are named like the fields, and SUPERRES_ENGINE_THREADS."""
    weights_dir = environ.get("SUPERRES_WEIGHTS_DIR")
    threads = environ.get("SUPERRES_ENGINE_THREADS")
    # Gateway and engine may share one environment; the gateway's choices without a network mean nothing here.
    default_variant = environ.get("SUPERRES_DEFAULT_VARIANT", "")
    return EngineSettings(
        weights_dir=Path(weights_dir) if weights_dir else None,
        default_variant=DEFAULT_VARIANT if default_variant in ("", AUTO, NEAREST.name) else default_variant,
        threads=int(threads) if threads else None,
        max_weights_bytes=int(environ.get("SUPERRES_MAX_WEIGHTS_BYTES") or MAX_WEIGHTS_BYTES),
        engine=_read_choice("SUPERRES_ENGINE", ENGINES, environ),
        precision=_read_choice("SUPERRES_PRECISION", PRECISIONS, environ),
        image_limits={
            name: int(value)
            for name in ("max_pixels", "max_output_pixels")
            if (value := environ.get(f"SUPERRES_{name.upper()}"))
        },
    )


def limit_numpy_threads() -> None:
    """Give NumPy one thread, unless a number of threads is set. Has an effect only before NumPy is imported.

    OpenBLAS, which multiplies matrices for NumPy, lets its other threads spin for 2^26 cycles of the clock after each
    large product. So the choice of a variant for a small image costs several times its own CPU time, on the cores that
    the backend needs.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _read_choice(name: str, choices: tuple[Choice, ...], environ: Mapping[str, str]) -> Choice:
    """Return the value of a variable, by default the first choice. Raises ValueError for an unknown value."""
    text = environ.get(name) or choices[0]
    for choice in choices:
        if text == choice:
            return choice
    raise ValueError(f"Invalid {name} {text!r}: expected one of {', '.join(choices)}.")
