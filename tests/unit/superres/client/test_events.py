"""Events are read as they arrive, in pieces of any length, and the file of a result never is in memory."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterator

import pytest

from superres.client.errors import ConnectionFailedError
from superres.client.events import EventParser, InlineFile, check_not_ended

FILE = bytes(range(256)) * 5
MEMBERS = {"filename": "image_x4.png", "notes": ['a "data": "x"', "é"], "bytes": len(FILE)}


class Sink:
    """Counts what is written and keeps the beginning."""

    def __init__(self) -> None:
        self.data = b""
        self.size = 0

    def write(self, data: bytes, /) -> None:
        self.size += len(data)
        self.data = (self.data + data)[:10_000]


def make_stream(data: str = base64.b64encode(FILE).decode()) -> bytes:
    members = json.dumps(MEMBERS)[:-1]
    return (
        b": heartbeat\n\n"
        b'event: queue\ndata: {"position": 1, "ahead": 1}\n\n'
        + f'event: result\ndata: {members}, "data": "{data}"}}\n\n'.encode()
    )


def read(pieces: Iterator[bytes], sink: Sink, size: int = len(FILE)) -> list[tuple[str, object]]:
    """Read a body that arrives in these pieces; return its events and write its file to the sink."""
    parser = EventParser()
    events: list[tuple[str, object]] = []
    while not events or events[-1][0] not in ("result", "problem"):
        events += parser.feed(next(pieces, b""))
    if parser.has_file:
        file = InlineFile(size)
        sink.write(file.feed(parser.rest))
        while not file.is_complete:
            sink.write(file.feed(check_not_ended(next(pieces, b""))))
    return events


def cut(stream: bytes, length: int) -> Iterator[bytes]:
    return (stream[at : at + length] for at in range(0, len(stream), length))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 100_000])
def test_events_in_pieces_of_any_length(length: int) -> None:
    sink = Sink()

    events = read(cut(make_stream(), length), sink)

    assert events == [("queue", {"position": 1, "ahead": 1}), ("result", MEMBERS)]
    assert sink.data == FILE


def test_problem_ends_the_stream() -> None:
    events = read(iter([b'event: problem\ndata: {"status": 504}\n\nevent: x\ndata: {}\n\n']), Sink())

    assert events == [("problem", {"status": 504})]


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "closed before the result was complete"),
        (make_stream()[:40], "closed before the result was complete"),
        (make_stream()[:-300], "closed before the result was complete"),
        (b"event: queue\ndata: [1]\n\n", "not a JSON object"),
        (b"event: queue\ndata: {\n\n", "not JSON"),
        (b"x" * 3_000_000, "has more than 1,048,576 bytes"),
    ],
)
def test_invalid_streams_are_refused(stream: bytes, words: str) -> None:
    with pytest.raises(ConnectionFailedError, match=words):
        read(cut(stream, 65_536), Sink())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (base64.b64encode(FILE[:-1]).decode(), "has 1,279 bytes, but 1,280 were announced"),
        (base64.b64encode(FILE + FILE).decode(), "but 1,280 were announced"),
        ("%" + base64.b64encode(FILE).decode(), "is damaged"),
    ],
)
def test_file_that_is_not_the_announced_one_is_refused(data: str, words: str) -> None:
    with pytest.raises(ConnectionFailedError, match=words):
        read(iter([make_stream(data)]), Sink())


def test_memory_does_not_grow_with_the_file() -> None:
    piece, count = base64.b64encode(bytes(48 * 1024)), 1_000
    head, _, end = make_stream("@").partition(b"@")

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(count):
            yield piece
        yield end

    sink = Sink()
    tracemalloc.start()
    try:
        read(pieces(), sink, 48 * 1024 * count)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert sink.size == 48 * 1024 * count
    assert peak < 1_000_000, f"{peak:,} bytes for a file of {sink.size:,}"
