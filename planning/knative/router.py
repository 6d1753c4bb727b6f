"""Routes requests: to a pod, to the activator's queue, to a pod's queue, or to a refusal.

Handles every request from its arrival to its end, with the limits on waiting: queue size and deadline.
"""

from collections import deque
from collections.abc import Sequence
from functools import partial

from planning.knative.clock import NEVER_NS, Phases, to_ns
from planning.knative.control import ControlPlane
from planning.knative.meters import PodMeter
from planning.knative.pods import Deployment, Outcome, Pod, Request
from planning.knative.timeline import Timeline


class Router:
    """Takes requests in order of arrival and ends each of them exactly once."""

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
        """Set up routing. `is_serial`: a pod runs one image at a time. `queue_size`: maximum of waiting requests."""
        self.in_system = 0
        """Number of requests that have arrived and not ended."""
        self.activator_queue_length = 0
        """Number of requests that wait at the activator."""
        self.control: ControlPlane | None = None
        self._requests = requests
        self._deployment = deployment
        self._timeline = timeline
        self._is_serial = is_serial
        self._queue_size = queue_size
        self._pod_report_phase_ns = to_ns(phases.pod_report_s)
        self._next = 0
        self.next_arrival_ns = requests[0].arrive_ns if requests else NEVER_NS
        """Moment of the next arrival; NEVER_NS after the last."""
        self._activator_queue: deque[Request] = deque()

    def arrive(self, now_ns: int) -> None:
        """Process the next arrival."""
        request = self._requests[self._next]
        self._next += 1
        self.next_arrival_ns = self._requests[self._next].arrive_ns if self._next < len(self._requests) else NEVER_NS
        request.is_cold = not self._deployment.ready
        assert self.control is not None  # noqa: S101 - set once, by the cluster
        self.in_system += 1
        if request.disconnect_ns:
            self._timeline.call_at(request.disconnect_ns, partial(self._disconnect, request))
        if self.control.in_path:
            self._route_through_activator(self.control, request, now_ns)
        else:
            self._route_directly(self.control, request, now_ns)

    def dispatch_waiting(self, now_ns: int) -> None:
        """Send requests that wait at the activator to pods with free capacity, first come first served."""
        while self.activator_queue_length:
            pod = self._deployment.find_free()
            if pod is None:
                return
            request = self._activator_queue.popleft()
            if request.outcome is None:
                self.activator_queue_length -= 1
                self._start(request, pod, now_ns)

    def _route_through_activator(self, control: ControlPlane, request: Request, now_ns: int) -> None:
        pod = self._deployment.find_free() if not self.activator_queue_length else None
        if pod is None and self._is_queue_full(self.activator_queue_length):
            self._end(request, Outcome.REFUSED, now_ns)
            return
        control.arrive(now_ns)
        if pod is not None:
            self._start(request, pod, now_ns)
            return
        self._activator_queue.append(request)
        self.activator_queue_length += 1
        self._watch_deadline(request)

    def _route_directly(self, control: ControlPlane, request: Request, now_ns: int) -> None:
        """Send a request to the least loaded pod, full or not. The pod counts it immediately."""
        pod = self._deployment.find_least_loaded()
        is_full = self._deployment.is_full(pod)
        if is_full and self._is_queue_full(sum(len(each.waiting) for each in self._deployment.ready)):
            self._end(request, Outcome.REFUSED, now_ns)
            return
        request.is_direct = True
        request.pod = pod
        control.last_direct_ns = now_ns
        if pod.meter is None:
            pod.meter = PodMeter(pod.ready_ns, self._pod_report_phase_ns)
        pod.meter.change(now_ns, 1)
        if is_full:
            pod.waiting.append(request)
            self._watch_deadline(request)
        else:
            self._start(request, pod, now_ns)

    def _is_queue_full(self, waiting: int) -> bool:
        return self._queue_size is not None and waiting >= self._queue_size

    def _watch_deadline(self, request: Request) -> None:
        if request.deadline_ns != NEVER_NS:
            self._timeline.call_at(request.deadline_ns, partial(self._expire, request))

    def _start(self, request: Request, pod: Pod, now_ns: int) -> None:
        """Start a request in the pod and schedule the end of its work."""
        pod.running += 1
        request.pod = pod
        request.start_ns = now_ns
        if request.disconnect_ns:
            return
        begin_ns = max(now_ns, pod.free_ns) if self._is_serial else now_ns
        done_ns = begin_ns + request.work_ns
        end_ns = min(done_ns, max(request.deadline_ns, now_ns))
        worked_ns = max(0, end_ns - begin_ns)  # at its deadline a request is cancelled between two micro-batches
        pod.work_ns += worked_ns
        pod.free_ns = max(pod.free_ns, begin_ns + worked_ns) if worked_ns else pod.free_ns
        outcome = Outcome.SERVED if done_ns <= request.deadline_ns else Outcome.TIMED_OUT
        self._timeline.call_at(end_ns, partial(self._finish, request, outcome))

    def _finish(self, request: Request, outcome: Outcome, now_ns: int) -> None:
        self._end(request, outcome, now_ns)

    def _expire(self, request: Request, now_ns: int) -> None:
        """Time out a request that is still waiting at its deadline."""
        if request.outcome is None and request.start_ns < 0:
            self._end(request, Outcome.TIMED_OUT, now_ns)

    def _disconnect(self, request: Request, now_ns: int) -> None:
        """Disconnect the client at the given moment, unless its request has been refused."""
        if request.outcome is None:
            self._end(request, Outcome.SERVED if request.start_ns >= 0 else Outcome.DISCONNECTED, now_ns)

    def _end(self, request: Request, outcome: Outcome, now_ns: int) -> None:
        """End a request and give its slot in the pod to the request that has waited longest."""
        request.outcome = outcome
        request.end_ns = now_ns
        self.in_system -= 1
        if outcome is Outcome.REFUSED:
            return
        assert self.control is not None  # noqa: S101 - set once, by the cluster
        pod = request.pod
        if not request.is_direct:
            self.control.activator.leave(now_ns)
            if pod is None:
                self.activator_queue_length -= 1
        if pod is None:
            return
        if request.is_direct:
            self.control.last_direct_ns = now_ns
            assert pod.meter is not None  # noqa: S101 - created when the first direct request came
            pod.meter.change(now_ns, -1)
        if request.start_ns >= 0:
            pod.running -= 1
            self._deployment.extend_drain(pod, now_ns)
            self._refill(pod, now_ns)
        else:
            pod.waiting.remove(request)

    def _refill(self, pod: Pod, now_ns: int) -> None:
        if pod.waiting and not self._deployment.is_full(pod):
            self._start(pod.waiting.popleft(), pod, now_ns)
        self.dispatch_waiting(now_ns)
