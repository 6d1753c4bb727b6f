"""Fresh virtual environments that borrow the packages of this one, so that a test needs no network and no gigabytes."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

SITE_PACKAGES = Path(sysconfig.get_path("purelib"))


def clean_environ(**variables: str) -> dict[str, str]:
    """Return this process's variables without those of the project, of Python and of make."""
    ours = ("SUPERRES_", "PYTHON", "MAKE", "MFLAGS", "VIRTUAL_ENV", "TORCH", "PORT")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables


def make_environment(folder: Path) -> Path:
    """Make a virtual environment and return its Python. The packages are those of this one, the project excepted.

    A folder named in a .pth file joins sys.path, but .pth files inside it are not read: an editable install of the
    project there stays invisible.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    (site_packages_path(folder) / "borrowed.pth").write_text(f"{SITE_PACKAGES}\n")
    return python


def site_packages_path(environment: Path) -> Path:
    """Return the site-packages of a virtual environment made with this Python's version."""
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def install_wheel(python: Path, wheel: Path) -> None:
    """Install one wheel, without its dependencies, without any index, and compile nothing."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--disable-pip-version-check", "--ignore-installed", str(wheel)], check=True)


def build_distributions(source: Path, folder: Path) -> tuple[Path, Path]:
    """Build the sdist and, from it, the wheel, as `make dist` does; return (sdist, wheel)."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--quiet", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel
