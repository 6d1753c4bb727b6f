"""Builds stand-ins for the base images with debootstrap, for machines without an image registry.

The stand-in for Triton has the server of nvidia-pytriton's wheel (2.51) at the path of NVIDIA's image. Mirrors and
package indexes come from this machine's apt and pip configuration.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from docker.exercise.podman import ExerciseError, Podman, run

PYTHON = "docker.io/library/python:3.11-slim-bookworm"
UBUNTU = "docker.io/library/ubuntu:24.04"
TRITON = "nvcr.io/nvidia/tritonserver:26.09-py3"
REDIS = "docker.io/library/redis:7.4.11-alpine"
NGINX = "docker.io/nginxinc/nginx-unprivileged:1.28.0"
# All stand-ins but Ubuntu's share one root file system with these packages. Ubuntu's has none, like the real one.
PACKAGES = (
    "python3",
    "python3-venv",
    "python3-pip",
    "libpython3.11",
    "ca-certificates",
    "redis-server",
    "nginx-light",
    "curl",
    "gcc",
    "libc6-dev",
)
# So large that with it the image exceeds TRITON_ADDS_BYTES of the exercise.
OTHER_BACKEND_BYTES = 100_000_000


def make_stand_ins(podman: Podman, cache: Path) -> None:
    """Build the five base images in podman."""
    ubuntu, python = make_tars(cache)
    podman("import", ubuntu, UBUNTU)
    podman("import", python, PYTHON)
    _derive(podman, REDIS, ["RUN install -d -o 999 -g 1000 /data", "WORKDIR /data", "VOLUME /data"])
    nginx = ["RUN rm -rf /usr/share/nginx/html/*", 'CMD ["nginx", "-g", "daemon off;"]']
    _derive(podman, NGINX, nginx)
    folder = podman.folder / "triton"
    _lay_out_triton(folder / "opt" / "tritonserver")
    _derive(podman, TRITON, ["COPY opt /opt", "ENV LD_LIBRARY_PATH=/opt/tritonserver/lib"], folder)


def _derive(podman: Podman, name: str, steps: list[str], context: Path | None = None) -> None:
    folder = context or podman.folder / "empty"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "Dockerfile"
    recipe.write_text("\n".join([f"FROM {PYTHON}", *steps, ""]))
    podman("build", "-q", "--pull=never", "--format", "docker", "-t", name, "-f", recipe, folder)


def make_tars(cache: Path) -> list[Path]:
    """Return the tars of a small Debian 12 without and with PACKAGES, from the cache or built at the same time."""
    _check_release()
    lists = ((), PACKAGES)
    tars = [cache / f"bookworm-{hashlib.sha256(' '.join(each).encode()).hexdigest()[:12]}.tar" for each in lists]
    missing = [(tar, each) for tar, each in zip(tars, lists, strict=True) if not tar.is_file()]
    if missing:
        mirror = _find_mirror()
        cache.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(len(missing)) as pool:
            for building in [pool.submit(_build_debian, tar, each, mirror) for tar, each in missing]:
                building.result()
    return tars


def _check_release() -> None:
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE))
    if release.get("VERSION_CODENAME") != "bookworm":
        raise ExerciseError(f"The stand-ins need Debian 12 (Python 3.11). This is {release.get('PRETTY_NAME')}.")


def _find_mirror() -> str:
    """Return apt's first mirror of Debian 12."""
    targets = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Codename: bookworm", "Component: main")
    mirrors = run(*targets).split()
    if not mirrors:
        run("apt-get", "update", "-qq")
        mirrors = run(*targets).split()
    if not mirrors:
        raise ExerciseError("apt has no mirror of Debian 12's main archive. Check /etc/apt/sources.list.")
    return mirrors[0]


def _build_debian(tar: Path, packages: tuple[str, ...], mirror: str) -> None:
    root = tar.with_suffix("")
    shutil.rmtree(root, ignore_errors=True)
    include = [f"--include={','.join(packages)}"] if packages else []
    run("debootstrap", "--variant=minbase", *include, "bookworm", root, mirror)
    for mounted in ("proc", "sys"):  # debootstrap leaves them mounted on some machines
        if os.path.ismount(root / mounted):
            run("umount", root / mounted)
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / folder)
    run("tar", "-C", root, "--one-file-system", "-cf", tar.with_suffix(".new"), ".")
    tar.with_suffix(".new").rename(tar)
    shutil.rmtree(root)


def _lay_out_triton(server: Path) -> None:
    """Copy the wheel's server to the path of NVIDIA's image, with a second backend, which our image must not have."""
    site = Path(sysconfig.get_path("purelib"))
    wheel = site / "pytriton" / "tritonserver"
    if not wheel.is_dir():
        raise ExerciseError("nvidia-pytriton is not installed. Run `make setup` first.")
    backend = server / "backends" / "python"
    shutil.copytree(wheel / "bin", server / "bin")
    shutil.copytree(site / "nvidia_pytriton.libs", server / "lib")
    shutil.copytree(wheel / "backends" / "python", backend)
    shutil.copy2(wheel / "python_backend_stubs" / "3.11" / "triton_python_backend_stub", backend)
    (server / "backends" / "onnxruntime").mkdir()
    (server / "backends" / "onnxruntime" / "libtriton_onnxruntime.so").write_bytes(bytes(OTHER_BACKEND_BYTES))


def pip_mounts(folder: Path) -> list[str]:
    """Return podman flags that mount this machine's pip configuration into a build; the image does not contain it."""
    found: dict[str, str] = {}
    listed = run(sys.executable, "-m", "pip", "config", "list").splitlines()
    for line in sorted(listed, key=lambda line: line.startswith(":env:")):  # the environment overrides files
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    options = (
        "cert",
        "constraint",
        "extra-index-url",
        "find-links",
        "index-url",
        "timeout",
        "trusted-host",
        "proxy",
    )
    lines = [
        f"{key} = {' '.join(found[key].split())}".replace(" file:", "\n\tfile:") for key in options if key in found
    ]
    conf = folder / "pip.conf"
    conf.write_text("\n".join(["[global]", *lines, ""]))
    paths = {path for key in options for path in re.findall(r"(?:^|\s|file://)(/[^\s]+)", found.get(key, ""))}
    paths |= {path.removesuffix("/simple") for path in paths}  # an index of files has the files next to its pages
    flags = ["-v", f"{conf}:/etc/pip.conf:ro"]
    for path in sorted(path for path in paths if Path(path).exists()):
        flags += ["-v", f"{path}:{path}:ro"]
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists() and str(certificates) not in paths:
        flags += ["-v", f"{certificates}:{certificates}:ro"]
    return flags
