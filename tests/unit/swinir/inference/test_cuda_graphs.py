"""The cache of recorded forward passes, with a stand-in for CUDA's recording."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from swinir.inference.cuda_graphs import Forward, GraphCache
from swinir.inference.torch_engine import TorchEngine
from swinir.network.swinir import SwinIR
from swinir.network.windows import window_orders
from testing.networks import SMALL, draw_tiles, install_small, reference_network


class Recorder:
    """Stands in for CUDA: a graph of N images takes N * 100 bytes."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.runs = 0
        self.error: Exception | None = None

    def __call__(self, forward: Forward, images: Tensor) -> RecordedPass:
        if self.error is not None:
            raise self.error
        self.recorded.append(len(images))
        return RecordedPass(self, forward, len(images))


class RecordedPass:
    def __init__(self, recorder: Recorder, forward: Forward, count: int) -> None:
        self._recorder = recorder
        self._forward = forward
        self.size_bytes = 100 * count

    def run(self, images: Tensor) -> Tensor:
        self._recorder.runs += 1
        return self._forward(images)


def double(images: Tensor) -> Tensor:
    return images * 2


@pytest.fixture
def network() -> SwinIR:
    return reference_network(SMALL)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


Run = Callable[[int], bool]


@pytest.fixture
def cache(recorder: Recorder) -> GraphCache:
    return GraphCache(350, recorder)


@pytest.fixture
def runs_recorded(cache: GraphCache, network: SwinIR, recorder: Recorder) -> Run:
    """Return a function that runs a number of images and returns whether a graph did it."""

    def run(count: int) -> bool:
        before = recorder.runs
        images = torch.rand(count, 3, 8, 8)
        assert torch.equal(cache.run(network, images, double), 2 * images)
        return recorder.runs > before

    return run


def test_second_pass_of_a_shape_is_recorded(recorder: Recorder, runs_recorded: Run) -> None:
    assert [runs_recorded(count) for count in (1, 2, 1, 1, 2)] == [False, False, True, True, True]
    assert recorder.recorded == [1, 2]


def test_least_recently_used_graph_is_dropped_above_the_limit(
    cache: GraphCache, recorder: Recorder, runs_recorded: Run
) -> None:
    for count in (1, 1, 2, 2, 1):
        runs_recorded(count)
    assert cache.size_bytes == 300

    for count in (3, 3):  # 300 bytes: neither of the others fits next to it
        runs_recorded(count)

    assert cache.size_bytes == 300
    assert runs_recorded(3)
    assert runs_recorded(1), "recorded again"
    assert recorder.recorded == [1, 2, 3, 1]


def test_graph_larger_than_the_limit_is_tried_once(cache: GraphCache, recorder: Recorder, runs_recorded: Run) -> None:
    for _ in range(2):
        runs_recorded(4)
    assert not any(runs_recorded(4) for _ in range(2))
    assert recorder.recorded == [4]
    assert cache.size_bytes == 0


@pytest.mark.parametrize("wrong", [0.1, float("nan")])
def test_graph_with_another_output_is_not_used(
    wrong: float, runs_recorded: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(RecordedPass, "run", lambda graph, images: graph._forward(images) + wrong)
    assert [runs_recorded(count) for count in (1, 1, 2, 2)] == [False] * 4
    assert caplog.messages == [
        "forward passes of (1, 3, 8, 8) run without a CUDA graph: its output differs by more than 0.02"
    ]


def test_failed_recording_disables_graphs_with_one_line(
    recorder: Recorder, runs_recorded: Run, caplog: pytest.LogCaptureFixture
) -> None:
    runs_recorded(1)
    recorder.error = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    assert [runs_recorded(count) for count in (1, 1, 2, 2)] == [False] * 4
    (message,) = caplog.messages
    assert message == f"forward passes of (1, 3, 8, 8) run without a CUDA graph: {recorder.error}"


def test_recording_without_memory_drops_the_other_graphs(
    cache: GraphCache, recorder: Recorder, runs_recorded: Run, caplog: pytest.LogCaptureFixture
) -> None:
    for count in (1, 1, 2):
        runs_recorded(count)
    recorder.error = torch.OutOfMemoryError("CUDA out of memory")
    assert not runs_recorded(2)
    assert cache.size_bytes == 0
    recorder.error = None
    assert [runs_recorded(count) for count in (2, 1, 1)] == [False, True, True], "only that shape stays without"
    assert len(caplog.messages) == 1


def test_each_network_has_its_own_graph(cache: GraphCache, network: SwinIR, recorder: Recorder) -> None:
    images, other = torch.ones(1, 3, 8, 8), reference_network(SMALL)
    for each in (network, other, network, other):
        cache.run(each, images, double)
    assert recorder.recorded == [1, 1]


def test_graphs_of_an_evicted_network_are_dropped(cache: GraphCache, network: SwinIR) -> None:
    other = reference_network(SMALL)
    for count, each in ((1, network), (1, network), (2, other), (2, other)):
        cache.run(each, torch.ones(count, 3, 8, 8), double)
    assert cache.size_bytes == 300
    del each, other
    gc.collect()
    assert cache.size_bytes == 100


def test_graph_keeps_the_orders_that_it_reads(cache: GraphCache, network: SwinIR, runs_recorded: Run) -> None:
    """Their cache drops them, and the graph would read memory that something else uses."""
    orders = network.orders_of(torch.ones(1, 3, 5, 7))
    assert orders is window_orders(1, 8, 8, 8, torch.device("cpu"))
    runs_recorded(1)
    runs_recorded(1)
    window_orders.cache_clear()
    assert any(kept is orders for _, kept in cache._graphs.values())
    window_orders.cache_clear()


def test_graph_whose_orders_were_replaced_while_recording_is_not_used(network: SwinIR) -> None:
    recorder = Recorder()

    def record(forward: Forward, images: Tensor) -> RecordedPass:
        window_orders.cache_clear()
        return recorder(forward, images)

    cache = GraphCache(350, record)
    for _ in range(3):
        cache.run(network, torch.ones(1, 3, 8, 8), double)
    assert recorder.recorded == [1]
    assert cache.size_bytes == 0


def test_engine_runs_8_bits_by_graphs_and_reruns_without(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install_small(tmp_path, "small_x2")
    engine = TorchEngine(tmp_path, "cpu", threads=1)
    expected = engine.restore(draw_tiles(2, 16, 16), "small_x2").tiles
    monkeypatch.setattr(RecordedPass, "run", lambda graph, images: graph._forward(images))
    engine.graphs = GraphCache(1000, recorder)
    engine.precision = torch.bfloat16  # reruns and 16 bits differ from it: they are in float32
    caplog.set_level(logging.WARNING)

    engine.warm_up("small_x2")

    assert recorder.recorded == [1], "the pass of the warm-up is recorded"
    for _ in range(2):
        restored = engine.restore(draw_tiles(2, 16, 16), "small_x2").tiles
    assert recorder.recorded == [1, 2]
    assert np.abs(restored.astype(int) - expected).max() <= 3
    engine.restore((draw_tiles(2, 16, 16).astype(np.uint16) * 257).astype(np.uint16), "small_x2")
    monkeypatch.setattr(RecordedPass, "run", lambda graph, images: graph._forward(images) * float("nan"))
    assert np.array_equal(engine.restore(draw_tiles(2, 16, 16), "small_x2").tiles, expected), "run again in float32"
    assert engine.counters.reruns == 2
    engine.networks.free_memory()
    assert engine.graphs.size_bytes == 0
