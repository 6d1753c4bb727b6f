"""Triton's gRPC API: sends pixels to `upscale_stream`, yields bands, and translates gRPC errors to backend errors.

Owns the meaning of every gRPC status that Triton returns (`unreachable` explains UNAVAILABLE). It neither starts nor
stops a server.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.backend.channel import Keepalive, TlsOptions, channel_opener
from gateway.backend.interface import (
    BackendError,
    BackendFaultError,
    BackendMisconfiguredError,
    BackendRejectedError,
    BackendTimeoutError,
    BackendUnavailableError,
    BackendUnreachableError,
    BackendVariantMissingError,
    Band,
)
from gateway.backend.stream_response import StreamResponse, read_response
from gateway.backend.unreachable import explain_unavailable, is_being_ended
from gateway.cancellation import CancelToken
from gateway.tracing.spans import trace_metadata
from preprocessing.depth import from_bytes, to_bytes
from preprocessing.image import Pixels
from swinir.checks import FIELDS

# gRPC metadata for Triton's restricted group `model-key`. HTTP clients send the header `model-key`.
MODEL_KEY_HEADER = "triton-grpc-protocol-model-key"
# Makes Triton end a failed stream with a gRPC status instead of an error text inside a response.
STATUS_HEADER = ("triton_grpc_error", "true")
# In the error of a call whose stub is dead or stopped (2.51).
STUB_NOT_HEALTHY = "is not healthy"
# Tells an unknown or unreadable variant from an unknown model, which has the same status.
_VARIANT = re.compile(r"\b[Vv]ariant '")


class _Connection:
    """A channel and its stub, made while the channel is open.

    Making a stub of a closed channel can end the process with a segmentation fault (grpcio 1.85, at the first try).
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        # Triton's method takes a stream of requests. Called as one that takes a single request, which looks the same on
        # the wire, gRPC starts no thread that sends it.
        self.stream_infer = channel.unary_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=read_response,
        )


class TritonClient:
    """A client of one Triton server. Safe to use from several threads."""

    def __init__(
        self,
        address: str,
        model_keys: Sequence[str],
        *,
        tls: TlsOptions | None = None,
        keepalive: Keepalive | None = None,
    ) -> None:
        """`address` is host:port. Without `tls` the connection is not encrypted; without `keepalive` none is checked.

        `model_keys` holds two values during a key rotation: the second is tried when the first is rejected.
        """
        self._keys = [key for key in model_keys if key] or [""]
        self._open = channel_opener(address, tls, keepalive)
        self._lock = threading.Lock()
        self._is_closed = False
        self._connection = _Connection(self._open())

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Generator[Band, None, None]:
        """Yield the bands of [H * scale, W * scale, 3] for [H, W, 3] before `deadline`, of its type: uint8 or uint16.

        Cancelling `cancel_token`, or closing the iterator, cancels the work on the server too.
        """
        request = _request(pixels, variant, request_id)
        for number, key in enumerate(self._keys):
            try:
                yield from _validated(self._bands(request, key, deadline, cancel_token), pixels)
            except BackendMisconfiguredError:  # a key is rejected before the first band; the other one may be valid
                if number == len(self._keys) - 1:
                    raise
            else:
                return

    def wait_until_ready(self, deadline: float, cancel_token: CancelToken) -> None:
        """Return when the server reports that it is ready. Raises a BackendError or CancelledError.

        One call wakes a sleeping backend, and Knative's activator holds it until the boot has ended: never poll this.
        """
        connection = self._connection
        with _closed_channel_as_unavailable():
            ready_call = connection.stub.ServerReady
            call = ready_call.future(service_pb2.ServerReadyRequest(), timeout=_remaining_s(deadline))
        with cancel_token.on_cancel(call.cancel):
            try:
                ready = call.result().ready
            except (grpc.RpcError, grpc.FutureCancelledError) as error:
                cancel_token.raise_if_cancelled()
                failure = translate(error)
                if isinstance(failure, BackendUnreachableError):
                    self._replace(connection)
                raise failure from error
        if not ready:
            raise BackendUnavailableError("the server is not ready: it loads its models, or is being ended")

    def close(self) -> None:
        """Close the channel."""
        with self._lock:
            self._is_closed = True
        self._connection.channel.close()

    def _replace(self, failed: _Connection) -> None:
        """Replace a channel that cannot connect, unless another thread has done it.

        A server that restarts may get another address, as under Docker Compose. A channel that cannot connect looks
        its host up only every 30 s, and less often while the name is not found (grpcio 1.85, measured).
        """
        with self._lock:
            if self._is_closed or self._connection is not failed:
                return
            self._connection = _Connection(self._open())
        failed.channel.close()

    def _bands(
        self, request: service_pb2.ModelInferRequest, key: str, deadline: float, cancel_token: CancelToken
    ) -> Iterator[tuple[Band, tuple[int, int]]]:
        """Yield each band with the size (rows, columns) of the whole output."""
        metadata = [STATUS_HEADER, *([(MODEL_KEY_HEADER, key)] if key else []), *trace_metadata()]
        with _closed_channel_as_unavailable():
            call = self._connection.stream_infer(request, metadata=metadata, timeout=_remaining_s(deadline))
        error_message, is_complete = "", False
        try:
            with cancel_token.on_cancel(call.cancel):
                # To the end: Triton 2.51 fails when a stream is cancelled after its last response.
                for response in call:
                    message = response.message
                    error_message = error_message or message.error_message
                    if message.infer_response.outputs:
                        yield _read_band(response, pixel_bytes=request.inputs[0].shape[2])
                    parameters = message.infer_response.parameters
                    is_complete = is_complete or parameters["triton_final_response"].bool_param
        except grpc.RpcError as error:
            cancel_token.raise_if_cancelled()
            raise translate(error) from error
        except (GeneratorExit, BackendFaultError):
            call.cancel()
            raise
        cancel_token.raise_if_cancelled()
        if not is_complete:
            raise BackendFaultError(error_message or "the stream ended without its final response")


