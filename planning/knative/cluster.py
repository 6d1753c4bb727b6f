"""The event loop of a run: processes the events of requests, Knative and pods in order of time."""

from collections.abc import Callable, Sequence

from planning.knative.clock import Phases
from planning.knative.control import ControlPlane, Tick
from planning.knative.fast_forward import skip_idle, skip_steady_load
from planning.knative.pods import Deployment, Request
from planning.knative.revision import Revision
from planning.knative.router import Router
from planning.knative.timeline import Timeline


class Cluster:
    """One simulated revision under load, from its deployment on."""

    def __init__(
        self,
        revision: Revision,
        deployment: Deployment,
        requests: Sequence[Request],
        *,
        deploy_ns: int,
        phases: Phases | None = None,
        is_serial: bool = False,
        queue_size: int | None = None,
        on_tick: Callable[[Tick], None] | None = None,
        fast_forward: bool = True,
    ) -> None:
        """Set up a run. `requests` are in order of arrival; Router and ControlPlane describe the other parameters.

        `fast_forward` skips regular events that change nothing. The result is the same to the nanosecond.
        """
        phases = phases or Phases()
        self.timeline = Timeline()
        self.deployment = deployment
        self.router = Router(
            requests, deployment, self.timeline, phases=phases, is_serial=is_serial, queue_size=queue_size
        )
        self.control = ControlPlane(
            revision,
            deployment,
            self.timeline,
            deploy_ns=deploy_ns,
            phases=phases,
            on_ready=self.router.dispatch_waiting,
            on_tick=on_tick,
        )
        self.router.control = self.control
        self._fast_forward = fast_forward

    def run(self, until_ns: int) -> None:
        """Process all events up to and including this moment."""
        timeline, router, control = self.timeline, self.router, self.control
        while True:
            now_ns = min(
                router.next_arrival_ns, timeline.next_event_ns, control.report_ns, control.scrape_ns, control.tick_ns
            )
            if now_ns > until_ns:
                return
            if now_ns == router.next_arrival_ns:
                router.arrive(now_ns)
            elif now_ns == timeline.next_event_ns:
                timeline.step()
            elif now_ns == control.report_ns:
                control.report(now_ns)
            elif now_ns == control.scrape_ns:
                control.scrape(now_ns)
            else:
                control.tick(now_ns)
                if self._fast_forward:
                    skip = skip_steady_load if router.in_system else skip_idle
                    skip(control, min(router.next_arrival_ns, timeline.next_event_ns, until_ns + 1))
