"""Pods and the requests inside them: boot, work, drain; the deployment that keeps the number asked for.

Owns what the reference traces model and do not execute (data/knative/kpa/README.md "What is MODELLED"): a pod boots,
takes requests up to its concurrency, and drains when it is removed. Knows nothing of the autoscaler.
"""

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum

from planning.knative.clock import NEVER_NS
from planning.knative.meters import PodMeter

_FIRST_FREE_LIMIT = 3
"""Up to this container concurrency the first free pod takes a request, above it the least loaded one."""


class Fate(Enum):
    """How a request ended."""

    SERVED = "served"
    REFUSED = "refused"
    """No queue place was free: answered at once with 503 and Retry-After."""
    TIMED_OUT = "timed out"
    """The deadline passed while it waited or worked: answered with 504."""
    LEFT = "left"
    """Its client went away first (traces with a prescribed moment only)."""


class Request:
    """One request: what comes in, and what became of it."""

    __slots__ = (
        "arrive_ns",
        "came_cold",
        "deadline_ns",
        "end_ns",
        "fate",
        "is_direct",
        "leave_ns",
        "pod",
        "start_ns",
        "work_ns",
    )

    def __init__(self, arrive_ns: int, work_ns: int = 0, *, leave_ns: int = 0, deadline_ns: int = NEVER_NS) -> None:
        self.arrive_ns = arrive_ns
        self.work_ns = work_ns
        self.leave_ns = leave_ns
        """Leaves at this moment, served or not; 0: stays until its work is done."""
        self.deadline_ns = deadline_ns
        self.start_ns = -1
        self.end_ns = -1
        self.fate: Fate | None = None
        self.pod: Pod | None = None
        self.is_direct = False
        self.came_cold = False
        """No pod was ready when it came."""


class Pod:
    """One pod, from its creation to the end of its drain."""

    __slots__ = (
        "created_ns",
        "ended_ns",
        "free_ns",
        "held",
        "meter",
        "number",
        "ready_ns",
        "removed_ns",
        "running",
        "started_ns",
        "work_ns",
    )

    def __init__(self, number: int, created_ns: int) -> None:
        self.number = number
        self.created_ns = created_ns
        self.started_ns = NEVER_NS
        """The moment it got a GPU and began to boot; billed from here."""
        self.ready_ns = NEVER_NS
        self.ended_ns = NEVER_NS
        """The end of its drain; billed up to here."""
        self.removed_ns = NEVER_NS
        self.running = 0
        """Requests that it works on."""
        self.held: deque[Request] = deque()
        """Direct requests that wait inside it."""
        self.free_ns = 0
        """When the GPU is through with all it was given (one image at a time)."""
        self.work_ns = 0
        """GPU time spent on requests."""
        self.meter: PodMeter | None = None

    @property
    def load(self) -> int:
        """Requests inside, waiting ones included."""
        return self.running + len(self.held)


class Deployment:
    """The pods of one revision: as many as asked for, no more than there are GPUs."""

    def __init__(self, *, boot_ns: Callable[[int], int], concurrency: int, drain_ns: int, gpus: int = 0) -> None:
        """`boot_ns(number)` is the boot time of the pod of that number (from 1); `gpus` 0 has no limit."""
        self._boot_ns = boot_ns
        self._concurrency = concurrency
        self._drain_ns = drain_ns
        self._gpus = gpus
        self._created = 0
        self._draining: list[Pod] = []
        self.queued: list[Pod] = []
        """Pods that wait for a GPU."""
        self.booting: list[Pod] = []
        self.ready: list[Pod] = []
        self.pods: list[Pod] = []
        """Every pod that ever was, in order of creation."""

    @property
    def pending(self) -> int:
        """Pods that are not ready yet."""
        return len(self.booting) + len(self.queued)

    def terminating(self, now_ns: int) -> int:
        """Pods that drain now."""
        self._draining = [pod for pod in self._draining if pod.ended_ns > now_ns]
        return len(self._draining)

    def set_replicas(self, now_ns: int, replicas: int) -> Iterator[tuple[int, Pod]]:
        """Create or remove pods until there are that many; yields (moment ready, pod) of those that now begin to boot.

        Removed first: the not ready ones, then the youngest.
        """
        surplus = self.pending + len(self.ready) - replicas
        while surplus > 0:
            self._remove_one(now_ns)
            surplus -= 1
        for _ in range(-surplus):
            self._created += 1
            pod = Pod(self._created, now_ns)
            self.pods.append(pod)
            self.queued.append(pod)
        return self.start_queued(now_ns)

    def start_queued(self, now_ns: int) -> Iterator[tuple[int, Pod]]:
        """Give free GPUs to the pods that wait for one; yields (moment ready, pod)."""
        while self.queued and (not self._gpus or self._gpus_in_use(now_ns) < self._gpus):
            pod = self.queued.pop(0)
            pod.started_ns = now_ns
            self.booting.append(pod)
            yield now_ns + self._boot_ns(pod.number), pod

    def next_gpu_ns(self, now_ns: int) -> int:
        """The moment at which the next draining pod gives its GPU back, NEVER_NS if none waits for it."""
        if not self.queued or not self.terminating(now_ns):
            return NEVER_NS
        return min(pod.ended_ns for pod in self._draining)

    def make_ready(self, now_ns: int, pod: Pod) -> bool:
        """The pod has booted; False if it was removed before."""
        if pod.ended_ns != NEVER_NS:
            return False
        self.booting.remove(pod)
        pod.ready_ns = pod.free_ns = now_ns
        self.ready.append(pod)
        return True

    def extend_drain(self, pod: Pod, now_ns: int) -> None:
        """A request ended in the pod: a removed one lives at least until then."""
        if pod.ended_ns != NEVER_NS:
            pod.ended_ns = max(pod.ended_ns, now_ns)

    def find_free(self) -> Pod | None:
        """The pod that takes the next request through the activator, None if each is full."""
        limit = self._concurrency
        if limit == 0 or limit > _FIRST_FREE_LIMIT:
            pod = min(self.ready, key=_load, default=None)
            return pod if pod is not None and (limit == 0 or pod.load < limit) else None
        return next((pod for pod in self.ready if pod.load < limit), None)

    def find_least_loaded(self) -> Pod:
        """The pod that takes the next direct request, full or not; some pod must be ready."""
        return min(self.ready, key=_load)

    def is_full(self, pod: Pod) -> bool:
        """Whether the pod works on as many requests as it may."""
        return self._concurrency > 0 and pod.running >= self._concurrency

    def _gpus_in_use(self, now_ns: int) -> int:
        return len(self.booting) + len(self.ready) + self.terminating(now_ns)

    def _remove_one(self, now_ns: int) -> None:
        for waiting in (self.queued, self.booting):
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


def _age(pod: Pod) -> tuple[int, int]:
    return (pod.ready_ns, pod.number)
