"""The tars of Debian for the base images of `make containers` are built at the same time, and only once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from docker.exercise import stand_ins
from docker.exercise.podman import ExerciseError

LIMIT_S = 120.0


class Commands:
    """Stands in for `run`: debootstrap lays out a folder, tar writes a file."""

    def __init__(self, at_once: int, failing: str = "") -> None:
        self.built: list[Path] = []
        self._barrier = threading.Barrier(at_once)
        self._failing = failing

    def __call__(self, *command: str | Path) -> str:
        if command[0] == "apt-get":
            return "https://mirror.example/debian\nhttps://second.example/debian\n"
        if command[0] == "debootstrap":
            root = Path(command[-2])
            assert command[-1] == "https://mirror.example/debian"
            self._barrier.wait(LIMIT_S)  # fails unless all are built at the same time
            if self._failing in map(str, command):
                raise ExerciseError("no space left")
            for name in ("var/cache/apt", "var/lib/apt/lists"):
                (root / name).mkdir(parents=True)
            self.built.append(root)
        if command[0] == "tar":
            Path(command[-2]).write_text(str(command[2]))
        return ""


def build(monkeypatch: pytest.MonkeyPatch, cache: Path, commands: Commands) -> list[Path]:
    monkeypatch.setattr(stand_ins, "run", commands)
    monkeypatch.setattr(stand_ins, "_check_release", lambda: None)  # the machine of this test may have another
    return stand_ins.make_tars(cache)


def test_tars_are_built_at_the_same_time_and_only_if_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tars = build(monkeypatch, tmp_path, Commands(2))

    assert sorted(tmp_path.iterdir()) == sorted(tars), "nothing else is left"
    assert build(monkeypatch, tmp_path, unused := Commands(1)) == tars
    assert unused.built == []
    tars[1].unlink()
    build(monkeypatch, tmp_path, one := Commands(1))
    assert one.built == [tars[1].with_suffix("")]


def test_failed_build_is_an_error_and_leaves_no_tar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing = f"--include={','.join(stand_ins.PACKAGES)}"

    with pytest.raises(ExerciseError, match="no space left"):
        build(monkeypatch, tmp_path, Commands(2, failing))

    assert len(list(tmp_path.glob("*.tar"))) == 1
