"""`k8s/make-secrets`, with the real kubectl and a stand-in of the API server."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from testing.k8s.api_server import serve_api, write_kubeconfig
from testing.k8s.manifests import K8S, find_kubectl

SECRETS = "/api/v1/namespaces/superres/secrets"
NAMES = ("model-key", "api-key", "form-secret", "gateway-keys", "gateway-blocks")


def run(tmp_path: Path, objects: dict[str, Any], forbidden: set[str] | None = None) -> subprocess.CompletedProcess[str]:
    (tmp_path / "keys.json").write_text('{"hashes": 1}')
    (tmp_path / "blocks.txt").write_text("")
    with serve_api(objects, forbidden or set()) as server:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", server.server_port)
        path = f"{Path(find_kubectl()).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            [K8S / "make-secrets", "keys.json", "blocks.txt"],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert set(server.methods) <= {"GET", "POST"}
    return done


def value(objects: dict[str, Any], name: str) -> str:
    return base64.b64decode(objects[f"{SECRETS}/{name}"].get("data", {}).get("latest", "")).decode()


def test_second_run_creates_only_what_is_missing_and_changes_nothing(tmp_path: Path) -> None:
    objects: dict[str, Any] = {}

    first = run(tmp_path, objects)
    assert first.returncode == 0, first.stderr
    assert first.stdout.split() == [word for name in NAMES for word in (f"{name}:", "created")]
    values = {name: value(objects, name) for name in NAMES}
    keys = [values[name] for name in NAMES[:3]]
    assert [len(key) for key in keys] == [64, 64, 64]
    assert len(set(keys)) == 3
    assert values["gateway-keys"] == '{"hashes": 1}'
    assert values["gateway-blocks"] == ""
    assert not any(key in first.stdout + first.stderr for key in keys)

    del objects[f"{SECRETS}/api-key"]
    second = run(tmp_path, objects)
    assert second.stdout.splitlines() == [f"{name}: {'created' if name == 'api-key' else 'exists'}" for name in NAMES]
    assert {name for name in NAMES if value(objects, name) != values[name]} == {"api-key"}


def test_cluster_that_refuses_is_an_error_with_its_reason(tmp_path: Path) -> None:
    done = run(tmp_path, {}, {f"{SECRETS}/model-key"})
    assert done.returncode == 1
    assert "Forbidden" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["keys.json"], ["missing.json", "missing.txt"]])
def test_invalid_usage_shows_the_usage(arguments: list[str]) -> None:
    done = subprocess.run([K8S / "make-secrets", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: k8s/make-secrets")
