"""Which requests are open on a connection, from its bytes alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.backend.open_requests import (
    MAX_HELD_BYTES,
    MAX_STREAMS,
    SETTLED_S,
    GrpcRequests,
    HttpRequests,
    InvalidRequestError,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM = ACK = 1
SILENCE_S = 300.0
REQUEST = b"POST /v2/models/upscale/infer HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"


def frame(kind: int, stream: int = 0, flags: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


OPENING = PREFACE + frame(SETTINGS, payload=b"\0\3\0\0\0d")
CALL = frame(HEADERS, 1, payload=b"headers") + frame(DATA, 1, END_STREAM, b"message")


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_http_request_begins_with_its_first_line(size: int) -> None:
    follower = HttpRequests()
    passed_on = b""
    for piece in pieces(REQUEST, size):
        passed_on += follower.from_client(piece, 1.0)
        assert follower.has_begun == bool(passed_on)
    assert passed_on == REQUEST


def test_http_request_is_open_until_its_response_has_settled() -> None:
    follower = HttpRequests()
    assert not follower.is_open(1.0, SILENCE_S)
    follower.from_client(REQUEST, 1.0)
    assert follower.is_open(1.0 + SILENCE_S - 1, SILENCE_S)
    assert not follower.is_open(1.0 + SILENCE_S, SILENCE_S), (
        "a silent client does not keep the server awake permanently"
    )
    follower.from_server(b"HTTP/1.1 200 OK\r\n", 10.0)
    assert follower.is_open(10.0 + SETTLED_S / 2, SILENCE_S)
    assert not follower.is_open(10.0 + SETTLED_S, SILENCE_S)
    follower.from_client(REQUEST, 20.0)
    assert follower.is_open(30.0, SILENCE_S), "the next request on the same connection"


@pytest.mark.parametrize("begin", [b"\x16\x03\x01\x02\n", b"SSH-2.0-x\r\n", b"\n", PREFACE, b"A" * MAX_HELD_BYTES])
def test_other_protocols_are_not_http(begin: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        HttpRequests().from_client(begin, 1.0)


@pytest.mark.parametrize("size", [1, 8, 9, 10, 1000])
def test_grpc_request_begins_with_its_headers(size: int) -> None:
    follower, window = GrpcRequests(), frame(WINDOW_UPDATE, payload=b"\0\0\0\1")
    passed_on = b"".join(follower.from_client(piece, 1.0) for piece in pieces(OPENING + window, size))
    assert (passed_on, follower.has_begun) == (b"", False)
    passed_on = b"".join(follower.from_client(piece, 2.0) for piece in pieces(CALL, size))
    assert passed_on == OPENING + window + CALL
    assert follower.has_begun
    assert follower.reply == b""


@pytest.mark.parametrize("size", [1, 9, 12, 1000])
def test_pings_are_responded_to_until_there_is_a_server(size: int) -> None:
    follower = GrpcRequests()
    pings = [frame(PING, payload=letter * 8) for letter in (b"a", b"b", b"c")]
    sent = OPENING + pings[0] + CALL + pings[1]
    passed_on = b"".join(follower.from_client(piece, 1.0) for piece in pieces(sent, size))
    assert passed_on == OPENING + CALL
    assert follower.reply == frame(PING, flags=ACK, payload=b"a" * 8) + frame(PING, flags=ACK, payload=b"b" * 8)
    follower.reply = b""
    passed_on = follower.from_client(pings[2][:11], 1.0) + follower.begin_exchange()
    passed_on += follower.from_client(pings[2][11:] + pings[2], 1.0)
    assert (passed_on, follower.reply) == (pings[2] * 2, b"")


@pytest.mark.parametrize("size", [1, 9, 1000])
def test_acknowledgement_of_the_greeting_is_not_passed_on(size: int) -> None:
    follower = GrpcRequests()
    acknowledged = frame(SETTINGS, flags=ACK)
    sent = OPENING + acknowledged + CALL + acknowledged + acknowledged
    passed_on = b"".join(follower.from_client(piece, 1.0) for piece in pieces(sent, size))
    assert passed_on == OPENING + CALL + acknowledged + acknowledged
    assert follower.greeting == frame(SETTINGS)


@pytest.mark.parametrize(
    "end",
    [frame(HEADERS, 1, END_STREAM, b"trailers"), frame(DATA, 1, END_STREAM), frame(RST_STREAM, 1, payload=b"\0" * 4)],
    ids=("trailers", "data", "reset"),
)
@pytest.mark.parametrize("size", [1, 1000])
def test_grpc_request_is_open_until_the_server_ends_its_stream(end: bytes, size: int) -> None:
    follower = GrpcRequests()
    follower.from_client(OPENING + CALL, 1.0)
    response = frame(SETTINGS) + frame(HEADERS, 1, payload=b"headers") + frame(DATA, 1, payload=b"x" * 100)
    for piece in pieces(response, size):
        follower.from_server(piece, 5.0)
    assert follower.is_open(5.0 + SILENCE_S - 1, SILENCE_S)
    assert not follower.is_open(5.0 + SILENCE_S, SILENCE_S)
    for piece in pieces(end, size):
        follower.from_server(piece, 6.0)
    assert not follower.is_open(6.0, SILENCE_S)


def test_grpc_request_ends_when_the_client_cancels_it() -> None:
    follower = GrpcRequests()
    follower.from_client(OPENING + CALL + frame(HEADERS, 3), 1.0)
    follower.from_client(frame(RST_STREAM, 1, payload=b"\0" * 4), 1.0)
    assert follower.is_open(1.0, SILENCE_S)
    follower.from_client(frame(RST_STREAM, 3, payload=b"\0" * 4), 1.0)
    assert not follower.is_open(1.0, SILENCE_S)


def test_pings_do_not_keep_a_request_open() -> None:
    follower = GrpcRequests()
    follower.from_client(OPENING + CALL, 1.0)
    follower.begin_exchange()
    follower.from_client(frame(PING, payload=b"8" * 8), SILENCE_S)
    follower.from_server(frame(PING, flags=ACK, payload=b"8" * 8), SILENCE_S)
    assert not follower.is_open(1.0 + SILENCE_S, SILENCE_S)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        OPENING + frame(WINDOW_UPDATE, payload=b"\0\0\0\1") * (MAX_HELD_BYTES // 13),
        OPENING + frame(PING, payload=b"8" * 1000),
        OPENING + b"".join(frame(HEADERS, 2 * number + 1) for number in range(MAX_STREAMS + 1)),
    ],
    ids=("HTTP/1.1", "TLS", "no request", "long ping", "too many streams"),
)
def test_other_bytes_are_not_grpc(sent: bytes) -> None:
    follower = GrpcRequests()
    with pytest.raises(InvalidRequestError):
        [follower.from_client(piece, 1.0) for piece in pieces(sent, 4096)]
