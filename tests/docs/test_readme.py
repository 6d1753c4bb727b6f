"""The README's code blocks run unchanged against one `make run`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from testing.data import ROOT
from testing.pages import SECRET, read_code_blocks, run_block

BLOCKS = read_code_blocks("README.md")


def block(language: str, containing: str) -> str:
    found = [text for kind, text in BLOCKS if kind == language and containing in text]
    assert len(found) == 1, f"the README has {len(found)} {language} blocks with {containing!r}"
    return found[0]


def test_every_block_of_the_readme_has_a_test_here() -> None:
    kinds = [(kind, text.strip().splitlines()[0].split("=")[0].split()[0]) for kind, text in BLOCKS]
    assert kinds == [
        ("sh", "make"),
        ("sh", "make"),
        ("sh", "make"),
        ("sh", "KEY"),
        ("sh", ".venv/bin/superres"),
        ("python", "import"),
    ], "a new block of the README needs a test here"
    assert [text.strip() for _, text in BLOCKS[:3]] == [
        "make run",
        'make run VARIANTS="real_x4 lightweight_x4"',
        "make test",
    ]


def test_make_run_prints_one_line_with_the_address(service: list[str], environ: dict[str, str]) -> None:
    assert [line for line in service if "http://" in line] == [
        f"Serverless SuperRes is ready at http://127.0.0.1:{environ['PORT']}"
    ]


FETCH = "weights fetch --optional real_x4 lightweight_x4"


@pytest.mark.parametrize(
    ("arguments", "status", "commands"),
    [
        ("make run", 0, ["serve"]),
        (block("sh", "VARIANTS").strip(), 0, [FETCH, "serve"]),
        (block("sh", "VARIANTS").strip(), 1, [FETCH]),
    ],
    ids=("no variants", "variants", "unknown variant"),
)
def test_make_run_fetches_variants_before_it_serves(
    tmp_path: Path, arguments: str, status: int, commands: list[str]
) -> None:
    """A stand-in for `superres` writes down its arguments; its `weights fetch` ends with `status`."""
    stand_in = tmp_path / "superres"
    stand_in.write_text(f'#!/bin/sh\necho "$*" >>"{tmp_path}/calls"\n[ "$1" = serve ] || exit {status}\n')
    stand_in.chmod(0o755)
    command = ["sh", "-c", f"{arguments} -o setup BIN='{tmp_path}'"]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert (ended.returncode != 0) == (status != 0), ended.stderr
    assert (tmp_path / "calls").read_text().splitlines() == commands


@pytest.mark.usefixtures("service")
def test_curl_block_upscales_an_image(environ: dict[str, str], tmp_path: Path) -> None:
    run_block(["sh", "-euc"], block("sh", "curl"), environ, tmp_path)
    with Image.open(tmp_path / "butterfly_x4.png") as image:
        assert (image.format, image.size) == ("PNG", (256, 256))


@pytest.mark.triton
def test_command_line_block_upscales_images(environ: dict[str, str], tmp_path: Path) -> None:
    run_block(["sh", "-euc"], block("sh", "superres upscale"), environ, tmp_path)
    assert sorted(path.name for path in (tmp_path / "upscaled").iterdir()) == [
        "bird_compact_x4.png",
        "woman_compact_x4.png",
    ]


@pytest.mark.usefixtures("service")
def test_triton_block_prints_shapes(environ: dict[str, str], tmp_path: Path) -> None:
    program = block("python", "tritonclient")
    assert SECRET in program
    assert run_block([sys.executable, "-c"], program, environ, tmp_path) == "(64, 64, 3) -> (256, 256, 3)\n"


def test_every_link_of_the_documents_exists() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text())
        if not target.startswith(("http://", "https://", "/")) and not (document.parent / target).exists()
    ]
    assert not broken, "\n".join(broken)


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    targets = set(phony[1].split())
    command = ["make", "--no-print-directory", "help"]  # a make inside `make test` would print its directory
    shown = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines()} == targets
