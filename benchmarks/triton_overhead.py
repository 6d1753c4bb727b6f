"""Measures what Triton, its ensemble and gRPC add to the network: one image, in this process and on a server, in turn.

The server is the embedded Triton on loopback, with the shipped model repository and bundled weights. Measures the
network alone (float input and output), the engine around it (checks and uint8), the ensemble `upscale`, and
`upscale_stream`, which the gateway uses.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton

from benchmarks.candidates import load_served_network
from benchmarks.machine import OMP_WAIT_POLICY
from benchmarks.rounds import Timing, measure_in_turn
from gateway.backend.channel import MAX_MESSAGE_BYTES
from gateway.backend.triton_client import MODEL_KEY_HEADER, TritonClient
from gateway.backend.triton_process import PROJECT_ROOT, TritonProcess, find_free_ports
from gateway.cancellation import CancelToken
from swinir.inference.create_engine import create_engine
from swinir.settings import read_settings
from swinir.zoo import find_variant

KEY = "key-of-this-benchmark"
BOOT_LIMIT_S = 120.0
RESPONSE_LIMIT_S = 300.0


def measure_triton(variant: str, side: int, rounds: int, threads: int) -> dict[str, Timing]:
    """Return the timings of "network", "engine", "ensemble" and "stream" for one image of side x side."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    images = pixels[np.newaxis].astype(np.float32) / 255
    engine = create_engine(read_settings({"SUPERRES_ENGINE_THREADS": str(threads)}))
    network = load_served_network(variant, threads)

    with tempfile.TemporaryDirectory() as folder:
        server = TritonProcess(
            model_repository=PROJECT_ROOT / "model_repository",
            model_key=KEY,
            api_key=KEY,
            log_path=Path(folder) / "triton.log",
            environ={
                "OMP_WAIT_POLICY": OMP_WAIT_POLICY,
                "SUPERRES_DEFAULT_VARIANT": variant,
                "SUPERRES_ENGINE_THREADS": str(threads),
            },
            ports=find_free_ports(),
        )
        try:
            server.wait_until_ready(time.monotonic() + BOOT_LIMIT_S)
            client, backend = _connect(server.grpc_address), TritonClient(server.grpc_address, [KEY])

            def run_stream() -> object:
                deadline = time.monotonic() + RESPONSE_LIMIT_S
                return list(
                    backend.upscale_bands(
                        pixels, variant, deadline=deadline, request_id="benchmark", cancel_token=CancelToken()
                    )
                )

            runs = {
                "network": lambda: network.forward(images),
                "engine": lambda: engine.restore(pixels[np.newaxis], variant),
                "ensemble": lambda: _call_ensemble(client, pixels, variant),
                "stream": run_stream,
            }
            timings = measure_in_turn(runs, rounds)
            backend.close()
            client.close()
        finally:
            server.stop()
    return timings


def _connect(address: str) -> triton.InferenceServerClient:
    limits = [(f"grpc.max_{way}_message_length", MAX_MESSAGE_BYTES) for way in ("send", "receive")]
    return triton.InferenceServerClient(address, channel_args=limits)


def _call_ensemble(
    client: triton.InferenceServerClient, pixels: npt.NDArray[np.uint8], variant: str
) -> npt.NDArray[np.uint8]:
    image = triton.InferInput("IMAGE", list(pixels.shape), "UINT8")
    image.set_data_from_numpy(pixels)
    name = triton.InferInput("VARIANT", [1], "BYTES")
    name.set_data_from_numpy(np.array([variant.encode()], dtype=np.object_))
    response = client.infer("upscale", [image, name], headers={MODEL_KEY_HEADER: KEY}, client_timeout=RESPONSE_LIMIT_S)
    upscaled: npt.NDArray[np.uint8] = response.as_numpy("UPSCALED")
    scale = find_variant(variant).scale
    if upscaled.shape != (pixels.shape[0] * scale, pixels.shape[1] * scale, 3):
        raise RuntimeError(f"the ensemble returned shape {upscaled.shape} for {pixels.shape}")
    return upscaled
