"""Reads a cluster and renders kustomizations by kubectl, so that its configuration and credentials apply."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

Manifest = dict[str, Any]

REQUEST_LIMIT_S = 10
RUN_LIMIT_S = 30
PAGE_SIZE = 500
MAX_PAGES = 20


class KubectlError(Exception):
    """Kubectl is missing, or failed; the text says why."""


class ForbiddenError(KubectlError):
    """The cluster does not let this user read the object."""


class ClusterReader(Protocol):
    """Reads objects of a cluster."""

    def read(self, *path: str) -> Manifest | None:
        """Return the object at an API path such as ("api", "v1", "nodes"), or None if there is none.

        Raises ForbiddenError if this user must not read it, KubectlError if the cluster does not respond.
        """

    def read_items(self, *path: str) -> list[Manifest]:
        """Return the objects of a list, at most MAX_PAGES * PAGE_SIZE. Raises as `read` does."""


class Kubectl:
    """Runs kubectl with one context of its configuration. Never changes anything in the cluster."""

    def __init__(self, context: str = "") -> None:
        found = shutil.which("kubectl")
        if not found:
            raise KubectlError("kubectl was not found. Install it, then try again.")
        self._command = [found, f"--request-timeout={REQUEST_LIMIT_S}s", *([f"--context={context}"] if context else [])]

    def render(self, folder: Path) -> list[Manifest]:
        """Return the objects of a kustomization. Raises KubectlError if it cannot be built."""
        rendered = self._run("kustomize", str(folder))
        # `label --local` reads YAML and prints JSON without a cluster.
        text = self._run("label", "--local", "-f", "-", "-o", "json", "superres.preflight=1", text=rendered)
        decoder, manifests, at = json.JSONDecoder(), [], 0
        while (at := len(text) - len(text[at:].lstrip())) < len(text):
            manifest, at = decoder.raw_decode(text, at)
            manifests.append(manifest)
        return manifests

    def read(self, *path: str) -> Manifest | None:
        """Return one object, as `ClusterReader.read` does."""
        return self._get("/" + "/".join(quote(part, safe="") for part in path))

    def read_items(self, *path: str) -> list[Manifest]:
        """Return the objects of a list, as `ClusterReader.read_items` does."""
        items: list[Manifest] = []
        token = ""
        for _ in range(MAX_PAGES):
            page = self._get(f"/{'/'.join(path)}?limit={PAGE_SIZE}&continue={quote(token, safe='')}") or {}
            items += page.get("items", [])
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                break
        return items

    def _get(self, path: str) -> Manifest | None:
        try:
            return json.loads(self._run("get", "--raw", path))
        except json.JSONDecodeError as error:
            raise KubectlError(f"The cluster's response to {path} is not JSON: {error}") from error
        except KubectlError as error:
            if "(NotFound)" in str(error):
                return None
            if "(Forbidden)" in str(error):
                raise ForbiddenError(str(error)) from error
            raise

    def _run(self, *arguments: str, text: str | None = None) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - the path of kubectl, and no shell
                [*self._command, *arguments],
                input=text,
                stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True,
                text=True,
                check=False,
                timeout=RUN_LIMIT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(f"kubectl {arguments[0]} did not end within {RUN_LIMIT_S} s.") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise KubectlError(f"kubectl {arguments[0]}: {lines[-1]}")
        return done.stdout
