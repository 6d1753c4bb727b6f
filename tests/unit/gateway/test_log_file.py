"""The log file on real files: renamed, truncated, rotated by two processes, and on a device without space."""

from __future__ import annotations

import errno
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest

from gateway import log_file
from gateway.log_file import LogFileHandler, StandardErrorHandler
from testing.clock import ManualClock
from testing.data import ROOT


@contextmanager
def logging_to(path: Path, max_bytes: int = 0, clock: ManualClock | None = None) -> Iterator[logging.Logger]:
    """A logger that writes to a file only."""
    handler = LogFileHandler(path, max_bytes=max_bytes, clock=clock or ManualClock())
    logger = logging.Logger("tests")
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()


def test_renamed_file_is_created_again(tmp_path: Path) -> None:
    """As after logrotate's rename, without any signal."""
    path = tmp_path / "gateway.log"
    with logging_to(path) as logger:
        logger.warning("one")
        path.rename(tmp_path / "gateway.log.1")
        logger.warning("two")
        path.unlink()
        logger.warning("three")

    assert (tmp_path / "gateway.log.1").read_text() == "one\n"
    assert path.read_text() == "three\n"


def test_truncated_file_begins_anew(tmp_path: Path) -> None:
    """As after logrotate's copytruncate: the next line follows no hole of zero bytes."""
    path = tmp_path / "gateway.log"
    with logging_to(path) as logger:
        logger.warning("one")
        os.truncate(path, 0)
        logger.warning("two")

    assert path.read_bytes() == b"two\n"


def test_file_is_rotated_by_size(tmp_path: Path) -> None:
    path = tmp_path / "gateway.log"
    with logging_to(path, max_bytes=8) as logger:
        for number in range(7):
            logger.warning("%d", number)

    assert (path.with_name("gateway.log.1").read_text(), path.read_text()) == ("0\n1\n2\n3\n", "4\n5\n6\n")


def test_file_that_cannot_be_rotated_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gateway.log"
    (tmp_path / "gateway.log.1" / "inner").mkdir(parents=True)  # a folder, which no file replaces
    with logging_to(path, max_bytes=4) as logger:
        for number in range(4):
            logger.warning("%d", number)

    assert path.read_text() == "0\n1\n2\n3\n"
    assert capsys.readouterr().err == ""


WRITER = """
import logging, sys
from pathlib import Path
from gateway.log_file import LogFileHandler
logger = logging.Logger("writer")
logger.addHandler(LogFileHandler(Path(sys.argv[1]), max_bytes=60_000))
print("up", flush=True)
sys.stdin.readline()
for number in range(500):
    logger.warning("%s", f"{sys.argv[2]}-{number}".ljust(99))
"""


def test_rotation_by_two_processes_loses_no_line(tmp_path: Path) -> None:
    """100,000 bytes, so that the file is rotated once."""
    path = tmp_path / "gateway.log"
    command = [sys.executable, "-c", WRITER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, name], cwd=ROOT, **pipes) for name in ("a", "b")]  # type: ignore[call-overload]
    assert [writer.stdout.readline() for writer in writers] == ["up\n", "up\n"]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate(timeout=120) for writer in writers] == [("", None)] * 2

    lines = [line.strip() for each in (path, tmp_path / "gateway.log.1") for line in each.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name}-{number}" for name in ("a", "b") for number in range(500))
    assert (tmp_path / "gateway.log.1").stat().st_size < 61_000, "the other process may add a line meanwhile"


def test_full_disk_costs_lines_and_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], clock: ManualClock
) -> None:
    path = tmp_path / "gateway.log"
    path.symlink_to("/dev/full")  # each write fails with ENOSPC
    with logging_to(path, clock=clock) as logger:
        for number in range(3):
            logger.warning("lost %d", number)
        warning = capsys.readouterr().err
        clock.now += log_file.WARN_AGAIN_S
        logger.warning("lost 3")
        second = capsys.readouterr().err
        path.unlink()  # there is space again
        logger.warning("kept")
        logger.warning("kept, too")

    assert warning == second
    assert warning == (
        f"superres: The log {path} cannot be written: No space left on device. Lines are lost until it can; images "
        "are upscaled as before.\n"
    )
    assert path.read_text() == "4 lines were lost here: No space left on device\nkept\nkept, too\n"


def test_line_cut_by_a_full_disk_does_not_spoil_the_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gateway.log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with logging_to(path) as logger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # a disk of 10 bytes
        try:
            logger.warning("12345")
            logger.warning("abcdef")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        logger.warning("whole")

    assert path.read_text() == "12345\nabcd\n1 line was lost here: No space left on device\nwhole\n"
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_log_may_be_opened_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "gateway.log"
    with monkeypatch.context() as full:
        full.setattr(os, "open", refuse)
        handler = LogFileHandler(path, max_bytes=0)
    handler.handle(logging.makeLogRecord({"msg": "later"}))
    handler.close()

    assert path.read_text() == "later\n"


def test_unwritable_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        LogFileHandler(tmp_path, max_bytes=0)


class BrokenStream(StringIO):
    """Standard error after its terminal was closed."""

    def write(self, _: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_broken_standard_error_is_ignored(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sys, "stderr", BrokenStream())
        handler = StandardErrorHandler()
    handler.handle(logging.makeLogRecord({"msg": "nobody reads this"}))

    assert capsys.readouterr().err == ""
