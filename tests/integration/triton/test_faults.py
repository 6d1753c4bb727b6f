"""Faults injected into the engine on a real Triton: the client gets an error, and the server continues."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
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
from swinir.network.swinir import SwinIR
from swinir.zoo import VARIANTS
from testing.data import levels_apart
from testing.images import draw_photo
from testing.networks import install_small
from testing.triton import TritonServer, lay_out_faulty_repository, run_server
from testing.triton_clients import custom_metric, upscale, upscale_with_checks

Switch = Callable[..., None]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TritonServer, Path]]:
    """A server with injectable faults and small variants in a folder to which tests may add."""
    folder = tmp_path_factory.mktemp("faulty")
    weights_dir = folder / "weights"
    weights_dir.mkdir()
    small, *_ = [install_small(weights_dir, name) for name in ("small_a", "small_b", "small_c")]
    repository = lay_out_faulty_repository(folder, folder / "faults")
    size_bytes = SwinIR(**VARIANTS["compact_x4"].config).prepare() + SwinIR(**small.config).prepare() * 3 // 2
    environ = {"SUPERRES_WEIGHTS_DIR": str(weights_dir), "SUPERRES_MAX_WEIGHTS_BYTES": str(size_bytes)}
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


def test_memory_that_runs_out_once_costs_the_client_nothing(server: TritonServer, switch: Switch) -> None:
    pixels = draw_photo(40, 48, seed=1)
    expected = upscale(server, pixels, "small_a")
    switch("memory")

    def ask() -> None:
        upscaled, sound = upscale_with_checks(server, draw_photo(140, 150, seed=2), "small_a")
        assert upscaled.shape == (280, 300, 3)
        assert summarise(sound).halvings == 1

    told = metrics_after(server, ask)

    assert told["halvings"] == 1
    assert levels_apart(upscale(server, pixels, "small_a"), expected) == 0


def test_memory_that_never_suffices_is_an_error_in_words_and_the_server_goes_on(
    server: TritonServer, switch: Switch
) -> None:
    switch("always memory")
    with pytest.raises(grpc_client.InferenceServerException, match="one 16x24 tile of small_a does not fit in memory"):
        upscale(server, draw_photo(16, 24, seed=3), "small_a")
    switch()
    assert upscale(server, draw_photo(16, 24, seed=3), "small_a").shape == (32, 48, 3)


def test_a_tile_that_is_not_finite_is_run_again_and_said_so(server: TritonServer, switch: Switch) -> None:
    pixels = draw_photo(32, 32, seed=4)
    expected = upscale(server, pixels, "small_a")
    switch("nan")
    answers: list[Any] = []

    told = metrics_after(server, lambda: answers.append(upscale_with_checks(server, pixels, "small_a")))

    upscaled, sound = answers[0]
    assert levels_apart(upscaled, expected) <= 1
    assert summarise(sound).reruns == 1
    assert told["reruns"] == 1
    assert told["tiles"] == 1
    assert told["seconds"] > 0


def test_a_tile_that_is_never_finite_is_an_error_and_no_picture(server: TritonServer, switch: Switch) -> None:
    switch("nan", "nan")
    with pytest.raises(grpc_client.InferenceServerException, match="not finite for a tile, also in float32") as raised:
        upscale(server, draw_photo(32, 32, seed=5), "small_a")
    assert raised.value.status() == "StatusCode.INTERNAL"
    assert upscale(server, draw_photo(32, 32, seed=5), "small_a").shape == (64, 64, 3)


def test_a_load_that_fails_is_unavailable_once_and_tried_again(server: TritonServer, switch: Switch) -> None:
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
            pictures = list(pool.map(lambda seed: upscale(server, draw_photo(16, 16, seed=seed), "small_c"), range(6)))
        assert len(pictures) == 6

    assert metrics_after(server, ask)["loads"] == 1


def test_the_least_recently_used_makes_room(server: TritonServer) -> None:
    """The cache holds compact_x4 and one small variant."""
    for name in ("compact_x4", "small_a"):
        upscale(server, draw_photo(16, 16), name)
    told = metrics_after(server, lambda: upscale(server, draw_photo(16, 16), "small_b"))
    assert (told["loads"], told["evictions"]) == (1, 1)  # compact_x4 was evicted; both small networks fit instead
    told = metrics_after(server, lambda: upscale(server, draw_photo(16, 16), "small_b"))
    assert (told["loads"], told["evictions"]) == (0, 0)


@pytest.mark.parametrize(
    ("place", "side", "tiles_bytes"),
    [([], 200, 2_073_600), (["always no large jobs"], 280, 5_160_960)],
    ids=["queue of large jobs", "within execute"],
)
def test_an_answer_that_shared_memory_has_no_room_for_is_an_error_in_words_and_the_next_is_given(
    server: TritonServer, switch: Switch, place: list[str], side: int, tiles_bytes: int
) -> None:
    pixels, too_large = draw_photo(side, side + 10, seed=7), draw_photo(side + 50, side + 60, seed=7)
    switch("shared memory", *place)
    with pytest.raises(
        grpc_client.InferenceServerException, match=rf"takes {tiles_bytes} bytes of shared memory; /dev/shm"
    ):
        upscale(server, pixels)
    assert upscale(server, pixels).shape == (4 * side, 4 * side + 40, 3)
    switch("always shared memory", *place)
    assert upscale(server, pixels).shape == (4 * side, 4 * side + 40, 3), "it has fitted before"
    for _ in range(2):  # a rejected response does not count as fitted
        with pytest.raises(grpc_client.InferenceServerException, match=r"takes \d+ bytes of shared memory; /dev/shm"):
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
    "truncated": (lambda data: data[: len(data) // 2], r"late\.safetensors cannot be read as safetensors"),
    "garbage": (
        lambda data: data[:8] + b"{" * 64 + data[72:],
        r"no variant 'late' that can be served: late\.safetensors is no safetensors file",
    ),
    "a pickle": (lambda _: pickle.dumps({"params": Path}), "is no safetensors file"),
    "one extra tensor": (
        resave(lambda tensors: tensors.update(extra=torch.ones(2))),
        r"late\.safetensors holds unknown 1 tensors, the first is extra",
    ),
    "one wrong shape": (
        resave(lambda tensors: tensors.update({"norm.bias": torch.ones(2)})),
        r"late\.safetensors: norm\.bias has shape \[2\], wanted \[12\]",
    ),
    "not finite": (lambda data: data[:-8] + np.full(2, np.nan, "<f4").tobytes(), "holds values that are not finite"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_checkpoint_is_refused_by_name_and_the_server_goes_on(
    faulty: tuple[TritonServer, Path], kind: str
) -> None:
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


def test_clients_that_ask_for_the_picture_alone_are_sent_nothing_else(server: TritonServer) -> None:
    pixels = draw_photo(24, 24, seed=6)
    upscaled, sound = upscale_with_checks(server, pixels, "compact_x4")
    assert levels_apart(upscaled, upscale(server, pixels, "compact_x4")) == 0
    assert sound.shape == (1, 6)
    assert summarise(sound).back_db > 30
