"""Responses of Triton's stream are read as Protobuf reads them, without copies of large tensors."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from gateway.backend.stream_response import StreamResponse, read_response


def band(*sizes: int) -> service_pb2.ModelStreamInferResponse:
    """Return a response with a tensor of each of these sizes."""
    message = service_pb2.ModelStreamInferResponse()
    response = message.infer_response
    response.model_name, response.id = "upscale_stream", "request-1"
    response.parameters["triton_final_response"].bool_param = False
    random = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        response.outputs.add(name=f"TENSOR_{number}", datatype="UINT8", shape=[size, 300, 1 << 40])
        response.raw_output_contents.append(random.bytes(size))
    return message


def assert_same(actual: StreamResponse, expected: service_pb2.ModelStreamInferResponse) -> None:
    assert [bytes(tensor) for tensor in actual.tensors] == list(expected.infer_response.raw_output_contents)
    rest = service_pb2.ModelStreamInferResponse()
    rest.CopyFrom(expected)
    rest.infer_response.ClearField("raw_output_contents")
    if not expected.HasField("infer_response"):
        rest.ClearField("infer_response")
    assert actual.message == rest


def final() -> service_pb2.ModelStreamInferResponse:
    message = service_pb2.ModelStreamInferResponse()
    message.infer_response.parameters["triton_final_response"].bool_param = True
    return message


MESSAGES = {
    "empty": service_pb2.ModelStreamInferResponse(),
    "error": service_pb2.ModelStreamInferResponse(error_message="no such variant"),
    "final": final(),
    "no bytes": band(0),
    "band": band(70_000, 16, 72, 8),
    "many": band(*range(0, 9_000, 501)),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_those_of_protobuf(name: str) -> None:
    assert_same(read_response(MESSAGES[name].SerializeToString()), MESSAGES[name])


def test_parts_of_one_message_are_merged() -> None:
    data = band(5_000, 3).SerializeToString() + final().SerializeToString() + band(6_000).SerializeToString()
    assert_same(read_response(data), service_pb2.ModelStreamInferResponse.FromString(data))


def test_fields_that_are_unknown_are_no_error() -> None:
    unknown = b"\x78\x01" + b"\x7d1234" + b"\x7912345678" + b"\x7a\x03abc"  # field 15, each wire type
    response = read_response(unknown + band(5_000).SerializeToString())
    assert [len(tensor) for tensor in response.tensors] == [5_000]
    assert response.message.infer_response.model_name == "upscale_stream"


def test_large_tensors_are_views_and_small_ones_are_not() -> None:
    response = read_response(band(70_000, 16).SerializeToString())
    assert [type(tensor) for tensor in response.tensors] == [memoryview, bytes]


def test_message_cut_anywhere_is_read_as_by_protobuf() -> None:
    data = band(150, 16, 5).SerializeToString()
    for end in range(len(data)):
        try:
            expected = service_pb2.ModelStreamInferResponse.FromString(data[:end])
        except DecodeError:
            with pytest.raises(DecodeError):
                read_response(data[:end])
        else:
            assert_same(read_response(data[:end]), expected)


def test_damaged_message_is_read_as_by_protobuf() -> None:
    data, random = band(40, 16).SerializeToString(), np.random.default_rng(1)
    for _ in range(2_000):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << random.integers(8)
        try:
            expected = service_pb2.ModelStreamInferResponse.FromString(bytes(damaged))
        except DecodeError:
            with pytest.raises(DecodeError):
                read_response(bytes(damaged))
            continue
        response = read_response(bytes(damaged))
        tensors = list(expected.infer_response.raw_output_contents)
        assert [bytes(tensor) for tensor in response.tensors] == tensors
        assert list(response.message.infer_response.outputs) == list(expected.infer_response.outputs)
