"""Requests, pods and the deployment that maintains the number of pods.

A pod boots, takes requests up to its concurrency and drains when it is removed. The reference traces of Knative's code
use the same model of pods (tests/data/kpa/README.md, "What is MODELLED").
"""

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum

from planning.knative.clock import NEVER_NS
from planning.knative.meters import PodMeter

# Up to this container concurrency the first free pod takes a request, above it the least loaded one.
_FIRST_FREE_LIMIT = 3


class Outcome(Enum):
    """How a request ended."""

    SERVED = "served"
    REFUSED = "refused"
    """The queue was full: the response was 503 with Retry-After."""
    TIMED_OUT = "timed out"
    """The deadline passed while it was waiting or running: the response was 504."""
    DISCONNECTED = "disconnected"
    """The client disconnected at the moment given in the trace."""


class Request:
    """One request and its outcome."""

    __slots__ = (
        "arrive_ns",
        "deadline_ns",
        "disconnect_ns",
        "end_ns",
        "is_cold",
        "is_direct",
        "outcome",
        "pod",
        "start_ns",
        "work_ns",
    )

    def __init__(
        self, arrive_ns: int, work_ns: int = 0, *, disconnect_ns: int = 0, deadline_ns: int = NEVER_NS
    ) -> None:
        self.arrive_ns = arrive_ns
        self.work_ns = work_ns
        self.disconnect_ns = disconnect_ns
        """Moment at which the client disconnects, served or not; 0: it waits until the work is done."""
        self.deadline_ns = deadline_ns
        self.start_ns = -1
        self.end_ns = -1
        self.outcome: Outcome | None = None
        self.pod: Pod | None = None
        self.is_direct = False
        self.is_cold = False
        """Whether no pod was ready on arrival."""


class Pod:
    """One pod, from its creation to the end of its drain."""

    __slots__ = (
        "created_ns",
        "ended_ns",
        "free_ns",
        "meter",
        "number",
        "ready_ns",
        "removed_ns",
        "running",
        "started_ns",
        "waiting",
        "work_ns",
    )

    def __init__(self, number: int, created_ns: int) -> None:
        self.number = number
        self.created_ns = created_ns
        self.started_ns = NEVER_NS
        """Moment at which it got a GPU and began to boot. The billing starts here."""
        self.ready_ns = NEVER_NS
        self.ended_ns = NEVER_NS
        """End of its drain. The billing ends here."""
        self.removed_ns = NEVER_NS
        self.running = 0
        """Number of running requests."""
        self.waiting: deque[Request] = deque()
        """Direct requests that wait inside the pod."""
        self.free_ns = 0
        """Moment at which the GPU has finished all its work, one image at a time."""
        self.work_ns = 0
        """GPU time spent on requests."""
        self.meter: PodMeter | None = None

    @property
    def load(self) -> int:
        """Number of requests inside the pod, including waiting ones."""
        return self.running + len(self.waiting)


