"""Headers of weights files: which files are complete, and how often one is read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from swinir.weights_file import MAX_HEADER_BYTES, MAX_WEIGHTS_FILE_BYTES, is_complete, read_header
from swinir.weights_file import _read as read_version
from testing.networks import install_small
from testing.weights_files import write_weights_file


def test_file_of_safetensors_is_complete(tmp_path: Path) -> None:
    install_small(tmp_path, "mine_x2")
    write_weights_file(tmp_path, "real_x4", {"variant": "real_x4"})
    assert is_complete(tmp_path / "mine_x2.safetensors")
    assert is_complete(tmp_path / "real_x4.safetensors")
    assert read_header(tmp_path / "real_x4.safetensors").metadata == {"variant": "real_x4"}


def test_no_prefix_of_a_file_is_complete(tmp_path: Path) -> None:
    """A file that is still being copied grows from its start."""
    data = write_weights_file(tmp_path, "whole").read_bytes()
    copy = tmp_path / "copy.safetensors"
    for length in range(len(data)):
        copy.write_bytes(data[:length])
        assert read_header(copy).fault, f"{length} of {len(data)} bytes"
    copy.write_bytes(data)
    assert is_complete(copy)
    copy.write_bytes(data + b"\0")
    assert read_header(copy).fault == f"it has {len(data) + 1:,} bytes, expected {len(data):,}"


ODD_CONTENT = {
    "a page of a proxy": b"<!DOCTYPE html><title>Please log in</title>",
    "zeros": bytes(100),
    "a list": b"\x02\0\0\0\0\0\0\0[]",
    "a number": b"\x01\0\0\0\0\0\0\x001",
    "offsets of text": b'\x22\0\0\0\0\0\0\0{"a": {"data_offsets": ["0", "4"]}}',
    "no offsets": b'\x0b\0\0\0\0\0\0\0{"a": null}',
    "a deep header": (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "no UTF-8": b"\x02\0\0\0\0\0\0\0\xff\xff",
}


@pytest.mark.parametrize("kind", ODD_CONTENT)
def test_file_of_another_kind_is_not_complete(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(ODD_CONTENT[kind])
    assert read_header(path).fault
    assert read_header(path).metadata == {}


def test_sizes_are_bounded_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    path.write_bytes((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
    assert f"its header has {MAX_HEADER_BYTES + 1:,} bytes" in read_header(path).fault
    os.truncate(path, MAX_WEIGHTS_FILE_BYTES + 1)  # sparse
    assert (
        read_header(path).fault
        == f"it has {MAX_WEIGHTS_FILE_BYTES + 1:,} bytes; {MAX_WEIGHTS_FILE_BYTES:,} is the limit"
    )


def test_what_is_not_a_file_is_not_complete(tmp_path: Path) -> None:
    assert "No such file" in read_header(tmp_path / "none.safetensors").fault
    (tmp_path / "folder.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "link.safetensors").symlink_to("nowhere")
    for name in ("folder", "pipe", "link"):
        assert not is_complete(tmp_path / f"{name}.safetensors")


def test_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_weights_file(tmp_path, "real_x4")
    broken = write_weights_file(tmp_path, "real_x2", missing=1)
    read_version.cache_clear()
    for _ in range(50):
        assert is_complete(path)
        assert not is_complete(broken)
    assert read_version.cache_info().misses == 2
    opened = []
    monkeypatch.setattr(Path, "open", lambda *arguments: opened.append(arguments))
    assert is_complete(path)
    assert opened == []


def test_replaced_file_is_read_again(tmp_path: Path) -> None:
    path = write_weights_file(tmp_path, "real_x4", {"a": "b"})
    assert read_header(path).metadata == {"a": "b"}
    status = path.stat()
    other = write_weights_file(tmp_path / "other", "real_x4", {"a": "c"})
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))  # the same size and time
    shutil.move(other, path)
    assert read_header(path).metadata == {"a": "c"}
