"""The autoscaling settings of a revision: annotations over the cluster's defaults.

Implements rule 1 (targets and windows) and the bounds of rule 7. Names are those of Knative's annotations without the
prefix `autoscaling.knative.dev/`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLUSTER_DEFAULTS: Mapping[str, str] = {
    "container-concurrency-target-percentage": "70",
    "container-concurrency-target-default": "100",
    "target-burst-capacity": "211",
    "stable-window": "60s",
    "panic-window-percentage": "10",
    "panic-threshold-percentage": "200",
    "max-scale-up-rate": "1000",
    "max-scale-down-rate": "2",
    "enable-scale-to-zero": "true",
    "scale-to-zero-grace-period": "30s",
    "scale-to-zero-pod-retention-period": "0s",
    "scale-down-delay": "0s",
    "initial-scale": "1",
    "min-scale": "0",
    "max-scale": "0",
    "activation-scale": "1",
    "progress-deadline": "600s",
}
"""Knative's defaults for the ConfigMap config-autoscaler, and the progress deadline of a deployment."""

# Valid annotations (pkg/apis/autoscaling/register.go). Knative ignores other names, this model refuses them.
_ANNOTATIONS = frozenset(
    {
        "activation-scale",
        "class",
        "initial-scale",
        "max-scale",
        "metric",
        "metric-aggregation-algorithm",
        "min-scale",
        "panic-threshold-percentage",
        "panic-window-percentage",
        "progress-deadline",
        "scale-down-delay",
        "scale-to-zero-pod-retention-period",
        "target",
        "target-burst-capacity",
        "target-utilization-percentage",
        "window",
    }
)
# Cluster settings without effect on this model: number of activators, admission, requests per second.
_IGNORED_CLUSTER_SETTINGS = frozenset(
    {"activator-capacity", "allow-zero-initial-scale", "max-scale-limit", "requests-per-second-target-default"}
)
# The metric rps and the autoscaler class hpa follow other rules and are not modelled.
_ONLY_MODELLED = {"metric": "concurrency", "class": "kpa.autoscaling.knative.dev"}
_CLUSTER_CLASS = "pod-autoscaler-class"
_ALGORITHMS = ("linear", "weightedexponential")

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class InvalidAnnotationError(ValueError):
    """An annotation or cluster setting is invalid, unknown to Knative or not modelled."""


@dataclass(frozen=True, slots=True)
class Revision:
    """The settings of a revision with all defaults resolved."""

    container_concurrency: int = 0
    """Maximum number of concurrent requests in one pod; 0 has no limit."""
    target_value: float = 70.0
    """Concurrency to aim for per pod: total value times utilization."""
    total_value: float = 100.0
    """Maximum concurrency per pod."""
    burst_capacity: float = 211.0
    """Spare concurrency below which the activator stays in the path. -1: always; 0: only at zero pods."""
    window_s: int = 60
    panic_window_s: int = 6
    panic_threshold: float = 2.0
    up_rate: float = 1000.0
    down_rate: float = 2.0
    activation_scale: int = 0
    """Minimum number of pods while there is load; up to 1 has no effect."""
    initial_scale: int = 1
    min_scale: int = 0
    max_scale: int = 0
    """Maximum number of pods; 0 has no limit."""
    scale_down_delay_s: float = 0.0
    retention_s: float = 0.0
    """Minimum seconds that the last pod is kept after the decision to scale to zero."""
    grace_s: float = 30.0
    """Minimum seconds that the activator must have been in the path before scaling to zero."""
    progress_deadline_s: float = 600.0
    reachable: bool = True
    weighted: bool = False
    """Whether metric-aggregation-algorithm is weightedExponential instead of linear."""
    scale_to_zero: bool = True

    @property
    def is_scraped(self) -> bool:
        """Whether pods are scraped. At burst capacity -1 all requests go through the activator (KPA:337-344)."""
        return self.burst_capacity != -1

    @property
    def floor_scale(self) -> int:
        """The effective min-scale: 0 for an unreachable revision (pa_lifecycle.go:88-103)."""
        return self.min_scale if self.reachable else 0

    @property
    def last_pod_retention_s(self) -> float:
        """The effective retention: 0 for an unreachable revision (SC:144-154)."""
        return self.retention_s if self.reachable else 0.0

    def bounded(self, desired: int, *, at_least: int = 0) -> int:
        """Return a desired scale within the bounds (rule 7, SC:157-165).

        The minimum comes first. The maximum does not lower what the minimum raised, so an initial scale above the
        maximum is applied.
        """
        minimum = max(self.floor_scale, at_least)
        if desired < minimum:
            return minimum
        return min(desired, self.max_scale) if self.max_scale else desired


