"""`superres upscale` with many small images: several are sent at once, and reported in their order."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backend.interface import Band
from gateway.cli.local_service import LocalService
from gateway.cli.upscale import EXIT_REJECTED, run
from gateway.config.settings import Settings
from testing import images
from testing.backend import FakeBackend

COMPACT = {"variant": "compact_x4"}
# Seconds after which a test fails that waits for other threads.
LIMIT_S = 120.0


class CallsAtOnce:
    """Counts the calls of a backend that run at the same time."""

    def __init__(self, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, *, meeting: int = 1) -> None:
        """After the first call, each waits until `meeting` calls are there."""
        self.most = 0
        self._running = self._calls = 0
        self._lock, self._barrier = threading.Lock(), threading.Barrier(meeting)
        self._upscale_bands = backend.upscale_bands
        monkeypatch.setattr(backend, "upscale_bands", self.upscale_bands)

    def upscale_bands(self, *args: Any, **options: Any) -> Iterator[Band]:
        with self._lock:
            number, self._calls = self._calls, self._calls + 1
            self._running += 1
            self.most = max(self.most, self._running)
        if number:
            self._barrier.wait(LIMIT_S)
        yield from self._upscale_bands(*args, **options)
        with self._lock:
            self._running -= 1


def draw_folder(folder: Path, sides: list[int]) -> Path:
    folder.mkdir()
    for number, side in enumerate(sides):
        (folder / f"{number:02}.png").write_bytes(images.encode_png(images.draw_photo(side, side, seed=number)))
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"))


def test_small_images_are_sent_at_once_and_reported_in_order(
    tmp_path: Path,
    settings: Settings,
    backend: FakeBackend,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at_once = LocalService.max_at_once
    calls = CallsAtOnce(backend, monkeypatch, meeting=at_once)
    folder = draw_folder(tmp_path / "in", [8] * (1 + 2 * at_once))

    code = run(settings, [folder, tmp_path / "out"], COMPACT)

    reported = re.findall(r"/in/(\d\d)\.png -> ", capsys.readouterr().err)
    assert (code, calls.most) == (0, at_once)
    assert reported == [f"{number:02}" for number in range(1 + 2 * at_once)]
    assert len(list((tmp_path / "out").iterdir())) == 1 + 2 * at_once


def test_larger_images_are_upscaled_alone(
    tmp_path: Path, settings: Settings, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = CallsAtOnce(backend, monkeypatch)
    folder = draw_folder(tmp_path / "in", [129, 130, 131])

    assert run(settings, [folder, tmp_path / "out"], COMPACT) == 0

    assert (calls.most, len(backend.calls)) == (1, 3)


@pytest.mark.usefixtures("backend")
def test_small_image_that_fails_does_not_stop_the_others(
    tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw_folder(tmp_path / "in", [8] * 6)
    whole = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(whole[: len(whole) // 2])

    code = run(settings, [folder, tmp_path / "out"], COMPACT)

    said = capsys.readouterr().err
    assert code == EXIT_REJECTED
    assert re.findall(r"/in/(\d\d)\.png(?: ->|: )", said) == [f"{number:02}" for number in range(6)]
    assert "5 of 6 images upscaled, 1 failed." in said


def test_signal_ends_the_small_images_at_work(
    tmp_path: Path, settings: Settings, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    upscale_bands = backend.upscale_bands

    def close_gate_after_first(*args: Any, **options: Any) -> Iterator[Band]:
        if backend.calls:
            backend._gate = threading.Event()
        return upscale_bands(*args, **options)

    def send_signal() -> None:
        for _ in range(3):  # the first image, and two at the gate
            backend.arrived.acquire()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(LocalService, "max_at_once", 2)
    monkeypatch.setattr(backend, "upscale_bands", close_gate_after_first)
    folder = draw_folder(tmp_path / "in", [8] * 4)
    threading.Thread(target=send_signal).start()

    code = run(settings, [folder, tmp_path / "out"], COMPACT)

    assert code == 128 + signal.SIGTERM
    assert len(backend.calls) == 3
    for thread in threading.enumerate():
        if thread.name.startswith("small-image"):
            thread.join(LIMIT_S)
            assert not thread.is_alive()
