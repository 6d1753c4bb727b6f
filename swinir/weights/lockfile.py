"""The ledger: which hash each file of weights had when it came, kept beside the weights, so that later ones can differ.

Where nobody pins a published file's hash, the first one seen is written down here and holds ever after (trust on first
use). Written by atomic rename, one writer at a time; meant to be read by people and kept under version control by those
who like.
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
    """What is known of a variant's files."""

    file: str
    """Name of the published or imported checkpoint."""
    sha256: str
    """Of that checkpoint."""
    size_bytes: int
    trust: str
    """"pinned" (the table's hash was met), "first use", or "imported"."""
    converted_sha256: str
    """Of the safetensors file made of it."""


class LockFile:
    """The lock file of one folder of weights."""

    def __init__(self, weights_dir: Path) -> None:
        self._path = weights_dir / NAME

    def find(self, variant: str) -> LockedWeights | None:
        """Return what was written down of a variant."""
        return self._read().get(variant)

    def write_down(self, variant: str, entry: LockedWeights) -> None:
        """Add or replace a variant's entry."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY)  # locked in the ledger's stead, which is replaced
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
                f"{self._path} cannot be read ({error}). Mend it, or remove it to trust anew what lies beside it."
            ) from error


def hash_file(path: Path) -> str:
    """Return a file's sha256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
