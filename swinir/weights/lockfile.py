"""The lock file: the hashes of all fetched, converted and imported weights, next to the weights themselves.

When no project pins the hash of a published file, the first hash is recorded here, and later downloads must match it
(trust on first use). Written by atomic rename, one writer at a time. The JSON is readable and suits version control.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from swinir.errors import WeightsError

NAME = "weights.lock.json"


@dataclass(frozen=True)
class LockedWeights:
    """The recorded facts about the files of a variant."""

    file: str
    """File name of the published or imported checkpoint."""
    sha256: str
    """Hash of that checkpoint."""
    size_bytes: int
    """Size of that checkpoint."""
    trust: str
    """Where the hash comes from: "pinned" (by the zoo), "first use" or "imported"."""
    converted_sha256: str
    """Hash of the safetensors file converted from it."""


class LockFile:
    """The lock file of one folder of weights."""

    def __init__(self, weights_dir: Path) -> None:
        self._path = weights_dir / NAME

    def find(self, variant: str) -> LockedWeights | None:
        """Return the entry of a variant; raises WeightsError when the lock file cannot be read."""
        return self._read().get(variant)

    def record(self, variant: str, entry: LockedWeights) -> None:
        """Add or replace a variant's entry."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY)  # the folder is locked, because the file itself is replaced
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            entries = {**self._read(), variant: entry}
            partial = self._path.with_name(f".{NAME}.{os.getpid()}")
            text = json.dumps({name: asdict(each) for name, each in sorted(entries.items())}, indent=2)
            partial.write_text(text + "\n")
            partial.replace(self._path)
        finally:
            os.close(folder)

    def _read(self) -> dict[str, LockedWeights]:
        try:
            found = json.loads(self._path.read_text())
            return {name: LockedWeights(**entry) for name, entry in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{self._path} cannot be read ({error}). Repair it, or remove it to trust the next downloads again."
            ) from error


def hash_file(path: Path) -> str:
    """Return a file's sha256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
