"""The Dockerfiles: packages from the lock file, bases pinned, nothing runs as root, hadolint finds nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from gateway.backend.model_environ import SERVER_MALLOC, make_model_environ
from gateway.config.environment import read_settings
from testing.compose import services
from testing.data import ROOT
from testing.source_tree import SHIPPED, imports

DOCKER = ROOT / "docker"
NAMES = ("triton", "gateway")
# The image is based on 26.09; the floor for anything reachable is 26.04 (docs/how-to/operate.md).
MIN_TRITON_VERSION = (26, 9)


@pytest.mark.parametrize("name", NAMES)
def test_image_installs_entries_of_the_lock_file_only(name: str) -> None:
    recipe = (DOCKER / f"{name}.Dockerfile").read_text().replace("\\\n", " ")
    target = '"$PACKAGES"' if name == "gateway" else name
    assert f"lock.py select tools >tools.txt && python3 scripts/lock.py select {target} >{name}.txt" in recipe
    assert name != "gateway" or "ARG PACKAGES=gateway\n" in recipe
    installed = re.findall(r"pip (?:--python \S+ )?install (.*?)(?:&&|;|\n)", recipe)
    assert len(installed) >= 2
    for arguments in installed:
        assert "--no-deps" in arguments, "a dependency that the lock file lacks would come without a hash"
        assert re.search(r'-r (\w+\.txt|"\$list")|wheels/\*\.whl', arguments), arguments


@pytest.mark.parametrize("name", NAMES)
def test_image_has_an_unprivileged_user_and_health_check(name: str) -> None:
    lines = (DOCKER / f"{name}.Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users[-1] == "10001:10001"
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    assert not any(line.startswith("ADD ") for line in lines)


def test_bases_are_pinned() -> None:
    gateway, triton = ((DOCKER / f"{name}.Dockerfile").read_text() for name in ("gateway", "triton"))
    python = re.search(r"^ARG PYTHON_IMAGE=(\S+@sha256:[0-9a-f]{64})$", gateway, re.MULTILINE)
    ubuntu = re.search(r"^ARG UBUNTU_IMAGE=(\S+@sha256:[0-9a-f]{64})$", triton, re.MULTILINE)
    assert python
    assert ubuntu
    assert services()["gateway"]["build"]["args"]["PYTHON_IMAGE"] == python[1]
    assert services()["triton"]["build"]["args"]["UBUNTU_IMAGE"] == ubuntu[1]
    version = re.search(r"^ARG TRITON_IMAGE=nvcr\.io/nvidia/tritonserver:(\d+)\.(\d+)-py3$", triton, re.MULTILINE)
    assert version
    assert (int(version[1]), int(version[2])) >= MIN_TRITON_VERSION
    assert "TRITON_DIGEST is empty" in triton


@pytest.mark.parametrize("name", NAMES)
def test_copied_files_are_not_ignored_by_docker(name: str) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in (DOCKER / f"{name}.Dockerfile").read_text().splitlines():
        words = [word for word in line.split()[1:] if not word.startswith("--")]
        if not line.startswith("COPY ") or "--from" in line:
            continue
        for source in words[:-1]:
            matches = list(ROOT.glob(source))
            assert matches or "[" in source, f"{source} is not there"
            for path in matches:
                inside = path.relative_to(ROOT)
                assert any(inside.match(rule) or rule in map(str, inside.parents) for rule in allowed), (
                    f"{inside} stays out"
                )


def test_triton_image_has_the_embedded_servers_cpu_and_memory_setup() -> None:
    recipe = (DOCKER / "triton.Dockerfile").read_text()
    assert "RUN venv/bin/python3 -m swinir.network.fused" in recipe, "blocks would run in PyTorch, at half the speed"
    compiles = recipe.index("&& PYTHONPATH=language venv/bin/python3 -m swinir.network.cuda.compile")
    assert recipe.index('cp -al "$site"/triton* language/') < recipe.index("python3 scripts/remove-unused") < compiles
    environ = make_model_environ(read_settings({}).settings)
    for name in ("OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS", *SERVER_MALLOC):
        assert re.search(rf"\s{name}={environ[name]}\s", recipe), name
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored.index("swinir/network/compiled") > ignored.index("!swinir"), "the last rule that matches counts"


@pytest.mark.parametrize(("name", "start"), [("gateway", "gateway"), ("triton", "model_repository")])
def test_image_has_every_package_that_its_code_imports(name: str, start: str) -> None:
    recipe = (DOCKER / f"{name}.Dockerfile").read_text()
    pending, seen = [start], set()
    while pending:
        folder = pending.pop()
        seen.add(folder)
        for path in (ROOT / folder).rglob("*.py"):
            imported = {module.split(".")[0] for _, module in imports(ast.walk(ast.parse(path.read_text())))}
            pending += [other for other in imported & set(SHIPPED) if other not in seen and other not in pending]
    copied = set(re.findall(r"^COPY (\w+) \w+$", recipe, re.MULTILINE))
    assert seen <= copied, f"docker/{name}.Dockerfile does not copy {sorted(seen - copied)}"


@pytest.mark.parametrize("name", NAMES)
def test_hadolint_finds_nothing(name: str) -> None:
    binary = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([binary, DOCKER / f"{name}.Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN apt-get install curl\n")
    binary = Path(sysconfig.get_path("scripts")) / "hadolint"
    assert subprocess.run([binary, tmp_path / "Dockerfile"], capture_output=True, check=False).returncode != 0
