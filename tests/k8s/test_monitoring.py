"""The dashboard, alerts and scrape jobs use only existing names: metrics of a running Triton, labels of our pods."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

import jsonschema
import pytest

from testing.data import ROOT
from testing.k8s.manifests import environment, find, find_service, render
from testing.triton import TritonServer

# Triton has these only on hosts with a GPU (Triton's metrics documentation), so no test can read them here.
GPU_METRICS = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes"}
POD_MONITOR = {
    "type": "object",
    "required": ["selector", "podMetricsEndpoints"],
    "additionalProperties": False,
    "properties": {
        "selector": {"type": "object", "required": ["matchLabels"]},
        "podMetricsEndpoints": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["port", "path"],
                "additionalProperties": False,
                "properties": {
                    "port": {"type": "string"},
                    "path": {"type": "string", "pattern": "^/"},
                    "interval": {"type": "string", "pattern": r"^\d+s$"},
                    "relabelings": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "sourceLabels": {"type": "array", "items": {"type": "string"}},
                                "targetLabel": {"type": "string"},
                                "replacement": {"type": "string"},
                            },
                        },
                    },
                },
            },
        },
    },
}


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(find("monitoring", "ConfigMap", "dashboard")["data"]["superres.json"])
    return read


def expressions() -> list[str]:
    """Return every PromQL expression of the dashboard, of the alerts and of docs/how-to/operate.md."""
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    groups = find("monitoring", "PrometheusRule", "superres")["spec"]["groups"]
    alerts = [rule["expr"] for group in groups for rule in group["rules"]]
    recommended = re.findall(
        r"`([^`\n]*\b(?:nv|superres_gateway)_[^`\n]*)`", (ROOT / "docs/how-to/operate.md").read_text()
    )
    assert shown
    assert recommended
    assert alerts
    return shown + alerts + recommended


def test_every_metric_exists_in_the_running_triton(triton_server: TritonServer) -> None:
    with urllib.request.urlopen(f"http://{triton_server.metrics_address}/metrics", timeout=120) as response:
        known = set(re.findall(r"^# TYPE (\w+)", response.read().decode(), re.MULTILINE))
    named = {name for expression in expressions() for name in re.findall(r"\bnv_\w+", expression)}
    assert named - known - GPU_METRICS == set()
    assert "nv_inference_request_succes" not in known  # a typo would be found


def test_gateway_metrics_in_use_are_documented() -> None:
    documented = set(
        re.findall(r"^\| `(superres_gateway_\w+)`", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE)
    )
    named = {name for expression in expressions() for name in re.findall(r"\bsuperres_gateway_\w+", expression)}
    assert len(named) >= 5
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= documented


def test_dashboard_is_one_that_grafana_reads() -> None:
    read = dashboard()
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= read.keys()
    identifiers = [panel["id"] for panel in read["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    for panel in read["panels"]:
        position = panel["gridPos"]
        assert position["x"] + position["w"] <= 24, panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"] and panel["fieldConfig"]["defaults"]["unit"]  # noqa: PT018
    assert find("monitoring", "ConfigMap", "dashboard")["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize("name", ["backend", "gateway"])
def test_scrape_jobs_match_pods_and_open_ports(name: str) -> None:
    monitor = find("monitoring", "PodMonitor", name)
    labels = find_service("overlays/gpu", name)["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    replacement = monitor["spec"]["podMetricsEndpoints"][0]["relabelings"][0]["replacement"]
    policy = find("overlays/gpu", "NetworkPolicy", name)
    ports = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
    port = int(replacement.rpartition(":")[2])
    assert port in ports
    assert name == "backend" or environment(find_service("overlays/gpu", name))["SUPERRES_METRICS_PORT"] == str(port)
    assert monitor["metadata"]["namespace"] == "superres"


def test_pod_monitor_is_valid() -> None:
    spec = find("monitoring", "PodMonitor", "backend")["spec"]
    jsonschema.validate(spec, POD_MONITOR)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**spec, "podMetricsEndpoint": []}, POD_MONITOR)
    assert all(manifest["metadata"]["namespace"] == "superres" for manifest in render("monitoring"))
