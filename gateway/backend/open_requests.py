"""Follows the bytes of one client's connection to Triton: has a request begun, and is one still open?

HTTP/1.1 is followed by who sent last, HTTP/2 (gRPC) by its frame headers (RFC 9113 section 4.1). Nothing is decoded.
At most `MAX_HELD_BYTES` and one read are held back until the first request has begun.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

# Bytes that a client may send before its first request has begun.
MAX_HELD_BYTES = 16_384
# Open streams of one HTTP/2 connection that are followed.
MAX_STREAMS = 10_000
# Seconds without a byte after which an HTTP/1.1 response counts as complete.
SETTLED_S = 0.5

_REQUEST_LINE = re.compile(rb"[A-Z]+ [^ \r\n]+ HTTP/1\.[01]\r?\n")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEADER_BYTES = 9
_PING_BYTES = 8
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING = 0, 1, 3, 4, 6
_END_STREAM = _ACK = 0x1


class InvalidRequestError(Exception):
    """The client speaks another protocol, or sends too much before its first request."""


class RequestFollower(Protocol):
    """What the forwarder needs to know of a connection. `now` is a time of `time.monotonic`."""

    greeting: bytes
    """Sent to the client before anything is received."""
    has_begun: bool
    """Whether a first request has begun. Until then nothing is passed on to Triton."""
    reply: bytes
    """Bytes to send to the client while it has no server; the caller sends and clears them."""

    def from_client(self, data: bytes, now: float) -> bytes:
        """Return the bytes to pass on: all that were held back, once the first request has begun.

        Raises InvalidRequestError.
        """
        ...

    def begin_exchange(self) -> bytes:
        """Take note that the client has a server now, and return bytes that are still to be passed on to it."""
        ...

    def from_server(self, data: bytes, now: float) -> None:
        """Take note of bytes that Triton sent."""
        ...

    def is_open(self, now: float, silence_limit_s: float) -> bool:
        """Return whether a request is open that had a byte within the last `silence_limit_s`."""
        ...


class HttpRequests:
    """An HTTP/1.1 connection: a request is open from its first byte until the response has been sent."""

    greeting = b""

    def __init__(self) -> None:
        self.has_begun = False
        self.reply = b""
        self._held = b""
        self._is_response_due = False
        self._last_byte = 0.0

    def from_client(self, data: bytes, now: float) -> bytes:
        """Return the bytes to pass on. See `RequestFollower`."""
        self._is_response_due, self._last_byte = True, now
        if self.has_begun:
            return data
        self._held += data
        if b"\n" not in self._held[:MAX_HELD_BYTES]:
            if len(self._held) >= MAX_HELD_BYTES:
                raise InvalidRequestError("no request line")
            return b""
        if not _REQUEST_LINE.match(self._held):
            raise InvalidRequestError("not HTTP/1.1")
        self.has_begun = True
        held, self._held = self._held, b""
        return held

    def begin_exchange(self) -> bytes:
        """Return nothing: every byte was passed on."""
        return b""

    def from_server(self, data: bytes, now: float) -> None:  # noqa: ARG002 - any byte is part of the response
        """Take note of bytes that Triton sent."""
        self._is_response_due, self._last_byte = False, now

    def is_open(self, now: float, silence_limit_s: float) -> bool:
        """Return whether a request is open. See `RequestFollower`."""
        return self.has_begun and now - self._last_byte < (silence_limit_s if self._is_response_due else SETTLED_S)


class GrpcRequests:
    """An HTTP/2 connection: a request is open while its stream is.

    A gRPC client sends no request before it has the server's settings, and gives up after 20 s without them. So the
    forwarder sends empty settings (the protocol's defaults) by itself, and a connection wakes nothing before its first
    request. Triton's own settings follow later as an update. The client acknowledges both; Triton, which sent one, gets
    one acknowledgement. The forwarder also responds to the client's pings until there is a server: a client that gets
    no response to a ping ends the connection.
    """

    greeting = bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])

    def __init__(self) -> None:
        self.has_begun = False
        self.reply = b""
        self._held = b""
        self._has_server = False
        self._ping = b""  # the frame of a ping that has not arrived completely
        self._preface_left = _PREFACE
        self._client_frames, self._server_frames = _FrameSplitter(), _FrameSplitter()
        self._is_greeting_acknowledged = False
        self._open_streams: set[int] = set()
        self._last_stream = 0
        self._last_request_byte = 0.0

    def from_client(self, data: bytes, now: float) -> bytes:
        """Return the bytes to pass on, without the acknowledgement of the greeting. See `RequestFollower`."""
        preface = data[: len(self._preface_left)]
        if not self._preface_left.startswith(preface):
            raise InvalidRequestError("not HTTP/2")
        self._preface_left = self._preface_left[len(preface) :]
        passed_on = [preface]
        for frame, part in self._client_frames.split(data[len(preface) :]):
            if frame is not None and self._follow_client(frame, now):
                continue
            if self._is_of_ping(frame, part):
                continue
            passed_on.append(part)
        self._held += b"".join(passed_on)
        if not self.has_begun:
            if len(self._held) > MAX_HELD_BYTES:
                raise InvalidRequestError("no request")
            return b""
        held, self._held = self._held, b""
        return held

    def begin_exchange(self) -> bytes:
        """Return the begin of a ping to which the server responds."""
        self._has_server = True
        begun, self._ping = self._ping, b""
        return begun

    def from_server(self, data: bytes, now: float) -> None:
        """Take note of bytes that Triton sent."""
        for frame, _ in self._server_frames.split(data):
            if frame is None:
                continue
            if frame.kind in (_DATA, _HEADERS):
                self._last_request_byte = now
                if frame.flags & _END_STREAM:
                    self._open_streams.discard(frame.stream)
            elif frame.kind == _RST_STREAM:
                self._open_streams.discard(frame.stream)

    def is_open(self, now: float, silence_limit_s: float) -> bool:
        """Return whether a stream is open. See `RequestFollower`."""
        return bool(self._open_streams) and now - self._last_request_byte < silence_limit_s

    def _follow_client(self, frame: _Frame, now: float) -> bool:
        """Take note of a frame, and return whether it is the acknowledgement of the greeting."""
        if frame.kind in (_DATA, _HEADERS):
            self._last_request_byte = now
            if frame.kind == _HEADERS and frame.stream > self._last_stream:
                self.has_begun = True
                self._last_stream = frame.stream
                self._open_streams.add(frame.stream)
                if len(self._open_streams) > MAX_STREAMS:
                    raise InvalidRequestError("too many open streams")
        elif frame.kind == _RST_STREAM:
            self._open_streams.discard(frame.stream)
        elif frame.kind == _SETTINGS and frame.flags & _ACK and not self._is_greeting_acknowledged:
            self._is_greeting_acknowledged = True
            return True
        return False

    def _is_of_ping(self, frame: _Frame | None, part: bytes) -> bool:
        """Return whether a part of the client's bytes belongs to a ping before there is a server, and respond to it."""
        if self._has_server or (frame is not None and (frame.kind != _PING or frame.flags & _ACK)):
            return False
        if frame is None and not self._ping:
            return False
        if frame is not None and frame.payload_bytes != _PING_BYTES:
            raise InvalidRequestError("a ping of another size")
        self._ping += part
        if len(self._ping) == _FRAME_HEADER_BYTES + _PING_BYTES:
            self.reply += self._ping[:4] + bytes([_ACK]) + self._ping[5:]
            self._ping = b""
        return True


class _Frame(NamedTuple):
    payload_bytes: int
    kind: int
    flags: int
    stream: int


class _FrameSplitter:
    """Splits one direction of an HTTP/2 connection at its frames' headers."""

    def __init__(self) -> None:
        self._header = b""
        self._payload_left = 0

    def split(self, data: bytes) -> Iterator[tuple[_Frame | None, bytes]]:
        """Yield each frame with its header, and parts of payloads with None. An incomplete header is held back."""
        position = 0
        while position < len(data):
            if self._payload_left:
                part = data[position : position + self._payload_left]
                self._payload_left -= len(part)
                position += len(part)
                yield None, part
                continue
            missing = _FRAME_HEADER_BYTES - len(self._header)
            self._header += data[position : position + missing]
            position += missing
            if len(self._header) == _FRAME_HEADER_BYTES:
                header, self._header = self._header, b""
                self._payload_left = int.from_bytes(header[:3], "big")
                stream = int.from_bytes(header[5:], "big") & 0x7FFFFFFF
                yield _Frame(self._payload_left, header[3], header[4], stream), header
