"""CUDA that starts while torch is imported, with a stand-in for its driver."""

from __future__ import annotations

import ctypes
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from swinir.inference import create_engine, cuda_context
from swinir.inference.cuda_context import start_context
from swinir.inference.torch_engine import TorchEngine
from swinir.settings import read_settings
from testing.networks import draw_tiles, install_small

CALLS = ("cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain")


class StandInDriver:
    """Records its calls and the threads that they come from; ``failing`` returns the error 100 (no device)."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[str] = []
        self.threads: set[str] = set()
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        if name not in CALLS:
            raise AttributeError(f"undefined symbol: {name}")

        def call(*_given: object) -> int:
            self.calls.append(name)
            self.threads.add(threading.current_thread().name)
            return 100 if name == self._failing else 0

        return call


def install(monkeypatch: pytest.MonkeyPatch, driver: Any) -> None:
    def load(name: str) -> Any:
        assert name == "libcuda.so.1"
        if isinstance(driver, Exception):
            raise driver
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_context_of_the_first_gpu_is_created_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    driver = StandInDriver()
    install(monkeypatch, driver)
    caplog.set_level(logging.INFO)
    start_context().join()
    assert tuple(driver.calls) == CALLS
    assert driver.threads == {"cuda-context"}
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("CUDA was started in advance in ")


@pytest.mark.parametrize(
    ("driver", "calls", "text"),
    [
        (OSError("libcuda.so.1: cannot open shared object file"), 0, "libcuda.so.1: cannot open shared object file"),
        (AttributeError("undefined symbol: cuInit"), 0, "undefined symbol: cuInit"),
        *((StandInDriver(name), number, "error 100 of its driver") for number, name in enumerate(CALLS, start=1)),
    ],
    ids=["no driver", "old driver", *CALLS],
)
def test_failure_ends_the_thread_with_one_line(
    driver: Any, calls: int, text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, driver)
    caplog.set_level(logging.INFO)
    start_context().join()
    assert caplog.messages == [f"CUDA is not started in advance: {text}"]
    assert len(getattr(driver, "calls", ())) == calls


@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("choice", ["auto", "torch"])
def test_cuda_is_started_before_torch_where_there_is_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str, has_gpu: bool
) -> None:
    install_small(tmp_path, "small_x2")
    started: list[bool] = []
    monkeypatch.setattr(create_engine, "has_gpu", lambda: has_gpu)
    monkeypatch.setattr(create_engine, "start_context", lambda: started.append(True))
    settings = read_settings({"SUPERRES_WEIGHTS_DIR": str(tmp_path), "SUPERRES_ENGINE": choice})

    engine = create_engine.create_engine(settings)

    assert started == [True] * has_gpu
    assert isinstance(engine, TorchEngine) == (has_gpu or choice == "torch")
    assert engine.restore(draw_tiles(1, 16, 16), "small_x2").tiles.shape == (1, 32, 32, 3), "without a GPU on the CPU"


def test_nothing_is_lost_where_the_driver_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The files of a GPU without its driver, as in a container that was started without it: PyTorch runs on the CPU."""
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(create_engine, "DEVICES", tmp_path)
    monkeypatch.setattr(cuda_context, "DRIVER", "libcuda-that-is-missing.so.1")
    install_small(tmp_path, "small_x2")
    engine = create_engine.create_engine(read_settings({"SUPERRES_WEIGHTS_DIR": str(tmp_path)}))
    assert engine.device_name == "cpu"
    assert engine.restore(draw_tiles(1, 16, 16), "small_x2").tiles.shape == (1, 32, 32, 3)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
