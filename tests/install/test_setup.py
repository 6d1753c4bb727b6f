"""scripts/setup.sh: which Python it takes, what it says when none fits, and what it tells about the download.

The Pythons are stand-ins that print a version and note their arguments, so nothing is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from testing.data import ROOT

# Everything that the Makefile and the script call, apart from Python.
TOOLS = ("sh", "make", "cat", "sha256sum", "cut", "dirname", "id", "mktemp", "rm", "cp", "mkdir", "touch", "tr", "grep")
PYTHON = """#!/bin/sh
echo "$*" >>{calls}
case "$*" in
*sysconfig*) exit {lacks_libpython} ;;
*ensurepip*) exit {lacks_venv} ;;
*version_info*) echo {version} ;;
"-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*"lock.py torch") echo {torch} ;;
*"lock.py select"*) echo "click==8.5.1 --hash=sha256:00" ;;
esac
"""


class Machine:
    """A checkout and a PATH with nothing on it but tools and the stand-ins that a test adds."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.path, self.home = (folder / name for name in ("a checkout", "bin", "home"))
        self.calls = folder / "calls"
        for path in (self.checkout / "scripts", self.path, self.home):
            path.mkdir(parents=True)
        for name in ("Makefile", "scripts/setup.sh"):
            shutil.copy2(ROOT / name, self.checkout / name)
        for name in TOOLS:
            found = shutil.which(name)
            assert found, f"{name} is not on this machine"
            (self.path / name).symlink_to(found)
        self.add("id", "echo 1000")

    def add(self, name: str, line: str) -> None:
        (self.path / name).unlink(missing_ok=True)
        (self.path / name).write_text(f"#!/bin/sh\n{line}\n")
        (self.path / name).chmod(0o755)

    def add_python(
        self,
        path: str | Path,
        version: str,
        *,
        has_venv: bool = True,
        has_libpython: bool = True,
        torch: str = "torch==2.13.0",
    ) -> None:
        """`path` is a name on PATH or the path of a file."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        text = PYTHON.format(
            calls=f"'{self.calls}'",
            version=version,
            lacks_venv=int(not has_venv),
            lacks_libpython=int(not has_libpython),
            torch=torch,
        )
        file.write_text(text)
        file.chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `make setup`; standard error has what set-up says."""
        environ = {"PATH": str(self.path), "HOME": str(self.home), "TMPDIR": str(self.home)}
        return subprocess.run(
            ["make", "setup", *arguments], cwd=self.checkout, env=environ, capture_output=True, text=True, check=False
        )

    def chosen(self, *arguments: str) -> str:
        """Run `make setup`, which must succeed, and return the Python that it used."""
        done = self.make(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("setup: using ")]
        assert len(lines) == 1, done.stderr
        return lines[0].removeprefix("setup: using ").split(" (")[0]

    def refused(self, *arguments: str) -> str:
        """Run `make setup`, which must fail without a traceback, and return what it said."""
        done = self.make(*arguments)
        assert done.returncode != 0
        assert not list(self.checkout.glob(".setup-*")), "a failed set-up counts as done"
        return done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_only_python312(machine: Machine) -> None:
    machine.add_python("python3.12", "3.12")
    assert machine.chosen() == str(machine.path / "python3.12")


def test_newer_python3_first(machine: Machine) -> None:
    machine.add_python("python3", "3.13")
    machine.add_python("python3.12", "3.12")
    assert machine.chosen() == str(machine.path / "python3.12")


def test_python3_of_a_supported_version_is_preferred(machine: Machine) -> None:
    machine.add_python("python3", "3.11")
    machine.add_python("python3.12", "3.12")
    assert machine.chosen() == str(machine.path / "python3")


@pytest.mark.parametrize(
    "path", [".pyenv/versions/3.12.4/bin/python3.12", ".local/share/uv/python/cpython-3.11.9-linux/bin/python3.11"]
)
def test_python_of_pyenv_or_uv(machine: Machine, path: str) -> None:
    machine.add_python("python3", "3.13")
    machine.add_python(machine.home / path, path.rsplit("python3", maxsplit=1)[-1].join(["3", ""]))
    assert machine.chosen() == str(machine.home / path)


def test_complete_python_is_preferred_to_one_that_lacks_venv(machine: Machine) -> None:
    machine.add_python("python3", "3.11", has_venv=False)
    machine.add_python("python3.12", "3.12")
    assert machine.chosen() == str(machine.path / "python3.12")


