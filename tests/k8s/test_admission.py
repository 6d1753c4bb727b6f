"""The shipped manifests pass Knative's admission rules, and each rule rejects its counter-example."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from testing.k8s.knative_admission import AUTOSCALING, complain, duration_s
from testing.k8s.manifests import KNATIVE, OVERLAYS, Manifest, find_service, render, revision

# Feature flags that the documentation asks the operator to enable, by overlay.
FLAGS = {
    "gpu-node-at-zero": frozenset({"kubernetes.podspec-nodeselector", "kubernetes.podspec-tolerations"}),
}
SERVICES = [
    (overlay, manifest["metadata"]["name"])
    for overlay in OVERLAYS
    for manifest in render(f"overlays/{overlay}")
    if manifest["apiVersion"] == KNATIVE
]


@pytest.mark.parametrize(("overlay", "name"), SERVICES)
def test_knative_admits_every_service(overlay: str, name: str) -> None:
    assert complain(find_service(f"overlays/{overlay}", name), FLAGS.get(overlay, frozenset())) == []


def test_overlay_that_needs_flags_is_rejected_without() -> None:
    complaints = complain(find_service("overlays/gpu-node-at-zero", "backend"))
    assert [line.split()[0] for line in complaints] == ["nodeSelector", "tolerations"]
    assert all("config-features" in line for line in complaints)


def _annotate(name: str, value: Any) -> Callable[[Manifest], None]:
    return lambda service: service["spec"]["template"]["metadata"]["annotations"].update({AUTOSCALING + name: value})


def _spec(**changes: Any) -> Callable[[Manifest], None]:
    return lambda service: revision(service).update(changes)


def _container(**changes: Any) -> Callable[[Manifest], None]:
    return lambda service: revision(service)["containers"][0].update(changes)


def _mount(path: str, name: str = "shm", **more: Any) -> Callable[[Manifest], None]:
    mount = {"name": name, "mountPath": path, **more}
    return lambda service: revision(service)["containers"][0]["volumeMounts"].append(mount)


def _volume(volume: dict[str, Any], *, mounted: bool = True) -> Callable[[Manifest], None]:
    def change(service: Manifest) -> None:
        revision(service)["volumes"].append(volume)
        if mounted:
            _mount("/extra", volume["name"], readOnly=True)(service)

    return change


def _sidecar(service: Manifest) -> None:
    revision(service)["containers"].append({"name": "second", "image": "second", "ports": [{"containerPort": 8080}]})


def _on_the_service(service: Manifest) -> None:
    service["metadata"]["annotations"] = {AUTOSCALING + "min-scale": "1"}


def _progress(value: str) -> Callable[[Manifest], None]:
    annotations = {"serving.knative.dev/progress-deadline": value}
    return lambda service: service["spec"]["template"]["metadata"]["annotations"].update(annotations)


PROBE = {"httpGet": {"path": "/", "port": 8000}}
REFUSED: dict[str, tuple[Callable[[Manifest], None], str]] = {
    "autoscaling on the Service": (_on_the_service, "belongs on spec.template"),
    "a misspelt annotation": (_annotate("minn-scale", "1"), "unknown"),
    "a number for a string": (_annotate("min-scale", 1), "must be a string"),
    "a negative scale": (_annotate("min-scale", "-1"), "out of range"),
    "a scale beyond int32": (_annotate("max-scale", "2147483648"), "out of range"),
    "least over most": (_annotate("min-scale", "2"), "over max-scale"),
    "activation scale of 1": (_annotate("activation-scale", "1"), "out of range"),
    "activation scale over the most": (_annotate("activation-scale", "2"), "activation-scale"),
    "initial scale 0 on a stock cluster": (_annotate("initial-scale", "0"), "out of range"),
    "a window under 6 s": (_annotate("window", "5s"), "out of range"),
    "a window over an hour": (_annotate("window", "61m"), "out of range"),
    "a window of 10.5 s": (_annotate("window", "10.5s"), "out of range"),
    "a window without a unit": (_annotate("window", "15"), "not of its kind"),
    "retention over an hour": (_annotate("scale-to-zero-pod-retention-period", "2h"), "out of range"),
    "delay in milliseconds": (_annotate("scale-down-delay", "1500ms"), "out of range"),
    "utilisation of 0": (_annotate("target-utilization-percentage", "0"), "out of range"),
    "utilisation over 100": (_annotate("target-utilization-percentage", "101"), "out of range"),
    "a target of 0": (_annotate("target", "0"), "out of range"),
    "burst capacity -2": (_annotate("target-burst-capacity", "-2"), "out of range"),
    "panic window of 101 %": (_annotate("panic-window-percentage", "101"), "out of range"),
    "panic threshold under 110 %": (_annotate("panic-threshold-percentage", "100"), "out of range"),
    "a class of nobody": (_annotate("class", "vpa.autoscaling.knative.dev"), "not of its kind"),
    "a metric of hpa": (_annotate("metric", "cpu"), "not of its kind"),
    "an unknown aggregation": (_annotate("metric-aggregation-algorithm", "mean"), "not of its kind"),
    "a progress deadline of a fraction": (_progress("1.5s"), "whole seconds"),
    "a progress deadline without a unit": (_progress("900"), "whole seconds"),
    "time-out over the cluster's most": (_spec(timeoutSeconds=601), "timeoutSeconds"),
    "start time-out over the time-out": (_spec(responseStartTimeoutSeconds=300), "responseStartTimeoutSeconds"),
    "concurrency over 1000": (_spec(containerConcurrency=1001), "containerConcurrency"),
    "affinity on a stock cluster": (_spec(affinity={}), "config-features"),
    "a runtime class on a stock cluster": (_spec(runtimeClassName="nvidia"), "config-features"),
    "a pod securityContext": (_spec(securityContext={"fsGroup": 10001}), "config-features"),
    "init containers": (_spec(initContainers=[]), "config-features"),
    "two ports": (_container(ports=[{"name": "h2c", "containerPort": 8001}, {"containerPort": 8000}]), "more than one"),
    "a port of a sidecar too": (_sidecar, "more than one"),
    "a port called grpc": (_container(ports=[{"name": "grpc", "containerPort": 8001}]), "not h2c or http1"),
    "a port of the queue-proxy": (_container(ports=[{"name": "h2c", "containerPort": 8012}]), "reserved"),
    "UDP": (_container(ports=[{"containerPort": 8001, "protocol": "UDP"}]), "not TCP"),
    "PORT in the environment": (_container(env=[{"name": "PORT", "value": "1"}]), "reserved"),
    "a fieldRef": (_container(env=[{"name": "IP", "valueFrom": {"fieldRef": {}}}]), "fieldref"),
    "added capabilities": (_container(securityContext={"capabilities": {"add": ["SYS_PTRACE"]}}), "capabilities"),
    "a reserved container name": (_container(name="queue-proxy"), "reserved"),
    "a probe without a handler": (_container(livenessProbe={"periodSeconds": 5}), "handlers"),
    "a probe with two": (_container(livenessProbe={**PROBE, "exec": {"command": ["x"]}}), "handlers"),
    "aggressive probe with a threshold": (_container(readinessProbe={**PROBE, "failureThreshold": 3}), "disallowed"),
    "aggressive probe with a time-out": (_container(readinessProbe={**PROBE, "timeoutSeconds": 3}), "disallowed"),
    "a probe that may never fail": (
        _container(readinessProbe={**PROBE, "periodSeconds": 5, "failureThreshold": 0}),
        "at least 1",
    ),
    "a mount over /dev": (_mount("/dev/"), "reserved"),
    "a mount over the root": (_mount("/"), "reserved"),
    "a mount of no volume": (_mount("/x", "nowhere"), "no matching volume"),
    "two mounts at one path": (_mount("/etc/superres/api-key/"), "unique"),
    "a secret mounted to write": (_mount("/x", "api-key"), "readOnly"),
    "a volume that nobody mounts": (_volume({"name": "spare", "emptyDir": {}}, mounted=False), "not mounted"),
    "a host path": (_volume({"name": "spare", "hostPath": {"path": "/"}}), "stock cluster refuses"),
    "a claim": (_volume({"name": "spare", "persistentVolumeClaim": {"claimName": "x"}}), "stock cluster refuses"),
    "a revision not named after the Service": (
        lambda service: service["spec"]["template"]["metadata"].update({"name": "other-00001"}),
        "must begin with",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_knative_rejects(fault: str) -> None:
    service = copy.deepcopy(find_service("overlays/gpu", "backend"))
    change, words = REFUSED[fault]
    change(service)
    complaints = complain(service)
    assert any(words in line for line in complaints), f"{fault}: {complaints}"


@pytest.mark.parametrize("algorithm", ["linear", "weightedExponential", "weighted-exponential"])
def test_knative_admits_every_spelling_of_an_aggregation(algorithm: str) -> None:
    service = copy.deepcopy(find_service("overlays/gpu", "backend"))
    _annotate("class", "kpa.autoscaling.knative.dev")(service)
    _annotate("metric-aggregation-algorithm", algorithm)(service)
    assert complain(service) == []


def test_go_durations_are_read_as_go_reads_them() -> None:
    assert [duration_s(text) for text in ("0", "15s", "1m30s", "1h", "1500ms", "0.5m")] == [0, 15, 90, 3600, 1.5, 30]
    assert [duration_s(text) for text in ("", "15", "s", "1d", "-5s", "1 m")] == [None] * 6