class Deployment:
    """The pods of one revision: the requested number, limited by the number of GPUs."""

    def __init__(
        self,
        *,
        boot_ns: Callable[[int], int],
        concurrency: int,
        drain_ns: int,
        gpus: int = 0,
        pull_ns: int = 0,
        linger_ns: int = 0,
    ) -> None:
        """Start without pods.

        `boot_ns(number)` is the boot time of a pod by number, from 1; `gpus` 0 has no limit. On a new node the image is
        pulled first, for `pull_ns`. A node takes one pod and stays for `linger_ns` after its end.
        """
        self._boot_ns = boot_ns
        self._pull_ns = pull_ns
        self._linger_ns = linger_ns
        self._nodes: list[Pod] = []
        self._concurrency = concurrency
        self._drain_ns = drain_ns
        self._gpus = gpus
        self._created = 0
        self._draining: list[Pod] = []
        self.waiting_for_gpu: list[Pod] = []
        """Pods that wait for a GPU."""
        self.booting: list[Pod] = []
        self.ready: list[Pod] = []
        self.pods: list[Pod] = []
        """All pods that were ever created, in order of creation."""

    @property
    def pending(self) -> int:
        """Number of pods that are not ready yet."""
        return len(self.booting) + len(self.waiting_for_gpu)

    def terminating(self, now_ns: int) -> int:
        """Return the number of draining pods."""
        self._draining = [pod for pod in self._draining if pod.ended_ns > now_ns]
        return len(self._draining)

    def set_replicas(self, now_ns: int, replicas: int) -> Iterator[tuple[int, Pod]]:
        """Create or remove pods until the number is reached; yield (moment ready, pod) of those that begin to boot.

        Pods that are not ready are removed first, then the youngest.
        """
        surplus = self.pending + len(self.ready) - replicas
        while surplus > 0:
            self._remove_one(now_ns)
            surplus -= 1
        for _ in range(-surplus):
            self._created += 1
            pod = Pod(self._created, now_ns)
            self.pods.append(pod)
            self.waiting_for_gpu.append(pod)
        return self.start_queued(now_ns)

    def start_queued(self, now_ns: int) -> Iterator[tuple[int, Pod]]:
        """Give free GPUs to the pods that wait for one; yield (moment ready, pod)."""
        while self.waiting_for_gpu and (not self._gpus or self._gpus_in_use(now_ns) < self._gpus):
            pod = self.waiting_for_gpu.pop(0)
            pod.started_ns = now_ns
            self.booting.append(pod)
            yield now_ns + self._find_pull_ns(now_ns, pod) + self._boot_ns(pod.number), pod

    def _find_pull_ns(self, now_ns: int, pod: Pod) -> int:
        """Place a pod on the node that has been free for longest, or on a new one; return the time of its pull.

        `_nodes` has the last pod of each node. node_time_ns of planning/simulation.py chooses nodes in the same way.
        """
        if not self._pull_ns:
            return 0
        self._nodes = [last for last in self._nodes if last.ended_ns + self._linger_ns > now_ns]
        free = min((last for last in self._nodes if last.ended_ns <= now_ns), key=_end, default=None)
        if free is not None:
            self._nodes.remove(free)
        self._nodes.append(pod)
        return 0 if free is not None else self._pull_ns

    def next_gpu_ns(self, now_ns: int) -> int:
        """Return the moment at which the next draining pod frees its GPU; NEVER_NS if no pod waits for it."""
        if not self.waiting_for_gpu or not self.terminating(now_ns):
            return NEVER_NS
        return min(pod.ended_ns for pod in self._draining)

    def make_ready(self, now_ns: int, pod: Pod) -> bool:
        """Mark the pod as ready; return False if it was removed during its boot."""
        if pod.ended_ns != NEVER_NS:
            return False
        self.booting.remove(pod)
        pod.ready_ns = pod.free_ns = now_ns
        self.ready.append(pod)
        return True

    def extend_drain(self, pod: Pod, now_ns: int) -> None:
        """Extend the drain of a removed pod to the end of a request inside it."""
        if pod.ended_ns != NEVER_NS:
            pod.ended_ns = max(pod.ended_ns, now_ns)

    def find_free(self) -> Pod | None:
        """Return the pod that takes the next request from the activator; None if all are full."""
        limit = self._concurrency
        if limit == 0 or limit > _FIRST_FREE_LIMIT:
            pod = min(self.ready, key=_load, default=None)
            return pod if pod is not None and (limit == 0 or pod.load < limit) else None
        return next((pod for pod in self.ready if pod.load < limit), None)

    def find_least_loaded(self) -> Pod:
        """Return the pod that takes the next direct request, full or not. A pod must be ready."""
        return min(self.ready, key=_load)

    def is_full(self, pod: Pod) -> bool:
        """Return whether the pod runs as many requests as its concurrency allows."""
        return self._concurrency > 0 and pod.running >= self._concurrency

    def _gpus_in_use(self, now_ns: int) -> int:
        return len(self.booting) + len(self.ready) + self.terminating(now_ns)

    def _remove_one(self, now_ns: int) -> None:
        for waiting in (self.waiting_for_gpu, self.booting):
            if waiting:
                pod = waiting.pop()
                pod.removed_ns = pod.ended_ns = now_ns
                return
        pod = self.ready.pop(self.ready.index(max(self.ready, key=_age)))
        pod.removed_ns = now_ns
        pod.ended_ns = now_ns + self._drain_ns
        if pod.running:
            pod.ended_ns = max(pod.ended_ns, pod.free_ns)
        self._draining.append(pod)


def _load(pod: Pod) -> int:
    return pod.load


def _end(pod: Pod) -> int:
    return pod.ended_ns


def _age(pod: Pod) -> tuple[int, int]:
    return (pod.ready_ns, pod.number)
