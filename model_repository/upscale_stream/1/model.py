"""Triton's streaming model: upscales an image with ``swinir.streaming``, which calls the model `swinir`.

Sends one response per band.
"""

from __future__ import annotations

import ctypes
import json
import threading
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from preprocessing.depth import from_bytes, to_bytes
from swinir.request_limits import RequestLimitError, check_image, read_samples
from swinir.settings import read_settings
from swinir.streaming import StreamCancelledError, stream_bands
from swinir.zoo import DEFAULT_VARIANT, UnknownVariantError

# Name of each stream's thread, by which docker/triton/open-streams finds them. (A custom metric cannot: with 2.51 one
# that is changed from several threads ends the server.)
THREAD_NAME = b"superres-stream"
_PR_SET_NAME = 15  # linux/prctl.h
_libc = ctypes.CDLL(None)

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class _SwinirError(Exception):
    """The model `swinir` returned an error; `code` is Triton's error code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class TritonPythonModel:
    """Runs each request on a thread of its own; a bad request fails alone."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the limits from the model's configuration or the environment, and the folder of imported variants."""
        parameters = json.loads(args["model_config"])["parameters"]
        settings = read_settings()
        self.weights_dir = settings.weights_dir
        self.limits = {name: int(parameter["string_value"]) for name, parameter in parameters.items()}
        self.limits |= settings.image_limits
        self.free_streams = threading.Semaphore(self.limits["max_streams"])

    def execute(self, requests: list[Any]) -> None:
        """Start the requests and return at once, so that the next request does not wait for their bands."""
        for request in requests:
            sender = request.get_response_sender()
            if self.free_streams.acquire(blocking=False):
                threading.Thread(target=self._run, args=(request, sender), daemon=True).start()
            else:
                text = f"Too many streams: {self.limits['max_streams']} are open, which is the limit. Try again later."
                _send_error(sender, text, pb_utils.TritonError.UNAVAILABLE)

    def _run(self, request: Any, sender: Any) -> None:
        _libc.prctl(_PR_SET_NAME, THREAD_NAME, 0, 0, 0)
        try:
            self._stream(request, sender)
        except UnknownVariantError as error:
            _send_error(sender, str(error), pb_utils.TritonError.NOT_FOUND)
        except (RequestLimitError, UnicodeDecodeError) as error:
            _send_error(sender, str(error), pb_utils.TritonError.INVALID_ARG)
        except StreamCancelledError as error:
            pb_utils.Logger.log_info(f"request {_id(request)}: {error}")
            _send_error(sender, str(error), pb_utils.TritonError.CANCELLED)
        except _SwinirError as error:
            pb_utils.Logger.log_warn(f"request {_id(request)}: {error}")
            _send_error(sender, str(error), error.code)
        except Exception as error:  # noqa: BLE001 - after any error the client must get a response
            pb_utils.Logger.log_error(f"request {_id(request)}: {type(error).__name__}: {error}")
            _send_error(sender, f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
        finally:
            self.free_streams.release()

    def _stream(self, request: Any, sender: Any) -> None:
        started = time.monotonic()
        image = read_samples("IMAGE", pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy())
        requested = pb_utils.get_input_tensor_by_name(request, "VARIANT")
        variant = requested.as_numpy()[0].decode() if requested else DEFAULT_VARIANT
        height, width = image.shape[:2]
        row, grid = check_image(height, width, variant, limits=self.limits, weights_dir=self.weights_dir)

        def restore(tiles: Any) -> tuple[Any, Any, int]:
            return _call_swinir(tiles, row.name, request.request_id())

        for band in stream_bands(image, grid, row.scale, restore, request.is_cancelled):
            position = [band.top, len(band.pixels), height * row.scale, width * row.scale]
            tensors = {
                "ROWS": to_bytes(band.pixels),
                "BAND": np.array(position, np.int32),
                "COMPUTE_US": np.array([band.compute_us], np.int64),
                "CHECKS": band.checks,
            }
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors.items()]))
        sender.send(flags=FINAL)
        pb_utils.Logger.log_info(
            f"request {_id(request)}: {width}x{height} through {variant}, {grid.rows} bands of {grid.columns} tiles "
            f"in {time.monotonic() - started:.2f} s"
        )


def _call_swinir(tiles: Any, variant: str, request_id: str) -> tuple[Any, Any, int]:
    names = np.full((len(tiles), 1), variant.encode(), dtype=np.object_)
    response = pb_utils.InferenceRequest(
        model_name="swinir",
        request_id=request_id,
        requested_output_names=["UPSCALED_TILES", "CHECKS", "WORK_US"],
        inputs=[pb_utils.Tensor("TILES", np.ascontiguousarray(to_bytes(tiles))), pb_utils.Tensor("VARIANT", names)],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    ).exec()
    if response.has_error():
        raise _SwinirError(response.error().message(), response.error().code())
    restored, checks, work_us = (
        pb_utils.get_output_tensor_by_name(response, name).as_numpy()
        for name in ("UPSCALED_TILES", "CHECKS", "WORK_US")
    )
    return from_bytes(restored), checks, int(work_us.sum())


def _id(request: Any) -> str:
    """Return the id of a request, escaped for the log: the client chooses it."""
    return ascii(request.request_id()[:64])


def _send_error(sender: Any, text: str, code: int) -> None:
    sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(text, code)), flags=FINAL)
