"""The result of an upscale, in memory or in a file that appears whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from superres.client.errors import UnexpectedResponseError
from superres.client.images import UNNAMED

# A file has at most so many bytes per pixel: four channels of 16 bits, and headers.
_MAX_BYTES_PER_PIXEL = 8
_MAX_HEADER_BYTES = 32 << 20
# A name without folders, which does not hide the file. That of an image without a name begins with UNNAMED; what
# follows is the variant, the size and the format.
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f.][^/\\\x00-\x1f\x7f]{0,254}")


@dataclass(frozen=True)
class ResultFacts:
    """What is known of a result before its bytes are."""

    filename: str
    """Name for the file: that of the upload, the variant, the size if one was requested, and the format."""
    media_type: str
    width: int
    height: int
    """In pixels."""
    size_bytes: int
    variant: str
    seconds: float
    """Seconds of the job on the service."""
    choice: str
    """A sentence on the variant that the image chose, with variant=auto or for a grey image; otherwise empty."""
    notes: tuple[str, ...]
    """What was changed, dropped or invented, in sentences."""
    is_cached: bool
    """Whether the service had made the same result before."""
    request_id: str
    """Finds the request in the operator's log; empty if unknown."""
    members: Mapping[str, Any] = field(repr=False)
    """All members of the result, also those of later versions: `checks`, `strength` and others."""


@dataclass(frozen=True)
class UpscaleResult(ResultFacts):
    """An upscaled image: in memory, or in the file at `path`."""

    content: bytes | None = field(default=None, repr=False)
    path: Path | None = None
    """The file that it was downloaded to; None if it is in memory."""

    @property
    def data(self) -> bytes:
        """The bytes of the file."""
        if self.content is not None:
            return self.content
        return self.path.read_bytes() if self.path else b""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file to a path, or under its name into a folder, and return its path. Replaces an existing file."""
        target = FileSink(path)
        with target.open(self) as file:
            if self.content is None and self.path:
                with self.path.open("rb") as source:
                    shutil.copyfileobj(source, file)
            else:
                file.write(self.data)
        return target.written or Path(path)


def read_facts(members: Mapping[str, Any], stem: str, request_id: str) -> ResultFacts:
    """Return what a `result` event or a finished job says. Raises UnexpectedResponseError."""
    try:
        name = str(members["filename"])
        choice = members.get("choice") or {}
        facts = ResultFacts(
            filename=stem + name.removeprefix(UNNAMED) if name.startswith(f"{UNNAMED}_") else name,
            media_type=str(members["media_type"]),
            width=int(members["width"]),
            height=int(members["height"]),
            size_bytes=int(members["bytes"]),
            variant=str(members["variant"]),
            seconds=float(members["seconds"]),
            choice=str(choice.get("sentence") or ""),
            notes=tuple(str(note) for note in members.get("notes") or ()),
            is_cached=members.get("cache") == "hit",
            request_id=request_id,
            members=dict(members),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedResponseError(
            f"The service sent a result that this version does not understand ({error!r})."
        ) from error
    max_bytes = facts.width * facts.height * _MAX_BYTES_PER_PIXEL + _MAX_HEADER_BYTES
    if not is_file_name(facts.filename) or not 0 < facts.size_bytes <= max_bytes:
        raise UnexpectedResponseError(
            f"The service sent an invalid result: {facts.width} x {facts.height} pixels in {facts.size_bytes:,} bytes."
        )
    return facts


def is_file_name(text: str) -> bool:
    """Return whether a name from the service is that of a file, without folders and not hidden."""
    return _NAME.fullmatch(text) is not None


class ByteSink(Protocol):
    """Takes the bytes of one result."""

    def write(self, data: bytes, /) -> object:
        """Append bytes."""
        ...


OpenSink = Callable[[ResultFacts], AbstractContextManager[ByteSink]]
"""Opens what takes the bytes of a result. Leaving the context with an error discards them."""


class MemorySink:
    """Keeps the bytes of a result in memory."""

    def __init__(self) -> None:
        self.content: bytes | None = None
        """The bytes of the last result that is complete."""

    @contextmanager
    def open(self, facts: ResultFacts) -> Iterator[ByteSink]:
        """Yield what takes the bytes."""
        del facts
        buffer = BytesIO()
        yield buffer
        self.content = buffer.getvalue()

    def result(self, facts: ResultFacts) -> UpscaleResult:
        """Return the result with these facts."""
        return UpscaleResult(**vars(facts), content=self.content)


class FileSink:
    """Writes a result to a file, which appears under its name when it is complete."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """`path` is that of the file, or of an existing folder, which then gets the file under the result's name."""
        self._path = Path(path)
        self.written: Path | None = None
        """Path of the file that is complete."""

    def open(self, facts: ResultFacts) -> AbstractContextManager[BinaryIO]:
        """Open the file for a result. Raises OSError."""
        return self.open_named(facts.filename)

    @contextmanager
    def open_named(self, filename: str) -> Iterator[BinaryIO]:
        """Yield the file, which has this name in a folder. Raises OSError."""
        target = self._path / filename if self._path.is_dir() else self._path
        part = target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with part.open("xb") as file:
                yield file
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        self.written = target

    def result(self, facts: ResultFacts) -> UpscaleResult:
        """Return the result with these facts."""
        return UpscaleResult(**vars(facts), path=self.written)


def make_sink(to: str | os.PathLike[str] | None) -> MemorySink | FileSink:
    """Return the sink for the file or folder `to`; without one, memory. Raises FileNotFoundError, before any work."""
    if to is None:
        return MemorySink()
    return make_file_sink(to)


def make_file_sink(to: str | os.PathLike[str]) -> FileSink:
    """Return the sink for the file or folder `to`. Raises FileNotFoundError, before any work."""
    if not Path(to).parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "The folder of the result does not exist", str(Path(to).parent))
    return FileSink(to)
