"""The contract of the model `upscale` for any Triton client, on a real server with the shipped models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from swinir.inference.torch_engine import TorchEngine
from swinir.zoo import DEFAULT_VARIANT
from testing.data import max_difference, set5_pair
from testing.images import draw_photo
from testing.triton import TritonServer, run_server
from testing.triton_clients import count_mappings, metric, stable_metric, swinir_request, upscale, upscale_request


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine()


def whole(engine: TorchEngine, pixels: Any) -> Any:
    """Run the network once over the whole image, without tiles and without Triton."""
    return engine.restore(pixels[None], DEFAULT_VARIANT).tiles[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 2), (7, 9), (72, 64), (50, 301), (257, 97)])
def test_any_size_comes_back_four_times_as_large(
    triton_server: TritonServer, engine: TorchEngine, shape: tuple[int, int]
) -> None:
    pixels = draw_photo(*shape, seed=1)

    upscaled = upscale(triton_server, pixels)

    assert upscaled.shape == (shape[0] * 4, shape[1] * 4, 3)
    assert max_difference(upscaled, whole(engine, pixels)) <= 1


def test_grpc_and_http_give_the_same_image(triton_server: TritonServer) -> None:
    pixels, _ = set5_pair("butterfly")
    inputs = upscale_request(http_client, pixels, variant=None)
    client = http_client.InferenceServerClient(triton_server.http_address)
    try:
        result = client.infer("upscale", inputs, headers={"model-key": triton_server.model_key})
    finally:
        client.close()  # an idle connection would delay the server's shutdown

    assert max_difference(result.as_numpy("UPSCALED"), upscale(triton_server, pixels)) == 0


def test_naming_the_default_variant_changes_nothing(triton_server: TritonServer) -> None:
    pixels = draw_photo(40, 48, seed=2)
    assert max_difference(upscale(triton_server, pixels, variant=DEFAULT_VARIANT), upscale(triton_server, pixels)) == 0


@pytest.mark.parametrize("key", [None, "", "wrong", "api-key-of-the-tests"])
def test_inference_without_model_key_is_rejected(triton_server: TritonServer, key: str | None) -> None:
    pixels = draw_photo(16, 16, seed=3)
    with pytest.raises(grpc_client.InferenceServerException, match="restricted"):
        upscale(triton_server, pixels, key=key)

    client = http_client.InferenceServerClient(triton_server.http_address)
    try:
        with pytest.raises(http_client.InferenceServerException, match="restricted"):
            client.infer("upscale", upscale_request(http_client, pixels), headers={"model-key": key} if key else {})
    finally:
        client.close()


def test_administration_needs_a_key_and_health_does_not(triton_server: TritonServer) -> None:
    with grpc_client.InferenceServerClient(triton_server.grpc_address) as client:
        model_key = {"triton-grpc-protocol-model-key": triton_server.model_key}
        api_key = {"triton-grpc-protocol-api-key": triton_server.api_key}

        for call in (client.get_model_repository_index, client.get_inference_statistics, client.get_trace_settings):
            with pytest.raises(grpc_client.InferenceServerException, match="restricted"):
                call(headers=model_key)
        for call in (client.load_model, client.unload_model):
            with pytest.raises(grpc_client.InferenceServerException, match="restricted"):
                call("swinir", headers=model_key)
            with pytest.raises(grpc_client.InferenceServerException, match="not allowed"):
                call("swinir", headers=api_key)  # control mode none: models cannot be swapped at run time

        assert client.is_server_ready()
        assert {model.name for model in client.get_model_repository_index(headers=api_key).models} >= {
            "tile",
            "swinir",
            "stitch",
            "upscale",
        }


REFUSED = {
    "too many pixels": (np.zeros((2049, 2049, 3), np.uint8), DEFAULT_VARIANT, "4198401 pixels .* limit .* is 4194304"),
    "no pixels": (np.zeros((0, 5, 3), np.uint8), DEFAULT_VARIANT, "0 x 5|byte size|no pixels"),
    "four channels": (np.zeros((8, 8, 4), np.uint8), DEFAULT_VARIANT, r"IMAGE has 4 bytes per pixel; send 3 .* or 6"),
    "a missing dimension": (np.zeros((8, 8), np.uint8), DEFAULT_VARIANT, r"\[-1,-1,-1\]"),
    "too many pixels of 16 bits": (
        np.zeros((1449, 1448, 6), np.uint8),
        DEFAULT_VARIANT,
        "2098152 pixels .* limit .* is 2097152",
    ),
    "floats": (np.zeros((8, 8, 3), np.float32), DEFAULT_VARIANT, "FP32.*UINT8|UINT8.*FP32"),
    "an unknown variant": (np.zeros((8, 8, 3), np.uint8), "swin_ultra", "Unknown variant 'swin_ultra'.*compact_x4"),
    "a variant without weights": (np.zeros((8, 8, 3), np.uint8), "real_x4", "superres weights fetch real_x4"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_rejected_and_the_server_continues(triton_server: TritonServer, case: str) -> None:
    pixels, variant, text = REFUSED[case]

    with pytest.raises(grpc_client.InferenceServerException, match=text):
        upscale(triton_server, pixels, variant=variant)

    assert upscale(triton_server, draw_photo(8, 8, seed=4)).shape == (32, 32, 3)


@pytest.mark.parametrize("shape", [(1, 264, 64, 3), (2, 64, 1024, 3)])
def test_tiles_over_the_limit_are_rejected(triton_server: TritonServer, shape: tuple[int, ...]) -> None:
    text = f"TILES are {shape[2]} x {shape[1]}; the limit for {DEFAULT_VARIANT} is 256 per side"
    with pytest.raises(grpc_client.InferenceServerException, match=text) as raised:
        swinir_request(triton_server, np.zeros(shape, np.uint8), DEFAULT_VARIANT)
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_eight_clients_at_once_share_batches(triton_server: TritonServer) -> None:
    """Triton counts fewer executions than requests, and each client gets its own image."""
    images = [draw_photo(64, 64, seed=seed) for seed in range(32)]
    alone = [upscale(triton_server, pixels) for pixels in images]
    before = [
        stable_metric(triton_server, name) for name in ("nv_inference_request_success", "nv_inference_exec_count")
    ]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pixels: upscale(triton_server, pixels), images))

    requests = stable_metric(triton_server, "nv_inference_request_success") - before[0]
    executions = metric(triton_server, "nv_inference_exec_count") - before[1]
    assert requests == len(images)
    assert executions < requests, f"{requests:.0f} requests took {executions:.0f} executions: no batch was shared"
    for own, got in zip(alone, together, strict=True):
        assert max_difference(own, got) <= 1


def test_bad_request_fails_alone_in_its_batch(triton_server: TritonServer) -> None:
    tiles = draw_photo(64, 64, seed=5)[None]
    expected = swinir_request(triton_server, tiles, DEFAULT_VARIANT)
    variants = [
        DEFAULT_VARIANT,
        "nope",
        DEFAULT_VARIANT,
        "real_x4",
        DEFAULT_VARIANT,
        "nope",
        DEFAULT_VARIANT,
        DEFAULT_VARIANT,
    ] * 3

    def ask(variant: str) -> Any:
        try:
            return swinir_request(triton_server, tiles, variant)
        except grpc_client.InferenceServerException as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(ask, variants))

    for variant, response in zip(variants, responses, strict=True):
        if variant == DEFAULT_VARIANT:
            assert isinstance(response, np.ndarray), response
            assert max_difference(response, expected) <= 1
        else:
            assert isinstance(response, grpc_client.InferenceServerException)
            assert response.status() == {"nope": "StatusCode.NOT_FOUND", "real_x4": "StatusCode.UNAVAILABLE"}[variant]


def test_request_that_mixes_variants_is_rejected(triton_server: TritonServer) -> None:
    tiles = np.repeat(draw_photo(16, 16, seed=6)[None], 2, axis=0)
    with pytest.raises(grpc_client.InferenceServerException, match="has 2 different names"):
        swinir_request(triton_server, tiles, [DEFAULT_VARIANT, "compact_x2"])


def test_no_model_imports_torch_on_a_cpu(triton_server: TritonServer) -> None:
    """torch costs 200 MB and a second per process. The compiled engine runs without it."""
    upscale(triton_server, draw_photo(40, 48, seed=2))
    assert count_mappings(triton_server, "fused_block-") == 1, "the library of swinir"
    assert count_mappings(triton_server, "libtorch") == 0


def test_engine_of_the_setting_gives_the_same_image(triton_server: TritonServer, tmp_path: Path) -> None:
    images = [draw_photo(40, 48, seed=2), draw_photo(150, 140, seed=3)]
    with run_server(tmp_path, environ={"SUPERRES_ENGINE": "torch"}) as server:
        for image in images:
            assert max_difference(upscale(server, image), upscale(triton_server, image)) <= 1
        assert count_mappings(server, "libtorch") == 1, "only swinir needs it"
