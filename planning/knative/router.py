"""Where a request goes: into a pod, onto the activator's shelf, into a pod's own queue, or away.

Owns the life of every request from arrival to its one end, and the bounds on waiting (queue places, deadline). Knows of
Knative only whether the activator is in the path (`control.py`).
"""

from collections import deque
from collections.abc import Sequence
from functools import partial

from planning.knative.clock import NEVER_NS, Phases, to_ns
from planning.knative.control import Control
from planning.knative.meters import PodMeter
from planning.knative.pods import Deployment, Fate, Pod, Request
from planning.knative.timeline import Timeline


class Router:
    """Takes requests in order of arrival and brings each to exactly one end."""

    def __init__(
        self,
        requests: Sequence[Request],
        deployment: Deployment,
        timeline: Timeline,
        *,
        phases: Phases,
        is_serial: bool,
        queue_size: int | None,
    ) -> None:
        """`is_serial`: a pod works on one image at a time; `queue_size`: most requests that wait for a pod."""
        self.in_system = 0
        """Requests that came and did not end yet."""
        self.held_count = 0
        """Requests that wait at the activator."""
        self.control: Control | None = None
        self._requests = requests
        self._deployment = deployment
        self._timeline = timeline
        self._is_serial = is_serial
        self._queue_size = queue_size
        self._pod_report_phase_ns = to_ns(phases.pod_report_s)
        self._next = 0
        self.due_ns = requests[0].arrive_ns if requests else NEVER_NS
        """When the next request comes, NEVER_NS after the last."""
        self._held: deque[Request] = deque()

    def arrive(self, now_ns: int) -> None:
        """The next request comes."""
        request = self._requests[self._next]
        self._next += 1
        self.due_ns = self._requests[self._next].arrive_ns if self._next < len(self._requests) else NEVER_NS
        request.came_cold = not self._deployment.ready
        assert self.control is not None  # noqa: S101 - set once, by the cluster
        self.in_system += 1
        if request.leave_ns:
            self._timeline.call_at(request.leave_ns, partial(self._leave, request))
        if self.control.in_path:
            self._through_activator(self.control, request, now_ns)
        else:
            self._direct(self.control, request, now_ns)

    def release_held(self, now_ns: int) -> None:
        """Pods have room: give them what waits at the activator, first come first served."""
        while self.held_count:
            pod = self._deployment.find_free()
            if pod is None:
                return
            request = self._held.popleft()
            if request.fate is None:
                self.held_count -= 1
                self._start(request, pod, now_ns)

    def _through_activator(self, control: Control, request: Request, now_ns: int) -> None:
        pod = self._deployment.find_free() if not self.held_count else None
        if pod is None and self._is_queue_full(self.held_count):
            self._end(request, Fate.REFUSED, now_ns)
            return
        control.arrive(now_ns)
        if pod is not None:
            self._start(request, pod, now_ns)
            return
        self._held.append(request)
        self.held_count += 1
        self._watch_deadline(request)

    def _direct(self, control: Control, request: Request, now_ns: int) -> None:
        """Past the activator: the least loaded pod takes it, full or not, and counts it at once."""
        pod = self._deployment.find_least_loaded()
        is_full = self._deployment.is_full(pod)
        if is_full and self._is_queue_full(sum(len(each.held) for each in self._deployment.ready)):
            self._end(request, Fate.REFUSED, now_ns)
            return
        request.is_direct = True
        request.pod = pod
        control.last_direct_ns = now_ns
        if pod.meter is None:
            pod.meter = PodMeter(pod.ready_ns, self._pod_report_phase_ns)
        pod.meter.change(now_ns, 1)
        if is_full:
            pod.held.append(request)
            self._watch_deadline(request)
        else:
            self._start(request, pod, now_ns)

    def _is_queue_full(self, waiting: int) -> bool:
        return self._queue_size is not None and waiting >= self._queue_size

    def _watch_deadline(self, request: Request) -> None:
        if request.deadline_ns != NEVER_NS:
            self._timeline.call_at(request.deadline_ns, partial(self._expire, request))

    def _start(self, request: Request, pod: Pod, now_ns: int) -> None:
        """The pod takes the request; on a serial GPU the end of its work is known from here on."""
        pod.running += 1
        request.pod = pod
        request.start_ns = now_ns
        if request.leave_ns:
            return
        begin_ns = max(now_ns, pod.free_ns) if self._is_serial else now_ns
        done_ns = begin_ns + request.work_ns
        end_ns = min(done_ns, max(request.deadline_ns, now_ns))
        worked_ns = max(0, end_ns - begin_ns)  # past its deadline a request is cancelled between two micro-batches
        pod.work_ns += worked_ns
        pod.free_ns = max(pod.free_ns, begin_ns + worked_ns) if worked_ns else pod.free_ns
        fate = Fate.SERVED if done_ns <= request.deadline_ns else Fate.TIMED_OUT
        self._timeline.call_at(end_ns, partial(self._finish, request, fate))

    def _finish(self, request: Request, fate: Fate, now_ns: int) -> None:
        self._end(request, fate, now_ns)

    def _expire(self, request: Request, now_ns: int) -> None:
        """The deadline of a request that was waiting."""
        if request.fate is None and request.start_ns < 0:
            self._end(request, Fate.TIMED_OUT, now_ns)

    def _leave(self, request: Request, now_ns: int) -> None:
        """The prescribed moment: the client goes, served or not; a refused one has gone."""
        if request.fate is None:
            self._end(request, Fate.SERVED if request.start_ns >= 0 else Fate.LEFT, now_ns)

    def _end(self, request: Request, fate: Fate, now_ns: int) -> None:
        """The one end of a request; a place in a pod that comes free goes to whoever waits longest."""
        request.fate = fate
        request.end_ns = now_ns
        self.in_system -= 1
        if fate is Fate.REFUSED:
            return
        assert self.control is not None  # noqa: S101 - set once, by the cluster
        pod = request.pod
        if not request.is_direct:
            self.control.activator.leave(now_ns)
            if pod is None:
                self.held_count -= 1
        if pod is None:
            return
        if request.is_direct:
            self.control.last_direct_ns = now_ns
            assert pod.meter is not None  # noqa: S101 - made when the first direct request came
            pod.meter.change(now_ns, -1)
        if request.start_ns >= 0:
            pod.running -= 1
            self._deployment.extend_drain(pod, now_ns)
            self._refill(pod, now_ns)
        else:
            pod.held.remove(request)

    def _refill(self, pod: Pod, now_ns: int) -> None:
        if pod.held and not self._deployment.is_full(pod):
            self._start(pod.held.popleft(), pod, now_ns)
        self.release_held(now_ns)
