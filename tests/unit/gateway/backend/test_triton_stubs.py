"""Stubs are found by their command line, and the shared memory of a dead Triton is removed as its record says."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import psutil
import pytest

from gateway.backend import triton_stubs
from gateway.backend.triton_stubs import (
    SERVER_NAME,
    STOPPED_LIMIT_S,
    StoppedStubs,
    Stub,
    end_orphaned_stubs,
    end_stubs,
    find_stubs,
    record_regions,
)
from testing.clock import ManualClock

REGION = "triton_python_backend_shm_region_"


@pytest.fixture
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder instead of /dev/shm."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(triton_stubs, "SHARED_MEMORY", folder)
    return folder


@pytest.fixture
def ended_pid() -> int:
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.fixture
def live_pid(tmp_path: Path) -> Iterator[int]:
    """The id of a running process that is called as a server is. Another test's gateway leaves its stubs alone."""
    program = tmp_path / "bin" / SERVER_NAME
    program.parent.mkdir()
    program.symlink_to(str(shutil.which("sleep")))
    running = subprocess.Popen([program, "600"])
    while psutil.Process(running.pid).name() != SERVER_NAME:
        time.sleep(0.001)
    yield running.pid
    running.kill()
    running.wait()


@contextlib.contextmanager
def running_stub(folder: Path, server_pid: int) -> Iterator[int]:
    """Run a process with the command line of a stub, and yield its id."""
    model = folder / "models" / "tile" / "1" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text("read line\n")
    program = str(folder / "python" / "triton_python_backend_stub")
    command = [program, str(model), f"{REGION}x", "1048576", "1048576", str(server_pid), "", "tile_0_0", "DEFAULT"]
    with subprocess.Popen(command, executable="/bin/sh", stdin=subprocess.PIPE) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def make_stub(server_pid: int, name: str) -> Stub:
    return Stub(psutil.Process(), "folder", f"{REGION}{name}", server_pid)


def test_stubs_are_found_by_their_command_line(live_pid: int, tmp_path: Path) -> None:
    ours, another = tmp_path / "superres-triton-a", tmp_path / "pytriton-b"
    with running_stub(ours, live_pid) as pid, running_stub(another, live_pid):
        found = find_stubs(live_pid)
        assert [(stub.pid, stub.model, stub.region, stub.folder) for stub in found] == [
            (pid, "tile", f"{REGION}x", str(ours))
        ]
        assert pid in {stub.pid for stub in find_stubs()}
        assert not find_stubs(7_000_002)


def test_only_stubs_of_the_folder_are_killed(shared_memory: Path, live_pid: int, tmp_path: Path) -> None:
    folder = tmp_path / "superres-triton-a"
    with running_stub(folder, live_pid) as pid:
        (shared_memory / f"{REGION}x").touch()
        process = psutil.Process(pid)
        end_stubs(tmp_path / "superres-triton-b", grace_s=0.0)
        assert process.status() != psutil.STATUS_ZOMBIE
        end_stubs(folder, grace_s=0.0)
        assert process.wait(120) is not None
    assert not find_stubs(live_pid)
    assert not [*shared_memory.iterdir()]


def test_shared_memory_is_removed_after_its_server_ends(
    shared_memory: Path, ended_pid: int, live_pid: int, tmp_path: Path
) -> None:
    for name in ("dead", "live"):
        (shared_memory / f"{REGION}{name}").touch()
    stubs = {make_stub(ended_pid, "dead"), make_stub(live_pid, "live")}
    record_regions(tmp_path / "triton.stubs", frozenset(stubs))

    end_orphaned_stubs(tmp_path)

    assert [path.name for path in shared_memory.iterdir()] == [f"{REGION}live"]


@pytest.mark.parametrize(
    "damage",
    [
        b"123456 ",
        b"123456",
        b"x y",
        b"1 2 3",
        b"\xff\xfe\0\0",
        "\N{SUPERSCRIPT TWO} region".encode(),
        f"{2**70} {REGION}x".encode(),
    ],
)
def test_valid_lines_of_a_damaged_record_are_used(
    shared_memory: Path, ended_pid: int, tmp_path: Path, damage: bytes
) -> None:
    (shared_memory / f"{REGION}dead").touch()
    (tmp_path / "triton.stubs").write_bytes(b"%b\n%d %bdead\n%b" % (damage, ended_pid, REGION.encode(), damage))

    end_orphaned_stubs(tmp_path)

    assert list(shared_memory.iterdir()) == []


