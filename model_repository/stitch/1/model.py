"""Triton's stitch step: tensors -> ``preprocessing.tiling.stitch`` -> tensor."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from preprocessing.tiling import Grid, stitch


class TritonPythonModel:
    """One request at a time: restored tiles become the image."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own: a bad one fails alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            if request.is_cancelled():  # the ensemble does not stop by itself (measured on 2.51)
                return _error("the client has left", pb_utils.TritonError.CANCELLED)
            tiles = pb_utils.get_input_tensor_by_name(request, "UPSCALED_TILES").as_numpy()
            grid = Grid.from_array(pb_utils.get_input_tensor_by_name(request, "GRID").as_numpy())
            image = stitch(tiles, grid, tiles.shape[1] // grid.tile_height)
        except ValueError as error:
            return _error(str(error), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse([pb_utils.Tensor("UPSCALED", image)])


def _error(text: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, code))
