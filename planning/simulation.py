"""Simulates a month of the service: from traffic and settings to GPU hours, cost and waiting times.

Contains the settings (Service), the result (SimulatedMonth) and the start, end and billing of a run. A pod is billed
from the moment it gets its GPU to the end of its drain, including the boot.
"""

import heapq
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from planning.knative.clock import NEVER_NS, SECOND_NS, to_ns
from planning.knative.cluster import Cluster
from planning.knative.pods import Deployment, Outcome, Pod, Request
from planning.knative.revision import Revision, resolve_revision
from planning.prices import Price
from planning.traffic import DAY_S, Traffic

Array = np.ndarray[Any, np.dtype[np.float64]]

# The 90th percentile of a normal distribution lies this many standard deviations above its median.
_P90_SIGMAS = 1.2815515655446004
# After the last request a run goes on in steps of a minute, for at most a day, until the service is idle.
_IDLE_CHECK_STEP_NS = 60 * SECOND_NS
_IDLE_CHECK_STEPS = 24 * 60
_MAX_BURST_CAPACITY = 100_000
# A deployment at this fraction of an even second puts the evaluations on half seconds, as in the reference traces.
_TICK_PHASE_S = 0.473


class InvalidServiceError(ValueError):
    """A setting of the service is invalid; the message names it and its limits."""


@dataclass(frozen=True, slots=True)
class Service:
    """Settings of the backend. Defaults are those of k8s/overlays/gpu where it sets them."""

    window_s: int = 15
    """Knative's stable window, 6 s to 1 h. A pod counts as idle after a window without load."""
    retention_s: float = 30.0
    """Minimum seconds that the last pod is kept after the decision to scale to zero."""
    concurrency: int = 2
    """containerConcurrency: maximum number of images inside one pod. One of them is on the GPU."""
    max_scale: int = 1
    min_scale: int = 0
    boot_s: float = 12.0
    """Median boot time of a pod."""
    boot_p90_s: float | None = None
    """90th percentile of the boot time, which is log-normal. None: every boot takes the median."""
    image_gb: float = 0.0
    """Size of the image that a new node pulls before the boot, compressed as in the registry, in units of 10^9 bytes.
    0: nodes have the image."""
    pull_mb_per_s: float = 100.0
    """10^6 bytes of the compressed image that a node pulls and unpacks per second (assumed)."""
    seconds_per_megapixel: float = 2.0
    """GPU seconds per megapixel. Assumed for an L4, which was not measured; see docs/how-to/plan-costs.md."""
    overhead_s: float = 0.05
    """GPU seconds per image in addition to those for its pixels (assumed)."""
    queue_size: int = 24
    """Maximum number of images waiting for a pod (the gateway's default)."""
    deadline_s: float = 110.0
    """Maximum seconds from arrival to response, including the boot."""
    burst_capacity: float = -1.0
    utilisation_percent: float = 100.0
    initial_scale: int = 1
    drain_s: float = 30.0
    """Seconds that Knative's queue-proxy drains after the removal of a pod, which holds its GPU until then."""
    gpus: int = 0
    """GPUs in the cluster; 0 has no limit. With one GPU a new pod waits until the old one has drained."""
    node_linger_s: float = 0.0
    """Seconds that a GPU node is billed after its last pod; 0 if pods are billed, not nodes."""

    def revision(self) -> Revision:
        """Return the settings as Knative resolves them; raises InvalidServiceError."""
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
    def pull_s(self) -> float:
        """Seconds in which a new node pulls the image."""
        return 1000 * self.image_gb / self.pull_mb_per_s

    @property
    def is_valid(self) -> bool:
        """Whether each setting is within its limits. Some limits depend on other settings."""
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
            ("image-gb", self.image_gb, 0, 100),
            ("pull-mb-per-s", self.pull_mb_per_s, 1, 10_000),
            ("seconds-per-image", self.seconds_per_megapixel, 0, 3600),
            ("overhead", self.overhead_s, 0, 3600),
            ("deadline", self.deadline_s, 0.001, 3600),
            ("queue-size", self.queue_size, 0, 10_000),
            ("utilisation", self.utilisation_percent, 1, 100),
            ("drain", self.drain_s, 0, 3600),
            ("node-linger", self.node_linger_s, 0, DAY_S),
        )
        for name, value, minimum, maximum in limits:
            if not minimum <= value <= maximum:
                raise InvalidServiceError(f"Invalid {name} {value:g}: must be between {minimum:g} and {maximum:g}.")
        if self.burst_capacity != -1 and not 0 <= self.burst_capacity <= _MAX_BURST_CAPACITY:
            raise InvalidServiceError(
                f"Invalid burst-capacity {self.burst_capacity:g}: must be -1 or between 0 and {_MAX_BURST_CAPACITY}."
            )
        if self.boot_p90_s is not None and self.boot_p90_s < self.boot_s:
            raise InvalidServiceError(
                f"Invalid boot-p90 {self.boot_p90_s:g}: must be at least the median, {self.boot_s:g} s."
            )


