"""The tutorial and the guide for API clients, run block by block against one `make run`."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from testing.data import ROOT, read_pixels
from testing.pages import read_code_blocks, run_block

TUTORIAL, API_GUIDE = "docs/tutorial/first-image.md", "docs/how-to/use-the-api.md"
SHELL, PYTHON = ["sh", "-euc"], [sys.executable, "-c"]


@pytest.mark.usefixtures("service")
def test_tutorial_runs_from_start_to_stop(environ: dict[str, str], tmp_path: Path) -> None:
    printed = []
    for language, text in read_code_blocks(TUTORIAL):
        if language == "sh":
            printed.append(run_block(SHELL, text, environ, tmp_path))
        elif language == "python":
            printed.append(run_block(PYTHON, text, environ, tmp_path))

    sizes = {"butterfly_x4.png": (256, 256), "butterfly_triton.png": (256, 256), "bird_x4.jpg": (288, 288)}
    for name, size in sizes.items():
        assert read_pixels(tmp_path / name).shape == (*size, 3)
    assert json.loads(printed[2])["status"] == 415, "the page shows an error for README.md"
    shown = [text for language, text in read_code_blocks(TUTORIAL) if language == "text"]
    assert shown[1:] == [printed[3], printed[4]]


@pytest.fixture(scope="module")
def keyed_environ(environ: dict[str, str]) -> dict[str, str]:
    """The reader's shell, with the API key that the guide expects in KEY."""
    command = [sys.executable, "-m", "gateway", "keys", "new", "guide"]
    key = subprocess.run(command, cwd=ROOT, env=environ, text=True, capture_output=True, check=True).stdout.strip()
    return {**environ, "KEY": key}


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("language", "command", "result", "side"),
    [
        ("sh", SHELL, "bird_x4.webp", 288),
        ("sh", SHELL, "bird_strength50.png", 72),
        ("sh", SHELL, "bird_scale2.5.png", 180),
        ("sh", SHELL, "bird_metadata.jpg", 288),
        ("python", PYTHON, "bird_x4.png", 288),
        ("javascript", ["node", "--input-type=module", "--eval"], "bird_x4_js.png", 288),
    ],
)
def test_client_of_the_guide_upscales_an_image(
    language: str, command: list[str], result: str, side: int, keyed_environ: dict[str, str], tmp_path: Path
) -> None:
    (program,) = [text for kind, text in read_code_blocks(API_GUIDE) if kind == language and result in text]
    run_block(command, program, keyed_environ, tmp_path)
    with Image.open(tmp_path / result) as image:
        assert image.size == (side, side)


@pytest.mark.usefixtures("service")
def test_client_of_the_guide_upscales_several_images(keyed_environ: dict[str, str], tmp_path: Path) -> None:
    (program,) = [text for kind, text in read_code_blocks(API_GUIDE) if kind == "sh" and "upscaled.zip" in text]
    run_block(SHELL, program, keyed_environ, tmp_path)
    with zipfile.ZipFile(tmp_path / "upscaled.zip") as archive:
        assert archive.namelist() == ["bird_compact_x4.png", "woman_compact_x4.png", "report.json"]


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("language", "command"), [("python", PYTHON), ("javascript", ["node", "--input-type=module", "--eval"])]
)
def test_client_of_the_guide_reports_the_problem(
    language: str, command: list[str], keyed_environ: dict[str, str], tmp_path: Path
) -> None:
    (program,) = [text for kind, text in read_code_blocks(API_GUIDE) if kind == language]
    with pytest.raises(AssertionError, match=r"(RuntimeError|Error): .+ \(request [\w-]+\)"):
        run_block(command, program.replace("tests/data/Set5/x4/bird.png", "README.md"), keyed_environ, tmp_path)
