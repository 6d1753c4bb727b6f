"""Faults injected into the engine on a real Triton: the client gets an error, and the server continues."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.grpc as grpc_client
from safetensors.torch import load, save
from torch import Tensor

from swinir.checks import summarise
from swinir.inference.tiles import uses_tiles
from swinir.network.compiled_network import CompiledNetwork
from swinir.network.swinir import SwinIR
from swinir.settings import ENGINES, EngineChoice
from swinir.zoo import VARIANTS
from testing.data import max_difference
from testing.images import draw_photo
from testing.networks import install_small
from testing.triton import TritonServer, lay_out_faulty_repository, run_server
from testing.triton_clients import custom_metric, upscale, upscale_with_checks

Switch = Callable[..., None]


def measure_bytes(engine: EngineChoice, config: Mapping[str, Any]) -> int:
    """Return the memory of a network in an engine."""
    network = SwinIR(**config)
    if engine == "torch":
        return network.prepare()
    weights = {name: parameter.detach().numpy() for name, parameter in network.named_parameters()}
    return CompiledNetwork(config, weights, None, 1, on_tiles=uses_tiles("auto")).size_bytes


@pytest.fixture(scope="module", params=ENGINES)
def faulty(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TritonServer, Path]]:
    """A server with injectable faults and small variants in a folder to which tests may add, with each engine."""
    folder = tmp_path_factory.mktemp("faulty")
    weights_dir = folder / "weights"
    weights_dir.mkdir()
    small, *_ = [install_small(weights_dir, name) for name in ("small_a", "small_b", "small_c")]
    repository = lay_out_faulty_repository(folder, folder / "faults")
    large_bytes, small_bytes = (measure_bytes(request.param, row.config) for row in (VARIANTS["compact_x4"], small))
    environ = {
        "SUPERRES_ENGINE": request.param,
        "SUPERRES_WEIGHTS_DIR": str(weights_dir),
        "SUPERRES_MAX_WEIGHTS_BYTES": str(large_bytes + small_bytes * 3 // 2),
    }
    with run_server(folder, environ=environ, model_repository=repository) as server:
        yield server, folder


@pytest.fixture
def server(faulty: tuple[TritonServer, Path]) -> TritonServer:
    return faulty[0]


@pytest.fixture
def switch(faulty: tuple[TritonServer, Path]) -> Iterator[Switch]:
    """Switch on faults until the end of the test."""
    path = faulty[1] / "faults"

    def switch_on(*faults: str) -> None:
        path.write_text("\n".join(faults))

    yield switch_on
    path.unlink(missing_ok=True)


def metrics_after(server: TritonServer, action: Callable[[], Any]) -> dict[str, float]:
    names = ("tiles", "reruns", "halvings", "loads", "evictions", "seconds")
    before = {name: custom_metric(server, name) for name in names}
    action()
    return {name: custom_metric(server, name) - before[name] for name in names}


def test_one_out_of_memory_is_invisible_to_the_client(server: TritonServer, switch: Switch) -> None:
    pixels = draw_photo(40, 48, seed=1)
    expected = upscale(server, pixels, "small_a")
    switch("memory")

    def ask() -> None:
        upscaled, rows = upscale_with_checks(server, draw_photo(140, 150, seed=2), "small_a")
        assert upscaled.shape == (280, 300, 3)
        assert summarise(rows).halvings == 1

    metrics = metrics_after(server, ask)

    assert metrics["halvings"] == 1
    assert max_difference(upscale(server, pixels, "small_a"), expected) == 0


def test_permanent_out_of_memory_is_an_error(server: TritonServer, switch: Switch) -> None:
    switch("always memory")
    with pytest.raises(grpc_client.InferenceServerException, match="one 16x24 tile of small_a does not fit in memory"):
        upscale(server, draw_photo(16, 24, seed=3), "small_a")
    switch()
    assert upscale(server, draw_photo(16, 24, seed=3), "small_a").shape == (32, 48, 3)


def test_tile_not_finite_is_rerun_and_reported(server: TritonServer, switch: Switch) -> None:
    pixels = draw_photo(32, 32, seed=4)
    expected = upscale(server, pixels, "small_a")
    switch("nan")
    responses: list[Any] = []

    metrics = metrics_after(server, lambda: responses.append(upscale_with_checks(server, pixels, "small_a")))

    upscaled, rows = responses[0]
    assert max_difference(upscaled, expected) <= 1
    assert summarise(rows).reruns == 1
    assert metrics["reruns"] == 1
    assert metrics["tiles"] == 1
    assert metrics["seconds"] > 0


def test_tile_never_finite_is_an_error(server: TritonServer, switch: Switch) -> None:
    switch("nan", "nan")
    with pytest.raises(grpc_client.InferenceServerException, match="not finite for a tile, also in float32") as raised:
        upscale(server, draw_photo(32, 32, seed=5), "small_a")
    assert raised.value.status() == "StatusCode.INTERNAL"
    assert upscale(server, draw_photo(32, 32, seed=5), "small_a").shape == (64, 64, 3)


def test_failed_load_is_retried_by_the_next_request(server: TritonServer, switch: Switch) -> None:
    upscale(server, draw_photo(16, 16), "small_a")
    upscale(
        server, draw_photo(16, 16), "compact_x4"
    )  # so that small_b has to be loaded: the cache holds one small network
    switch("load")
    with pytest.raises(grpc_client.InferenceServerException, match=r"small_b\.safetensors cannot be read") as raised:
        upscale(server, draw_photo(16, 16), "small_b")
    assert raised.value.status() == "StatusCode.UNAVAILABLE"
    assert upscale(server, draw_photo(16, 16), "small_b").shape == (32, 32, 3)


def test_one_load_however_many_ask(server: TritonServer, switch: Switch) -> None:
    for name in ("compact_x4", "small_a"):
        upscale(server, draw_photo(16, 16), name)
    switch("slow load")

    def ask() -> None:
        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(lambda seed: upscale(server, draw_photo(16, 16, seed=seed), "small_c"), range(6)))
        assert len(results) == 6

    assert metrics_after(server, ask)["loads"] == 1


def test_least_recently_used_network_is_evicted(server: TritonServer) -> None:
    """The cache holds compact_x4 and one small variant."""
    for name in ("compact_x4", "small_a"):
        upscale(server, draw_photo(16, 16), name)
    metrics = metrics_after(server, lambda: upscale(server, draw_photo(16, 16), "small_b"))
    assert (metrics["loads"], metrics["evictions"]) == (1, 1)  # compact_x4 was evicted; both small networks fit instead
    metrics = metrics_after(server, lambda: upscale(server, draw_photo(16, 16), "small_b"))
    assert (metrics["loads"], metrics["evictions"]) == (0, 0)


@pytest.mark.parametrize(
    ("extra_switches", "side", "tiles_bytes"),
    [([], 200, 2_073_600), (["always no large jobs"], 280, 5_677_056)],
    ids=["queue of large jobs", "within execute"],
)
def test_response_too_large_for_shared_memory_is_an_error(
    server: TritonServer, switch: Switch, extra_switches: list[str], side: int, tiles_bytes: int
) -> None:
    pixels, too_large = draw_photo(side, side + 10, seed=7), draw_photo(side + 50, side + 60, seed=7)
    switch("shared memory", *extra_switches)
    with pytest.raises(
        grpc_client.InferenceServerException, match=rf"needs {tiles_bytes} bytes of shared memory; /dev/shm"
    ):
        upscale(server, pixels)
    assert upscale(server, pixels).shape == (4 * side, 4 * side + 40, 3)
    switch("always shared memory", *extra_switches)
    assert upscale(server, pixels).shape == (4 * side, 4 * side + 40, 3), "it has fitted before"
    for _ in range(2):  # a rejected response does not count as fitted
        with pytest.raises(grpc_client.InferenceServerException, match=r"needs \d+ bytes of shared memory; /dev/shm"):
            upscale(server, too_large)


def resave(change: Callable[[dict[str, Tensor]], object]) -> Callable[[bytes], bytes]:
    """Change the tensors of a file and keep its metadata."""

    def spoil(data: bytes) -> bytes:
        tensors = load(data)
        change(tensors)
        length = int.from_bytes(data[:8], "little")
        return save(tensors, json.loads(data[8 : 8 + length])["__metadata__"])

    return spoil


SPOILT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (
        lambda data: data[: len(data) // 2],
        r"late\.safetensors cannot be used: it has [\d,]+ bytes, expected [\d,]+\.",
    ),
    "garbage": (
        lambda data: data[:8] + b"{" * 64 + data[72:],
        r"Variant 'late' cannot be served: late\.safetensors cannot be used: it is not a safetensors file",
    ),
    "a pickle": (
        lambda _: pickle.dumps({"params": Path}),
        r"cannot be used: its header has [\d,]+ bytes; 4,000,000 is the limit",
    ),
    "one extra tensor": (
        resave(lambda tensors: tensors.update(extra=torch.ones(2))),
        r"late\.safetensors has unknown tensors: 1, the first is extra",
    ),
    "one wrong shape": (
        resave(lambda tensors: tensors.update({"norm.bias": torch.ones(2)})),
        r"late\.safetensors: norm\.bias has shape \[2\], expected \[12\]",
    ),
    "not finite": (lambda data: data[:-8] + np.full(2, np.nan, "<f4").tobytes(), "holds values that are not finite"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_damaged_checkpoint_is_rejected_by_name(faulty: tuple[TritonServer, Path], kind: str) -> None:
    server, folder = faulty
    spoil, text = SPOILT[kind]
    install_small(folder / "weights", "late")
    path = folder / "weights" / "late.safetensors"
    good = path.read_bytes()
    path.write_bytes(spoil(good))

    with pytest.raises(grpc_client.InferenceServerException, match=text):
        upscale(server, draw_photo(16, 16), "late")

    assert upscale(server, draw_photo(16, 16), "compact_x4").shape == (64, 64, 3)
    path.write_bytes(good)
    assert upscale(server, draw_photo(16, 16), "late").shape == (32, 32, 3)


def test_client_gets_only_the_requested_outputs(server: TritonServer) -> None:
    pixels = draw_photo(24, 24, seed=6)
    upscaled, rows = upscale_with_checks(server, pixels, "compact_x4")
    assert max_difference(upscaled, upscale(server, pixels, "compact_x4")) == 0
    assert rows.shape == (1, 6)
    assert summarise(rows).back_db > 30
