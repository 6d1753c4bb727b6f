"""Replays a reference scenario on the model, for comparison with traces of Knative's own code.

Call `replay(json.load(file))` with a scenario of schema `kpa-trace/1`. The fields of a ReplayedTick are the scenario's
`tick_fields` in the same order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from planning.knative.clock import Phases, to_ns, to_s
from planning.knative.cluster import Cluster
from planning.knative.control import Tick
from planning.knative.pods import Deployment, Request
from planning.knative.revision import Revision, parse_duration_s, resolve_revision

SCHEMA = "kpa-trace/1"
# The "after" fields of a tick show the state this long after it.
_AFTER_NS = to_ns(0.1)
# Drain of a removed pod in the reference traces.
_DRAIN_NS = to_ns(30)


class InvalidScenarioError(ValueError):
    """The input is not a scenario of schema `kpa-trace/1`."""


@dataclass(slots=True)
class ReplayedTick:
    """One evaluation and the state 0.1 s after it; the fields are the scenario's `tick_fields`."""

    t_s: float
    poke: bool
    ready_fed: int
    stable: float | None
    panic: float | None
    valid: bool
    desired: int | None
    panic_mode: bool
    max_panic_pods: int
    ebc: int | None
    bounded: int | None
    pa_desired_after: int = 0
    replicas_after: int = 0
    ready_after: int = 0
    pending_after: int = 0
    terminating_after: int = 0
    pa_condition_after: str = ""
    sks_mode_after: str = ""
    activator_in_path_after: bool = True
    requests_in_system_after: int = 0
    held_by_activator_after: int = 0


@dataclass(slots=True)
class Replay:
    """Result of a replay: ticks, requests, and (moment, replicas) of each change since the deployment."""

    ticks: list[ReplayedTick]
    replicas: list[tuple[float, int]]
    requests: list[Request]

    def times(self, before: int, after: int) -> list[float]:
        """Return the moments at which the replicas changed from one number to another, such as 0 to 1."""
        numbers = [(0.0, 0), *self.replicas]
        return [t_s for (_, old), (t_s, new) in pairwise(numbers) if (old, new) == (before, after)]


def replay(scenario: Mapping[str, Any]) -> list[ReplayedTick]:
    """Return the ticks of a scenario; raises InvalidScenarioError and InvalidAnnotationError."""
    return replay_run(scenario).ticks


def replay_run(scenario: Mapping[str, Any]) -> Replay:
    """Return the ticks, all changes of the replicas and the requests with their outcomes."""
    if scenario.get("schema") != SCHEMA:
        raise InvalidScenarioError(
            f'Invalid scenario: its schema is "{scenario.get("schema")}", this model replays "{SCHEMA}".'
        )
    settings = scenario["settings"]
    revision = read_revision(settings)
    boot_ns = to_ns(settings["boot_s"])
    deployment = Deployment(
        boot_ns=lambda number: boot_ns + 10_000 * number,  # 10 us per pod make their order unique
        concurrency=revision.container_concurrency,
        drain_ns=_DRAIN_NS,
    )
    requests = read_requests(scenario["requests"])
    from_ns = to_ns(settings["log_from_s"])
    ticks: list[ReplayedTick] = []
    cluster = Cluster(
        revision,
        deployment,
        requests,
        deploy_ns=to_ns(settings["deploy_at_s"]),
        phases=read_phases(scenario["phases_s"]),
        on_tick=lambda tick: _record_tick(ticks, cluster, tick) if tick.at_ns >= from_ns else None,
        fast_forward=False,
    )
    cluster.run(to_ns(settings["end_s"]))
    replicas = [(to_s(moment_ns), number) for moment_ns, number in cluster.control.history.replicas]
    return Replay(ticks, replicas, requests)


