"""The guide for clients, run block by block against the gateway with a fake backend."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from gateway.access.api_keys import ApiKeyStore
from testing.pages import read_code_blocks, run_block
from testing.server import serving

pytestmark = pytest.mark.slow

GUIDE = "docs/how-to/use-a-client.md"
SHELL, PYTHON = ["sh", "-euc"], [sys.executable, "-c"]
NODE = ["node", "--input-type=module", "--eval"]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The reader's shell, with a running service and an API key."""
    folder = tmp_path_factory.mktemp("guide")
    with serving(folder) as server:
        key = ApiKeyStore(folder / "keys.json").new("guide")
        yield {**os.environ, "KEY": key, "PORT": str(server.port), "SUPERRES_TRITON_GRPC_PORT": ""}


def find_block(language: str, words: str) -> str:
    (program,) = [text for kind, text in read_code_blocks(GUIDE) if kind == language and words in text]
    return program


@pytest.mark.parametrize(
    ("language", "command", "words", "results"),
    [
        ("python", PYTHON, "bird_client.png", ["bird_client.png"]),
        ("python", PYTHON, "RetryLimits", []),
        ("python", PYTHON, "asyncio.run", ["bird_compact_x4.png", "woman_compact_x4.png"]),
        ("python", PYTHON, "bird_job_client.png", ["bird_job_client.png"]),
        ("javascript", NODE, "bird_job_js.png", ["bird_job_js.png"]),
        ("sh", SHELL, "bird_curl.png", ["bird_curl.png"]),
        ("python", PYTHON, "client.upscale_batch", ["bird_compact_x4.png", "woman_compact_x4.png"]),
    ],
)
def test_program_of_the_guide(
    language: str, command: list[str], words: str, results: list[str], environ: dict[str, str], tmp_path: Path
) -> None:
    run_block(command, find_block(language, words), environ, tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir() if not path.is_symlink()) == results
    for name in results:
        with Image.open(tmp_path / name) as image:
            assert image.size[0] == (288 if "bird" in name else 228)


@pytest.mark.parametrize(
    ("language", "command", "name"),
    [
        ("javascript", NODE, "several_js.zip"),
        ("sh", SHELL, "several_curl.zip"),
        ("python", PYTHON, "several_job.zip"),
    ],
)
def test_several_images_of_the_guide(
    language: str, command: list[str], name: str, environ: dict[str, str], tmp_path: Path
) -> None:
    run_block(command, find_block(language, name), environ, tmp_path)

    with zipfile.ZipFile(tmp_path / name) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["bird_compact_x4.png", "woman_compact_x4.png", "report.json"]


def test_function_for_node_and_browsers(environ: dict[str, str], tmp_path: Path) -> None:
    function, node = find_block("javascript", "async function readEvents"), find_block("javascript", "bird_events.png")

    printed = run_block(NODE, function + node, environ, tmp_path)

    assert "state" in printed
    assert "bands_done" in printed
    with Image.open(tmp_path / "bird_events.png") as image:
        assert image.size == (288, 288)


@pytest.mark.parametrize("words", ["bird_client.png", "bird_events.png"])
def test_programs_report_the_problem(words: str, environ: dict[str, str], tmp_path: Path) -> None:
    language = "python" if words == "bird_client.png" else "javascript"
    program = find_block(language, words).replace("tests/data/Set5/x4/bird.png", "README.md")
    if language == "javascript":
        program = find_block("javascript", "async function readEvents") + program

    with pytest.raises(AssertionError, match=r"Unsupported image format: .+ \(request [\w-]+\)"):
        run_block(PYTHON if language == "python" else NODE, program, environ, tmp_path)