@pytest.mark.parametrize(("version", "found"), [("3.13", "python3 is 3.13"), ("", "there is no python3")])
def test_no_suitable_python_names_the_commands_that_help(machine: Machine, version: str, found: str) -> None:
    if version:
        machine.add_python("python3", version)
    message = machine.refused()
    assert f"needs Python 3.11 or 3.12. Neither was found ({found})" in message
    assert "`uv python install 3.12`" in message
    assert "`make run PYTHON=/path/to/python3.12`" in message


def test_named_python(machine: Machine) -> None:
    machine.add_python("python3", "3.11")
    machine.add_python("elsewhere", "3.12")
    assert machine.chosen("PYTHON=elsewhere") == "elsewhere"


@pytest.mark.parametrize(
    ("named", "message"),
    [("python3.13", "'python3.13' is Python 3.13, and the embedded Triton needs 3.11 or 3.12"), ("gone", "Cannot run")],
)
def test_named_python_that_does_not_fit(machine: Machine, named: str, message: str) -> None:
    machine.add_python("python3", "3.11")
    machine.add_python("python3.13", "3.13")
    refused = machine.refused(f"PYTHON={named}")
    assert message in refused
    assert "`uv python install 3.12`" in refused


def test_environment_of_an_unsupported_python_is_kept_and_named(machine: Machine) -> None:
    machine.add_python("python3", "3.11")
    machine.add_python(machine.checkout / ".venv/bin/python", "3.13")
    assert ".venv has Python 3.13" in (message := machine.refused())
    assert "rm -r .venv" in message


def test_missing_debian_package_is_named_without_root(machine: Machine) -> None:
    machine.add_python("python3", "3.11", has_venv=False)
    assert "as root: apt-get install --no-install-recommends python3.11-venv" in machine.refused()


def test_python_built_without_its_library_is_rejected(machine: Machine) -> None:
    machine.add_python("python3", "3.11", has_libpython=False)
    assert "built without its shared library libpython3.11.so" in machine.refused()


@pytest.mark.parametrize(("torch", "figures"), [("torch==2.13.0", "0.3 GB, 1.3 GB"), ("locked", "2.9 GB, 6 GB")])
def test_download_is_announced_with_the_figures_of_the_guide(machine: Machine, torch: str, figures: str) -> None:
    machine.add_python("python3", "3.11", torch=torch)
    done = machine.make()
    assert f"downloading Python packages: {figures} on disk" in done.stderr
    guide = (ROOT / "docs" / "how-to" / "install.md").read_text()
    assert all(figure in guide for figure in figures.split(", "))


def test_all_packages_but_a_custom_torch_have_hashes(machine: Machine) -> None:
    machine.add_python("python3", "3.11")
    machine.make()
    installs = [line for line in machine.calls.read_text().splitlines() if " install " in line and "-m pip" in line]
    unchecked = [line for line in installs if "--require-hashes" not in line]
    assert [line.split()[-1] for line in unchecked] == ["torch==2.13.0", "."]
    assert all("--no-deps" in line for line in installs)


def test_second_start_installs_nothing(machine: Machine) -> None:
    machine.add_python("python3", "3.11")
    assert machine.make().returncode == 0
    before = machine.calls.read_text()
    assert machine.make().returncode == 0
    assert machine.calls.read_text() == before


def test_update_keeps_the_installed_torch(machine: Machine) -> None:
    machine.add_python("python3", "3.11", torch="installed")
    done = machine.make()
    assert "updating the Python packages" in done.stderr
    assert "torch==" not in machine.calls.read_text()


def test_build_of_torch_is_chosen_again_when_it_is_named(machine: Machine) -> None:
    machine.add_python("python3", "3.11")
    assert machine.make().returncode == 0
    before = len(machine.calls.read_text())
    assert machine.make("TORCH=cpu").returncode == 0
    assert "lock.py torch" in machine.calls.read_text()[before:]


def test_failing_step_stops_setup(machine: Machine) -> None:
    machine.add_python("python3", "3.11", torch="no; exit 3")
    machine.refused()


def test_scripts_are_posix_shell() -> None:
    for name in ("scripts/setup.sh", ".ci/run"):
        assert os.access(ROOT / name, os.X_OK)
        subprocess.run(["sh", "-n", ROOT / name], check=True)