@dataclass(frozen=True, slots=True)
class SimulatedMonth:
    """Result of a run. The billed GPU seconds are the sum of boot, work, idle, drain and linger."""

    service: Service
    traffic: Traffic
    boot_s: float
    work_s: float
    idle_s: float
    drain_s: float
    linger_s: float
    latencies_s: Array
    """Seconds from arrival to response of every served image, ascending."""
    served: int
    refused: int
    timed_out: int
    cold: int
    """Number of images that arrived while no pod was ready and were not refused."""
    boots: int
    max_pods: int
    """Maximum number of pods at a time, without draining ones."""

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
        """Share of images that waited for a boot, from 0 to 1."""
        return self.cold / self.traffic.images if self.traffic.images else 0.0

    @property
    def lost_share(self) -> float:
        """Share of images that were refused or timed out, from 0 to 1."""
        return (self.refused + self.timed_out) / self.traffic.images if self.traffic.images else 0.0

    def latency_s(self, percent: float) -> float:
        """Return a percentile of the latency of served images; NaN if none was served."""
        return float(np.percentile(self.latencies_s, percent)) if len(self.latencies_s) else math.nan

    def dollars(self, price: Price) -> float:
        """Return the cost at this price."""
        return price.dollars(self.gpu_s)


def simulate(
    service: Service, traffic: Traffic, *, seed: int = 0, is_fresh: bool = False, fast_forward: bool = True
) -> SimulatedMonth:
    """Simulate the traffic from an idle service until the service is idle again.

    With `is_fresh` the revision is deployed at the beginning and the pods of its initial scale are billed; otherwise it
    was deployed long before. `seed` determines the boot times if they vary. `fast_forward` skips events that change
    nothing. Raises InvalidServiceError.
    """
    revision = service.revision()
    requests = _make_requests(service, traffic)
    deployment = Deployment(
        boot_ns=_BootTimes(service, seed),
        concurrency=service.concurrency,
        drain_ns=to_ns(service.drain_s),
        gpus=service.gpus,
        pull_ns=to_ns(service.pull_s),
        linger_ns=to_ns(service.node_linger_s),
    )
    cluster = Cluster(
        revision,
        deployment,
        requests,
        deploy_ns=to_ns(_TICK_PHASE_S) if is_fresh else _deployment_start_ns(service),
        is_serial=True,
        queue_size=service.queue_size,
        fast_forward=fast_forward,
    )
    horizon_ns = to_ns(traffic.days * DAY_S)
    end_ns = _run_until_idle(cluster, service, horizon_ns)
    return _summarize(service, traffic, requests, deployment.pods, cluster, end_ns)


