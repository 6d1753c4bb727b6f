"""Complete weights files without a network, for tests that do not run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_weights_file(weights_dir: Path, name: str, metadata: dict[str, Any] | None = None, missing: int = 0) -> Path:
    """Write a safetensors file with one tensor of 64 bytes, of which the last `missing` bytes are missing."""
    tensor = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}
    header = json.dumps({"__metadata__": metadata or {"variant": name}, "a": tensor}).encode()
    weights_dir.mkdir(parents=True, exist_ok=True)
    path = weights_dir / f"{name}.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64 - missing))
    return path
