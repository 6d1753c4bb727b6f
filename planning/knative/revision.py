"""What Knative is told about one revision: annotations over the cluster's defaults, resolved once.

Owns kpa.md rule 1 (targets and windows) and the bounds of rule 7; the names are Knative's annotations without their
prefix `autoscaling.knative.dev/`. Knows nothing of time or load.
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
"""ConfigMap config-autoscaler as shipped (kpa.md rule 1), and the deployment's progress deadline."""

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
"""What a revision may be annotated with (pkg/apis/autoscaling/register.go); Knative ignores any other name."""
_WITHOUT_BEARING = frozenset(
    {"activator-capacity", "allow-zero-initial-scale", "max-scale-limit", "requests-per-second-target-default"}
)
"""Cluster settings that change nothing here: the number of activators, what is admitted, another metric."""
_ONLY_MODELLED = {"metric": "concurrency", "class": "kpa.autoscaling.knative.dev"}
"""The other metric, rps, and the other autoscaler, hpa, decide otherwise."""
_CLUSTER_CLASS = "pod-autoscaler-class"
_ALGORITHMS = ("linear", "weightedexponential")

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class InvalidAnnotationError(ValueError):
    """An annotation or cluster setting that Knative would refuse, or ignore, or that this model does not know."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision as its autoscaler sees it; every field is resolved (no "use the default" left)."""

    container_concurrency: int = 0
    """Requests that one pod may hold at a time; 0 has no limit."""
    target_value: float = 70.0
    """Concurrency that one pod should carry (total x utilisation)."""
    total_value: float = 100.0
    """Concurrency that one pod can carry."""
    burst_capacity: float = 211.0
    """Spare concurrency below which the activator stays in the path; -1 always, 0 only at zero pods."""
    window_s: int = 60
    panic_window_s: int = 6
    panic_threshold: float = 2.0
    up_rate: float = 1000.0
    down_rate: float = 2.0
    activation_scale: int = 0
    """Least number of pods while there is load; up to 1 means no such floor."""
    initial_scale: int = 1
    min_scale: int = 0
    max_scale: int = 0
    """Most pods; 0 has no limit."""
    scale_down_delay_s: float = 0.0
    retention_s: float = 0.0
    """Least life of the last pod after the decision for zero."""
    grace_s: float = 30.0
    """Least time that the activator must have been in the path before zero."""
    progress_deadline_s: float = 600.0
    reachable: bool = True
    weighted: bool = False
    """True: metric-aggregation-algorithm weightedExponential."""
    scale_to_zero: bool = True

    @property
    def is_scraped(self) -> bool:
        """Whether the pods' own counts are read; at burst capacity -1 the activator sees everything (KPA:337-344)."""
        return self.burst_capacity != -1

    @property
    def floor_scale(self) -> int:
        """The minimum that counts: none for an unreachable revision (pa_lifecycle.go:88-103)."""
        return self.min_scale if self.reachable else 0

    @property
    def last_pod_retention_s(self) -> float:
        """The retention that counts: none for an unreachable revision (SC:144-154)."""
        return self.retention_s if self.reachable else 0.0

    def bounded(self, desired: int, *, at_least: int = 0) -> int:
        """Keep a desired scale within the bounds (kpa.md rule 7, SC:157-165).

        The minimum is looked at first, and what it raised the maximum does not lower again: an initial scale above the
        maximum is had.
        """
        least = max(self.floor_scale, at_least)
        if desired < least:
            return least
        return min(desired, self.max_scale) if self.max_scale else desired


def parse_duration_s(text: str) -> float:
    """Seconds of a Go duration such as "90s", "1m30s" or "500ms"."""
    parts = _DURATION_PART.findall(text)
    if text == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidAnnotationError(
            f'"{text}" is not a duration; write it as Go does, for example 15s, 1m30s or 500ms.'
        )
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


def panic_window_s(window_s: float, percentage: float) -> int:
    """The panic window: a share of the stable window, half up to whole seconds, at least one (metric.go:49-52)."""
    return max(1, math.floor(window_s * percentage / 100 + 0.5))


