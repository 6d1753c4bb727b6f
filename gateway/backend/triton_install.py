"""Locates the Triton server that nvidia-pytriton's wheel carries, and checks that it can run here.

The wheel's server is 2.51 (container 24.10). It predates the security fixes of 2025 and later, so it must never listen
beyond loopback.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

# The wheel has a Python stub for each of these and for no other.
SUPPORTED_PYTHONS = ((3, 11), (3, 12))


class EmbeddedServerError(Exception):
    """The embedded server cannot run here; the message says why and what to do."""


@dataclass(frozen=True)
class TritonPaths:
    """Paths of the parts inside nvidia-pytriton's wheel."""

    binary: Path
    backend: Path
    stub: Path
    libraries: Path


def check_python(version: tuple[int, int], numpy_version: str) -> None:
    """Raise EmbeddedServerError unless the embedded server can run its models on this Python with this numpy."""
    if version not in SUPPORTED_PYTHONS:
        supported = " or ".join(f"{major}.{minor}" for major, minor in SUPPORTED_PYTHONS)
        raise EmbeddedServerError(
            f"The embedded Triton runs its models on Python {supported}; this is {version[0]}.{version[1]}. "
            "Make the virtual environment with one of those, or set SUPERRES_BACKEND_ADDRESS to a server elsewhere."
        )
    if int(numpy_version.split(".", maxsplit=1)[0]) >= 2:
        # Measured: with numpy 2 this server responds with status 200 and the right shape, but without data.
        raise EmbeddedServerError(
            f"numpy is {numpy_version}; with numpy 2 or later the embedded Triton returns empty images. "
            "Install the pinned version: pip install 'numpy>=1.26,<2'."
        )


def find_triton() -> TritonPaths:
    """Locate the server. Raises EmbeddedServerError for a missing wheel, an unsupported Python or numpy."""
    check_python(sys.version_info[:2], importlib.metadata.version("numpy"))
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            "nvidia-pytriton, which carries the embedded Triton, is not installed. "
            "Run `make setup` in a clone or pip install 'serverless-superres[embedded]'; or set "
            "SUPERRES_BACKEND_ADDRESS to a server elsewhere."
        )
    return locate_in_wheel(Path(next(iter(spec.submodule_search_locations))))


def locate_in_wheel(package: Path) -> TritonPaths:
    """Return the paths of the parts in an installed `pytriton`. Raises EmbeddedServerError when one is missing."""
    server = package / "tritonserver"
    name = f"{sys.version_info[0]}.{sys.version_info[1]}"
    paths = TritonPaths(
        binary=server / "bin" / "tritonserver",
        backend=server / "backends" / "python",
        stub=server / "python_backend_stubs" / name / "triton_python_backend_stub",
        libraries=package.parent / "nvidia_pytriton.libs",
    )
    for path in (paths.binary, paths.backend, paths.stub, paths.libraries):
        if not path.exists():
            raise EmbeddedServerError(f"nvidia-pytriton is damaged: {path} is missing. Reinstall it with `make setup`.")
    return paths
