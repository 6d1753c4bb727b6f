"""Triton's stitch step: stitches restored tiles into the image with ``preprocessing.tiling``; grey stays grey."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from preprocessing.depth import from_bytes, to_bytes
from preprocessing.grey import to_grey
from preprocessing.tiling import Grid, stitch


class TritonPythonModel:
    """Stitches the tiles of each request into an image."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run each request on its own: a bad request fails alone."""
        return [self._run(request) for request in requests]

    def _run(self, request: Any) -> Any:
        try:
            if request.is_cancelled():  # Triton does not stop an ensemble on a cancel (measured on 2.51)
                return _error("The client has disconnected.", pb_utils.TritonError.CANCELLED)
            tiles = pb_utils.get_input_tensor_by_name(request, "UPSCALED_TILES").as_numpy()
            grid = Grid.from_array(pb_utils.get_input_tensor_by_name(request, "GRID").as_numpy())
            image = stitch(tiles, grid, tiles.shape[1] // grid.tile_height)
            if pb_utils.get_input_tensor_by_name(request, "GREY").as_numpy().all():
                image = to_bytes(to_grey(from_bytes(image)))
        except ValueError as error:
            return _error(str(error), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse([pb_utils.Tensor("UPSCALED", image)])


def _error(text: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, code))
