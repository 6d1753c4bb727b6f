"""A peer of `benchmarks.throughput`: the network behind Flask's own server.

    python -m benchmarks.flask_peer PORT

Takes a form with the file `image` at POST /upscale and responds with a PNG, as short as a tutorial has it: Pillow reads
and writes the image. It runs the project's own network with its weights, the fused block included.
"""

from __future__ import annotations

import sys
from io import BytesIO
from threading import Lock

import numpy as np
import torch
from flask import Flask, Response, request
from PIL import Image
from torch import Tensor

from swinir.inference.cpu_count import count_cpus
from swinir.inference.memory import keep_freed_memory
from swinir.weights.find import find_weights
from swinir.weights.load import load_network
from swinir.zoo import DEFAULT_VARIANT, find_variant


class Upscaler:
    """The network with its weights."""

    def __init__(self) -> None:
        keep_freed_memory()
        torch.set_num_threads(count_cpus())
        row = find_variant(DEFAULT_VARIANT)
        self._network = load_network(row, find_weights(row, None))

    @torch.inference_mode()
    def run(self, images: Tensor) -> Tensor:
        """Return uint8 [N, H * scale, W * scale, 3] for uint8 [N, H, W, 3]."""
        restored = self._network(images.permute(0, 3, 1, 2).float().div_(255.0))
        return restored.mul_(255.0).clamp_(0, 255).round_().to(torch.uint8).permute(0, 2, 3, 1)


def read_png(data: bytes) -> Tensor:
    """Return the pixels of a PNG, uint8 [H, W, 3]."""
    return torch.from_numpy(np.array(Image.open(BytesIO(data)).convert("RGB")))


def write_png(pixels: Tensor) -> bytes:
    """Return a PNG of uint8 [H, W, 3]."""
    target = BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(target, "PNG")
    return target.getvalue()


def serve(port: int) -> None:
    """Serve with Flask's own threaded server, one image at a time in the network."""
    app, upscaler, lock = Flask(__name__), Upscaler(), Lock()

    @app.post("/upscale")
    def upscale() -> Response:
        image = read_png(request.files["image"].read())
        with lock:
            [restored] = upscaler.run(image[None])
        return Response(write_png(restored), mimetype="image/png")

    app.run("127.0.0.1", port, threaded=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
