"""The backend over gRPC: pixels to Triton's `upscale`, pixels back, and Triton's errors in our own words.

Owns the channel and the meaning of every status Triton gives; knows nothing of who starts the server.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import tritonclient.grpc as triton

from gateway.upscaler import (
    BackendError,
    BackendFault,
    BackendMisconfigured,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
)
from preprocessing.image import Pixels

MODEL_KEY_HEADER = "triton-grpc-protocol-model-key"
"""The gRPC header of Triton's restricted group `model-key`; HTTP clients send `model-key`."""
MAX_MESSAGE_BYTES = 2**31 - 1  # 67 megapixels out are 201 MB; gRPC's default of 4 MB would refuse a 1200 x 1200 answer


class TritonBackend:
    """Calls one Triton server. Safe to use from several threads; `model_keys` holds two values during a rotation."""

    def __init__(self, address: str, model_keys: Sequence[str]) -> None:
        self._keys = [key for key in model_keys if key] or [""]
        # gRPC reconnects by itself to a server that slept or was replaced; its default waits up to 120 s between tries.
        arguments = [
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.enable_http_proxy", 0),
        ]
        self._client = triton.InferenceServerClient(address, channel_args=arguments)

    def upscale(self, pixels: Pixels, variant: str, *, deadline: float, request_id: str) -> Pixels:
        """Return [H * scale, W * scale, 3] uint8 for [H, W, 3] uint8 before `deadline` (a `time.monotonic` moment)."""
        image = triton.InferInput("IMAGE", list(pixels.shape), "UINT8")
        image.set_data_from_numpy(np.ascontiguousarray(pixels))
        name = triton.InferInput("VARIANT", [1], "BYTES")
        name.set_data_from_numpy(np.array([variant.encode()], dtype=np.object_))
        result = self._infer([image, name], deadline, request_id)
        upscaled: Pixels | None = result.as_numpy("UPSCALED")
        _check_answer(pixels, upscaled)
        assert upscaled is not None  # noqa: S101 - checked above; narrows the type
        return upscaled

    def is_ready(self, timeout_s: float) -> bool:
        """Whether the server says ready. Asking wakes a sleeping backend: never poll this in the background."""
        try:
            return bool(self._client.is_server_ready(client_timeout=timeout_s))
        except triton.InferenceServerException:
            return False

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def _infer(self, inputs: list[triton.InferInput], deadline: float, request_id: str) -> triton.InferResult:
        for number, key in enumerate(self._keys):
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise BackendTimeout("the deadline passed before the backend was asked")
            try:
                return self._client.infer(
                    "upscale",
                    inputs,
                    request_id=request_id,
                    headers={MODEL_KEY_HEADER: key} if key else {},
                    client_timeout=remaining_s,
                )
            except triton.InferenceServerException as error:
                failure = translate(error)
                last = number == len(self._keys) - 1
                if last or not isinstance(failure, BackendMisconfigured):
                    raise failure from error
        raise AssertionError("unreachable: the last key's failure was raised")


def translate(error: triton.InferenceServerException) -> BackendError:
    """Turn Triton's exception into ours. UNAVAILABLE alone stands for five different things (triton 2.51, measured)."""
    code = str(error.status() or "no status").removeprefix("StatusCode.")
    text = _without_prefix(str(error.message() or ""))
    if "is restricted" in text:
        return BackendMisconfigured("Triton refused MODEL_KEY")
    if "superres weights fetch" in text:
        return BackendMisconfigured(text)
    kind = _KINDS.get(code, BackendFault)
    return kind(text if kind is BackendRefused else f"{code}: {text}")


_KINDS: dict[str, type[BackendError]] = {
    "DEADLINE_EXCEEDED": BackendTimeout,
    "INVALID_ARGUMENT": BackendRefused,
    "NOT_FOUND": BackendMisconfigured,
    "UNIMPLEMENTED": BackendMisconfigured,
    "CANCELLED": BackendUnavailable,
    "UNAVAILABLE": BackendUnavailable,
}


def _without_prefix(text: str) -> str:
    """Triton puts "in ensemble 'upscale', " before a step's own sentence."""
    return text.removeprefix("in ensemble 'upscale', ")


def _check_answer(pixels: Pixels, upscaled: Pixels | None) -> None:
    """numpy 2 beside the 2.51 server gives the right shape and no data: never let that pass for a picture."""
    shape = None if upscaled is None else upscaled.shape
    if upscaled is None or len(upscaled.shape) != 3 or upscaled.shape[2] != 3 or upscaled.dtype != np.uint8:
        raise BackendFault(f"the answer has shape {shape}; a uint8 [H, W, 3] image was expected")
    down, across = upscaled.shape[0] / pixels.shape[0], upscaled.shape[1] / pixels.shape[1]
    if down != across or down != int(down) or down < 1:
        raise BackendFault(f"the answer has shape {shape} for an image of shape {pixels.shape}")
