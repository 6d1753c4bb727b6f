"""The lock of a state folder, between real file descriptors."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from gateway.storage.state_lock import LOCK_NAME, StateLockedError, lock_state_dir


def test_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "state"
    first = lock_state_dir(folder)
    with pytest.raises(StateLockedError, match=rf"Another server \(process {os.getpid()} on .*SUPERRES_STATE_DIR="):
        lock_state_dir(folder)
    os.close(first)

    os.close(lock_state_dir(folder))


def test_lock_waits_for_the_worker_of_a_dead_server(tmp_path: Path) -> None:
    slept: list[float] = []
    first = lock_state_dir(tmp_path)
    name = (tmp_path / LOCK_NAME).read_text()
    (tmp_path / LOCK_NAME).write_text(name.replace(str(os.getpid()), "999999999"))

    def release(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            os.close(first)

    os.close(lock_state_dir(tmp_path, sleep=release))

    assert len(slept) == 3


def test_wait_for_a_dead_server_has_an_end(tmp_path: Path) -> None:
    first = lock_state_dir(tmp_path)
    name = (tmp_path / LOCK_NAME).read_text()
    (tmp_path / LOCK_NAME).write_text(name.replace(str(os.getpid()), "999999999"))

    with pytest.raises(StateLockedError):
        lock_state_dir(tmp_path, wait_s=1.0, sleep=lambda _: None)
    os.close(first)


@pytest.mark.parametrize("content", ["", "\0\xff", "process 1 on another-host\n"])
def test_holder_on_another_host_or_without_a_name_is_believed(tmp_path: Path, content: str) -> None:
    first = lock_state_dir(tmp_path)
    (tmp_path / LOCK_NAME).write_text(content)

    with pytest.raises(StateLockedError, match="Another server"):
        lock_state_dir(tmp_path, sleep=lambda _: pytest.fail("it waits"))
    os.close(first)


def test_file_system_without_locks_is_used_anyway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    os.close(lock_state_dir(tmp_path))

    assert "file system without locks" in caplog.text
