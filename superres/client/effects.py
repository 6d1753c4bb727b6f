"""What the calls of the API ask their transport to do.

Each call is a generator that yields effects and is sent their outcomes, so that the synchronous and the asynchronous
client share every decision. A transport raises a ClientError inside the generator when an effect fails.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from superres.client.errors import UnexpectedResponseError
from superres.client.progress import UpscaleProgress


@dataclass(frozen=True)
class Send:
    """Send a request. The outcome is the ResponseHead; the body is then read piece by piece."""

    method: str
    path: str
    """Path below the address of the service."""
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # with the key
    body: bytes | None = field(default=None, repr=False)
    silence_s: float = 0.0
    """Seconds without a byte that this request needs to survive, if they are more than those of the client."""


@dataclass(frozen=True)
class ReadChunk:
    """Read the next bytes of the response. The outcome is empty at its end."""


@dataclass(frozen=True)
class Pause:
    """Wait for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Report:
    """Tell the caller how far the upscale is."""

    progress: UpscaleProgress


@dataclass(frozen=True)
class ResponseHead:
    """Status and headers of a response."""

    status: int
    reason: str
    headers: Mapping[str, str]
    """By name in lower case."""

    @property
    def media_type(self) -> str:
        """Content-Type without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


Effect = Send | ReadChunk | Pause | Report
T = TypeVar("T")
Steps = Generator[Effect, Any, T]


def read_chunk() -> Steps[bytes]:
    """Return the next bytes of the response; none at its end."""
    data: bytes = yield ReadChunk()
    return data


def read_body(max_bytes: int) -> Steps[bytes]:
    """Return the rest of the response. Raises UnexpectedResponseError if it has more than `max_bytes`."""
    body = bytearray()
    while data := (yield from read_chunk()):
        body += data
        if len(body) > max_bytes:
            raise UnexpectedResponseError(f"The response has more than {max_bytes:,} bytes.")
    return bytes(body)
