"""Copies of tiles through pinned memory, with a stand-in whose downloads arrive only when someone waits for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from swinir.checks import FIELDS
from swinir.inference import tile_copies
from swinir.inference.engine import InferenceCancelledError, NotFiniteError, OutOfMemoryError, Restored, Tiles
from swinir.inference.tile_copies import CopyDone, CopyStreams, PinnedCopies
from swinir.inference.torch_engine import TorchEngine
from testing.networks import draw_tiles, install_small

CPU = torch.device("cpu")


class DeferredCopy:
    """A copy that takes place when it is waited for, and requires that its source did not change meanwhile."""

    def __init__(self, streams: DeferredStreams, copies: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._streams = streams
        self._copies = [(target, source, source.clone()) for target, source in copies]

    def synchronize(self) -> None:
        self._streams.calls.append("wait")
        self._streams.complete(self)

    def run(self) -> None:
        for target, source, snapshot in self._copies:
            assert source.numpy().tobytes() == snapshot.numpy().tobytes(), "changed while it was copied"
            target.copy_(snapshot)


class DeferredStreams(CopyStreams):
    """Stands in for CUDA's streams. Copies end in the order of their calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.pinned: list[int] = []
        self.pin_error: Exception | None = None
        self._running: list[DeferredCopy] = []

    def pin(self, size_bytes: int) -> Tensor:
        if self.pin_error is not None:
            raise self.pin_error
        self.pinned.append(size_bytes)
        return torch.full((size_bytes,), 170, dtype=torch.uint8)

    def upload(self, source: Tensor) -> tuple[Tensor, CopyDone]:
        self.calls.append("up")
        on_device = source.clone()  # at once: the pass of a CPU reads it next
        copy = DeferredCopy(self, [(torch.empty_like(source), source)])
        self._running.append(copy)
        return on_device, copy

    def download(self, copies: Sequence[tuple[Tensor, Tensor]]) -> CopyDone:
        self.calls.append("down")
        copy = DeferredCopy(self, copies)
        self._running.append(copy)
        return copy

    def complete(self, last: DeferredCopy) -> None:
        """Run the copies up to this one."""
        while last in self._running:
            self._running.pop(0).run()


@pytest.fixture
def engine(tmp_path: Path) -> TorchEngine:
    install_small(tmp_path, "small_x2")
    engine = TorchEngine(tmp_path, "cpu", threads=1)
    engine.micro_batch_pixels = 2 * 16 * 24
    return engine


@pytest.fixture
def tiles() -> Tiles:
    return draw_tiles(7, 16, 24)


@pytest.fixture
def expected(engine: TorchEngine, tiles: Tiles) -> Restored:
    return engine.restore(tiles, "small_x2")


@pytest.fixture(autouse=True)
def streams(engine: TorchEngine, expected: Restored) -> DeferredStreams:  # noqa: ARG001 - made without the stand-in
    """The stand-in, which the engine uses from now on."""
    streams = DeferredStreams()
    engine.copies = PinnedCopies(CPU, streams)
    return streams


def assert_same(actual: Restored, expected: Restored, *, levels: int = 0) -> None:
    assert actual.tiles.dtype == expected.tiles.dtype
    assert np.abs(actual.tiles.astype(int) - expected.tiles).max() <= levels
    if not levels:
        assert np.array_equal(actual.checks, expected.checks)
    assert (actual.work_us > 0).all()


def test_next_upload_and_last_download_overlap_a_pass(
    engine: TorchEngine, streams: DeferredStreams, tiles: Tiles, expected: Restored
) -> None:
    assert_same(engine.restore(tiles, "small_x2"), expected)
    assert streams.calls == ["up", "down", *["up", "down", "wait"] * 3, "wait"]


