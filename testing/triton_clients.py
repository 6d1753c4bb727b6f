"""Calls to a running Triton, and its metrics."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpc_client

from gateway.backend.triton_stubs import find_stubs
from testing.stack import wait_until_stable
from testing.triton import TritonServer

TIMEOUT_S = 120.0
STABLE_S = 1.0


def upscale_request(client: Any, pixels: Any, variant: str | None = None) -> list[Any]:
    """Return the inputs of `upscale` for tritonclient.grpc or tritonclient.http."""
    data_type = {"uint8": "UINT8", "float32": "FP32"}[pixels.dtype.name]
    image = client.InferInput("IMAGE", list(pixels.shape), data_type)
    image.set_data_from_numpy(pixels)
    if variant is None:
        return [image]
    name = client.InferInput("VARIANT", [1], "BYTES")
    name.set_data_from_numpy(np.array([variant.encode()], dtype=np.object_))
    return [image, name]


def upscale(server: TritonServer, pixels: Any, variant: str | None = None, key: str | None = "right") -> Any:
    """Upscale one image with the ensemble, over gRPC."""
    secret = server.model_key if key == "right" else key
    headers = {"triton-grpc-protocol-model-key": secret} if secret is not None else {}
    with grpc_client.InferenceServerClient(server.grpc_address) as client:
        result = client.infer(
            "upscale", upscale_request(grpc_client, pixels, variant), headers=headers, client_timeout=TIMEOUT_S
        )
    return result.as_numpy("UPSCALED")


def swinir_request(server: TritonServer, tiles: Any, variants: str | Sequence[str]) -> Any:
    """Send tiles directly to `swinir`, without the checks of the step `tile`."""
    names = [variants] * len(tiles) if isinstance(variants, str) else variants
    inputs = grpc_client.InferInput("TILES", list(tiles.shape), "UINT8")
    inputs.set_data_from_numpy(tiles)
    name = grpc_client.InferInput("VARIANT", [len(tiles), 1], "BYTES")
    name.set_data_from_numpy(np.array([[each.encode()] for each in names], dtype=np.object_))
    headers = {"triton-grpc-protocol-model-key": server.model_key}
    with grpc_client.InferenceServerClient(server.grpc_address) as client:
        result = client.infer("swinir", [inputs, name], headers=headers, client_timeout=TIMEOUT_S)
    return result.as_numpy("UPSCALED_TILES")


def metric(server: TritonServer, name: str, model: str = "swinir") -> float:
    """Return a counter of Triton or of the model."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=TIMEOUT_S) as response:
        lines = response.read().decode().splitlines()
    lines = [line for line in lines if line.startswith(f"{name}{{") and f'model="{model}"' in line]
    values = [float(line.split()[-1]) for line in lines]
    assert len(values) == 1, f"{name} of {model} appears {len(values)} times"
    return values[0]


def stable_metric(server: TritonServer, name: str) -> float:
    """Return a counter once it stops changing: Triton counts a request some ms after the response."""
    return wait_until_stable(lambda: metric(server, name), STABLE_S)


def count_mappings(server: TritonServer, library: str) -> int:
    """Return how many of the server's stubs have mapped a library."""
    return sum(library in Path(f"/proc/{stub.pid}/maps").read_text() for stub in find_stubs(server.process.pid))


def upscale_with_checks(server: TritonServer, pixels: Any, variant: str) -> tuple[Any, Any]:
    """Upscale one image with the ensemble; return it and its checks, float32 [tiles, 6]."""
    outputs = [grpc_client.InferRequestedOutput(name) for name in ("UPSCALED", "CHECKS")]
    with grpc_client.InferenceServerClient(server.grpc_address) as client:
        result = client.infer(
            "upscale",
            upscale_request(grpc_client, pixels, variant),
            outputs=outputs,
            headers={"triton-grpc-protocol-model-key": server.model_key},
            client_timeout=TIMEOUT_S,
        )
    return result.as_numpy("UPSCALED"), result.as_numpy("CHECKS")


def custom_metric(server: TritonServer, name: str) -> float:
    """Return a counter of the engine from Triton's metrics: tiles, seconds, reruns, halvings, loads or evictions."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=TIMEOUT_S) as response:
        lines = response.read().decode().splitlines()
    values = [float(line.split()[-1]) for line in lines if line.startswith(f"superres_{name}_total{{")]
    assert len(values) == 1, f"superres_{name}_total appears {len(values)} times"
    return values[0]