def resolve_revision(
    annotations: Mapping[str, str] | None = None,
    *,
    container_concurrency: int = 0,
    cluster: Mapping[str, str] | None = None,
    reachable: bool = True,
) -> Revision:
    """Resolve annotations over cluster settings over Knative's defaults (kpa.md rule 1).

    Annotation names come without prefix, in either spelling ("min-scale", "minScale"). Raises BadAnnotation.
    """
    own = {_dashed(name): value for name, value in (annotations or {}).items()}
    given = {**CLUSTER_DEFAULTS, **(cluster or {}), **own}
    _check_names(own, cluster or {})
    number = _Numbers(given)
    total = number("target") if "target" in given else float(container_concurrency)
    if container_concurrency > 0:
        total = min(total, float(container_concurrency))
    if total <= 0:
        total = number("container-concurrency-target-default")
    window = parse_duration_s(given.get("window", given["stable-window"]))
    return Revision(
        container_concurrency=container_concurrency,
        target_value=max(0.01, total * _utilisation(number, given)),
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
        scale_down_delay_s=parse_duration_s(given["scale-down-delay"]),
        retention_s=parse_duration_s(given["scale-to-zero-pod-retention-period"]),
        grace_s=parse_duration_s(given["scale-to-zero-grace-period"]),
        progress_deadline_s=parse_duration_s(given["progress-deadline"]),
        reachable=reachable,
        weighted=_is_weighted(given),
        scale_to_zero=given["enable-scale-to-zero"].lower() == "true",
    )


def _check_names(annotations: Mapping[str, str], cluster: Mapping[str, str]) -> None:
    """Refuse what Knative would ignore, such as a misspelt name, and what would not be an autoscaler of this model."""
    known = {"annotation": _ANNOTATIONS, "cluster setting": {*CLUSTER_DEFAULTS, *_WITHOUT_BEARING, _CLUSTER_CLASS}}
    for (kind, names), given in zip(known.items(), (annotations, cluster), strict=True):
        for name in given:
            if name not in names:
                raise InvalidAnnotationError(f'There is no {kind} "{name}"; there are: {", ".join(sorted(names))}.')
    asked = {**annotations, "class": annotations.get("class", cluster.get(_CLUSTER_CLASS, _ONLY_MODELLED["class"]))}
    for name, only in _ONLY_MODELLED.items():
        if asked.get(name, only) != only:
            raise InvalidAnnotationError(f'{name} is "{asked[name]}"; only {only} is modelled.')


def _utilisation(number: "_Numbers", given: Mapping[str, str]) -> float:
    """The share of its total that a pod should carry (config.go, NewConfigFromMap).

    A fraction before it is multiplied, as in Knative: one bit more or less can be a pod. The cluster's percentage may
    be written as a fraction up to 1, an annotation's may not.
    """
    own = "target-utilization-percentage"
    if own in given:
        return number(own) / 100
    percentage = number("container-concurrency-target-percentage")
    return percentage / 100 if percentage > 1 else percentage


def _is_weighted(given: Mapping[str, str]) -> bool:
    asked = given.get("metric-aggregation-algorithm", "linear")
    name = asked.lower().replace("-", "")
    if name not in _ALGORITHMS:
        raise InvalidAnnotationError(
            f'metric-aggregation-algorithm is "{asked}"; it must be linear or weighted-exponential.'
        )
    return name != "linear"


class _Numbers:
    """Reads numbers out of settings that are all strings, naming the setting when one is none."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def __call__(self, name: str) -> float:
        try:
            return float(self._given[name])
        except ValueError:
            raise InvalidAnnotationError(f'{name} is "{self._given[name]}"; it must be a number.') from None


def _dashed(name: str) -> str:
    """Knative's older annotation names are camelCase: minScale means min-scale."""
    return re.sub(r"([A-Z])", lambda match: "-" + match.group(1).lower(), name)
