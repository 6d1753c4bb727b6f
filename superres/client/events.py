"""Parses the events of a job (docs/reference/events.md) as they arrive. The file in the last one never is in memory.

If the event `result` holds the file, it is one line of JSON that ends with the member `data`, the file in base64. Its
other members are parsed first; then `InlineFile` decodes the file piece by piece.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any

from superres.client.errors import ConnectionFailedError

# Maximum bytes of one line without the file. The largest is that of the notes of a result, some kilobytes.
_MAX_LINE_BYTES = 1 << 20
_FILE_BEGINS = b', "data": "'
_FILE_ENDS = b'"'
_EARLY_END = "The connection was closed before the result was complete."


class EventParser:
    """Parses the body of one response."""

    def __init__(self) -> None:
        self._buffer = b""
        self._name = ""
        self.has_file = False
        """Whether the last event is a `result` that holds the file; `rest` then has its beginning."""

    @property
    def rest(self) -> bytes:
        """The bytes that were fed and not parsed."""
        return self._buffer

    def feed(self, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (name, members) of each event that is complete. That of `result` is without `data`.

        Nothing comes after `result` or `problem`. Raises ConnectionFailedError at the end of the body (no data) and for
        what is not a stream of events.
        """
        if not data:
            raise ConnectionFailedError(_EARLY_END)
        self._buffer += data
        while (line := self._take_line()) is not None:
            if self.has_file:
                yield "result", _parse(line + b"}")
                return
            if line.startswith(b"event: "):
                self._name = line[7:].decode("utf-8", "replace")
            elif line.startswith(b"data: "):
                yield self._name, _parse(line[6:])
                if self._name in ("result", "problem"):
                    return

    def _take_line(self) -> bytes | None:
        """Return the next line, or that of a result up to its file; None if it is not complete."""
        line, end, rest = self._buffer.partition(b"\n")
        if line.startswith(b"data: "):
            head, found, after = line.partition(_FILE_BEGINS)
            if found and b'"filename"' in head:
                self._buffer = after + end + rest
                self.has_file = True
                return head[6:]
        if end:
            self._buffer = rest
            return line.rstrip(b"\r")
        if len(line) > _MAX_LINE_BYTES:
            raise ConnectionFailedError(f"A line of the events has more than {_MAX_LINE_BYTES:,} bytes.")
        return None


class InlineFile:
    """Decodes the file of a `result` event."""

    def __init__(self, size: int) -> None:
        """`size` is the number of bytes that the event announced."""
        self._size = size
        self._encoded = b""
        self._decoded_bytes = 0
        self.is_complete = False

    def feed(self, data: bytes) -> bytes:
        """Return what can be decoded so far. Raises ConnectionFailedError for what is not the announced file."""
        self._encoded, end, _ = (self._encoded + data).partition(_FILE_ENDS)
        usable = len(self._encoded) if end else len(self._encoded) // 4 * 4
        try:
            decoded = base64.b64decode(self._encoded[:usable], validate=True)
        except binascii.Error as error:
            raise ConnectionFailedError(f"The result is damaged: {error}.") from error
        self._encoded = self._encoded[usable:]
        self._decoded_bytes += len(decoded)
        self.is_complete = bool(end)
        if self._decoded_bytes > self._size or (self.is_complete and self._decoded_bytes != self._size):
            raise ConnectionFailedError(
                f"The result has {self._decoded_bytes:,} bytes, but {self._size:,} were announced."
            )
        return decoded


def check_not_ended(data: bytes) -> bytes:
    """Return the bytes. Raises ConnectionFailedError if there are none, because the file is not complete."""
    if not data:
        raise ConnectionFailedError(_EARLY_END)
    return data


def _parse(data: bytes) -> dict[str, Any]:
    try:
        members = json.loads(data)
    except ValueError as error:
        raise ConnectionFailedError("An event is not JSON.") from error
    if not isinstance(members, dict):
        raise ConnectionFailedError("An event is not a JSON object.")
    return members