def test_pinned_memory_is_used_again(
    engine: TorchEngine, streams: DeferredStreams, tiles: Tiles, expected: Restored
) -> None:
    for _ in range(3):
        assert_same(engine.restore(tiles, "small_x2"), expected)
    tile_bytes = 16 * 24 * 3
    assert sorted(streams.pinned) == sorted([2 * tile_bytes, 8 * tile_bytes, 2 * 4 * len(FIELDS)] * 2)
    engine.restore(draw_tiles(2, 8, 8), "small_x2")
    assert len(streams.pinned) == 6, "smaller tiles fit"
    engine.networks.free_memory()
    assert not any(slot.buffers for slot in engine.copies._slots)  # type: ignore[attr-defined]
    assert_same(engine.restore(tiles, "small_x2"), expected)
    assert len(streams.pinned) == 12


@pytest.mark.parametrize("shape", [(5, 16, 24), (1, 8, 8), (3, 13, 21)], ids=str)
@pytest.mark.parametrize("factor", [1, 257], ids=["8 bits", "16 bits"])
def test_result_is_that_of_plain_copies(
    engine: TorchEngine, streams: DeferredStreams, shape: tuple[int, int, int], factor: int
) -> None:
    given = draw_tiles(*shape)
    if factor > 1:
        given = (given.astype(np.uint16) * factor).astype(np.uint16)
    given.flags.writeable = False
    actual = engine.restore(given, "small_x2")
    engine.copies = tile_copies.TileCopies(CPU)
    assert_same(actual, engine.restore(given, "small_x2"))
    assert streams.calls.count("down") > 0


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: out of memory"), MemoryError("no memory")], ids=repr)
def test_without_pinned_memory_copies_are_plain_with_one_line(
    engine: TorchEngine,
    streams: DeferredStreams,
    tiles: Tiles,
    expected: Restored,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.restore(tiles[:2], "small_x2")
    engine.copies.clear()
    streams.pin_error = error
    for _ in range(2):
        assert_same(engine.restore(tiles, "small_x2"), expected)
    assert caplog.messages == [f"tiles are copied without pinned memory: {error}"]
    assert engine.max_running == 1
    assert streams.calls.count("up") == 1


def test_failing_for_the_result_alone_keeps_the_tiles(
    engine: TorchEngine, streams: DeferredStreams, tiles: Tiles, expected: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = streams.pin

    def pin_little(size_bytes: int) -> Tensor:
        if size_bytes > 2 * 16 * 24 * 3:
            raise RuntimeError("CUDA error: out of memory")
        return pin(size_bytes)

    monkeypatch.setattr(streams, "pin", pin_little)
    assert_same(engine.restore(tiles, "small_x2"), expected)
    assert streams.calls[0] == "up"
    assert "down" not in streams.calls


def test_large_results_are_copied_plainly_and_small_ones_are_not(
    engine: TorchEngine,
    streams: DeferredStreams,
    tiles: Tiles,
    expected: Restored,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tile_copies, "MAX_PINNED_BYTES", 8 * 16 * 24 * 3 - 1)
    assert_same(engine.restore(tiles, "small_x2"), expected)
    assert streams.calls.count("down") == 1, "of the last tile, alone in its micro-batch"
    assert caplog.messages == []


def spoil_passes(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch, faults: dict[int, Any]) -> list[int]:
    """Let passes fail by their number: with an exception, or with NaN in the last tile. Returns the tiles of each."""
    real = engine._forward
    counts: list[int] = []

    def forward(network: Any, images: Tensor, precision: torch.dtype) -> Tensor:
        fault = faults.get(len(counts))
        counts.append(len(images))
        if isinstance(fault, Exception):
            raise fault
        output = real(network, images, precision)
        if fault is not None:
            output[-1, 0, 2, 3] = fault
        return output

    monkeypatch.setattr(engine, "_forward", forward)
    return counts


def memory_error() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory (injected)")


@pytest.mark.parametrize(
    ("faults", "counts", "halvings"),
    [
        ({0: memory_error()}, [2, 1, 1, 1, 1, 1, 1, 1], [1] * 7),
        # While the first runs: again alone.
        ({1: memory_error()}, [2, 2, 2, 2, 1], [0] * 7),
        # Then halved.
        ({1: memory_error(), 2: memory_error()}, [2, 2, 2, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]),
        # In the rerun of a tile that was not finite, while the second micro-batch runs.
        ({0: float("nan"), 2: memory_error()}, [2, 2, 1, 1, 1, 1, 1, 1, 1, 1], [1] * 7),
    ],
    ids=["first", "second", "second twice", "rerun"],
)
def test_out_of_memory_while_others_run(
    engine: TorchEngine,
    tiles: Tiles,
    expected: Restored,
    monkeypatch: pytest.MonkeyPatch,
    faults: dict[int, Any],
    counts: list[int],
    halvings: list[int],
) -> None:
    passes = spoil_passes(engine, monkeypatch, faults)
    before = engine.counters.tiles
    restored = engine.restore(tiles, "small_x2")
    assert passes == counts
    assert_same(restored, expected, levels=1)
    assert restored.checks[:, FIELDS.index("halvings")].tolist() == halvings
    assert engine.counters.tiles - before == 7
    assert engine.counters.halvings == max(halvings)


def test_permanent_out_of_memory_ends_after_the_smallest(
    engine: TorchEngine, tiles: Tiles, expected: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        spoil_passes(engine, patch, {number: memory_error() for number in range(1, 100)})
        with pytest.raises(OutOfMemoryError, match="one 16x24 tile of small_x2 does not fit in memory"):
            engine.restore(tiles, "small_x2")
    assert_same(engine.restore(tiles, "small_x2"), expected)


def test_tiles_that_are_not_finite_run_again(
    engine: TorchEngine, tiles: Tiles, expected: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_passes(engine, monkeypatch, {1: float("inf")})
    restored = engine.restore(tiles, "small_x2")
    assert_same(restored, expected, levels=1)
    assert restored.checks[:, FIELDS.index("rerun")].tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_error_leaves_nothing_behind(
    engine: TorchEngine, tiles: Tiles, expected: Restored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A micro-batch that ran when another failed is never collected; its memory is used again once it has ended."""
    with monkeypatch.context() as patch:
        spoil_passes(engine, patch, {0: float("nan"), 2: float("nan")})
        with pytest.raises(NotFiniteError, match="also in float32"):
            engine.restore(tiles, "small_x2")
    assert_same(engine.restore(tiles, "small_x2"), expected)


def test_cancel_says_how_many_tiles_are_restored(engine: TorchEngine, tiles: Tiles, expected: Restored) -> None:
    before, asked = engine.counters.tiles, iter(range(100))
    with pytest.raises(InferenceCancelledError, match="cancelled after 4 of 7 tiles"):
        engine.restore(tiles, "small_x2", lambda: next(asked) == 3)
    assert engine.counters.tiles - before == 4
    assert_same(engine.restore(tiles, "small_x2"), expected)


class LoggedStream:
    """Stands in for a stream of CUDA."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self._log = name, log

    def record_event(self) -> str:
        self._log.append(f"{self.name} marks")
        return self.name

    def wait_event(self, event: str) -> None:
        self._log.append(f"{self.name} waits for {event}")


def test_streams_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    names = iter(("up", "down"))

    @contextlib.contextmanager
    def use(stream: LoggedStream) -> Iterator[None]:
        log.append(f"begin {stream.name}")
        yield
        log.append(f"end {stream.name}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: LoggedStream(next(names), log))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: LoggedStream("pass", log))
    monkeypatch.setattr(torch.cuda, "stream", use)
    monkeypatch.setattr(Tensor, "record_stream", lambda _tensor, stream: log.append(f"kept for {stream.name}"))
    streams, source = CopyStreams(CPU), torch.arange(6)

    target, done = streams.upload(source)

    assert torch.equal(target, source)
    assert target.data_ptr() != source.data_ptr()
    assert str(done) == "up"
    assert log == ["begin up", "up marks", "end up", "pass waits for up", "kept for pass"]

    log.clear()
    copies = [(torch.zeros(6, dtype=torch.int64), source), (torch.zeros(2), torch.ones(2))]
    assert str(streams.download(copies)) == "down"
    assert all(torch.equal(*copy) for copy in copies)
    assert log == [
        "pass marks",
        "begin down",
        "down waits for pass",
        "kept for down",
        "kept for down",
        "down marks",
        "end down",
    ]