def _make_requests(service: Service, traffic: Traffic) -> list[Request]:
    deadline_ns = to_ns(service.deadline_s)
    moments = np.rint(traffic.arrive_s * SECOND_NS).astype(np.int64).tolist()
    works = np.rint((service.overhead_s + service.seconds_per_megapixel * traffic.megapixels) * SECOND_NS)
    return [
        Request(moment, work, deadline_ns=moment + deadline_ns)
        for moment, work in zip(moments, works.astype(np.int64).tolist(), strict=True)
    ]


class _BootTimes:
    """Boot time by pod number: the median, or log-normal with the given 90th percentile. Depends on the seed only."""

    def __init__(self, service: Service, seed: int) -> None:
        self._median_ns = to_ns(service.boot_s)
        p90_s = service.boot_p90_s or service.boot_s
        self._sigma = math.log(p90_s / service.boot_s) / _P90_SIGMAS
        self._rng = np.random.default_rng([seed, 2000])
        self._drawn: list[float] = []

    def __call__(self, number: int) -> int:
        while self._sigma and len(self._drawn) < number:
            self._drawn += np.exp(self._sigma * self._rng.standard_normal(1024)).tolist()
        return round(self._median_ns * (self._drawn[number - 1] if self._sigma else 1.0))


def _deployment_start_ns(service: Service) -> int:
    """Return a start on an even second that is early enough for the revision to be idle when the traffic begins."""
    boots_s = 4 * (service.pull_s + max(service.boot_s, service.boot_p90_s or 0))
    lead_s = boots_s + 4 * service.window_s + service.retention_s + service.drain_s + 700
    return to_ns(-2 * math.ceil(lead_s / 2) + _TICK_PHASE_S)


def _run_until_idle(cluster: Cluster, service: Service, horizon_ns: int) -> int:
    """Run to the horizon and on until the service is idle; return that moment.

    Idle means that every request has ended and, unless min-scale keeps pods, that no pod is left.
    """
    end_ns = horizon_ns
    cluster.run(end_ns)
    for _ in range(_IDLE_CHECK_STEPS):
        has_pods = cluster.deployment.ready or cluster.deployment.pending
        if not cluster.router.in_system and (service.min_scale or not has_pods):
            return end_ns
        end_ns += _IDLE_CHECK_STEP_NS
        cluster.run(end_ns)
    raise InvalidServiceError("The simulated service was still busy a day after its last image.")


def node_time_ns(lives_ns: list[tuple[int, int]], linger_ns: int) -> int:
    """Return the nanoseconds for which nodes are billed, given the (start, end) of each pod.

    A node has one GPU and stays for `linger_ns` after its pod. A new pod takes such a node if there is one.
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


def _summarize(
    service: Service, traffic: Traffic, requests: list[Request], pods: list[Pod], cluster: Cluster, end_ns: int
) -> SimulatedMonth:
    """Sum up the billed time between the beginning and the end of the run, and count the outcomes of the images."""
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
    outcomes = [request.outcome for request in requests]
    latencies = np.sort(
        [request.end_ns - request.arrive_ns for request in requests if request.outcome is Outcome.SERVED]
    )
    max_replicas = max((number for moment_ns, number in cluster.control.history.replicas if moment_ns >= 0), default=0)
    return SimulatedMonth(
        service=service,
        traffic=traffic,
        boot_s=boot_ns / SECOND_NS,
        work_s=work_ns / SECOND_NS,
        idle_s=(life_ns - boot_ns - work_ns - drain_ns) / SECOND_NS,
        drain_s=drain_ns / SECOND_NS,
        linger_s=(node_time_ns(lives_ns, to_ns(service.node_linger_s)) - life_ns) / SECOND_NS,
        latencies_s=latencies.astype(np.float64) / SECOND_NS,
        served=outcomes.count(Outcome.SERVED),
        refused=outcomes.count(Outcome.REFUSED),
        timed_out=outcomes.count(Outcome.TIMED_OUT),
        cold=sum(request.is_cold and request.outcome is not Outcome.REFUSED for request in requests),
        boots=boots,
        max_pods=max(max_replicas, service.min_scale),
    )