def test_record_cannot_remove_files_outside_the_shared_memory(
    shared_memory: Path, ended_pid: int, tmp_path: Path
) -> None:
    (shared_memory / REGION).mkdir()
    (tmp_path / "precious").touch()
    (tmp_path / "triton.stubs").write_text(f"{ended_pid} {REGION}/../../precious\n")

    end_orphaned_stubs(tmp_path)

    assert (tmp_path / "precious").exists()


def test_record_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "triton.stubs"
    record_regions(path, frozenset({make_stub(7, "old")}))
    with path.open() as reader:
        record_regions(path, frozenset({make_stub(7, "new")}))
        assert reader.read() == f"7 {REGION}old\n"
    assert path.read_text() == f"7 {REGION}new\n"
    assert list(tmp_path.iterdir()) == [path]


def test_only_records_of_ended_servers_are_removed(
    shared_memory: Path, ended_pid: int, live_pid: int, tmp_path: Path
) -> None:
    for name in ("one", "two", "live"):
        (shared_memory / f"{REGION}{name}").touch()
    record_regions(tmp_path / "triton.stubs", frozenset({make_stub(ended_pid, "one")}))
    record_regions(tmp_path / "triton-12ab.stubs", frozenset({make_stub(ended_pid, "two")}))
    record_regions(tmp_path / "triton-34cd.stubs", frozenset({make_stub(live_pid, "live")}))
    (tmp_path / "folder.stubs").mkdir()

    end_orphaned_stubs(tmp_path)

    assert [path.name for path in shared_memory.iterdir()] == [f"{REGION}live"]
    assert sorted(path.name for path in tmp_path.glob("*.stubs")) == ["folder.stubs", "triton-34cd.stubs"]


def test_reused_process_id_does_not_keep_shared_memory(shared_memory: Path, tmp_path: Path) -> None:
    (shared_memory / f"{REGION}old").touch()
    reused = psutil.Process().pid  # alive, but not a tritonserver
    record_regions(tmp_path / "triton.stubs", [make_stub(reused, "old")])

    end_orphaned_stubs(tmp_path)

    assert list(shared_memory.iterdir()) == []


def test_zombie_is_not_alive() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    stub = Stub(psutil.Process(ended.pid), "folder", f"{REGION}x", 1)
    while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.001)
    assert not stub.is_alive()
    ended.wait()
    assert not stub.is_alive()


def test_record_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A real full disk: /dev/full refuses every byte."""
    path = tmp_path / "triton.stubs"
    (tmp_path / f".{path.name}.{os.getpid()}").symlink_to("/dev/full")

    record_regions(path, [make_stub(7, "one")])

    assert [record.getMessage() for record in caplog.records] == [
        f"Cannot record the shared memory of Triton in {path}: No space left on device"
    ]
    assert list(tmp_path.iterdir()) == []


class StubInState:
    """A stub in the state that a test sets."""

    pid = 7
    is_stopped_now = True
    used_s = 1.0

    def is_stopped(self) -> bool:
        return self.is_stopped_now

    def cpu_s(self) -> float:
        return self.used_s


def test_stub_that_stays_stopped_is_found() -> None:
    clock, stub = ManualClock(), StubInState()
    stopped, stubs = StoppedStubs(clock), cast("list[Stub]", [stub])
    assert stopped.find(stubs) == []
    clock.now += STOPPED_LIMIT_S - 0.1
    assert stopped.find(stubs) == []
    clock.now += 0.1
    assert stopped.find(stubs) == stubs


@pytest.mark.parametrize("continues", ["seen to run", "seen stopped, but it has run"])
def test_stub_that_is_stopped_now_and_then_is_not_found(continues: str) -> None:
    clock, stub = ManualClock(), StubInState()
    stopped, stubs = StoppedStubs(clock), cast("list[Stub]", [stub])
    for _ in range(10):
        clock.now += STOPPED_LIMIT_S / 2
        stub.is_stopped_now = True
        assert stopped.find(stubs) == []
        stub.is_stopped_now = continues != "seen to run"
        stub.used_s += 0.01
        assert stopped.find(stubs) == []
