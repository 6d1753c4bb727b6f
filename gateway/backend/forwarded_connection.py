"""One client's connection to the embedded Triton: its first request, its exchange with the server, and its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from gateway.backend.open_requests import RequestFollower
from gateway.backend.state import BOOT_LIMIT_S

# Bytes read at once. A direction holds up to three times as many before its sender has to wait.
CHUNK_BYTES = 65_536
# Bytes of a request that are held while it waits for the server. HTTP/2 clients send 64 KiB before they have to wait.
MAX_WAITING_BYTES = 131_072

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds of one connection of a Triton client, and of all together."""

    connections: int = 128
    """A further one replaces the one that has been idle for the longest time. If none is idle, it is closed."""
    first_request_s: float = 60.0
    """Seconds from the connection to its first request."""
    boot_s: float = BOOT_LIMIT_S
    """Seconds for which a request waits for the server."""
    silence_s: float = 300.0
    """Seconds without a byte after which an open request no longer keeps the server awake."""
    linger_s: float = 5.0
    """Seconds in which a client takes its last bytes and closes its side after Triton has closed the connection."""
    refusal_s: float = 10.0
    """Seconds after failed boots in which connections are closed instead of waking the server."""


class ForwardedConnection:
    """A connection of a client, and later the one to the server. Belongs to the loop's thread."""

    def __init__(
        self,
        follower: RequestFollower,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limits: ConnectionLimits,
    ) -> None:
        self._follower = follower
        self._reader, self._writer = reader, writer
        self._limits = limits
        self._writers = [writer]
        self._waiting = b""
        self._task = asyncio.current_task()
        self.last_byte = time.monotonic()

    @property
    def has_server(self) -> bool:
        """Whether its bytes are passed on to a server."""
        return len(self._writers) > 1

    def is_open(self) -> bool:
        """Return whether a request is open."""
        now = time.monotonic()
        is_unread = any(writer.transport.get_write_buffer_size() for writer in self._writers)
        return (is_unread and now - self.last_byte < self._limits.silence_s) or self._follower.is_open(
            now, self._limits.silence_s
        )

    def close(self) -> None:
        """Close both sides now. Bytes that have not been sent are dropped."""
        for writer in self._writers:
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            else:
                writer.close()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def read_first_request(self) -> bool:
        """Read until the first request has begun. Returns false if the client closes before it.

        Raises InvalidRequestError, OSError, or TimeoutError after `first_request_s`.
        """
        self._writer.write(self._follower.greeting)
        async with asyncio.timeout(self._limits.first_request_s):
            while not self._follower.has_begun:
                if not await self._read():
                    return False
        return True

    async def wait_for(self, server: Coroutine[Any, Any, Streams]) -> Streams:
        """Wait for a connection to the server and return it. Reads on meanwhile, within MAX_WAITING_BYTES.

        Raises InvalidRequestError, or OSError as soon as the client resets the connection.
        """
        connecting, reading = asyncio.create_task(server), asyncio.create_task(self._read_on())
        try:
            async with asyncio.timeout(self._limits.boot_s):
                await asyncio.wait({connecting, reading}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()
                streams = await connecting
            await _cancel(reading)
        except BaseException:
            connecting.add_done_callback(_close_streams)  # it may succeed although nobody waits for it any more
            await _cancel(connecting, reading)
            raise
        return streams

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes on both ways until both sides have closed: first those that have been read already.

        Either side may close its direction first. Raises OSError or InvalidRequestError.
        """
        self._writers.append(writer)
        writer.write(self._waiting + self._follower.begin_exchange())
        self._waiting = b""
        upwards = asyncio.create_task(self._pass_on(self._reader, writer, self._follower.from_client))
        downwards = asyncio.create_task(self._pass_on(reader, self._writer, self._note_response))
        try:
            ended, others = await asyncio.wait({upwards, downwards}, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
            if others:
                limit_s = self._limits.linger_s if downwards in ended else self._limits.silence_s
                async with asyncio.timeout(limit_s):
                    await others.pop()
            async with asyncio.timeout(self._limits.linger_s):
                self._writer.close()
                await self._writer.wait_closed()
        finally:
            await _cancel(upwards, downwards)

    async def _read(self) -> bool:
        """Read some bytes before there is a server. Returns false at the client's end."""
        data = await self._reader.read(CHUNK_BYTES)
        self.last_byte = time.monotonic()
        self._waiting += self._follower.from_client(data, self.last_byte) if data else b""
        reply, self._follower.reply = self._follower.reply, b""
        self._writer.write(reply)
        await self._writer.drain()
        return bool(data)

    async def _read_on(self) -> None:
        while len(self._waiting) < MAX_WAITING_BYTES and await self._read():
            pass

    def _note_response(self, data: bytes, now: float) -> bytes:
        self._follower.from_server(data, now)
        return data

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, follow: Callable[[bytes, float], bytes]
    ) -> None:
        """Pass bytes on until the source ends its direction, then end it at the sink. Waits for a slow sink."""
        while data := await source.read(CHUNK_BYTES):
            self.last_byte = time.monotonic()
            sink.write(follow(data, self.last_byte))
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()


def _close_streams(connecting: asyncio.Task[Streams]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result()[1].close()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end. Their results and errors are dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
