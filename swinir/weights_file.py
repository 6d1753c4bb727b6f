"""The header of a weights file (safetensors), read without torch: its metadata, and whether the file is complete.

A header is read once for each version of its file. Looking at an unchanged file again costs one `stat`, so nothing has
to watch the weights folder: every request looks.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

# Maximum size of a safetensors header; that of real_large_x4 has 100 kB.
MAX_HEADER_BYTES = 4_000_000
# Maximum size of a weights file; the largest published one has 142 MB. The engine reads a file into memory to load it.
MAX_WEIGHTS_FILE_BYTES = 1_000_000_000
SUFFIX = ".safetensors"
# Files whose headers are remembered: the 30 published ones and many imported ones.
_MAX_REMEMBERED = 512
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class WeightsHeader:
    """What the header of one version of a weights file says."""

    metadata: Mapping[str, Any]
    fault: str = ""
    """Why the file cannot be served, such as that half of it is missing; empty for a complete file."""


def list_weights_files(weights_dir: Path | None) -> Mapping[str, Path]:
    """Return the files NAME.safetensors in a folder by name, in order; none if the folder does not exist."""
    if weights_dir is None:
        return {}
    try:
        with os.scandir(weights_dir) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(SUFFIX) and entry.name[0] != ".")
    except OSError:
        return {}
    return {name.removesuffix(SUFFIX): weights_dir / name for name in names}


def read_header(path: Path) -> WeightsHeader:
    """Return the header of a weights file; of a file that cannot be read, its fault."""
    try:
        return _read(str(path), file_version(path))
    except OSError as error:  # not remembered: the next look may succeed
        return WeightsHeader({}, f"it cannot be read: {error.strerror}")


def is_complete(path: Path) -> bool:
    """Return whether a weights file exists and is complete. Its tensors are not read."""
    return not read_header(path).fault


def file_version(path: Path) -> tuple[int, ...]:
    """Return a value that changes with the file: its times, size and inode. Raises OSError, also for a folder."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait without end
        raise OSError(errno.EINVAL, "not a file", str(path))
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=_MAX_REMEMBERED)
def _read(path: str, version: tuple[int, ...]) -> WeightsHeader:
    """Read the header: 8 bytes of length, then JSON, then exactly the bytes of the tensors that it lists."""
    size_bytes = version[2]
    if size_bytes > MAX_WEIGHTS_FILE_BYTES:
        return WeightsHeader({}, f"it has {size_bytes:,} bytes; {MAX_WEIGHTS_FILE_BYTES:,} is the limit")
    with Path(path).open("rb") as file:
        start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
        if length > MAX_HEADER_BYTES:
            return WeightsHeader({}, f"its header has {length:,} bytes; {MAX_HEADER_BYTES:,} is the limit")
        text = file.read(length)
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        expected = _LENGTH.size + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        return WeightsHeader({}, f"it is not a safetensors file: {str(error)[:200]}")
    fault = "" if expected == size_bytes else f"it has {size_bytes:,} bytes, expected {expected:,}"
    return WeightsHeader(metadata if isinstance(metadata, dict) else {}, fault)
