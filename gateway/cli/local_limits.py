"""Limits of `superres upscale` on one's own machine: as large as its memory permits, unless a setting gives others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil

from gateway.config.environment import SettingsRead
from gateway.config.fields import Value
from gateway.config.settings import Settings
from preprocessing.codec import MAX_DECODED_PIXELS
from preprocessing.working_memory import DECODER_BYTES, ENCODER_BYTES

# A band of this many columns at 4x has 201 MB, and Triton holds three of them.
MAX_SIDE = 16_384
MAX_OUTPUT_PIXELS = 1_000_000_000
MAX_FILE_BYTES = 1_000_000_000
# Nobody else waits for the images of a command. The watch for hangs ends one that makes no progress.
DEADLINE_S = 3_600.0

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def with_local_limits(read: SettingsRead, memory_bytes: int | None = None) -> Settings:
    """Return the settings with larger limits where none was set.

    Half of the machine's memory, or of `memory_bytes`, may be used. A Triton elsewhere has limits of its own, which the
    settings of the gateway describe, so with `backend_address` nothing changes.
    """
    settings = read.settings
    if settings.backend_address:
        return settings
    job_bytes = max((memory_bytes or find_memory_bytes()) // 2, settings.max_job_memory_bytes)
    if read.sources["max_job_memory_bytes"] != "default":
        job_bytes = settings.max_job_memory_bytes
    limits: dict[str, Value] = {
        "max_job_memory_bytes": job_bytes,
        "max_pixels": min(MAX_DECODED_PIXELS, job_bytes // DECODER_BYTES),
        "max_output_pixels": min(MAX_OUTPUT_PIXELS, job_bytes // ENCODER_BYTES["png"][0]),
        "max_side": MAX_SIDE,
        "max_upload_bytes": MAX_FILE_BYTES,
        "deadline_s": DEADLINE_S,
    }
    unset = {name: value for name, value in limits.items() if read.sources[name] == "default"}
    return replace(settings, **unset)  # type: ignore[arg-type]  # each value has the type of its field


def find_memory_bytes(cgroup_limit: Path = _CGROUP_LIMIT) -> int:
    """Return the memory of this machine, or of the container if it may use less."""
    total = psutil.virtual_memory().total
    try:
        return min(total, int(cgroup_limit.read_text()))
    except (OSError, ValueError):  # no cgroup, or "max"
        return total
