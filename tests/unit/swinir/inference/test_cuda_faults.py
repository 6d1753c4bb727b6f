"""A GPU that a process can no longer use, with a stand-in for CUDA's calls."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from swinir.inference import torch_engine
from swinir.inference.cuda_faults import is_context_lost
from swinir.inference.engine import EngineError, NotFiniteError
from swinir.inference.torch_engine import TorchEngine
from testing.networks import draw_tiles, install_small

ILLEGAL = "CUDA error: an illegal memory access was encountered"
GPU = torch.device("cuda")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Exception | None]:
    """Results of the next calls of CUDA, and of all further calls the last one."""
    results: list[Exception | None] = [None]

    def synchronize(_device: torch.device) -> None:
        result = results.pop(0) if len(results) > 1 else results[0]
        if result is not None:
            raise result

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    return results


@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_context_is_lost_when_every_call_fails(calls: list[Exception | None], kind: type[Exception]) -> None:
    calls[:] = [kind(ILLEGAL)]
    assert is_context_lost(GPU)


@pytest.mark.parametrize(
    "results",
    [[None], [RuntimeError("CUDA error: operation failed due to a previous error during capture"), None]],
    ids=["no error", "reported once"],
)
def test_error_that_is_reported_once_is_no_loss(calls: list[Exception | None], results: list[Exception | None]) -> None:
    calls[:] = results
    assert not is_context_lost(GPU)


def test_cpu_has_no_context(calls: list[Exception | None]) -> None:
    calls[:] = [RuntimeError(ILLEGAL)]
    assert not is_context_lost(torch.device("cpu"))


@pytest.fixture
def engine(tmp_path: Path) -> TorchEngine:
    install_small(tmp_path, "small_x2")
    return TorchEngine(tmp_path, "cpu", threads=1)


def fail(error: Exception) -> Any:
    def run(*_given: object) -> NoReturn:
        raise error

    return run


@pytest.mark.parametrize("place", ["forward pass", "weights"])
def test_process_ends_after_a_lost_context_with_one_line(
    engine: TorchEngine, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[bool] = []
    engine.on_context_lost = lambda: ended.append(True)
    monkeypatch.setattr(torch_engine, "is_context_lost", lambda _device: True)
    owner, name = (engine, "_forward") if place == "forward pass" else (engine.networks, "_load")
    monkeypatch.setattr(owner, name, fail(torch.AcceleratorError(ILLEGAL)))

    with pytest.raises((EngineError, RuntimeError), match=ILLEGAL):
        engine.restore(draw_tiles(1, 16, 16), "small_x2")

    assert ended == [True]
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    assert "can compute nothing more for this process, which ends" in record.getMessage()
    assert ILLEGAL in record.getMessage()


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: invalid argument"), NotFiniteError("not finite")])
def test_other_errors_fail_the_request_alone(
    engine: TorchEngine, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.on_context_lost = fail(AssertionError("the process would end"))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_forward", fail(error))
        with pytest.raises(EngineError, match=str(error)):
            engine.restore(draw_tiles(1, 16, 16), "small_x2")
    assert engine.restore(draw_tiles(1, 16, 16), "small_x2").tiles.shape == (1, 32, 32, 3)
