"""A month of the service: traffic in, GPU hours, dollars and waiting out.

Owns what is set (Service), how a run is begun, ended and billed, and the figures that it gives (Month). A pod is
billed from the moment it gets its GPU to the end of its drain, boot included.
"""

import heapq
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from planning.knative.clock import NEVER_NS, SECOND_NS, to_ns
from planning.knative.cluster import Cluster
from planning.knative.pods import Deployment, Fate, Pod, Request
from planning.knative.revision import Revision, resolve_revision
from planning.prices import Price
from planning.traffic import DAY_S, Traffic

Array = np.ndarray[Any, np.dtype[np.float64]]

_P90_SIGMAS = 1.2815515655446004
"""How many standard deviations of a normal distribution lie below its 90th percentile."""
_SETTLE_STEP_NS = 60 * SECOND_NS
_SETTLE_STEPS = 24 * 60
"""How long after the last request a run may take to come to rest, in steps: a day."""
_MOST_BURST = 100_000
_TICK_PHASE_S = 0.473
"""A deployment at this fraction of an even second puts evaluations on half seconds, as in the reference traces."""


class InvalidServiceError(ValueError):
    """A setting of the service that cannot be simulated; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Service:
    """What is set for the backend; defaults are those of the shipped k8s/ overlay where it has one."""

    window_s: int = 15
    """Stable window: idle time begins to count after this (6 s to 1 h)."""
    retention_s: float = 30.0
    """Least life of the last pod after the decision for zero; a visit in it is warm."""
    concurrency: int = 2
    """containerConcurrency: images inside one pod, one of them on the GPU."""
    max_scale: int = 1
    min_scale: int = 0
    boot_s: float = 12.0
    """Median boot time of a pod."""
    boot_p90_s: float | None = None
    """90th percentile of the boot time (log-normal); None: every boot takes the median."""
    seconds_per_megapixel: float = 2.0
    """GPU time for an image of one megapixel (assumed: nobody measured it on a GPU)."""
    overhead_s: float = 0.05
    """GPU time for any image beside its pixels (assumed)."""
    queue_size: int = 24
    """Images that may wait for a pod; the next one is refused (the gateway's default)."""
    deadline_s: float = 110.0
    """From arrival to answer; the boot counts."""
    burst_capacity: float = -1.0
    utilisation_percent: float = 100.0
    initial_scale: int = 1
    drain_s: float = 30.0
    """The queue-proxy's drain: the GPU is held that long after a pod's removal (kpa.md, "wrong" 4)."""
    gpus: int = 0
    """GPUs in the cluster; 0: always enough. With one, a new pod waits for the old one's drain."""
    node_linger_s: float = 0.0
    """How long a GPU node is kept, and billed, after its last pod; 0 where pods are billed and not nodes."""

    def revision(self) -> Revision:
        """These settings as Knative reads them; raises BadService."""
        self._check()
        return resolve_revision(
            {
                "window": f"{self.window_s}s",
                "scale-to-zero-pod-retention-period": f"{self.retention_s:g}s",
                "max-scale": str(self.max_scale),
                "min-scale": str(self.min_scale),
                "initial-scale": str(self.initial_scale),
                "target-burst-capacity": f"{self.burst_capacity:g}",
                "target-utilization-percentage": f"{self.utilisation_percent:g}",
            },
            container_concurrency=self.concurrency,
        )

    @property
    def is_possible(self) -> bool:
        """Whether each setting is within its limits, which some of the others draw."""
        try:
            self._check()
        except InvalidServiceError:
            return False
        return True

    def _check(self) -> None:
        limits = (
            ("window", self.window_s, 6, 3600),
            ("retention", self.retention_s, 0, 3600),
            ("concurrency", self.concurrency, 0, 1000),
            ("gpus", self.gpus, 0, 1000),
            ("max-scale", self.max_scale, 0, 1000),
            ("min-scale", self.min_scale, 0, min(self.max_scale or 1000, self.gpus or 1000)),
            ("initial-scale", self.initial_scale, 0, 1000),
            ("boot", self.boot_s, 0.001, 3600),
            ("boot-p90", self.boot_s if self.boot_p90_s is None else self.boot_p90_s, 0.001, 3600),
            ("seconds-per-image", self.seconds_per_megapixel, 0, 3600),
            ("overhead", self.overhead_s, 0, 3600),
            ("deadline", self.deadline_s, 0.001, 3600),
            ("queue-size", self.queue_size, 0, 10_000),
            ("utilisation", self.utilisation_percent, 1, 100),
            ("drain", self.drain_s, 0, 3600),
            ("node-linger", self.node_linger_s, 0, DAY_S),
        )
        for name, value, least, most in limits:
            if not least <= value <= most:
                raise InvalidServiceError(f"{name} is {value:g}; it must be between {least:g} and {most:g}.")
        if self.burst_capacity != -1 and not 0 <= self.burst_capacity <= _MOST_BURST:
            raise InvalidServiceError(
                f"burst-capacity is {self.burst_capacity:g}; it must be -1 or between 0 and {_MOST_BURST}."
            )
        if self.boot_p90_s is not None and self.boot_p90_s < self.boot_s:
            raise InvalidServiceError(f"boot-p90 is {self.boot_p90_s:g} s, below the median of {self.boot_s:g} s.")


@dataclass(frozen=True, slots=True)
class SimulatedMonth:
    """What a run gave; GPU seconds are billed ones and add up: boot + work + idle + drain + linger."""

    service: Service
    traffic: Traffic
    boot_s: float
    work_s: float
    idle_s: float
    drain_s: float
    linger_s: float
    latencies_s: Array
    """Arrival to answer of every served image, ascending."""
    served: int
    refused: int
    timed_out: int
    cold: int
    """Images that came while no pod was ready and were not refused."""
    boots: int
    most_pods: int
    """Most pods at a time, draining ones left out."""

    @property
    def gpu_s(self) -> float:
        """Billed GPU seconds."""
        return self.boot_s + self.work_s + self.idle_s + self.drain_s + self.linger_s

    @property
    def gpu_hours(self) -> float:
        """Billed GPU hours."""
        return self.gpu_s / 3600

    @property
    def cold_share(self) -> float:
        """Share of images that waited for a boot."""
        return self.cold / self.traffic.images if self.traffic.images else 0.0

    @property
    def lost_share(self) -> float:
        """Share of images refused or timed out."""
        return (self.refused + self.timed_out) / self.traffic.images if self.traffic.images else 0.0

    def latency_s(self, percent: float) -> float:
        """A percentile of the served images' latency; NaN if none was served."""
        return float(np.percentile(self.latencies_s, percent)) if len(self.latencies_s) else math.nan

    def dollars(self, price: Price) -> float:
        """The bill at a price."""
        return price.dollars(self.gpu_s)


def simulate(
    service: Service, traffic: Traffic, *, seed: int = 0, is_fresh: bool = False, skips_quiet: bool = True
) -> SimulatedMonth:
    """Run the traffic through the service, from rest to rest.

    `is_fresh`: the revision is deployed at the beginning, and the pods of its initial scale are billed; else it was
    deployed long before. `seed` draws the boot times if they vary. Raises BadService.
    """
    revision = service.revision()
    requests = _make_requests(service, traffic)
    deployment = Deployment(
        boot_ns=_BootTimes(service, seed),
        concurrency=service.concurrency,
        drain_ns=to_ns(service.drain_s),
        gpus=service.gpus,
    )
    cluster = Cluster(
        revision,
        deployment,
        requests,
        deploy_ns=to_ns(_TICK_PHASE_S) if is_fresh else _long_ago_ns(service),
        is_serial=True,
        queue_size=service.queue_size,
        skips_quiet=skips_quiet,
    )
    horizon_ns = to_ns(traffic.days * DAY_S)
    end_ns = _settle(cluster, service, horizon_ns)
    return _account(service, traffic, requests, deployment.pods, cluster, end_ns)


def _make_requests(service: Service, traffic: Traffic) -> list[Request]:
    deadline_ns = to_ns(service.deadline_s)
    moments = np.rint(traffic.arrive_s * SECOND_NS).astype(np.int64).tolist()
    works = np.rint((service.overhead_s + service.seconds_per_megapixel * traffic.megapixels) * SECOND_NS)
    return [
        Request(moment, work, deadline_ns=moment + deadline_ns)
        for moment, work in zip(moments, works.astype(np.int64).tolist(), strict=True)
    ]


class _BootTimes:
    """Boot time by pod number: the median, or log-normal with the given 90th percentile, the same for the same seed."""

    def __init__(self, service: Service, seed: int) -> None:
        self._median_ns = to_ns(service.boot_s)
        p90_s = service.boot_p90_s or service.boot_s
        self._sigma = math.log(p90_s / service.boot_s) / _P90_SIGMAS
        self._chance = np.random.default_rng([seed, 2000])
        self._drawn: list[float] = []

    def __call__(self, number: int) -> int:
        while self._sigma and len(self._drawn) < number:
            self._drawn += np.exp(self._sigma * self._chance.standard_normal(1024)).tolist()
        return round(self._median_ns * (self._drawn[number - 1] if self._sigma else 1.0))


def _long_ago_ns(service: Service) -> int:
    """A deployment early enough that the revision is at rest when the run begins, on the ticks' even seconds."""
    boots_s = 4 * max(service.boot_s, service.boot_p90_s or 0)
    lead_s = boots_s + 4 * service.window_s + service.retention_s + service.drain_s + 700
    return to_ns(-2 * math.ceil(lead_s / 2) + _TICK_PHASE_S)


def _settle(cluster: Cluster, service: Service, horizon_ns: int) -> int:
    """Run to the horizon and on until every request has ended and the last pod is gone, if it may go; that moment."""
    end_ns = horizon_ns
    cluster.run(end_ns)
    for _ in range(_SETTLE_STEPS):
        has_pods = cluster.deployment.ready or cluster.deployment.pending
        if not cluster.router.in_system and (service.min_scale or not has_pods):
            return end_ns
        end_ns += _SETTLE_STEP_NS
        cluster.run(end_ns)
    raise InvalidServiceError("The service did not come to rest within a day after its last image.")


def node_seconds(lives_ns: list[tuple[int, int]], linger_ns: int) -> int:
    """Nanoseconds for which nodes of one GPU are kept for pods of these lives (from, to), lingering after each.

    A pod takes a node that lingers if there is one, else a new node comes.
    """
    last_ends: list[int] = []
    total_ns = 0
    for begin_ns, end_ns in sorted(lives_ns):
        while last_ends and last_ends[0] + linger_ns <= begin_ns:
            heapq.heappop(last_ends)
            total_ns += linger_ns
        if last_ends and last_ends[0] <= begin_ns:
            total_ns += begin_ns - heapq.heappop(last_ends)
        total_ns += end_ns - begin_ns
        heapq.heappush(last_ends, end_ns)
    return total_ns + linger_ns * len(last_ends)


def _account(
    service: Service, traffic: Traffic, requests: list[Request], pods: list[Pod], cluster: Cluster, end_ns: int
) -> SimulatedMonth:
    """Add up what was billed between the beginning and the end of the run, and what became of the images."""
    boot_ns = drain_ns = work_ns = boots = 0
    lives_ns = []
    for pod in pods:
        if pod.started_ns == NEVER_NS:
            continue
        last_ns = min(pod.ended_ns, end_ns if service.min_scale else NEVER_NS)
        if last_ns <= 0:
            continue
        ready_ns = min(pod.ready_ns, last_ns)
        drained_from_ns = min(max(ready_ns, pod.removed_ns, pod.free_ns if pod.work_ns else 0), last_ns)
        boots += pod.started_ns >= 0
        lives_ns.append((max(pod.started_ns, 0), last_ns))
        boot_ns += max(ready_ns, 0) - max(pod.started_ns, 0)
        drain_ns += last_ns - max(drained_from_ns, 0)
        work_ns += pod.work_ns
    life_ns = sum(end - begin for begin, end in lives_ns)
    fates = [request.fate for request in requests]
    latencies = np.sort([request.end_ns - request.arrive_ns for request in requests if request.fate is Fate.SERVED])
    most = max((number for moment_ns, number in cluster.control.history.replicas if moment_ns >= 0), default=0)
    return SimulatedMonth(
        service=service,
        traffic=traffic,
        boot_s=boot_ns / SECOND_NS,
        work_s=work_ns / SECOND_NS,
        idle_s=(life_ns - boot_ns - work_ns - drain_ns) / SECOND_NS,
        drain_s=drain_ns / SECOND_NS,
        linger_s=(node_seconds(lives_ns, to_ns(service.node_linger_s)) - life_ns) / SECOND_NS,
        latencies_s=latencies.astype(np.float64) / SECOND_NS,
        served=fates.count(Fate.SERVED),
        refused=fates.count(Fate.REFUSED),
        timed_out=fates.count(Fate.TIMED_OUT),
        cold=sum(request.came_cold and request.fate is not Fate.REFUSED for request in requests),
        boots=boots,
        most_pods=max(most, service.min_scale),
    )