def read_revision(settings: Mapping[str, Any]) -> Revision:
    """Return the revision for a scenario's annotations and cluster settings."""
    cluster = dict(settings.get("config_autoscaler") or {})
    cluster.setdefault("scale-to-zero-grace-period", f"{settings.get('grace_period_s', 30)}s")
    return resolve_revision(
        settings.get("annotations") or {},
        container_concurrency=settings["container_concurrency"],
        cluster=cluster,
        reachable=settings.get("reachable", True),
    )


def decider_spec(revision: Revision) -> dict[str, Any]:
    """Return a revision with the keys of a scenario's `decider_spec_ns_durations`, for comparison."""
    return {
        "ActivationScale": revision.activation_scale if revision.activation_scale > 1 else 0,
        "ActivatorCapacity": 100,
        "InitialScale": revision.initial_scale,
        "MaxScaleDownRate": revision.down_rate,
        "MaxScaleUpRate": revision.up_rate,
        "PanicThreshold": revision.panic_threshold,
        "Reachable": revision.reachable,
        "ScaleDownDelay": to_ns(revision.scale_down_delay_s),
        "ScalingMetric": "concurrency",
        "StableWindow": to_ns(revision.window_s),
        "TargetBurstCapacity": revision.burst_capacity,
        "TargetValue": revision.target_value,
        "TotalValue": revision.total_value,
    }


def read_phases(phases_s: Mapping[str, float]) -> Phases:
    """Return the phases of a scenario's components."""
    return Phases(
        report_s=phases_s["activator_report"],
        pod_report_s=phases_s["queue_proxy_report"],
        scrape_s=phases_s["scrape"],
        tick_s=phases_s["autoscaler_tick_even_second_plus"],
    )


def read_requests(rows: Sequence[Sequence[Any]]) -> list[Request]:
    """Return a scenario's requests in order of arrival.

    A closed-loop client has one row per request. If a row has the start and the end of its work, their difference is
    used instead of `service_s`: the traces differ from it by a few microseconds to make times unique.
    """
    requests = []
    for arrive_s, service_s, leave_s, start_s, end_s, _via in rows:
        work_s = end_s - start_s if service_s > 0 and start_s >= 0 and end_s > start_s else service_s
        requests.append(Request(to_ns(arrive_s), to_ns(work_s), disconnect_ns=to_ns(leave_s)))
    return sorted(requests, key=lambda request: request.arrive_ns)


def panic_window_matches(settings: Mapping[str, Any], revision: Revision) -> bool:
    """Return whether rule 1 gives the panic window of the scenario."""
    return parse_duration_s(settings["panic_window"]) == revision.panic_window_s


def _record_tick(ticks: list[ReplayedTick], cluster: Cluster, tick: Tick) -> None:
    desired = tick.desired
    row = ReplayedTick(
        t_s=to_s(tick.at_ns),
        poke=tick.is_poke,
        ready_fed=tick.ready,
        stable=tick.stable,
        panic=tick.panic,
        valid=tick.desired is not None,
        desired=desired,
        panic_mode=tick.is_panicking,
        max_panic_pods=tick.panic_maximum,
        ebc=tick.excess_burst,
        bounded=None if desired is None else cluster.control.revision.bounded(desired),
    )
    ticks.append(row)
    cluster.timeline.call_at(tick.at_ns + _AFTER_NS, partial(_record_state_after, row, cluster))


def _record_state_after(row: ReplayedTick, cluster: Cluster, now_ns: int) -> None:
    control, deployment = cluster.control, cluster.deployment
    row.pa_desired_after = control.pod_autoscaler.desired_scale
    row.replicas_after = control.replicas
    row.ready_after = len(deployment.ready)
    row.pending_after = deployment.pending
    row.terminating_after = deployment.terminating(now_ns)
    row.pa_condition_after = control.pod_autoscaler.condition.value
    row.sks_mode_after = "Serve" if control.pod_autoscaler.is_serving else "Proxy"
    row.activator_in_path_after = control.in_path
    row.requests_in_system_after = cluster.router.in_system
    row.held_by_activator_after = cluster.router.activator_queue_length
