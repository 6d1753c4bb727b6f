"""The rules of Knative's admission webhook for the fields that this project uses, from its source (98e5ef90).

Unlike the webhook, it also rejects unknown autoscaling annotations, to find typos.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

AUTOSCALING = "autoscaling.knative.dev/"
MAX_TIMEOUT_S = 600  # config-defaults max-revision-timeout-seconds
RESERVED_PORTS = {8008, 8012, 8013, 8022, 9090, 9091}
RESERVED_ENV = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}
RESERVED_PATHS = {"/", "/dev", "/dev/log"}
RESERVED_CONTAINERS = {"queue-proxy"}
# config-features entries that are off on a stock cluster, by the field of the RevisionSpec that needs them.
FLAGS = {
    "nodeSelector": "kubernetes.podspec-nodeselector",
    "tolerations": "kubernetes.podspec-tolerations",
    "affinity": "kubernetes.podspec-affinity",
    "runtimeClassName": "kubernetes.podspec-runtimeclassname",
    "topologySpreadConstraints": "kubernetes.podspec-topologyspreadconstraints",
    "securityContext": "kubernetes.podspec-securitycontext",
    "initContainers": "kubernetes.podspec-init-containers",
    "dnsConfig": "kubernetes.podspec-dnsconfig",
    "dnsPolicy": "kubernetes.podspec-dnspolicy",
    "priorityClassName": "kubernetes.podspec-priorityclassname",
    "schedulerName": "kubernetes.podspec-schedulername",
}
# Volume types that a stock cluster accepts, and the entries of config-features that others need.
OPEN_VOLUMES = {"emptyDir", "secret", "configMap", "projected"}
VOLUME_FLAGS = {
    "image": "kubernetes.podspec-volumes-image",
    "persistentVolumeClaim": "kubernetes.podspec-persistent-volume-claim",
}

Complaints = Iterator[str]
Check = Callable[[str], bool]


def _integer(minimum: int, maximum: int = 2**31 - 1) -> Check:
    return lambda text: bool(re.fullmatch(r"-?\d+", text)) and minimum <= int(text) <= maximum


def _number(minimum: float, maximum: float = 1e9) -> Check:
    return lambda text: bool(re.fullmatch(r"-?\d+(\.\d+)?", text)) and minimum <= float(text) <= maximum


def duration_s(text: str) -> float | None:
    """Return the seconds of a Go duration ("1m30s"), or None."""
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", text):
        return 0.0 if text == "0" else None
    unit_s = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * unit_s[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)(ms|s|m|h)", text))


def _duration(min_s: float, max_s: float) -> Check:
    def check(text: str) -> bool:
        found = duration_s(text)
        return found is not None and min_s <= found <= max_s and found == int(found)

    return check


def _one_of(*allowed: str) -> Check:
    return lambda text: text in allowed


ANNOTATIONS: dict[str, Check] = {
    "class": _one_of("kpa.autoscaling.knative.dev", "hpa.autoscaling.knative.dev"),
    "min-scale": _integer(0),
    "max-scale": _integer(0),
    "minScale": _integer(0),
    "maxScale": _integer(0),
    "initial-scale": _integer(1),  # 0 needs allow-zero-initial-scale
    "activation-scale": _integer(2),
    "scale-down-delay": _duration(0, 3600),
    "metric": _one_of("concurrency", "rps"),
    # Knative checks this annotation only if the class is set to kpa explicitly.
    "metric-aggregation-algorithm": _one_of("linear", "weightedExponential", "weighted-exponential"),
    "target": _number(0.01),
    "target-utilization-percentage": _number(1, 100),
    "target-burst-capacity": lambda text: text == "-1" or _number(0)(text),
    "window": _duration(6, 3600),
    "panic-window-percentage": _number(1, 100),
    "panic-threshold-percentage": _number(110, 1000),
    "scale-to-zero-pod-retention-period": _duration(0, 3600),
}


def complain(service: dict[str, Any], flags: frozenset[str] = frozenset()) -> list[str]:
    """Yield what Knative would reject; `flags` are the entries of config-features that the cluster enables."""
    template = service["spec"]["template"]
    return [
        *_service_metadata(service),
        *_annotations(template.get("metadata", {}).get("annotations", {})),
        *_name(service["metadata"]["name"], template.get("metadata", {}).get("name")),
        *_revision(template["spec"], flags),
        *_ports(template["spec"]["containers"]),
        *(line for each in template["spec"]["containers"] for line in _container(each)),
        *_volumes(template["spec"], flags),
    ]


def _service_metadata(service: dict[str, Any]) -> Complaints:
    for key in service["metadata"].get("annotations", {}):
        if key.startswith(AUTOSCALING):
            yield f"{key} belongs on spec.template.metadata.annotations, not on the Service"


def _annotations(annotations: dict[str, Any]) -> Complaints:
    scale: dict[str, int] = {}
    for key, value in annotations.items():
        if not isinstance(value, str):
            yield f"annotation {key} is {type(value).__name__}, must be a string"
        elif key.startswith(AUTOSCALING):
            name = key.removeprefix(AUTOSCALING)
            if name not in ANNOTATIONS:
                yield f"annotation {key} is unknown"
            elif not ANNOTATIONS[name](value):
                yield f"annotation {key} is {value!r}: out of range or not of its kind"
            elif name.lower().replace("-", "") in ("minscale", "maxscale", "activationscale"):
                scale[name.lower().replace("-", "")] = int(value)
        elif key in ("serving.knative.dev/progress-deadline", "serving.knative.dev/rollout-duration"):
            found = duration_s(value)
            if found is None or found != int(found) or (key.endswith("deadline") and found == 0):
                yield f"annotation {key} is {value!r}: not a duration of whole seconds"
    minimum, maximum = scale.get("minscale", 0), scale.get("maxscale", 0)
    if maximum and minimum > maximum:
        yield f"min-scale {minimum} is over max-scale {maximum}"
    if "activationscale" in scale and maximum and not minimum <= scale["activationscale"] <= maximum:
        yield "activation-scale is not between min-scale and max-scale"


def _name(service: str, revision: str | None) -> Complaints:
    if revision is not None and not revision.startswith(f"{service}-"):
        yield f"revision {revision} must begin with {service}-"


def _revision(spec: dict[str, Any], flags: frozenset[str]) -> Complaints:
    for field, flag in FLAGS.items():
        if field in spec and flag not in flags:
            yield f"{field} needs {flag}: enabled in config-features"
    timeout_s = spec.get("timeoutSeconds", 300)
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        yield f"timeoutSeconds {timeout_s} is not in 1..{MAX_TIMEOUT_S}"
    if spec.get("responseStartTimeoutSeconds", 0) > timeout_s:
        yield "responseStartTimeoutSeconds is over timeoutSeconds"
    if not 0 <= spec.get("containerConcurrency", 0) <= 1000:
        yield "containerConcurrency is not in 0..1000"


def _ports(containers: list[dict[str, Any]]) -> Complaints:
    ports = [port for container in containers for port in container.get("ports", [])]
    if len(ports) > 1:
        yield "more than one container port is set"
    for port in ports:
        if port.get("name", "") not in ("", "h2c", "http1"):
            yield f"port name {port['name']} is not h2c or http1"
        if port["containerPort"] in RESERVED_PORTS:
            yield f"port {port['containerPort']} is reserved"
        if port.get("protocol", "TCP") != "TCP":
            yield f"protocol {port['protocol']} is not TCP"


def _container(container: dict[str, Any]) -> Complaints:
    if container.get("name") in RESERVED_CONTAINERS:
        yield f"container name {container['name']} is reserved"
    for row in container.get("env", []):
        if row["name"] in RESERVED_ENV:
            yield f"environment variable {row['name']} is reserved"
        if "fieldRef" in row.get("valueFrom", {}):
            yield "fieldRef needs kubernetes.podspec-fieldref: enabled in config-features"
    if container.get("securityContext", {}).get("capabilities", {}).get("add"):
        yield "added capabilities need kubernetes.containerspec-addcapabilities: enabled in config-features"
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe := container.get(name):
            yield from _probe(name, probe)


def _probe(name: str, probe: dict[str, Any]) -> Complaints:
    handlers = [handler for handler in ("httpGet", "tcpSocket", "exec", "grpc") if handler in probe]
    if len(handlers) != 1:
        yield f"{name} has {len(handlers)} handlers, must have one"
    if name != "readinessProbe":
        return
    if probe.get("periodSeconds", 0) == 0:
        for field in ("failureThreshold", "timeoutSeconds"):
            if probe.get(field, 0):
                yield f"{field} is disallowed when periodSeconds is zero"
    else:
        for field in ("failureThreshold", "timeoutSeconds"):
            if probe.get(field, 1) < 1:
                yield f"{name}.{field} must be at least 1"


def _volumes(spec: dict[str, Any], flags: frozenset[str]) -> Complaints:
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    mounted = set()
    for container in spec["containers"]:
        paths = [mount["mountPath"].rstrip("/") or "/" for mount in container.get("volumeMounts", [])]
        for mount, path in zip(container.get("volumeMounts", []), paths, strict=True):
            mounted.add(mount["name"])
            if path in RESERVED_PATHS:
                yield f"mountPath {path} is reserved"
            if not path.startswith("/") or paths.count(path) > 1:
                yield f"mountPath {path} must be absolute and unique"
            if mount["name"] not in volumes:
                yield f"volumeMount {mount['name']} has no matching volume"
            elif "emptyDir" not in volumes[mount["name"]] and not mount.get("readOnly"):
                yield f"volumeMount {mount['name']} should be readOnly for its type of volume"
    for name, volume in volumes.items():
        if name not in mounted:
            yield f"volume {name} is not mounted"
        for kind in volume.keys() - {"name"} - OPEN_VOLUMES:
            flag = VOLUME_FLAGS.get(kind, "")
            if not flag or flag not in flags:
                needs = f": it needs {flag} in config-features" if flag else ""
                yield f"volume {name} is {kind}, which a stock cluster refuses{needs}"
