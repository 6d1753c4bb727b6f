"""The scripts that build Triton's image: what they copy, what they leave out, and which faults fail the build."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from testing.data import ROOT
from testing.source_tree import imports, is_below

SCRIPTS = ROOT / "docker" / "triton"
SITE = Path(sysconfig.get_path("purelib"))
BACKEND = SITE / "pytriton" / "tritonserver" / "backends" / "python" / "libtriton_python.so"
# What the Triton models import.
SERVED = ("model_repository", "preprocessing", "swinir")


def load(name: str) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(SCRIPTS / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def orphan(tmp_path: Path) -> Path:
    """The real Python backend without the libraries that the wheel has next to it."""
    return Path(shutil.copy2(BACKEND, tmp_path))


def test_backend_brings_its_libraries_but_not_the_c_library() -> None:
    found = load("collect").find_libraries([BACKEND])

    assert {"libtritonserver", "libarchive", "libcudart"} <= {name.partition("-")[0] for name in found}
    assert {"libstdc++.so.6", "libgcc_s.so.1"} <= found.keys()
    assert not [name for name in found if re.match(r"(lib(c|m|dl|pthread|rt)|ld-linux.*)\.so", name)]
    assert all(path.is_file() for path in found.values())


def test_missing_library_fails_the_copy_and_the_check_with_its_name(orphan: Path) -> None:
    collect = load("collect")

    with pytest.raises(collect.MissingLibraryError, match=r"libtriton_python\.so needs lib\S+, which Triton's image"):
        collect.find_libraries([orphan])

    faults = load("check-image").list_faults(orphan)
    assert any(line.startswith("libtritonserver-") for line in faults), faults
    assert load("check-image").list_faults(Path("/bin/ls")) == []


def test_libraries_of_the_driver_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    collect, check = load("collect"), load("check-image")
    listed = {"libcuda.so.1": "", "libnvidia-ml.so.1": "", "libz.so.1": "/lib/libz.so.1", "libc.so.6": "/lib/libc.so.6"}
    monkeypatch.setattr(collect, "list_libraries", lambda _: listed)
    done = subprocess.CompletedProcess([], 1, "\tlibcuda.so.1 => not found\n\tlibcublas.so.13 => not found\n", "")
    monkeypatch.setattr(check.subprocess, "run", lambda *_, **__: done)

    assert collect.find_libraries([Path("tritonserver")]) == {"libz.so.1": Path("/lib/libz.so.1")}
    assert check.list_faults(Path("tritonserver")) == ["libcublas.so.13 => not found"]


def test_libraries_that_dcgm_opens_at_run_time_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect = load("collect")
    for name in ("libdcgm.so.4", "libdcgmmodulesysmon.so.4", "libother.so.1"):
        (tmp_path / name).touch()
    listed = {"tritonserver": {"libdcgm.so.4": str(tmp_path / "libdcgm.so.4")}}
    monkeypatch.setattr(collect, "list_libraries", lambda path: listed.get(path.name, {}))

    assert collect.find_libraries([Path("tritonserver")]).keys() == {"libdcgm.so.4", "libdcgmmodulesysmon.so.4"}


def test_program_that_the_loader_refuses_is_a_fault(tmp_path: Path) -> None:
    check = load("check-image")
    refused = tmp_path / "refused"
    refused.write_text("#!/bin/sh\necho 'error while loading shared libraries: libx.so.1' >&2\nexit 127\n")
    refused.chmod(0o755)

    assert "libx.so.1" in check.can_start(refused)
    assert check.can_start(Path("/bin/false")) == "", "it started and wanted arguments"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Site-packages with one file for each pattern of leave-out.txt, and two files that stay."""
    for pattern in read_patterns():
        path = tmp_path / pattern.replace("*", "x")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
    for name in ("torch/lib/libtorch_cuda.so", "nvidia/cu13/lib/libcublas.so.13"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def read_patterns() -> list[str]:
    lines = (SCRIPTS / "leave-out.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def remove_unused(site: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, SCRIPTS / "remove-unused", site, SCRIPTS / "leave-out.txt"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_listed_files_are_removed_and_no_others(site: Path) -> None:
    done = remove_unused(site)

    assert done.returncode == 0, done.stderr
    left = {path.name for path in site.rglob("*") if path.is_file()}
    assert left == {"libtorch_cuda.so", "libcublas.so.13"}


def test_pattern_that_matches_nothing_fails_the_build(site: Path) -> None:
    (site / "torch" / "lib" / "libtorch_cuda_linalg.so").unlink()

    done = remove_unused(site)

    assert done.returncode == 1
    assert "has no torch/lib/libtorch_cuda_linalg.so" in done.stderr


def test_cpu_build_keeps_everything(site: Path) -> None:
    shutil.rmtree(site / "nvidia")
    before = sorted(site.rglob("*"))

    assert remove_unused(site).returncode == 0
    assert sorted(site.rglob("*")) == before


def test_served_code_uses_nothing_that_was_left_out() -> None:
    """torch.linalg needs cuSOLVER on a GPU, torch.compile the Triton language. The build alone runs `compile`."""
    in_build = {ROOT / "swinir/network/cuda" / name for name in ("compile.py", "kernels.py")}
    assert all(path.exists() for path in in_build)
    names = [path.relative_to(ROOT).as_posix().removesuffix(".py").replace("/", ".") for path in in_build]
    for folder in SERVED:
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            modules = {module for _, module in imports(ast.walk(tree))}
            used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            if path not in in_build:
                assert not any(is_below(module, ("triton", *names)) for module in modules), path
            assert not {name for name in used if re.match(r"torch\.(linalg|compile|_inductor|utils\.cpp_ext)", name)}, (
                path
            )


def test_left_out_packages_are_those_of_the_lock_file() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    for name in ("triton", "nvidia-cusolver", "nvidia-cuda-nvrtc", "nvidia-nvshmem-cu13"):
        assert re.search(rf"^{name}==", lock, re.MULTILINE), f"{name} is gone: read leave-out.txt again"


def test_driver_must_have_the_cuda_version_of_torch() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    runtime = re.search(r"^nvidia-cuda-runtime==(\d+\.\d+)\.", lock, re.MULTILINE)
    required = re.search(r'NVIDIA_REQUIRE_CUDA="cuda>=([\d.]+)"', (ROOT / "docker" / "triton.Dockerfile").read_text())
    assert runtime
    assert required
    assert runtime[1] == required[1]


def test_final_image_starts_from_ubuntu_and_takes_only_what_was_collected() -> None:
    recipe = (ROOT / "docker" / "triton.Dockerfile").read_text().replace("\\\n", " ")
    final = recipe[recipe.rindex("\nFROM ") :]
    assert final.startswith("\nFROM ${UBUNTU_IMAGE}\n")
    copies = re.findall(r"^COPY (.*)$", final, re.MULTILINE)
    parts = ("cuda", "packages", "weights", "project")
    assert copies == ["--from=server /layers/server/ /", *(f"--from=build /layers/{part}/ /" for part in parts)]
    assert "/opt/superres/bin/check-image" in final
