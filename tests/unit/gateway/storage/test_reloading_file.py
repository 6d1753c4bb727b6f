"""gateway.storage.reloading_file: a file that changes while the gateway runs."""

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
        raise ValueError("it is nonsense")
    return content.decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "words.txt").write_text("first")
    return tmp_path / "words.txt"


@pytest.fixture
def file(path: Path, clock: ManualClock) -> ReloadingFile[str]:
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


def test_unreadable_change_is_loaded_once_it_can_be_read(
    path: Path, file: ReloadingFile[str], fail_to_open: Callable[[bool], None]
) -> None:
    assert file.current() == "first"
    path.write_text("second")

    fail_to_open(True)
    assert file.current() == "first", "the previous content stays in force"
    fail_to_open(False)

    assert file.current() == "second"


def test_unreadable_file_is_logged_at_most_once_per_minute(
    path: Path,
    file: ReloadingFile[str],
    clock: ManualClock,
    fail_to_open: Callable[[bool], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fail_to_open(True)
    for _ in range(100):
        file.current()
    assert [record.getMessage() for record in caplog.records] == [
        f"The words file {path} cannot be read: Too many open files. The words loaded before stay in force."
    ]

    clock.now += LOG_AGAIN_S
    file.current()
    assert len(caplog.records) == 2


def test_invalid_file_is_logged_once(
    path: Path, file: ReloadingFile[str], clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    file.current()
    path.write_text("nonsense")

    for _ in range(100):
        clock.now += LOG_AGAIN_S
        assert file.current() == "first"

    assert len(caplog.records) == 1


def test_invalid_file_is_logged_at_once_after_an_unreadable_one(
    path: Path, file: ReloadingFile[str], fail_to_open: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    fail_to_open(True)
    file.current()
    fail_to_open(False)
    path.write_text("nonsense")
    file.current()

    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"The words file {path} cannot be read",
        f"The words file {path} is invalid",
    ]


def test_deleted_file_is_logged_once_and_a_missing_one_is_not(
    path: Path, file: ReloadingFile[str], caplog: pytest.LogCaptureFixture
) -> None:
    never = ReloadingFile(path.with_name("never"), "words", parse, empty="", error=FileError)
    file.current()
    path.unlink()

    assert [file.current(), file.current(), never.current()] == ["", "", ""]

    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.WARNING,
        f"The words file {path} was deleted. No words are in force.",
    )
