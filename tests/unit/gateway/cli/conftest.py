"""A fake backend in the place of the embedded one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.backend import embedded
from gateway.config.settings import Settings
from testing.backend import FakeBackend


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """A fake backend that writes a log like Triton's."""
    fake = FakeBackend()

    def make_backend(settings: Settings, log_name: str = embedded.LOG_NAME) -> FakeBackend:
        Path(settings.state_dir).mkdir(exist_ok=True)
        (Path(settings.state_dir) / log_name).write_text("of a Triton")
        return fake

    monkeypatch.setattr(embedded, "make_backend", make_backend)
    return fake
