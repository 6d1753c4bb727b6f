"""Replays a reference scenario of Knative's own code (schema `kpa-trace/1`) on the model, from arrivals to pods.

Owns the reading of a scenario and the form of its ticks. Start: `replay(json.load(file))`; the fields of a
ReplayedTick are those of the scenario's `tick_fields`, so that the two can be compared one by one.
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
_AFTER_NS = to_ns(0.1)
"""A tick's "after" fields show the state this long after it."""
_DRAIN_NS = to_ns(30)
"""The reference model's drain of a removed pod."""


class InvalidScenarioError(ValueError):
    """What was given is no scenario of the schema."""


@dataclass(slots=True)
class ReplayedTick:
    """One evaluation and the state 0.1 s after it; field for field the scenario's `tick_fields`."""

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
    """What a replayed scenario did: its ticks, and (moment, replicas) of each change from the deployment on."""

    ticks: list[ReplayedTick]
    replicas: list[tuple[float, int]]
    requests: list[Request]

    def times(self, before: int, after: int) -> list[float]:
        """The moments at which the replicas went from one number to another, such as 0 -> 1."""
        numbers = [(0.0, 0), *self.replicas]
        return [t_s for (_, old), (t_s, new) in pairwise(numbers) if (old, new) == (before, after)]


def replay(scenario: Mapping[str, Any]) -> list[ReplayedTick]:
    """The ticks that the model makes of a scenario's settings and arrivals; raises BadScenario and BadAnnotation."""
    return replay_run(scenario).ticks


def replay_run(scenario: Mapping[str, Any]) -> Replay:
    """As `replay`, with the times of every change of the replicas and what became of the requests."""
    if scenario.get("schema") != SCHEMA:
        raise InvalidScenarioError(
            f'The scenario\'s schema is "{scenario.get("schema")}"; this model replays "{SCHEMA}".'
        )
    settings = scenario["settings"]
    revision = read_revision(settings)
    boot_ns = to_ns(settings["boot_s"])
    deployment = Deployment(
        boot_ns=lambda number: boot_ns + 10_000 * number,  # 10 us a pod, which fixes their order
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
        on_tick=lambda tick: _note(ticks, cluster, tick) if tick.at_ns >= from_ns else None,
        skips_quiet=False,
    )
    cluster.run(to_ns(settings["end_s"]))
    replicas = [(to_s(moment_ns), number) for moment_ns, number in cluster.control.history.replicas]
    return Replay(ticks, replicas, requests)


def read_revision(settings: Mapping[str, Any]) -> Revision:
    """The revision that a scenario's annotations and cluster settings describe (rule 1 works out the rest)."""
    cluster = dict(settings.get("config_autoscaler") or {})
    cluster.setdefault("scale-to-zero-grace-period", f"{settings.get('grace_period_s', 30)}s")
    return resolve_revision(
        settings.get("annotations") or {},
        container_concurrency=settings["container_concurrency"],
        cluster=cluster,
        reachable=settings.get("reachable", True),
    )


def decider_spec(revision: Revision) -> dict[str, Any]:
    """A revision in the words of a scenario's `decider_spec_ns_durations`, for comparison."""
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
    """When each component of a scenario speaks."""
    return Phases(
        report_s=phases_s["activator_report"],
        pod_report_s=phases_s["queue_proxy_report"],
        scrape_s=phases_s["scrape"],
        tick_s=phases_s["autoscaler_tick_even_second_plus"],
    )


def read_requests(rows: Sequence[Sequence[Any]]) -> list[Request]:
    """A scenario's requests in order of arrival.

    A closed-loop client is one row per request. Where a row tells when its work began and ended, the time in between is
    its work: the reference model gave some of them a few microseconds more than `service_s` to keep them apart.
    """
    requests = []
    for arrive_s, service_s, leave_s, start_s, end_s, _via in rows:
        work_s = end_s - start_s if service_s > 0 and start_s >= 0 and end_s > start_s else service_s
        requests.append(Request(to_ns(arrive_s), to_ns(work_s), leave_ns=to_ns(leave_s)))
    return sorted(requests, key=lambda request: request.arrive_ns)


def panic_window_matches(settings: Mapping[str, Any], revision: Revision) -> bool:
    """Whether rule 1 gives the panic window that the scenario names."""
    return parse_duration_s(settings["panic_window"]) == revision.panic_window_s


def _note(ticks: list[ReplayedTick], cluster: Cluster, tick: Tick) -> None:
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
    cluster.timeline.call_at(tick.at_ns + _AFTER_NS, partial(_note_after, row, cluster))


def _note_after(row: ReplayedTick, cluster: Cluster, now_ns: int) -> None:
    control, deployment = cluster.control, cluster.deployment
    row.pa_desired_after = control.target.desired_scale
    row.replicas_after = control.replicas
    row.ready_after = len(deployment.ready)
    row.pending_after = deployment.pending
    row.terminating_after = deployment.terminating(now_ns)
    row.pa_condition_after = control.target.condition.value
    row.sks_mode_after = "Serve" if control.target.is_serving else "Proxy"
    row.activator_in_path_after = control.in_path
    row.requests_in_system_after = cluster.router.in_system
    row.held_by_activator_after = cluster.router.held_count
