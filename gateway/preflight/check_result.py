"""The result of a check, and the comparison of versions that several checks make."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from gateway.preflight.kubectl import ClusterReader
from gateway.preflight.overlay import Overlay

Level = Literal["ok", "warning", "error", "unknown"]
Version = tuple[int, int]


@dataclass(frozen=True)
class CheckResult:
    """The result of one check."""

    level: Level
    text: str
    remedy: str = ""


CheckResults = Iterator[CheckResult]
Check = Callable[[Overlay, ClusterReader], CheckResults]


def parse_version(text: str) -> Version | None:
    """Return major and minor of a version such as "v1.23.0" or "1.36+", or None."""
    match = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def require_version(name: str, version: Version | None, minimum: Version, remedy: str) -> CheckResult:
    """Return ok if a version is at least the minimum, unknown for None, else an error."""
    least = ".".join(map(str, minimum))
    if version is None:
        return CheckResult("unknown", f"The version of {name} could not be read", f"It must be {least} or later.")
    found = ".".join(map(str, version))
    if version < minimum:
        return CheckResult("error", f"{name} {found} is older than {least}", remedy)
    return CheckResult("ok", f"{name} {found}")
