"""`superres upscale` from standard input and to standard output, with a fake backend."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from PIL import Image as PilImage

from gateway.cli.upscale import EXIT_REJECTED, run
from gateway.config.settings import Settings
from testing import images
from testing.backend import FakeBackend

COMPACT = {"variant": "compact_x4"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"))


def pipe_image(monkeypatch: pytest.MonkeyPatch, data: bytes) -> io.BytesIO:
    """Put bytes on standard input, and return what collects standard output."""
    sink = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=sink, isatty=lambda: False))
    return sink


@pytest.mark.parametrize(("name", "kind"), [(None, "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_image_from_standard_input_to_standard_output(
    settings: Settings, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, name: str | None, kind: str
) -> None:
    sink = pipe_image(monkeypatch, images.encode_png(images.draw_photo(8, 8)))

    code = run(settings, [Path("-"), Path("-")], COMPACT | ({"format": name} if name else {}))

    with PilImage.open(io.BytesIO(sink.getvalue())) as opened:
        assert (code, opened.format, opened.size) == (0, kind, (32, 32))
    assert backend.is_closed


def test_nothing_is_written_to_standard_output_if_the_image_is_refused(
    settings: Settings, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = pipe_image(monkeypatch, b"not an image")

    assert run(settings, [Path("-"), Path("-")], COMPACT) == EXIT_REJECTED
    assert (sink.getvalue(), backend.calls) == (b"", [])


def test_standard_input_is_read_up_to_the_limit(
    tmp_path: Path, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe_image(monkeypatch, bytes(5_000))
    settings = Settings(state_dir=str(tmp_path), max_upload_bytes=2_000)

    assert run(settings, [Path("-"), tmp_path / "out.png"], COMPACT) == EXIT_REJECTED
    assert "standard input: The file has more; the limit is 2,000 bytes (max_upload_bytes)." in capsys.readouterr().err
    assert backend.calls == []


def test_terminal_gets_no_image(settings: Settings, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))

    with pytest.raises(click.UsageError, match="Standard output is a terminal"):
        run(settings, [Path("-"), Path("-")], COMPACT)

    assert backend.calls == []
