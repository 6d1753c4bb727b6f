"""Reads the responses of Triton's stream without copying their tensors.

Protobuf copies the bytes of a field twice: when it parses the message and when the field is read. Here the tensors are
cut out of the message first, as views of its bytes, and Protobuf parses the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tritonclient.grpc import service_pb2

# Numbers of the fields in Triton's grpc_service.proto.
_INFER_RESPONSE, _RAW_OUTPUT_CONTENTS = 2, 6
# Wire types of the Protobuf encoding. Groups (3 and 4) do not occur.
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
# Smaller tensors are copied, so that numbers of several bytes are aligned.
_LEAST_VIEW_BYTES = 4_096


@dataclass(frozen=True)
class StreamResponse:
    """One ModelStreamInferResponse."""

    message: service_pb2.ModelStreamInferResponse
    """The message without `raw_output_contents`."""
    tensors: list[bytes | memoryview]
    """`raw_output_contents` of its `infer_response`; large ones are views of the received bytes."""


def read_response(data: bytes) -> StreamResponse:
    """Return a response from its encoding; raises what Protobuf raises for an invalid one."""
    message, tensors = service_pb2.ModelStreamInferResponse(), list[bytes | memoryview]()
    try:
        parts = list(_split(memoryview(data), _INFER_RESPONSE, tensors))
    except (IndexError, ValueError):  # not as expected: Protobuf says what is wrong
        message = service_pb2.ModelStreamInferResponse.FromString(data)
        return StreamResponse(message, list(message.infer_response.raw_output_contents))
    for is_response, part in parts:
        if is_response:
            message.infer_response.MergeFromString(part)
        else:
            message.MergeFromString(part)
    return StreamResponse(message, tensors)


def _split(view: memoryview, nested: int, tensors: list[bytes | memoryview]) -> Iterator[tuple[bool, bytes]]:
    """Yield the fields of a message and of its field `nested`, except the tensors, which go to `tensors`."""
    for number, wire_type, field, body in _fields(view):
        if number != nested or wire_type != _BYTES:
            yield False, bytes(field)
            continue
        others = []
        for inner_number, inner_type, inner_field, inner_body in _fields(body):
            if inner_number != _RAW_OUTPUT_CONTENTS or inner_type != _BYTES:
                others.append(bytes(inner_field))
            else:
                tensors.append(inner_body if len(inner_body) >= _LEAST_VIEW_BYTES else bytes(inner_body))
        yield True, b"".join(others)


def _fields(view: memoryview) -> Iterator[tuple[int, int, memoryview, memoryview]]:
    """Yield (number, wire type, whole field, its body) of each field. Raises IndexError or ValueError if one is cut."""
    at = 0
    while at < len(view):
        start = at
        key, at = _read_varint(view, at)
        wire_type = key & 7
        length = {_FIXED_64: 8, _FIXED_32: 4}.get(wire_type, 0)
        if wire_type == _VARINT:
            _, at = _read_varint(view, at)
        elif wire_type == _BYTES:
            length, at = _read_varint(view, at)
        elif not length:
            raise ValueError(f"unknown wire type {wire_type}")
        end = at + length
        if end > len(view):
            raise ValueError("a field ends behind its message")
        yield key >> 3, wire_type, view[start:end], view[at:end]
        at = end


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """Return a number and the offset behind it."""
    number = shift = 0
    while True:
        byte = view[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")
