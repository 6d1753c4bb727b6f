"""Which files of which folders are upscaled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.cli.sources import SUFFIXES_BY_FORMAT, Source, SourceError, find_sources
from preprocessing.formats.container import INPUT_FORMAT_NAMES


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_folder_is_searched_with_all_folders_in_it(tmp_path: Path) -> None:
    top = touch(tmp_path / "in", "b.png", "a.JPG", "sub/deep/c.webp", "sub/d.jpeg")

    found = find_sources([top], tmp_path / "out")

    assert found.sources == [
        Source(top / "a.JPG", Path()),
        Source(top / "b.png", Path()),
        Source(top / "sub/d.jpeg", Path("sub")),
        Source(top / "sub/deep/c.webp", Path("sub/deep")),
    ]
    assert found.describe_left_out() == ""


def test_hidden_entries_and_unknown_suffixes_are_left_out_and_counted(tmp_path: Path) -> None:
    top = touch(tmp_path / "in", "a.png", ".b.png", ".git/c.png", "notes.TXT", "more.txt", "README", "sub/.d")

    found = find_sources([top], tmp_path / "out")

    assert [source.path.name for source in found.sources] == ["a.png"]
    assert found.describe_left_out() == "Left out: 3 hidden; 3 of unknown suffix (.txt, none)."


def test_file_that_is_named_is_taken_whatever_its_name(tmp_path: Path) -> None:
    top = touch(tmp_path, ".hidden", "photo.txt")

    found = find_sources([top / ".hidden", top / "photo.txt"], tmp_path / "out")

    assert [source.path.name for source in found.sources] == [".hidden", "photo.txt"]


def test_folders_keep_their_names_if_there_are_several_inputs(tmp_path: Path) -> None:
    one, two = touch(tmp_path / "one", "a.png"), touch(tmp_path / "two", "sub/a.png")

    found = find_sources([one, two, tmp_path / "b.png"], tmp_path / "out")

    assert [source.folder for source in found.sources] == [Path("one"), Path("two/sub"), Path()]


def test_links_to_files_are_followed_and_links_to_folders_left_out(tmp_path: Path) -> None:
    top = touch(tmp_path / "in", "a.png")
    (top / "link.png").symlink_to(top / "a.png")
    (top / "loop").symlink_to(top)

    found = find_sources([top], tmp_path / "out")

    assert [source.path.name for source in found.sources] == ["a.png", "link.png"]
    assert found.describe_left_out() == "Left out: 1 linked folder."


def test_named_pipe_in_a_folder_is_not_opened(tmp_path: Path) -> None:
    top = touch(tmp_path / "in", "a.png")
    os.mkfifo(top / "pipe.png")

    found = find_sources([top], tmp_path / "out")

    assert [source.path.name for source in found.sources] == ["a.png"]
    assert found.describe_left_out() == "Left out: 1 special file."


def test_output_folder_inside_the_input_is_not_searched(tmp_path: Path) -> None:
    top = touch(tmp_path / "in", "a.png", "out/a_compact_x4.png")

    found = find_sources([top], top / "out")

    assert [source.path.name for source in found.sources] == ["a.png"]
    assert found.describe_left_out() == "Left out: 1 output folder."


def test_output_folder_that_is_the_input_is_rejected(tmp_path: Path) -> None:
    top = touch(tmp_path / "in", "a.png")
    (tmp_path / "link").symlink_to(top)

    with pytest.raises(SourceError, match="is both the input and the output"):
        find_sources([top], tmp_path / "link")


def test_folder_that_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = touch(tmp_path / "in", "a.png", "secret/b.png")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    found = find_sources([top], tmp_path / "out")

    assert [source.path.name for source in found.sources] == ["a.png"]
    assert found.unreadable == [f"{top / 'secret'}: The folder cannot be read: Permission denied."]


def test_each_format_that_is_decoded_has_its_suffixes() -> None:
    assert SUFFIXES_BY_FORMAT.keys() == INPUT_FORMAT_NAMES.keys()
