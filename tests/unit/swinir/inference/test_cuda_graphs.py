"""The cache of recorded forward passes, with a stand-in for CUDA's recording."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from swinir.checks import FIELDS
from swinir.inference.cuda_graphs import GraphCache, TilePass
from swinir.inference.tile_pass import RERUN, PassOutput
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

    def __call__(self, run_pass: TilePass, tiles: Tensor) -> RecordedPass:
        if self.error is not None:
            raise self.error
        self.recorded.append(len(tiles))
        return RecordedPass(self, run_pass, len(tiles))


class RecordedPass:
    def __init__(self, recorder: Recorder, run_pass: TilePass, count: int) -> None:
        self._recorder = recorder
        self._run_pass = run_pass
        self.size_bytes = 100 * count

    def run(self, tiles: Tensor) -> PassOutput:
        self._recorder.runs += 1
        return self._run_pass(tiles)


def double(tiles: Tensor) -> PassOutput:
    return PassOutput(tiles * 2, torch.zeros(len(tiles), len(FIELDS)))


def draw(count: int) -> Tensor:
    """Return tiles [N, 8, 8, 3] whose double fits in a byte."""
    return torch.randint(0, 100, (count, 8, 8, 3), dtype=torch.uint8)


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
        tiles = draw(count)
        assert torch.equal(cache.run(network, tiles, double).levels, 2 * tiles)
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


def brighten(output: PassOutput) -> PassOutput:
    return PassOutput(output.levels + 6, output.rows)


def mark(output: PassOutput) -> PassOutput:
    output.rows[:, RERUN] = 1
    return output


@pytest.mark.parametrize("spoil", [brighten, mark], ids=["other levels", "not finite"])
def test_graph_with_another_output_is_not_used(
    spoil: Callable[[PassOutput], PassOutput],
    runs_recorded: Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(RecordedPass, "run", lambda graph, tiles: spoil(graph._run_pass(tiles)))
    assert [runs_recorded(count) for count in (1, 1, 2, 2)] == [False] * 4
    assert caplog.messages == ["passes of (1, 8, 8, 3) run without a CUDA graph: its output differs by more than 0.02"]


def test_failed_recording_disables_graphs_with_one_line(
    recorder: Recorder, runs_recorded: Run, caplog: pytest.LogCaptureFixture
) -> None:
    runs_recorded(1)
    recorder.error = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    assert [runs_recorded(count) for count in (1, 1, 2, 2)] == [False] * 4
    (message,) = caplog.messages
    assert message == f"passes of (1, 8, 8, 3) run without a CUDA graph: {recorder.error}"


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
    tiles, other = draw(1), reference_network(SMALL)
    for each in (network, other, network, other):
        cache.run(each, tiles, double)
    assert recorder.recorded == [1, 1]


def test_graphs_of_an_evicted_network_are_dropped(cache: GraphCache, network: SwinIR) -> None:
    other = reference_network(SMALL)
    for count, each in ((1, network), (1, network), (2, other), (2, other)):
        cache.run(each, draw(count), double)
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
    assert any(kept is orders for _, (kept, _) in cache._graphs.values())
    window_orders.cache_clear()


def test_graph_keeps_what_its_pass_reads_and_not_the_pass(cache: GraphCache, network: SwinIR) -> None:
    class Read:
        pass

    read = Read()
    kept, tiles = weakref.ref(read), draw(1)
    for _ in range(2):
        cache.run(network, tiles, double, read)
    del read
    gc.collect()
    assert kept() is not None
    cache.clear()
    gc.collect()
    assert kept() is None


def test_bytes_and_words_of_one_shape_have_their_own_graphs(
    cache: GraphCache, network: SwinIR, recorder: Recorder
) -> None:
    for _ in range(2):
        for tiles in (draw(1), draw(1).to(torch.uint16)):
            levels = cache.run(network, tiles, lambda given: PassOutput(given.clone(), torch.zeros(1, 6))).levels
            assert levels.dtype == tiles.dtype
    assert recorder.recorded == [1, 1]


def test_graph_whose_orders_were_replaced_while_recording_is_not_used(network: SwinIR) -> None:
    recorder = Recorder()

    def record(run_pass: TilePass, tiles: Tensor) -> RecordedPass:
        window_orders.cache_clear()
        return recorder(run_pass, tiles)

    cache = GraphCache(350, record)
    for _ in range(3):
        cache.run(network, draw(1), double)
    assert recorder.recorded == [1]
    assert cache.size_bytes == 0


def test_engine_runs_8_bits_by_graphs_and_reruns_without(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install_small(tmp_path, "small_x2")
    engine = TorchEngine(tmp_path, "cpu", threads=1)
    expected = engine.restore(draw_tiles(2, 16, 16), "small_x2").tiles
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
    monkeypatch.setattr(RecordedPass, "run", lambda graph, tiles: mark(graph._run_pass(tiles)))
    assert np.array_equal(engine.restore(draw_tiles(2, 16, 16), "small_x2").tiles, expected), "run again in float32"
    assert engine.counters.reruns == 2
    engine.networks.free_memory()
    assert engine.graphs.size_bytes == 0
