"""The simulations of docs/measurements/scale.md: a queue in front of many GPUs, and the service while its load doubles.

GPU times come from `capacity.py`, which states what is assumed.
"""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from planning.knative.clock import SECOND_NS, to_ns
from planning.knative.cluster import Cluster
from planning.knative.pods import Deployment, Outcome, Request
from planning.knative.revision import resolve_revision
from planning.traffic import SIZE_SIGMA

Array = np.ndarray[Any, np.dtype[np.float64]]

# A second counts as slow if the 95th percentile of its latencies is above this.
_SLOW_S = 0.5


def draw_work_s(rng: np.random.Generator, mean_s: float, count: int) -> Array:
    """Draw the GPU seconds of images whose sizes vary like those of the named traces."""
    return mean_s * np.exp(SIZE_SIGMA * rng.standard_normal(count) - SIZE_SIGMA**2 / 2)


def pool_waits_s(images_per_s: float, gpus: int, mean_work_s: float, *, seconds: float, seed: int = 0) -> Array:
    """Return the waiting times of Poisson arrivals in one queue in front of GPUs that run one image at a time."""
    rng = np.random.default_rng([seed, gpus])
    count = int(images_per_s * seconds)
    arrivals = np.cumsum(rng.exponential(1 / images_per_s, count)).tolist()
    works = draw_work_s(rng, mean_work_s, count).tolist()
    free = [0.0] * gpus
    waits = []
    for arrive_s, work_s in zip(arrivals, works, strict=True):
        begin_s = max(arrive_s, heapq.heappop(free))
        waits.append(begin_s - arrive_s)
        heapq.heappush(free, begin_s + work_s)
    return np.array(waits)


def cell_waits_s(
    images_per_s: float, gpus: int, cells: int, mean_work_s: float, *, seconds: float, seed: int = 0
) -> Array:
    """Return the waiting times if the GPUs are divided into independent cells and images go to random cells."""
    parts = [
        pool_waits_s(images_per_s / cells, gpus // cells, mean_work_s, seconds=seconds, seed=seed + 1 + cell)
        for cell in range(cells)
    ]
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Step:
    """A cell of the service whose load doubles suddenly."""

    images_per_s: float = 50.0
    """Rate before the step; it doubles."""
    mean_work_s: float = 0.08
    boot_s: float = 12.0
    concurrency: int = 1
    utilisation_percent: float = 70.0
    max_scale: int = 0
    step_at_s: float = 240.0
    seconds: float = 540.0
    queue_size: int = 2000
    deadline_s: float = 60.0


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """Result of a step, by second of arrival."""

    step: Step
    p95_s: Array
    """95th percentile of the latency of the images that arrived in each second."""
    pods: Array
    """Number of ready pods in each second."""
    lost: int
    slow_s: int
    """Number of seconds after the step with a p95 above half a second."""
    steady_pods: float
    """Mean number of ready pods in the minute before the step."""
    steady_p95_s: float
    gpu_s: float


def run_step(step: Step, *, seed: int = 0) -> StepOutcome:
    """Simulate a step of the load. The service starts with 12 pods, which have settled before the step."""
    rng = np.random.default_rng([seed, 7])
    before = _poisson(rng, step.images_per_s, 0, step.step_at_s)
    after = _poisson(rng, 2 * step.images_per_s, step.step_at_s, step.seconds)
    moments = np.concatenate([before, after])
    works = draw_work_s(rng, step.mean_work_s, len(moments))
    requests = [
        Request(to_ns(moment), to_ns(work), deadline_ns=to_ns(moment + step.deadline_s))
        for moment, work in zip(moments.tolist(), works.tolist(), strict=True)
    ]
    revision = resolve_revision(
        {
            "target-utilization-percentage": f"{step.utilisation_percent:g}",
            "target-burst-capacity": "-1",
            "initial-scale": "12",
            "max-scale": str(step.max_scale),
        },
        container_concurrency=step.concurrency,
    )
    deployment = Deployment(
        boot_ns=lambda number: to_ns(step.boot_s) if number > revision.initial_scale else to_ns(1),
        concurrency=step.concurrency,
        drain_ns=30 * SECOND_NS,
    )
    cluster = Cluster(
        revision, deployment, requests, deploy_ns=to_ns(-1.527), is_serial=True, queue_size=step.queue_size
    )
    cluster.run(to_ns(step.seconds + step.deadline_s))
    return _sum_up(step, requests, deployment)


def _poisson(rng: np.random.Generator, per_s: float, from_s: float, to_s: float) -> Array:
    return np.sort(rng.uniform(from_s, to_s, rng.poisson(per_s * (to_s - from_s))))


def _sum_up(step: Step, requests: list[Request], deployment: Deployment) -> StepOutcome:
    seconds = int(step.seconds)
    latencies: list[list[float]] = [[] for _ in range(seconds)]
    for request in requests:
        if request.outcome is Outcome.SERVED:
            latencies[request.arrive_ns // SECOND_NS].append((request.end_ns - request.arrive_ns) / SECOND_NS)
    p95 = np.array([np.percentile(values, 95) if values else np.nan for values in latencies])
    ready = np.array(
        [sum(pod.ready_ns <= at * SECOND_NS < pod.removed_ns for pod in deployment.pods) for at in range(seconds)]
    )
    start = int(step.step_at_s)
    end_ns = to_ns(step.seconds)
    spans = [(pod.started_ns, min(pod.ended_ns, end_ns)) for pod in deployment.pods if pod.started_ns < end_ns]
    return StepOutcome(
        step=step,
        p95_s=p95,
        pods=ready.astype(np.float64),
        lost=sum(request.outcome in (Outcome.REFUSED, Outcome.TIMED_OUT) for request in requests),
        slow_s=int((p95[start:] > _SLOW_S).sum()),
        steady_pods=float(ready[start - 60 : start].mean()),
        steady_p95_s=float(np.nanpercentile(p95[start - 60 : start], 50)),
        gpu_s=sum(last - max(first, 0) for first, last in spans) / SECOND_NS,
    )
