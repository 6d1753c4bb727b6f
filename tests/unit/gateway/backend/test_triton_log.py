"""Triton's log: what it says about a start that failed, and a disk that cannot hold it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from gateway.backend.triton_log import MAX_READ_BYTES, explain_failed_start, open_log, read_log_tail

# Lines of Triton 2.51, shortened at the region's name.
NO_GPU = '2026-11-29T02:24:01Z E 27755 server.cc:241] "CudaDriverHelper has not been initialized."\n'
NO_SHARED_MEMORY = (
    "2026-11-29T02:24:01Z E 27755 model_lifecycle.cc:642] \"failed to load 'stitch' version 1: Internal: Unable to "
    "initialize shared memory key 'triton_python_backend_shm_region_4855' to requested size (1048576 bytes). If you "
    "are running Triton inside docker, use '--shm-size' flag to control the shared memory region size.\"\n"
)
FAILED_MODEL = (
    "2026-11-29T02:24:44Z E 28982 model_lifecycle.cc:642] \"failed to load 'swinir' version 1: Internal: "
    "ModuleNotFoundError: No module named 'torch'\\n\\nAt:\\n  /x/model.py(1): <module>\\n\"\n"
    "2026-11-29T02:24:44Z E 28982 model_repository_manager.cc:703] \"Invalid argument: ensemble 'upscale' depends on "
    "'swinir' which has no loaded version.\"\n"
)
END = "error: creating server: Internal - failed to load all models\n"


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (NO_GPU + NO_SHARED_MEMORY + END, 1, ["/shm is full or too small", "MiB free", "--shm-size=2g"]),
        (NO_GPU + FAILED_MODEL + END, 1, ["failed to load 'swinir' version 1", "No module named 'torch'"]),
        (NO_GPU + END, 1, ["creating server: Internal - failed to load all models"]),
        (NO_GPU, -9, ["ended by signal 9", "out of memory"]),
        (NO_GPU, -11, ["ended by signal 11"]),
        (NO_GPU, 1, ["no error"]),
        ("", 127, ["no error"]),
    ],
    ids=("shared memory", "model", "last line", "SIGKILL", "SIGSEGV", "nothing", "no log"),
)
def test_failed_start_is_explained_in_one_line(tmp_path: Path, text: str, status: int, words: list[str]) -> None:
    path = tmp_path / "triton.log"
    if text:
        path.write_text(text)
    explanation = explain_failed_start(path, status)
    for word in words:
        assert word in explanation
    assert "\n" not in explanation
    assert "\\n" not in explanation


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    path.write_text(FAILED_MODEL + "x\n" * MAX_READ_BYTES + "the last line\n")
    assert "the last line" in read_log_tail(path)
    assert "no error" in explain_failed_start(path, 1)


def test_older_log_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "state" / "triton.log"
    for number in range(3):
        with open_log(path) as log:
            log.write(b"%d" % number)
    assert path.read_text() == "2"
    assert path.with_suffix(".previous.log").read_text() == "1"


def test_unwritable_folder_costs_the_log_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").touch()  # a file where the folder should be
    path = tmp_path / "state" / "triton.log"
    with caplog.at_level(logging.WARNING), open_log(path) as log:
        assert log.name == os.devnull
    assert [record.getMessage() for record in caplog.records] == [f"Triton runs without its log {path}: File exists"]
    assert read_log_tail(path) == f"(no log in {path})"
