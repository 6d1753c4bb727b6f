"""What a release needs: offline hooks, the workflow, the bill of materials, the audit and the notices."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import audit
from testing.data import ROOT

SCRIPTS = Path(sysconfig.get_path("scripts"))


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def steps() -> list[dict[str, Any]]:
    return [step for job in load(".github/workflows/ci.yml")["jobs"].values() for step in job["steps"]]


def test_workflow_runs_ci_and_builds_everything() -> None:
    commands = "\n".join(step.get("run", "") for step in steps())
    for command in ("bash .ci/run", "docker/gateway.Dockerfile", "docker/triton.Dockerfile"):
        assert command in commands
    targets = {target for line in re.findall(r"\bmake ([a-z ]+)$", commands, re.MULTILINE) for target in line.split()}
    assert targets == {"dist", "sbom", "audit"}
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert targets <= set(phony[1].split())


def test_workflow_uses_the_hosts_own_actions_only() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in used)


@pytest.mark.slow
def test_pre_commit_hooks_run_without_a_network(tmp_path: Path) -> None:
    """A repository with one badly formatted file and one phrase to replace: both hooks object."""
    (tmp_path / ".venv").symlink_to(SCRIPTS.parent)
    (tmp_path / "testing").mkdir()
    for name in ("testing/__init__.py", "testing/prose.py", "pyproject.toml"):
        shutil.copy2(ROOT / name, tmp_path / name)
    config = load(".pre-commit-config.yaml")
    hooks = config["repos"][0]["hooks"]
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    assert {hook["language"] for hook in hooks} == {"system"}
    hooks[:] = [hook for hook in hooks if hook["id"] != "architecture"]  # `make check` runs it on the real tree
    (tmp_path / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    phrase = "who" + "ever"  # in two parts, since the wording of this file is checked too
    (tmp_path / "bad.py").write_text(f'"""For {phrase} asks."""\nx = {{  }}\n')
    no_network = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    environ = os.environ | no_network | {"PRE_COMMIT_HOME": str(tmp_path / "cache"), "PATH": f"{SCRIPTS}:{os.defpath}"}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    run("git", "init", "-q")
    run("git", "add", "bad.py", ".pre-commit-config.yaml")
    done = run(SCRIPTS / "pre-commit", "run", "--all-files")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"ruff format\.+Failed", done.stdout)
    assert re.search(r"wording \(testing/prose\.py\)\.+Failed", done.stdout)
    assert "x = {}" in (tmp_path / "bad.py").read_text()


@pytest.mark.slow
def test_bill_of_materials_has_every_locked_package(tmp_path: Path) -> None:
    recipe = re.search(r"^sbom:.*\n(?:\t@mkdir.*\n)?\t\$\(BIN\)/(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    target = tmp_path / "sbom.json"
    name, *arguments = recipe[1].replace("build/sbom.json", str(target)).split()
    subprocess.run([SCRIPTS / name, *arguments], cwd=ROOT, check=True, capture_output=True)
    written = json.loads(target.read_text())
    assert written["bomFormat"] == "CycloneDX"
    locked = set(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert {(each["name"], each["version"]) for each in written["components"]} == locked


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(packages)})


CLEAN = {"name": "flask", "version": "3.1.3", "vulns": []}
FLAWED = {"name": "old", "version": "1", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["2"]}]}
SKIPPED = {"name": "strange", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("output", "errors", "code", "message"),
    [
        (report(CLEAN), "", 0, "1 packages checked, no known vulnerability"),
        (report(CLEAN, FLAWED), "", 1, "old 1: CVE-2026-1"),
        (report(CLEAN, SKIPPED), "", 2, "1 of 2 packages were not checked"),
        (report(FLAWED, SKIPPED), "", 2, "old 1: CVE-2026-1"),
        (report(), "", 2, "0 of 0 packages were not checked"),
        ("", "Traceback\nNameResolutionError: no such host", 2, "nothing was checked.*NameResolutionError"),
    ],
)
def test_audit_passes_only_if_every_package_was_checked(output: str, errors: str, code: int, message: str) -> None:
    exit_code, text = audit.judge(output, errors)
    assert exit_code == code
    assert re.search(message, text)


def test_licence_files_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert all((ROOT / name).read_text().strip() for name in project["license-files"])


def test_notices_name_every_example_image() -> None:
    notices = (ROOT / "THIRD-PARTY-NOTICES.md").read_text()
    for pattern in ("example-*", "thumb-*", "hero-*"):
        for path in (ROOT / "gateway" / "static").glob(pattern):
            assert path.name in notices


def test_security_policy_says_how_to_report() -> None:
    policy = (ROOT / "SECURITY.md").read_text()
    assert "Do not open a public issue" in policy
    assert "superres --version" in policy


def test_contributing_maps_every_package() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "scripts", "benchmarks"}
    assert not [name for name in packages if f"`{name}/`" not in guide]
