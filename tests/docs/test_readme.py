"""The README's blocks, run as they stand: `make run` for the service, then every command and program in it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from testing.data import ROOT
from testing.stack import read_until_ready

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
BOOT_LIMIT_S = 180.0
SECRET = "our-secret"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the README sets, on ports that are free here, and a home of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SUPERRES_", "MAKE"))}
    return clean | {
        "PORT": str(free_port()),
        "SUPERRES_TRITON_GRPC_PORT": str(free_port()),
        "SUPERRES_MODEL_KEY": SECRET,
        "SUPERRES_STATE_DIR": str(tmp_path_factory.mktemp("state")),
    }


@pytest.fixture(scope="module")
def service(environ: dict[str, str]) -> Iterator[list[str]]:
    """`make run`, as the first block says; yields what it printed until it was ready."""
    process = subprocess.Popen(
        ["make", "run"],
        cwd=ROOT,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield read_until_ready(process, BOOT_LIMIT_S)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


def block(language: str, containing: str) -> str:
    found = [text for kind, text in BLOCKS if kind == language and containing in text]
    assert len(found) == 1, f"the README has {len(found)} {language} blocks with {containing!r}"
    return found[0]


def run_shell(text: str, environ: dict[str, str], folder: Path) -> None:
    """Run a block in a folder of its own that looks like the root of the clone."""
    for name in (".venv", "tests"):
        (folder / name).symlink_to(ROOT / name)
    script = text.replace(":8080", f":{environ['PORT']}")
    done = subprocess.run(
        ["sh", "-eu", "-c", script], cwd=folder, env=environ, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def test_every_block_of_the_readme_is_known_here() -> None:
    kinds = [(kind, text.strip().splitlines()[0].split("=")[0].split()[0]) for kind, text in BLOCKS]
    assert kinds == [
        ("sh", "make"),
        ("sh", "make"),
        ("sh", "KEY"),
        ("sh", ".venv/bin/superres"),
        ("python", "import"),
    ], "a new block of the README wants a test here"
    assert [text.strip() for _, text in BLOCKS[:2]] == ["make run", "make test"]


def test_make_run_prints_one_line_with_the_address(service: list[str], environ: dict[str, str]) -> None:
    assert [line for line in service if "http://" in line] == [
        f"Serverless SuperRes is ready at http://127.0.0.1:{environ['PORT']}"
    ]


@pytest.mark.usefixtures("service")
def test_the_curl_block_makes_a_picture(environ: dict[str, str], tmp_path: Path) -> None:
    run_shell(block("sh", "curl"), environ, tmp_path)
    with Image.open(tmp_path / "butterfly_x4.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (256, 256))


def test_the_command_line_block_makes_pictures(environ: dict[str, str], tmp_path: Path) -> None:
    apart = {
        name: value for name, value in environ.items() if name != "SUPERRES_TRITON_GRPC_PORT"
    }  # the service has it
    run_shell(block("sh", "superres upscale"), apart, tmp_path)
    assert sorted(path.name for path in (tmp_path / "enlarged").iterdir()) == [
        "bird_compact_x4.png",
        "woman_compact_x4.png",
    ]


@pytest.mark.usefixtures("service")
def test_the_triton_block_prints_shapes(environ: dict[str, str]) -> None:
    program = block("python", "tritonclient").replace(":8001", f":{environ['SUPERRES_TRITON_GRPC_PORT']}")
    assert SECRET in program
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.stdout == "(64, 64, 3) -> (256, 256, 3)\n", done.stderr


def test_every_link_of_the_documents_leads_somewhere() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text())
        if not target.startswith(("http://", "https://", "/")) and not (document.parent / target).exists()
    ]
    assert not broken, "\n".join(broken)


def test_every_make_target_is_in_the_help_and_the_other_way_round() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    targets = set(phony[1].split())
    command = ["make", "--no-print-directory", "help"]  # make test is itself a make, and would be told of
    shown = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines()} == targets
