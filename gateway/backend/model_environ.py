"""The environment variables by which the gateway's settings reach the models of the embedded Triton."""

from __future__ import annotations

import logging

from gateway.config.settings import Settings
from swinir.auto import AUTO, choose_warm_variant

_log = logging.getLogger(__name__)

# glibc's malloc in Triton's processes: two heaps for all threads instead of eight per core, blocks of 8 MiB and more
# go back to the system when freed, and at most 32 MiB stay free at the end of a heap. By default tritonserver keeps
# twice as much memory after large results (docs/measurements/stack.md).
SERVER_MALLOC = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
}


def make_model_environ(settings: Settings) -> dict[str, str]:
    """Return the variables that `swinir.settings` reads, and those for OpenMP, OpenBLAS and malloc."""
    environ = {
        **SERVER_MALLOC,
        "SUPERRES_WEIGHTS_DIR": str(settings.weights_path()),
        "SUPERRES_DEFAULT_VARIANT": choose_warm_variant(settings.default_variant, settings.offered()),
        # OpenMP threads that spin while they wait slow the engine by 10x as soon as another process needs a core
        # (measured with two busy processes: 72x72 in 2.2 s instead of 0.12 s). Sleeping threads cost nothing.
        "OMP_WAIT_POLICY": "passive",
        # The same of NumPy's OpenBLAS, whose threads always spin. The engine has threads of its own.
        "OPENBLAS_NUM_THREADS": "1",
        "SUPERRES_MAX_WEIGHTS_BYTES": str(settings.max_weights_bytes),
        "SUPERRES_ENGINE": settings.engine,
        "SUPERRES_PRECISION": settings.precision,
        # The embedded server takes what the gateway takes.
        "SUPERRES_MAX_PIXELS": str(settings.max_pixels),
        "SUPERRES_MAX_OUTPUT_PIXELS": str(settings.max_output_pixels),
    }
    if settings.engine_threads:
        environ["SUPERRES_ENGINE_THREADS"] = str(settings.engine_threads)
    return environ


def warn_of_missing_default(settings: Settings) -> None:
    """Log a warning when the default variant has no weights here."""
    if settings.default_variant not in (AUTO, *settings.offered()):
        _log.warning(
            "default_variant %s has no weights here. Requests that name no variant are rejected until you fetch "
            "them: superres weights fetch %s",
            settings.default_variant,
            settings.default_variant,
        )