def _request(pixels: Pixels, variant: str, request_id: str) -> service_pb2.ModelInferRequest:
    packed = to_bytes(pixels)
    request = service_pb2.ModelInferRequest(model_name="upscale_stream", id=request_id)
    request.inputs.add(name="IMAGE", datatype="UINT8", shape=packed.shape)
    request.inputs.add(name="VARIANT", datatype="BYTES", shape=[1])
    name = variant.encode()
    request.raw_input_contents.extend([packed.tobytes(), len(name).to_bytes(4, "little") + name])
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    return request


def _read_band(response: StreamResponse, pixel_bytes: int) -> tuple[Band, tuple[int, int]]:
    names = (output.name for output in response.message.infer_response.outputs)
    raw = dict(zip(names, response.tensors, strict=True))
    try:
        top, rows, height, width = (int(number) for number in np.frombuffer(raw["BAND"], np.int32))
        pixels = from_bytes(np.frombuffer(raw["ROWS"], np.uint8).reshape(rows, width, pixel_bytes))
        checks = np.frombuffer(raw["CHECKS"], np.float32).reshape(-1, len(FIELDS))
        work_s = int(np.frombuffer(raw["COMPUTE_US"], np.int64)[0]) / 1e6
    except (KeyError, ValueError, IndexError) as error:
        # With numpy 2 the server 2.51 returns the right shape without data, which must never become an image.
        raise BackendFaultError(f"a response holds an invalid band: {error}") from error
    return Band(top, pixels, checks, work_s), (height, width)


def _validated(bands: Iterator[tuple[Band, tuple[int, int]]], pixels: Pixels) -> Iterator[Band]:
    """Yield the bands; raise BackendFaultError unless they form one output of the right size without gaps."""
    rows, output = 0, (0, 0)
    for band, size in bands:
        scale = size[0] // pixels.shape[0]
        if size != (pixels.shape[0] * scale, pixels.shape[1] * scale) or scale < 1 or output not in ((0, 0), size):
            raise BackendFaultError(
                f"a band belongs to an output of {size}, but the image has the shape {pixels.shape}"
            )
        if band.top != rows or not len(band.pixels):
            raise BackendFaultError(f"a band starts at row {band.top} of the output; expected row {rows}")
        rows, output = rows + len(band.pixels), size
        yield band
    if rows != output[0] or not rows:
        raise BackendFaultError(f"the bands have {rows} rows; the output has the size {output}")


@contextmanager
def _closed_channel_as_unavailable() -> Iterator[None]:
    """Raise BackendUnavailableError for a call that starts after another thread has closed the channel."""
    try:
        yield
    except ValueError as error:  # gRPC's own: "Cannot invoke RPC: Channel closed!"
        raise BackendUnavailableError(str(error)) from error


def _remaining_s(deadline: float) -> float:
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0:
        raise BackendTimeoutError("the deadline passed before the request was sent")
    return remaining_s


def translate(error: grpc.RpcError | grpc.FutureCancelledError) -> BackendError:
    """Return the backend error for a gRPC error. The text matters too: UNAVAILABLE has five causes (2.51, measured)."""
    if not isinstance(error, grpc.Call):
        return BackendUnavailableError("the call was cancelled")
    code, text = error.code().name, str(error.details() or "")
    if "is restricted" in text:
        return BackendMisconfiguredError("Triton rejected MODEL_KEY")
    if "superres weights fetch" in text or (code == "NOT_FOUND" and _VARIANT.search(text)):
        return BackendVariantMissingError(text)
    if "superres weights verify" in text:  # a damaged file
        return BackendMisconfiguredError(text)
    if code == "UNAVAILABLE" or is_being_ended(text):
        return explain_unavailable(text)
    kind = _ERRORS_BY_STATUS.get(code, BackendFaultError)
    return kind(text if kind is BackendRejectedError else f"{code}: {text}")


_ERRORS_BY_STATUS: dict[str, type[BackendError]] = {
    "DEADLINE_EXCEEDED": BackendTimeoutError,
    "INVALID_ARGUMENT": BackendRejectedError,
    "NOT_FOUND": BackendMisconfiguredError,
    "UNIMPLEMENTED": BackendMisconfiguredError,
    "CANCELLED": BackendUnavailableError,
}
