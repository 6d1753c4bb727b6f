"""requirements.lock: agrees with pyproject.toml, has a hash for everything, names no host; `uv lock` resolves too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from scripts import lock
from testing.data import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
ON_PYTHON_311 = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux"}


def entries(*targets: str) -> dict[str, set[str]]:
    """Return the versions of each package that pip gets for some targets."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock.select_entries(LOCK, targets), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def declared(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("target", lock.TARGETS)
def test_lock_has_every_declared_version(target: str) -> None:
    locked = entries(target, "cuda")
    for requirement in declared(*lock.TARGETS[target]):
        pin = str(requirement.specifier)
        assert re.fullmatch(r"==[\w.]+", pin), f"{requirement} is not pinned to one version"
        assert pin.removeprefix("==") in locked.get(requirement.name, set()), f"run `make lock`: {requirement}"


def test_every_extra_but_the_fuzzer_is_installed_by_make_test() -> None:
    assert set(lock.TARGETS["test"]) == set(EXTRAS) - {"fuzz"}  # 35 MB that `make fuzz` installs itself


def test_each_entry_has_hashes_and_belongs_to_a_target() -> None:
    blocks = re.split(r"^# targets: ", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) > 100
    for block in blocks:
        targets, text = block.split("\n", 1)
        assert targets, text.split()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", text), text.split()[0]


def test_lock_names_no_host() -> None:
    assert "://" not in LOCK
    assert "index-url" not in LOCK
    assert "find-links" not in LOCK


def test_gateway_needs_no_torch() -> None:
    assert {"flask", "pillow", "tritonclient"} <= entries("gateway").keys()
    assert not entries("gateway").keys() & {"torch", "nvidia-pytriton", "safetensors"}


def test_engine_of_the_triton_image_needs_no_gateway() -> None:
    assert {"numpy", "pillow", "safetensors"} <= entries("triton").keys()
    assert not entries("triton").keys() & {"flask", "tritonclient", "nvidia-pytriton", "torch"}
    assert {"torch", "nvidia-cublas"} <= entries("cuda").keys()


def test_triton_language_is_for_tests_and_gpus_only() -> None:
    targets = {target for target in (*lock.TARGETS, "triton", "tools", "cuda") if "triton" in entries(target)}
    assert targets == {"test", "cuda"}


def test_numpy_is_below_2_where_the_embedded_server_runs() -> None:
    numpy = [requirement for requirement in declared() if requirement.name == "numpy"]
    assert [str(each.specifier) for each in numpy if each.marker and each.marker.evaluate(ON_PYTHON_311)] == [
        "==1.26.4"
    ]


def test_selection_prints_only_the_entries_of_its_targets() -> None:
    text = "# targets: run test\na==1 \\\n    --hash=sha256:00\n# targets: test\nb==2\n# targets: cuda\ntorch==3\n"
    assert lock.select_entries(text, ["run"]) == "a==1 \\\n    --hash=sha256:00\n"
    assert lock.select_entries(text, ["test", "cuda"]) == "a==1 \\\n    --hash=sha256:00\nb==2\ntorch==3\n"


CPU, CUDA = {"version": "2.13.0+cpu"}, {"version": "2.13.0", "requires_dist": ["nvidia-cublas"]}


@pytest.mark.parametrize(
    ("requested", "installed", "found", "chosen"),
    [
        ("", "", CPU, "torch==2.13.0"),
        ("cpu", "", CPU, "torch==2.13.0"),
        ("cuda", "", CPU, "locked"),
        ("", "", CUDA, "locked"),
        ("cpu", "", {"version": "2.13.0", "requires_dist": ["sympy"]}, "locked"),
        ("", "2.13.0+cpu", CUDA, "installed"),
        ("", "2.13.0", CPU, "installed"),
        ("", "2.12.0", CPU, "torch==2.13.0"),
        ("cpu", "2.13.0+cpu", CPU, "installed"),
        ("cpu", "2.13.0", CPU, "torch==2.13.0"),
        ("cuda", "2.13.0", CPU, "installed"),
        ("cuda", "2.13.0+cpu", CPU, "locked"),
    ],
)
def test_build_of_torch(
    requested: str, installed: str, found: dict[str, Any], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_metadata_of", lambda _: found)
    assert lock.choose_torch("torch==2.13.0 ; python_version < '3.13' \\\n", requested, installed) == chosen


def test_unavailable_cpu_build_is_rejected_early(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"version": "2.13.0", "requires_dist": ["nvidia-cublas==13.1; platform_system == 'Linux'"]}
    monkeypatch.setattr(lock, "_metadata_of", lambda _: found)
    with pytest.raises(lock.TorchBuildError, match=r"only the CUDA build of torch==2\.13\.0.*docs/how-to/install\.md"):
        lock.choose_torch("torch==2.13.0\n", "cpu", "")


def test_unknown_build_of_torch_is_rejected() -> None:
    with pytest.raises(lock.TorchBuildError, match="use cpu, cuda"):
        lock.choose_torch("torch==2.13.0\n", "rocm", "")


@pytest.mark.slow
def test_uv_resolves_every_python_version(tmp_path: Path) -> None:
    """`uv lock` in a copy: its own file would hold addresses of the index, so it stays out of the repository."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "THIRD-PARTY-NOTICES.md"):
        shutil.copy2(ROOT / name, tmp_path)
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    done = subprocess.run([uv, "lock"], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resolved = {
        (each["name"], each["version"]) for each in tomllib.loads((tmp_path / "uv.lock").read_text())["package"]
    }
    assert {("torch", "2.13.0"), ("numpy", "1.26.4"), ("flask", "3.1.3")} <= resolved
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.15"
