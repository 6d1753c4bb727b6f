"""One run: traffic, Knative and pods on one clock.

Owns the order of events; what they mean is in `router.py` (requests), `control.py` (Knative) and `pods.py`.
"""

from collections.abc import Callable, Sequence

from planning.knative.clock import Phases
from planning.knative.control import Control, Tick
from planning.knative.fast_forward import skip_quiet, skip_steady
from planning.knative.pods import Deployment, Request
from planning.knative.revision import Revision
from planning.knative.router import Router
from planning.knative.timeline import Timeline


class Cluster:
    """One revision under load, from its deployment on."""

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
        skips_quiet: bool = True,
    ) -> None:
        """`requests` in order of arrival; see Router and Control for the rest.

        `skips_quiet` leaves out regular events that change nothing; the outcome is the same to the nanosecond.
        """
        phases = phases or Phases()
        self.timeline = Timeline()
        self.deployment = deployment
        self.router = Router(
            requests, deployment, self.timeline, phases=phases, is_serial=is_serial, queue_size=queue_size
        )
        self.control = Control(
            revision,
            deployment,
            self.timeline,
            deploy_ns=deploy_ns,
            phases=phases,
            on_ready=self.router.release_held,
            on_tick=on_tick,
        )
        self.router.control = self.control
        self._skips_quiet = skips_quiet

    def run(self, until_ns: int) -> None:
        """Advance to a moment, the events of that moment included."""
        timeline, router, control = self.timeline, self.router, self.control
        while True:
            now_ns = min(router.due_ns, timeline.due_ns, control.report_ns, control.scrape_ns, control.tick_ns)
            if now_ns > until_ns:
                return
            if now_ns == router.due_ns:
                router.arrive(now_ns)
            elif now_ns == timeline.due_ns:
                timeline.step()
            elif now_ns == control.report_ns:
                control.report(now_ns)
            elif now_ns == control.scrape_ns:
                control.scrape(now_ns)
            else:
                control.tick(now_ns)
                if self._skips_quiet:
                    skip = skip_steady if router.in_system else skip_quiet
                    skip(control, min(router.due_ns, timeline.due_ns, until_ns + 1))
