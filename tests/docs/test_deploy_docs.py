"""The deployment guides: their `sh` blocks run line by line, their `console` blocks name only existing things."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml

from testing.data import ROOT
from testing.k8s.manifests import ALL, render

HOW_TO = ROOT / "docs/how-to"
DOCS = ("deploy-compose", "deploy-kubernetes", "deploy-kubernetes-keda", "deploy-front", "operate")
COPIED = ("docker", "docker-compose.yml", ".env", "front", "k8s")


def blocks(name: str, language: str) -> list[str]:
    text = (HOW_TO / f"{name}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the files that the guides change, so that the checkout stays unchanged."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("secrets", "__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    return folder


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The reader's shell: the project's commands first, and `docker compose` from the dev extra."""
    tools = tmp_path / "tools"
    tools.mkdir()
    scripts = Path(sysconfig.get_path("scripts"))
    shim = tools / "docker"
    shim.write_text(f'#!/bin/sh\n[ "$1" = compose ] || exit 64\nshift\nexec {scripts}/docker-compose "$@"\n')
    shim.chmod(0o755)
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("SUPERRES_", "COMPOSE_", "DOCKER_"))
    }
    return {**clean, "PATH": f"{tools}:{scripts}:{os.environ['PATH']}", "HOME": str(tmp_path)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DOCS if blocks(name, "sh")])
def test_every_command_that_can_run_here_runs(name: str, copy: Path, environ: dict[str, str]) -> None:
    for block in blocks(name, "sh"):
        shell = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(shell, cwd=copy, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"docs/how-to/{name}.md:\n{block}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
def test_deploy_guides_produce_the_stated_results(copy: Path, environ: dict[str, str]) -> None:
    for name in ("deploy-compose", "deploy-kubernetes", "deploy-front"):
        script = "\n".join(blocks(name, "sh"))
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=copy, env=environ, capture_output=True, check=True
        )
    secret = copy / "docker" / "secrets" / "model_key"
    assert re.fullmatch(r"[0-9a-f]{64}", secret.read_text())
    assert (secret.parent.stat().st_mode & 0o777, secret.stat().st_mode & 0o777) == (0o700, 0o444)
    rendered = list(yaml.safe_load_all((copy / "rendered.yaml").read_text()))
    images = re.findall(r"image: (registry\S+)", (copy / "rendered.yaml").read_text())
    assert images == [
        f"registry.example.com/superres-triton@sha256:{'1' * 64}",
        f"registry.example.com/superres-gateway@sha256:{'2' * 64}",
    ]
    assert len(rendered) == len(render("overlays/gpu"))
    assert (copy / "my-key").read_text().strip()
    assert (copy / "my-key").read_text().strip() not in (copy / "keys.json").read_text()
    for page in ("index.html", "de/index.html"):
        assert "https://gateway.example.org/" in (copy / "front" / page).read_text()


def test_make_secrets_keeps_existing_secrets(copy: Path, environ: dict[str, str]) -> None:
    secret = copy / "docker" / "secrets" / "model_key"

    def make(*arguments: str) -> str:
        done = subprocess.run(
            [copy / "docker" / "make-secrets", *arguments], env=environ, capture_output=True, text=True, check=True
        )
        assert secret.read_text() not in done.stdout + done.stderr
        return secret.read_text()

    first = make()
    assert make() == first
    assert make("--rotate") != first


GOOD = "r.io/g@sha256:" + "a" * 64


@pytest.mark.parametrize("wrong", [(), ("a",), ("r.io/t:latest", GOOD), ("r.io/t@sha256:" + "a" * 63, GOOD)])
def test_pin_rejects_an_invalid_digest(wrong: tuple[str, ...], copy: Path) -> None:
    file = copy / "k8s" / "components" / "images" / "kustomization.yaml"
    before = file.read_text()
    done = subprocess.run([copy / "k8s" / "pin", *wrong], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "sha256" in done.stderr
    assert file.read_text() == before


@pytest.mark.parametrize("name", DOCS)
def test_every_named_path_exists(name: str) -> None:
    text = (HOW_TO / f"{name}.md").read_text()
    made = {"k8s/overlays/mine", "docker/secrets"}  # by the guide itself
    named = set(re.findall(r"(?<![\w/.-])((?:k8s|docker|front|tests)/[\w./-]*\w)", text))
    missing = {path for path in named if not (ROOT / path).exists() and not any(path.startswith(each) for each in made)}
    assert not missing, f"docs/how-to/{name}.md names {sorted(missing)}"


@pytest.mark.parametrize("name", DOCS)
def test_every_link_leads_somewhere(name: str) -> None:
    text = (HOW_TO / f"{name}.md").read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = HOW_TO / path if path else HOW_TO / f"{name}.md"
        assert linked.exists(), f"docs/how-to/{name}.md links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"docs/how-to/{name}.md links to {target}; there are {sorted(slugs)}"


@pytest.mark.parametrize("name", DOCS)
def test_cluster_commands_name_existing_objects(name: str) -> None:
    objects = {(m["kind"].lower(), m["metadata"]["name"]) for folder in ALL for m in render(folder)}
    secrets = {
        volume["secret"]["secretName"]
        for folder in ALL
        for m in render(folder)
        for volume in m.get("spec", {}).get("template", {}).get("spec", {}).get("volumes", [])
        if "secret" in volume
    }
    secrets.add("registry")  # the pull Secret of the operator's own registry
    secrets.add("webhook-key")  # of k8s/components/webhooks, which no overlay here has
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].keys()
    commands = "\n".join(blocks(name, "console") + blocks(name, "sh"))
    written = set(re.findall(r"mkdir -p (k8s/\S+)", commands))  # by the guide itself
    for folder in {applied or deleted for applied, deleted in re.findall(r"apply -k (\S+)|delete -k (\S+)", commands)}:
        assert folder in written or (ROOT / folder / "kustomization.yaml").is_file()
    for service in re.findall(r"patch ksvc (\S+)|service=(\w+)", commands):
        assert ("service", service[0] or service[1]) in objects
    for daemonset in re.findall(r"daemonset/(\S+)", commands):
        assert ("daemonset", daemonset) in objects
    for secret in re.findall(r"secret generic (\S+)|get secret (\S+)", commands):
        assert (secret[0] or secret[1]) in secrets
    for service in re.findall(
        r"docker compose exec (\S+)|--force-recreate (\S+)|compose build .* (\w+)$", commands, re.MULTILINE
    ):
        assert next(filter(None, service)) in compose


def test_every_overlay_has_its_row() -> None:
    text = (ROOT / "docs/how-to/deploy-kubernetes.md").read_text()
    rows = set(re.findall(r"^\| `(k8s/overlays/[\w-]+)`", text, re.MULTILINE))
    assert rows == {f"k8s/overlays/{path.name}" for path in (ROOT / "k8s" / "overlays").iterdir() if path.is_dir()}


def test_files_with_keys_that_the_guide_writes_are_ignored_by_git_and_closed_to_others(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    block = next(block for block in blocks("deploy-kubernetes", "sh") if "keys new" in block)
    subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, env=environ, check=True)
    written = ("keys.json", "my-key", "blocks.txt")
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in written] == ["0o600"] * 3
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert not {*written, "keys.json.lock"} & set(listed.stdout.split())
