"""Compiles gateway/browser/compact_x4.c to gateway/static/preview.wasm: `python -m scripts.preview_wasm`.

Needs the compiler of `pip install ziglang==0.13.0` (an 81 MB download, so it is not among the development packages).
With that version the result is the same on every machine, byte for byte; `--check` compares it with the file. The file
also has the SHA-256 of its source, which a test compares.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "gateway" / "browser" / "compact_x4.c"
TARGET = ROOT / "gateway" / "static" / "preview.wasm"
ZIG = "0.13.0"
FEATURES = "-mcpu=generic+simd128+bulk_memory+nontrapping_fptoint"
# No contraction to fused operations: the same sums as on the machine of the test.
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fvisibility=hidden")
LINKING = ("-nostdlib", "-fno-builtin", "-Wl,--no-entry", "-Wl,--export-dynamic", "-Wl,--strip-all")


def source_digest() -> str:
    """Return the SHA-256 of the source, which the module contains."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def build(target: Path) -> None:
    """Compile the source to `target`. Raises CalledProcessError."""
    zig = [sys.executable, "-m", "ziglang"]
    version = subprocess.run([*zig, "version"], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - our own command
    if version != ZIG:
        sys.exit(f"ziglang {version} is installed; the module is built with {ZIG}: pip install ziglang=={ZIG}")
    define = f'-DSOURCE_SHA256="{source_digest()}"'
    command = [*zig, "cc", "-target", "wasm32-freestanding", FEATURES, *FLAGS, define, *LINKING]
    subprocess.run([*command, str(SOURCE), "-o", str(target)], check=True, cwd=ROOT)  # noqa: S603 - our own command


def main() -> None:
    """Build the module, or with --check compare a new build with it."""
    if "--check" not in sys.argv[1:]:
        build(TARGET)
        TARGET.chmod(0o644)
        sys.stdout.write(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size:,} bytes\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / TARGET.name
        build(new)
        if new.read_bytes() != TARGET.read_bytes():
            sys.exit(f"{TARGET.relative_to(ROOT)} differs from a new build: python -m scripts.preview_wasm")
    sys.stdout.write(f"{TARGET.relative_to(ROOT)} equals a new build\n")


if __name__ == "__main__":
    main()