def parse_duration_s(text: str) -> float:
    """Return the seconds of a Go duration such as "90s", "1m30s" or "500ms"."""
    parts = _DURATION_PART.findall(text)
    if text == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidAnnotationError(f'Invalid duration "{text}": write it like 15s, 1m30s or 500ms.')
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


def panic_window_s(window_s: float, percentage: float) -> int:
    """Return the panic window: a percentage of the stable window, rounded to seconds, at least 1 (metric.go:49-52)."""
    return max(1, math.floor(window_s * percentage / 100 + 0.5))


def resolve_revision(
    annotations: Mapping[str, str] | None = None,
    *,
    container_concurrency: int = 0,
    cluster: Mapping[str, str] | None = None,
    reachable: bool = True,
) -> Revision:
    """Resolve annotations over cluster settings over Knative's defaults (rule 1).

    Annotation names have no prefix and either spelling ("min-scale", "minScale"). Raises InvalidAnnotationError.
    """
    own = {_dashed(name): value for name, value in (annotations or {}).items()}
    values = {**CLUSTER_DEFAULTS, **(cluster or {}), **own}
    _check_names(own, cluster or {})
    number = _Numbers(values)
    total = number("target") if "target" in values else float(container_concurrency)
    if container_concurrency > 0:
        total = min(total, float(container_concurrency))
    if total <= 0:
        total = number("container-concurrency-target-default")
    window = parse_duration_s(values.get("window", values["stable-window"]))
    return Revision(
        container_concurrency=container_concurrency,
        target_value=max(0.01, total * _utilisation(number, values)),
        total_value=total,
        burst_capacity=number("target-burst-capacity"),
        window_s=int(window),
        panic_window_s=panic_window_s(window, number("panic-window-percentage")),
        panic_threshold=number("panic-threshold-percentage") / 100,
        up_rate=number("max-scale-up-rate"),
        down_rate=number("max-scale-down-rate"),
        activation_scale=int(number("activation-scale")),
        initial_scale=int(number("initial-scale")),
        min_scale=int(number("min-scale")),
        max_scale=int(number("max-scale")),
        scale_down_delay_s=parse_duration_s(values["scale-down-delay"]),
        retention_s=parse_duration_s(values["scale-to-zero-pod-retention-period"]),
        grace_s=parse_duration_s(values["scale-to-zero-grace-period"]),
        progress_deadline_s=parse_duration_s(values["progress-deadline"]),
        reachable=reachable,
        weighted=_is_weighted(values),
        scale_to_zero=values["enable-scale-to-zero"].lower() == "true",
    )


def _check_names(annotations: Mapping[str, str], cluster: Mapping[str, str]) -> None:
    """Refuse names that Knative would ignore, such as misspelt ones, and settings that are not modelled."""
    known = {
        "annotation": _ANNOTATIONS,
        "cluster setting": {*CLUSTER_DEFAULTS, *_IGNORED_CLUSTER_SETTINGS, _CLUSTER_CLASS},
    }
    for (kind, names), values in zip(known.items(), (annotations, cluster), strict=True):
        for name in values:
            if name not in names:
                raise InvalidAnnotationError(f'Unknown {kind} "{name}". Valid names: {", ".join(sorted(names))}.')
    requested = {**annotations, "class": annotations.get("class", cluster.get(_CLUSTER_CLASS, _ONLY_MODELLED["class"]))}
    for name, only in _ONLY_MODELLED.items():
        if requested.get(name, only) != only:
            raise InvalidAnnotationError(f'Unsupported {name} "{requested[name]}": only {only} is modelled.')


def _utilisation(number: "_Numbers", values: Mapping[str, str]) -> float:
    """Return the utilization as a fraction (config.go, NewConfigFromMap).

    The percentage is divided before it is multiplied, as in Knative: a difference of one bit can be a pod. The cluster
    setting may also be a fraction up to 1, the annotation may not.
    """
    own = "target-utilization-percentage"
    if own in values:
        return number(own) / 100
    percentage = number("container-concurrency-target-percentage")
    return percentage / 100 if percentage > 1 else percentage


def _is_weighted(values: Mapping[str, str]) -> bool:
    requested = values.get("metric-aggregation-algorithm", "linear")
    name = requested.lower().replace("-", "")
    if name not in _ALGORITHMS:
        raise InvalidAnnotationError(
            f'Invalid metric-aggregation-algorithm "{requested}": must be linear or weighted-exponential.'
        )
    return name != "linear"


class _Numbers:
    """Reads numbers from string settings; errors name the setting."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __call__(self, name: str) -> float:
        try:
            return float(self._values[name])
        except ValueError:
            raise InvalidAnnotationError(f'Invalid {name} "{self._values[name]}": must be a number.') from None


def _dashed(name: str) -> str:
    """Return the current spelling of an annotation name: minScale is an older spelling of min-scale."""
    return re.sub(r"([A-Z])", lambda match: "-" + match.group(1).lower(), name)
