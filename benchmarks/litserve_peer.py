"""A peer of `benchmarks.throughput`: the network behind LitServe with batching, as its documentation has it.

    python -m benchmarks.litserve_peer PORT

It takes and sends what `benchmarks.flask_peer` does. benchmarks/packages.txt has LitServe.
"""

from __future__ import annotations

import sys
from typing import Any

import litserve
import torch
from fastapi import Request, Response
from torch import Tensor

from benchmarks.flask_peer import Upscaler, read_png, write_png

# Requests of one batch, and seconds to wait for more of them. Longer waits were slower.
MAX_BATCH, BATCH_TIMEOUT_S = 16, 0.002


class UpscaleApi(litserve.LitAPI):  # type: ignore[misc]  # LitServe has no types here
    """Decodes a request, runs a batch and encodes a response."""

    def setup(self, device: Any) -> None:
        """Load the network. Called in the process that runs it."""
        del device
        self.upscaler = Upscaler()

    def decode_request(self, request: Any) -> Tensor:
        """Return the pixels of the upload."""
        return read_png(request["image"].file.read())

    def batch(self, inputs: list[Tensor]) -> Tensor:
        """Return one batch of all images."""
        return torch.stack(inputs)

    def predict(self, images: Tensor) -> Tensor:
        """Run the network."""
        return self.upscaler.run(images)

    def unbatch(self, output: Tensor) -> list[Tensor]:
        """Return the results of a batch."""
        return list(output)

    def encode_response(self, output: Tensor) -> Any:
        """Return the response of one image."""
        return Response(write_png(output), media_type="image/png")


# LitServe reads the types of the two ends from the annotations, which are texts in this module.
UpscaleApi.decode_request.__annotations__["request"] = Request
UpscaleApi.encode_response.__annotations__["return"] = Response


if __name__ == "__main__":
    litserve.server._MCP_AVAILABLE = False  # noqa: SLF001 - it expects version 1 of the package, the tests bring 2
    api = UpscaleApi(max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_S, api_path="/upscale")
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
