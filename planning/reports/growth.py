"""Internet scale in simulation: waiting in a pool of GPUs, cells against one pool, and Knative under a sudden crowd.

Owns the two simulations of docs/measurements/scale.md: a queue in front of many GPUs, and the whole service (rules of
Knative included) while its load doubles. Service times come from `fleet.py`, where it says what is assumed.
"""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from planning.knative.clock import SECOND_NS, to_ns
from planning.knative.cluster import Cluster
from planning.knative.pods import Deployment, Fate, Request
from planning.knative.revision import resolve_revision
from planning.traffic import SIZE_SIGMA

Array = np.ndarray[Any, np.dtype[np.float64]]

_SLOW_S = 0.5


def draw_works_s(chance: np.random.Generator, mean_s: float, count: int) -> Array:
    """GPU seconds of images whose sizes vary as in the named traces."""
    return mean_s * np.exp(SIZE_SIGMA * chance.standard_normal(count) - SIZE_SIGMA**2 / 2)


def pool_waits_s(images_per_s: float, gpus: int, mean_work_s: float, *, seconds: float, seed: int = 0) -> Array:
    """Waits of Poisson arrivals before one queue in front of so many GPUs, each taking one image at a time."""
    chance = np.random.default_rng([seed, gpus])
    count = int(images_per_s * seconds)
    arrivals = np.cumsum(chance.exponential(1 / images_per_s, count)).tolist()
    works = draw_works_s(chance, mean_work_s, count).tolist()
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
    """The same GPUs cut into cells that share nothing; every image goes to a cell by chance."""
    parts = [
        pool_waits_s(images_per_s / cells, gpus // cells, mean_work_s, seconds=seconds, seed=seed + 1 + cell)
        for cell in range(cells)
    ]
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Step:
    """A cell of the service whose load doubles at once."""

    images_per_s: float = 50.0
    """Before the step; twice as many after it."""
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
    """What the step did, second by second of arrival."""

    step: Step
    p95_s: Array
    """95th percentile of the latency of the images that came in each second."""
    pods: Array
    """Ready pods in each second."""
    lost: int
    slow_s: int
    """Seconds after the step whose p95 was above half a second."""
    steady_pods: float
    """Ready pods before the step, mean of a minute."""
    steady_p95_s: float
    gpu_s: float


def run_step(step: Step, *, seed: int = 0) -> StepOutcome:
    """Let the load double; the service was deployed a minute before and has settled."""
    chance = np.random.default_rng([seed, 7])
    before = _poisson(chance, step.images_per_s, 0, step.step_at_s)
    after = _poisson(chance, 2 * step.images_per_s, step.step_at_s, step.seconds)
    moments = np.concatenate([before, after])
    works = draw_works_s(chance, step.mean_work_s, len(moments))
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


def _poisson(chance: np.random.Generator, per_s: float, from_s: float, to_s: float) -> Array:
    return np.sort(chance.uniform(from_s, to_s, chance.poisson(per_s * (to_s - from_s))))


def _sum_up(step: Step, requests: list[Request], deployment: Deployment) -> StepOutcome:
    seconds = int(step.seconds)
    latencies: list[list[float]] = [[] for _ in range(seconds)]
    for request in requests:
        if request.fate is Fate.SERVED:
            latencies[request.arrive_ns // SECOND_NS].append((request.end_ns - request.arrive_ns) / SECOND_NS)
    p95 = np.array([np.percentile(values, 95) if values else np.nan for values in latencies])
    ready = np.array(
        [sum(pod.ready_ns <= at * SECOND_NS < pod.removed_ns for pod in deployment.pods) for at in range(seconds)]
    )
    start = int(step.step_at_s)
    end_ns = to_ns(step.seconds)
    lives = [(pod.started_ns, min(pod.ended_ns, end_ns)) for pod in deployment.pods if pod.started_ns < end_ns]
    return StepOutcome(
        step=step,
        p95_s=p95,
        pods=ready.astype(np.float64),
        lost=sum(request.fate in (Fate.REFUSED, Fate.TIMED_OUT) for request in requests),
        slow_s=int((p95[start:] > _SLOW_S).sum()),
        steady_pods=float(ready[start - 60 : start].mean()),
        steady_p95_s=float(np.nanpercentile(p95[start - 60 : start], 50)),
        gpu_s=sum(last - max(first, 0) for first, last in lives) / SECOND_NS,
    )
