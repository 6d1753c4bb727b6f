"""Write and read requirements.lock: the exact version and the hashes of every package that anything here installs.

``python scripts/lock.py write`` (`make lock`) resolves pyproject.toml with uv. A comment before each entry of the file
names the targets that the entry belongs to. ``select TARGET...`` prints the entries of those targets, for
`pip install --require-hashes --no-deps -r`. The file names no package index: pip asks the configured one. ``torch``
prints which build of torch to install. `select` and `torch` need only the standard library and pip: `make run` and the
Dockerfiles call them before anything is installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = Path("requirements.lock")
# Extras of pyproject.toml that each target installs.
TARGETS: dict[str, tuple[str, ...]] = {
    "gateway": (),  # docker/gateway.Dockerfile
    "gateway-tracing": ("tracing",),  # the same with --build-arg PACKAGES=gateway-tracing
    "gateway-webhooks": ("webhooks",),  # the same with --build-arg PACKAGES=gateway-webhooks
    "gateway-all": ("tracing", "webhooks"),
    "run": ("embedded", "client", "webhooks"),  # make run
    "test": ("embedded", "client", "mcp", "plan", "tracing", "webhooks", "dev", "release"),  # make test
}
# docker/triton.Dockerfile installs what the Triton models import, and not the gateway.
TRITON_PACKAGES = ("numpy", "pillow", "safetensors", "torch")
# pip itself and the build backend, installed before anything else.
TOOLS = ("pip", "setuptools")
# torch and the packages that only its CUDA build needs, about 3 GB. A CPU build from another index replaces them.
CUDA = re.compile(r"(torch|triton|cuda-.*|nvidia-(?!pytriton).*)")
# Of these, what tests need with every build of torch: its own version of the Triton language.
CUDA_FOR_TESTS = ("triton",)
_ENTRY = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)")
_MARK = "# targets: "
_HEADER = """\
# Written by `make lock` from pyproject.toml: do not edit. Every package with its exact version and hashes.
# The line above an entry names the targets that install it; `python scripts/lock.py select TARGET` prints them.
"""


def main(arguments: Sequence[str]) -> int:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="resolve pyproject.toml and write requirements.lock (needs uv)")
    write.add_argument("--upgrade", action="store_true", help="take the newest versions that pyproject.toml allows")
    select = commands.add_parser("select", help="print the entries of the targets")
    select.add_argument("targets", nargs="+", choices=[*TARGETS, "triton", "tools", "cuda"])
    commands.add_parser(
        "torch", help="print the build of torch to install: installed, locked, or the one that pip finds"
    )
    chosen = parser.parse_args(arguments)
    if chosen.command == "write":
        (ROOT / LOCK).write_text(write_lock(ROOT / "pyproject.toml", ROOT / LOCK, is_upgrade=chosen.upgrade))
        return 0
    lock = (ROOT / LOCK).read_text()
    try:
        wanted = os.environ.get("TORCH", "")
        text = choose_torch(lock, wanted, _installed_torch()) if chosen.command == "torch" else None
    except TorchBuildError as error:
        sys.stderr.write(f"setup: {error}\n")
        return 1
    sys.stdout.write(select_entries(lock, chosen.targets) if text is None else f"{text}\n")
    return 0


class TorchBuildError(Exception):
    """The build of torch that was asked for cannot be installed."""


def choose_torch(lock: str, wanted: str, installed: str) -> str:
    """Return "locked" for the build in `lock`, "installed", or the requirement of the build that pip finds elsewhere.

    `wanted` is "cpu", "cuda" or empty. Empty keeps the `installed` version if it is the pinned one. Otherwise it takes
    a CPU build if pip is configured with an index or a folder that has one: such a build has a local version, like
    2.13.0+cpu, which pip prefers. Its hash is not in the lock file.
    """
    if wanted not in {"", "cpu", "cuda"}:
        raise TorchBuildError(f"Unknown TORCH={wanted!r}: use cpu, cuda, or leave it out.")
    requirement = next(line.split()[0] for line in lock.splitlines() if line.startswith("torch=="))
    version, _, build = installed.partition("+")
    if version == requirement.removeprefix("torch==") and wanted in {"", "cpu" if build == "cpu" else "cuda"}:
        return "installed"
    if wanted == "cuda":
        return "locked"
    found = _metadata_of(requirement)
    if "+" in found["version"]:
        return requirement
    if wanted == "cpu" and any(CUDA.match(line) for line in found.get("requires_dist", [])):
        raise TorchBuildError(
            f"TORCH=cpu: the package index of this pip has only the CUDA build of {requirement}. Configure an index "
            "that has the CPU build (pip config set global.extra-index-url ADDRESS; PyTorch's installation page has "
            "the address), or leave TORCH=cpu out. See docs/how-to/install.md."
        )
    return "locked"


def _installed_torch() -> str:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _metadata_of(requirement: str) -> dict[str, Any]:
    """Return the metadata of the package file that pip would install for a requirement; downloads no package."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--dry-run",
        "--no-deps",
    ]
    command += ["--ignore-installed", "--report=-", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command line
    if done.returncode:
        raise TorchBuildError(f"pip cannot find {requirement}: {done.stderr.strip()[-500:]}")
    metadata: dict[str, Any] = json.loads(done.stdout)["install"][0]["metadata"]
    return metadata


def select_entries(lock: str, targets: Sequence[str]) -> str:
    """Return the entries of `lock` that belong to at least one of the targets, as a requirements file."""
    found, is_wanted = [], False
    for line in lock.splitlines(keepends=True):
        if line.startswith(_MARK):
            is_wanted = not set(targets).isdisjoint(line.removeprefix(_MARK).split())
        elif is_wanted and not line.startswith("#"):
            found.append(line)
    return "".join(found)


def write_lock(project: Path, current: Path, *, is_upgrade: bool) -> str:
    """Return the text of a lock file for `project`; versions of the `current` one stay where they still fit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = folder / "all.txt"
        if current.exists() and not is_upgrade:
            whole.write_text(current.read_text())  # uv keeps the versions of the file that it overwrites
        everything = _compile(project, [f"--extra={extra}" for extra in TARGETS["test"]], whole)
        members = {
            target: set(_entries(_compile(project, [f"--extra={extra}" for extra in extras], folder / "one", whole)))
            for target, extras in TARGETS.items()
        }
        images = folder / "triton.in"
        images.write_text("\n".join(_requirements(project, TRITON_PACKAGES)))
        members["triton"] = set(_entries(_compile(images, [], folder / "two", whole)))
    return _HEADER + "".join(
        f"{_MARK}{' '.join(_targets_of(entry, members))}\n{text}" for entry, text in _entries(everything).items()
    )


def _targets_of(entry: tuple[str, str], members: dict[str, set[tuple[str, str]]]) -> list[str]:
    if CUDA.fullmatch(entry[0]):
        return ["test", "cuda"] if entry[0] in CUDA_FOR_TESTS else ["cuda"]
    return [target for target, entries in members.items() if entry in entries] + ["tools"] * (entry[0] in TOOLS)


def _compile(source: Path, options: Sequence[str], output: Path, constraints: Path | None = None) -> str:
    """Have uv resolve `source` for every supported Python, and return what it wrote to `output`."""
    flags = ["--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate", "--python-version=3.11"]
    flags += ["--no-emit-index-url", "--no-emit-find-links", "--no-strip-extras"]
    command = ["uv", "pip", "compile", *flags, *options, f"--output-file={output}", str(source)]
    if constraints:
        command.append(f"--constraints={constraints}")
    subprocess.run(command, check=True)  # noqa: S603 - our own command line
    return output.read_text()


def _entries(compiled: str) -> dict[tuple[str, str], str]:
    """Return the text of each entry of a compiled file by (name, version), without extras in the name."""
    entries: dict[tuple[str, str], str] = {}
    key = ("", "")
    for line in compiled.splitlines(keepends=True):
        plain = re.sub(r"^([a-z0-9._-]+)\[[^\]]*\]", r"\1", line)
        if match := _ENTRY.match(plain):
            key = (match[1], match[2])
        if not line.startswith("#"):
            entries[key] = entries.get(key, "") + plain
    return entries


def _requirements(project: Path, names: Sequence[str]) -> list[str]:
    """Return the requirement lines of pyproject.toml for some packages, wherever they stand in it."""
    read = tomllib.loads(project.read_text())["project"]
    lines = [*read["dependencies"], *(line for extra in read["optional-dependencies"].values() for line in extra)]
    return [line for line in lines if re.split(r"[=;\[ ]", line)[0] in names]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
