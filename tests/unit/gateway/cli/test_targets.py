"""Where results go, and that no file is replaced or left partial by accident."""

from __future__ import annotations

import errno
import os
import socket
import threading
import unicodedata
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image as PilImage

from gateway.cli import targets
from gateway.cli.sources import Source
from gateway.cli.targets import ResultFile, Target, TargetError, WriteError, read_target
from testing import images


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_names_of_standard_output(name: str) -> None:
    assert read_target(Path(name), is_for_several=False).kind == "standard output"


def test_kind_of_a_target(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "dangling").symlink_to(tmp_path / "new.png")
    os.mkfifo(tmp_path / "pipe")

    kinds = {
        name: read_target(tmp_path / name, is_for_several=False).kind
        for name in ("folder.png", "old", "dangling", "pipe", "new.webp", "new")
    }

    assert kinds == {
        "folder.png": "folder",
        "old": "file",
        "dangling": "file",
        "pipe": "pipe",
        "new.webp": "file",
        "new": "folder",
    }
    assert read_target(Path("/dev/null"), is_for_several=False).kind == "pipe"


def test_socket_is_refused_in_words(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))

        with pytest.raises(TargetError, match="is a device or a socket"):
            read_target(tmp_path / "s", is_for_several=False)


@pytest.mark.parametrize(("name", "words"), [("old.png", "is a file"), ("-", "standard output, which takes one")])
def test_several_inputs_need_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.png").write_bytes(b"")

    with pytest.raises(TargetError, match=words):
        read_target(Path(name), is_for_several=True)


def test_loop_of_links_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")

    with pytest.raises(TargetError, match="cannot be used as output: Too many levels of symbolic links"):
        read_target(tmp_path / "loop.png", is_for_several=False)


def test_collisions_ignore_case_and_form_only_where_the_folder_does() -> None:
    names = ["a.png", "A.png", unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")]
    sources = [Source(Path(name)) for name in names]

    assert targets.find_collisions(sources, lambda source: source.path, ignores_case=False) == ""
    collisions = targets.find_collisions(sources, lambda source: source.path, ignores_case=True)
    assert collisions.startswith("a.png and A.png would both be written to A.png.\n")
    assert len(collisions.splitlines()) == 3


def test_only_the_first_collisions_are_listed() -> None:
    sources = [Source(Path(f"{number}/a.png")) for number in range(9)]

    collisions = targets.find_collisions(sources, lambda source: Path(source.path.name), ignores_case=False)

    assert len(collisions.splitlines()) == 7
    assert "3 more collide." in collisions


def test_case_of_a_folder_is_found_by_an_entry(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    assert not targets.ignores_case(tmp_path / "new")

    (tmp_path / "PHOTO.PNG").hardlink_to(
        tmp_path / "photo.png"
    )  # one file by both names, as if the case did not matter
    assert targets.ignores_case(tmp_path / "new")


def test_result_appears_whole_with_the_permissions_of_a_new_file(tmp_path: Path) -> None:
    target, plain = tmp_path / "sub" / "a.png", tmp_path / "plain"
    plain.touch()

    with ResultFile(target, overwrite=False) as file:
        file.write(b"12")
        assert not target.exists()
        file.write(b"34")
        file.commit()

    assert target.read_bytes() == b"1234"
    assert target.stat().st_mode == plain.stat().st_mode
    assert [path.name for path in target.parent.iterdir()] == ["a.png"]


def test_result_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with ResultFile(tmp_path / "a.png", overwrite=True) as file:
            file.write(b"1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_links", [True, False])
def test_file_that_appeared_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "a.png"

    with ResultFile(target, overwrite=False) as file:
        file.write(b"new")
        target.write_bytes(b"of another program")
        with pytest.raises(WriteError, match="already exists"):
            file.commit()

    assert target.read_bytes() == b"of another program"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_link_is_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "a.png", tmp_path / "link.png"
    real.parent.mkdir()
    real.write_bytes(b"old")
    link.symlink_to(real)

    with ResultFile(link, overwrite=True) as file:
        file.write(b"new")
        file.commit()

    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", fill)

    with pytest.raises(WriteError, match="No space left on device") as caught:
        ResultFile(tmp_path / "a.png", overwrite=False)

    assert caught.value.is_final


def test_pipe_gets_the_whole_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()

    targets.copy_to_stream(BytesIO(b"12345"), Target(tmp_path / "pipe", "pipe"))

    reader.join()
    assert read == [b"12345"]


def test_target_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(TargetError, match="Not a directory"):
        targets.check_writable(read_target(tmp_path / "file" / "out", is_for_several=True), makes_folder=True)


def test_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)

    with pytest.raises(TargetError, match="you have no permission, or the file system is read-only"):
        targets.check_writable(Target(tmp_path / "new" / "out", "folder"), makes_folder=True)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "avif"])
def test_whole_files_are_told_from_cut_ones(tmp_path: Path, kind: str) -> None:
    data = images.save(PilImage.fromarray(images.draw_photo(16, 16)), kind)
    path = tmp_path / "result"

    path.write_bytes(data)
    assert targets.is_whole(path)
    for length in (0, 1, 20, len(data) // 2, len(data) - 13):
        path.write_bytes(data[:length])
        assert not targets.is_whole(path), length
