"""Defines the command `superres preflight`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gateway.preflight import checks
from gateway.preflight.kubectl import Kubectl, KubectlError
from gateway.preflight.overlay import Overlay

LABELS = {"ok": "ok", "warning": "warning", "error": "ERROR", "unknown": "unknown"}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--context", default="", help="Context of kubectl's configuration. Default: the current one.")
def preflight(folder: Path, context: str) -> None:
    """Compare the overlay in FOLDER, such as k8s/overlays/gpu, with the cluster that kubectl is set up for.

    Reads versions, settings of Knative or objects of KEDA, namespaces, Secrets (only which entries they have), nodes
    and storage, and says what `kubectl apply -k FOLDER` would fail at. Changes nothing.

    Exit code: 0 nothing is missing, 1 the cluster could not be read, 3 something is missing.
    """
    try:
        cluster = Kubectl(context)
        overlay = Overlay(cluster.render(folder))
        findings = []
        for finding in checks.run(overlay, cluster):
            findings.append(finding)
            click.echo(f"{LABELS[finding.level]:8} {finding.text}")
            if finding.remedy:
                click.echo(f"{'':8} -> {finding.remedy}")
    except KubectlError as error:
        click.echo(f"superres: {error}", err=True)
        sys.exit(1)
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        click.echo(f"\n{errors} missing. Nothing was changed.")
        sys.exit(3)
    click.echo(f"\nNothing is missing. Next: kubectl apply -k {folder}")
