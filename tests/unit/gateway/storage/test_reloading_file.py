"""A file that is reloaded when it changes: what the gateway uses while the file is written, missing or invalid."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.storage.reloading_file import LOG_AGAIN_S, FileError, ReloadingFile
from testing.clock import ManualClock


def parse(content: bytes) -> str:
    if content == b"nonsense":
        raise ValueError("it makes none")
    return content.decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "words.txt").write_text("first")
    return tmp_path / "words.txt"


@pytest.fixture
def watched(path: Path, clock: ManualClock) -> ReloadingFile[str]:
    return ReloadingFile(path, "words", parse, empty="", error=FileError, clock=clock)


@pytest.fixture
def fail_to_open(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a switch that makes every open fail, as in a process with too many open files."""
    opened, is_on = Path.open, False

    def open_(self: Path, *arguments: Any, **others: Any) -> Any:
        if is_on:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(self, *arguments, **others)

    def switch(on: bool) -> None:
        nonlocal is_on
        is_on = on

    monkeypatch.setattr(Path, "open", open_)
    return switch


def test_a_change_that_could_not_be_read_at_first_counts_as_soon_as_it_can(
    path: Path, watched: ReloadingFile[str], fail_to_open: Callable[[bool], None]
) -> None:
    assert watched.current() == "first"
    path.write_text("second")

    fail_to_open(True)
    assert watched.current() == "first", "what was read before stays in force"
    fail_to_open(False)

    assert watched.current() == "second"


def test_a_file_that_cannot_be_read_for_long_is_said_now_and_then(
    path: Path,
    watched: ReloadingFile[str],
    clock: ManualClock,
    fail_to_open: Callable[[bool], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fail_to_open(True)
    for _ in range(100):
        watched.current()
    assert [record.getMessage() for record in caplog.records] == [
        f"The words file {path} cannot be read: Too many open files. The words loaded before stay in force."
    ]

    clock.now += LOG_AGAIN_S
    watched.current()
    assert len(caplog.records) == 2


def test_a_file_that_makes_no_sense_is_read_and_said_once(
    path: Path, watched: ReloadingFile[str], clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    watched.current()
    path.write_text("nonsense")

    for _ in range(100):
        clock.now += LOG_AGAIN_S
        assert watched.current() == "first"

    assert len(caplog.records) == 1


def test_a_content_that_makes_no_sense_is_said_at_once_also_after_a_file_that_could_not_be_read(
    path: Path, watched: ReloadingFile[str], fail_to_open: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    fail_to_open(True)
    watched.current()
    fail_to_open(False)
    path.write_text("nonsense")
    watched.current()

    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"The words file {path} cannot be read",
        f"The words file {path} is invalid",
    ]


def test_a_file_that_is_gone_is_said_once_and_one_that_never_was_is_not(
    path: Path, watched: ReloadingFile[str], caplog: pytest.LogCaptureFixture
) -> None:
    never = ReloadingFile(path.with_name("never"), "words", parse, empty="", error=FileError)
    watched.current()
    path.unlink()

    assert [watched.current(), watched.current(), never.current()] == ["", "", ""]

    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.WARNING,
        f"The words file {path} was deleted. No words are in force.",
    )
