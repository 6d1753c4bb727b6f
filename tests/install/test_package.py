"""The wheel and the sdist, installed into fresh environments outside the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

from scripts import lock
from testing.data import ROOT, SET5, decode_pixels, read_pixels
from testing.environments import build_distributions, clean_environ, install_wheel, make_environment
from testing.stack import Stack, read_until_ready

pytestmark = pytest.mark.slow
BUTTERFLY = SET5 / "x4" / "butterfly.png"
# Of the top level of the checkout: the rest is for developers.
PACKAGED = ("gateway", "model_repository", "planning", "preprocessing", "superres", "swinir", "training")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(sdist, wheel), built from what git tracks: nothing that only lies in this checkout can help."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    return build_distributions(source, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; returns its folder of commands."""
    python = make_environment(tmp_path_factory.mktemp("installed") / "env")
    install_wheel(python, distributions[1])
    return python.parent


def tracked_package_files() -> set[str]:
    listed = subprocess.run(["git", "ls-files", *PACKAGED], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\n") if name and (ROOT / name).is_file()}


def test_wheel_and_sdist_have_every_file_of_the_packages(distributions: tuple[Path, Path]) -> None:
    sdist, wheel = distributions
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    expected = tracked_package_files()
    assert {"model_repository/upscale/config.pbtxt", "model_repository/upscale/1/.gitkeep"} <= expected
    assert expected - in_wheel == set()
    assert expected - in_sdist == set()
    assert {"LICENSE", "NOTICE", "THIRD-PARTY-NOTICES.md", "pyproject.toml"} <= in_sdist
    outside = {name.split("/")[0] for name in in_wheel if ".dist-info/" not in name}
    assert outside == set(PACKAGED)


@pytest.mark.triton
def test_installed_wheel_upscales_exactly_as_the_checkout_does(installed: Path, stack: Stack, tmp_path: Path) -> None:
    environ = clean_environ(SUPERRES_STATE_DIR=str(tmp_path / "state"))
    where = subprocess.run(
        [installed / "python", "-c", "import gateway, swinir; print(gateway.__file__, swinir.__file__)"],
        cwd=tmp_path,
        env=environ,
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    assert str(ROOT) not in where
    # Without the fused block the pixels may differ by one level.
    subprocess.run([installed / "python", "-m", "swinir.network.fused"], cwd=tmp_path, env=environ, check=True)
    output = tmp_path / "out.png"
    done = subprocess.run(
        [installed / "superres", "upscale", BUTTERFLY, output],
        cwd=tmp_path,
        env=environ,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with stack.post(BUTTERFLY.read_bytes()) as response:
        expected = decode_pixels(response.read())
    assert expected.shape == (256, 256, 3)
    assert (read_pixels(output) == expected).all()


def test_missing_models_are_an_error_at_once(installed: Path, tmp_path: Path) -> None:
    environ = clean_environ(
        SUPERRES_STATE_DIR=str(tmp_path), SUPERRES_MODEL_REPOSITORY=str(tmp_path / "gone"), PORT="0"
    )
    for command in (["serve"], ["upscale", str(BUTTERFLY), str(tmp_path / "out.png")]):
        done = subprocess.run(
            [installed / "superres", *command], env=environ, text=True, capture_output=True, timeout=120, check=False
        )
        output = done.stdout + done.stderr
        assert done.returncode != 0
        assert output.count("No Triton models in") == 1, output
        assert "SUPERRES_MODEL_REPOSITORY" in output
        assert "Traceback" not in output


def newest_python() -> str:
    """Return the newest supported Python of this machine, from PATH or pyenv's folder."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for minor in (14, 13, 12):
        for path in [*pyenv.glob(f"3.{minor}.*/bin/python3.{minor}"), shutil.which(f"python3.{minor}")]:
            command = [str(path or "false"), "-c", f"import sys; assert sys.version_info[:2] == (3, {minor})"]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return str(path)
    return sys.executable


def test_gateway_alone_runs_on_the_newest_python_without_torch(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    """The base package with the versions of the lock file: command line, and the page with a backend elsewhere."""
    locked = tmp_path / "gateway.txt"
    locked.write_text(lock.select_entries((ROOT / lock.LOCK).read_text(), ["gateway"]))
    uv, environment = Path(sysconfig.get_path("scripts")) / "uv", tmp_path / "env"
    environ = clean_environ(SUPERRES_STATE_DIR=str(tmp_path / "state"), PORT="0")
    python, superres = environment / "bin" / "python", environment / "bin" / "superres"
    commands: list[list[str | Path]] = [
        [uv, "venv", "--quiet", "--no-python-downloads", "--python", newest_python(), environment],
        [uv, "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--python", python, "-r", locked],
        [uv, "pip", "install", "--quiet", "--no-deps", "--offline", "--python", python, distributions[1]],
        [uv, "pip", "check", "--quiet", "--python", python],
    ]
    for command in commands:
        done = subprocess.run(command, env=environ, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([superres, *arguments], env=environ, text=True, capture_output=True, check=False)

    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 1
    assert re.fullmatch(r"\S{20,}", run("keys", "new", "me").stdout.strip())
    assert "compact_x4" in run("weights", "list").stdout
    refused = run("weights", "verify", "compact_x4")
    assert (refused.returncode, "pip install 'serverless-superres[embedded]'" in refused.stderr) == (1, True)
    refused = run("upscale", str(BUTTERFLY), str(tmp_path / "out.png"))
    assert refused.returncode == 4
    assert re.search(r"on Python 3\.11 or 3\.12|nvidia-pytriton.* is not installed", refused.stderr)

    process = subprocess.Popen(
        [superres, "serve"],
        env=environ | {"SUPERRES_BACKEND_ADDRESS": "127.0.0.1:1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        url = read_until_ready(process, 60)[-1].split()[-1]
        with urllib.request.urlopen(url, timeout=120) as response:
            assert b"<form" in response.read()
    finally:
        process.terminate()
        process.communicate(timeout=120)
