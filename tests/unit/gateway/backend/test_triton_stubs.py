"""What a dead Triton leaves behind is swept up by what was noted, however torn the note is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.backend import triton_stubs
from gateway.backend.triton_stubs import Stub, note, sweep_orphans

REGION = "triton_python_backend_shm_region_"


@pytest.fixture
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of /dev/shm."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(triton_stubs, "SHARED_MEMORY", folder)
    return folder


@pytest.fixture
def gone() -> int:
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_shared_memory_is_removed_once_its_server_is_gone_and_not_before(
    shared_memory: Path, gone: int, tmp_path: Path
) -> None:
    for name in ("dead", "live"):
        (shared_memory / f"{REGION}{name}").touch()
    stubs = {Stub(1, "folder", f"{REGION}dead", gone), Stub(2, "folder", f"{REGION}live", os.getpid())}
    note(tmp_path / "triton.stubs", frozenset(stubs))

    sweep_orphans(tmp_path)

    assert [path.name for path in shared_memory.iterdir()] == [f"{REGION}live"]


@pytest.mark.parametrize(
    "torn",
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
def test_a_torn_note_is_read_as_far_as_it_is_sound(shared_memory: Path, gone: int, tmp_path: Path, torn: bytes) -> None:
    (shared_memory / f"{REGION}dead").touch()
    (tmp_path / "triton.stubs").write_bytes(b"%b\n%d %bdead\n%b" % (torn, gone, REGION.encode(), torn))

    sweep_orphans(tmp_path)

    assert list(shared_memory.iterdir()) == []


def test_a_note_never_names_what_lies_outside_the_shared_memory(shared_memory: Path, gone: int, tmp_path: Path) -> None:
    (shared_memory / REGION).mkdir()
    (tmp_path / "precious").touch()
    (tmp_path / "triton.stubs").write_text(f"{gone} {REGION}/../../precious\n")

    sweep_orphans(tmp_path)

    assert (tmp_path / "precious").exists()


def test_a_note_is_replaced_whole_and_never_seen_half_written(tmp_path: Path) -> None:
    path = tmp_path / "triton.stubs"
    note(path, frozenset({Stub(1, "folder", f"{REGION}old", 7)}))
    with path.open() as reader:
        note(path, frozenset({Stub(1, "folder", f"{REGION}new", 7)}))
        assert reader.read() == f"7 {REGION}old\n"
    assert path.read_text() == f"7 {REGION}new\n"
    assert list(tmp_path.iterdir()) == [path]


def test_notes_of_servers_that_are_gone_are_swept_whatever_their_names_and_those_of_live_ones_stay(
    shared_memory: Path, gone: int, tmp_path: Path
) -> None:
    for name in ("one", "two", "live"):
        (shared_memory / f"{REGION}{name}").touch()
    note(tmp_path / "triton.stubs", frozenset({Stub(1, "folder", f"{REGION}one", gone)}))
    note(tmp_path / "triton-12ab.stubs", frozenset({Stub(1, "folder", f"{REGION}two", gone)}))
    note(tmp_path / "triton-34cd.stubs", frozenset({Stub(1, "folder", f"{REGION}live", os.getpid())}))
    (tmp_path / "folder.stubs").mkdir()

    sweep_orphans(tmp_path)

    assert [path.name for path in shared_memory.iterdir()] == [f"{REGION}live"]
    assert sorted(path.name for path in tmp_path.glob("*.stubs")) == ["folder.stubs", "triton-34cd.stubs"]
