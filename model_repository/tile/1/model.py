"""Triton's tile step: splits an image into tiles with ``preprocessing.tiling``."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from preprocessing.depth import depth_of
from preprocessing.grey import is_grey
from preprocessing.tiling import split
from swinir.request_limits import RequestLimitError, check_image, read_samples
from swinir.settings import read_settings
from swinir.zoo import DEFAULT_VARIANT, UnknownVariantError


class TritonPythonModel:
    """Splits the image of each request into tiles of one shape."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the limits from the model's configuration, and the folder of imported variants."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.weights_dir = read_settings().weights_dir
        self.limits = {name: int(parameter["string_value"]) for name, parameter in parameters.items()}

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run each request on its own: a bad request fails alone."""
        return [self._run(request) for request in requests]

    def _run(self, request: Any) -> Any:
        try:
            if request.is_cancelled():
                return _error("The client has disconnected.", pb_utils.TritonError.CANCELLED)
            image = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()
            variant = pb_utils.get_input_tensor_by_name(request, "VARIANT")
            tensors = self._tile(image, variant.as_numpy()[0].decode() if variant else DEFAULT_VARIANT)
        except UnknownVariantError as error:
            return _error(str(error), pb_utils.TritonError.NOT_FOUND)
        except (RequestLimitError, UnicodeDecodeError) as error:
            return _error(str(error), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors.items()])

    def _tile(self, image: np.ndarray[Any, Any], variant: str) -> dict[str, np.ndarray[Any, Any]]:
        samples, limits = read_samples("IMAGE", image), self.limits
        if depth_of(samples) == 16:  # twice the bytes
            limits = limits | {name: limits[name] // 2 for name in ("max_pixels", "max_output_pixels")}
        height, width = image.shape[:2]
        _, grid = check_image(height, width, variant, limits=limits, weights_dir=self.weights_dir)
        count = grid.rows * grid.columns
        names = np.full((count, 1), variant.encode(), dtype=np.object_)
        grey = np.array([is_grey(samples)])
        return {"TILES": split(image, grid), "VARIANTS": names, "GRID": grid.to_array(), "GREY": grey}


def _error(text: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, code))
