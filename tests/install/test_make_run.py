"""`make run` for real, under several hard conditions at once.

An unprivileged user, no C compiler, a newer python3 first on PATH, and a checkout in "a folder/with spaces". The
packages are borrowed from this environment, so set-up downloads nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.data import ROOT, SET5, decode_pixels, max_difference
from testing.environments import SITE_PACKAGES, clean_environ
from testing.stack import Stack, read_until_ready

pytestmark = [pytest.mark.slow, pytest.mark.triton]
BUTTERFLY = (SET5 / "x4" / "butterfly.png").read_bytes()
NOBODY = 65534
BOOT_LIMIT_S = 180.0
COMPILERS = {"cc", "gcc", "clang"}
# Stands for a Python of the right version. The environment that it makes borrows the packages of this one.
PYTHON = """#!/bin/sh
case "$*" in
"-m venv .venv")
    {python} -m venv --without-pip .venv
    echo '{packages}' >.venv/lib/python{version}/site-packages/borrowed.pth
    ;;
*) exec {python} "$@" ;;
esac
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's own, owned by the unprivileged user."""
    with tempfile.TemporaryDirectory(prefix="superres-install-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def as_unprivileged_user() -> list[str]:
    """Return what starts a command as an unprivileged user: nothing if we are one."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]


def find_python() -> str:
    """Return a Python of this version that the unprivileged user may run and that has its library."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for path in (f"{sys.base_prefix}/bin/{name}", f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        # Through a shell: setpriv itself may still enter folders that only root may enter.
        command = [*as_unprivileged_user(), "sh", "-c", 'exec "$0" -c "import ensurepip"', path]
        if Path(path).exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return path
    return pytest.fail(f"an unprivileged user may not run any {name} here; install {name}-venv from Debian's packages")


def lay_out(folder: Path) -> tuple[Path, dict[str, str]]:
    """Copy what git tracks into a folder with spaces, and make a PATH; return (checkout, variables)."""
    checkout, tools, home = folder / "a folder" / "with spaces", folder / "bin", folder / "home"
    for path in (checkout, tools, home):
        path.mkdir(parents=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/images/")):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name)
    packages = SITE_PACKAGES
    entered = [*as_unprivileged_user(), "sh", "-c", 'test -r "$0/torch/__init__.py"', str(SITE_PACKAGES)]
    if subprocess.run(entered, check=False).returncode:  # this environment is in a folder that only its owner may enter
        packages = folder / "packages"
        if subprocess.run(["cp", "-al", SITE_PACKAGES, packages], capture_output=True, check=False).returncode:
            shutil.copytree(SITE_PACKAGES, packages, dirs_exist_ok=True)
    for directory in ("/usr/bin", "/bin"):
        for path in Path(directory).iterdir():
            if not path.name.startswith("python") and not COMPILERS & set(path.name.split("-")):
                link = tools / path.name
                if not link.is_symlink():
                    link.symlink_to(path)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    stand_in = tools / f"python{version}"
    stand_in.write_text(PYTHON.format(python=find_python(), packages=packages, version=version))
    newer = tools / "python3"
    newer.write_text("#!/bin/sh\necho 3.13\n")
    for path in (stand_in, newer):
        path.chmod(0o755)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", checkout, home], check=True)
    environ = {"PATH": str(tools), "HOME": str(home), "PORT": "0", "SUPERRES_STATE_DIR": str(home / "state")}
    keep = ("PIP_", "SSL_", "LANG")
    return checkout, environ | {name: value for name, value in clean_environ().items() if name.startswith(keep)}


def test_make_run_without_root_compiler_or_plain_path(folder: Path, stack: Stack) -> None:
    checkout, environ = lay_out(folder)
    process = subprocess.Popen(
        [*as_unprivileged_user(), "make", "run"],
        cwd=checkout,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        printed = read_until_ready(process, BOOT_LIMIT_S)
        url = printed[-1].split()[-1]
        key = subprocess.run(
            [*as_unprivileged_user(), ".venv/bin/superres", "keys", "new", "me"],
            cwd=checkout,
            env=environ,
            text=True,
            capture_output=True,
            check=True,
        ).stdout.strip()
        headers = {"X-API-Key": key, "Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{url}/api/v1/upscale", BUTTERFLY, headers)
        with urllib.request.urlopen(request, timeout=120) as response:
            upscaled = decode_pixels(response.read())
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=120)
    output = "\n".join(printed)
    assert f"setup: using {environ['PATH']}/python3.{sys.version_info[1]} (Python 3." in output
    assert "half as fast on a CPU: no C compiler found" in output
    with stack.post(BUTTERFLY) as response:
        assert max_difference(upscaled, decode_pixels(response.read())) <= 1
