"""Knative's control plane in a run: turns samples into means, decisions, replicas and the path of requests.

Connects `meters`, `buckets`, `autoscaler` and `pod_autoscaler`, with the delays between them that the reference traces
assume (tests/data/kpa/README.md, "What is MODELLED").
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from planning.knative.autoscaler import Autoscaler
from planning.knative.buckets import make_window
from planning.knative.clock import (
    MILLISECOND_NS,
    NEVER_NS,
    REPORT_NS,
    SECOND_NS,
    TICK_NS,
    Phases,
    first_at_or_after,
    to_ns,
)
from planning.knative.meters import ActivatorMeter
from planning.knative.pod_autoscaler import UNKNOWN, PodAutoscaler, ReconcileInput
from planning.knative.pods import Deployment, Pod
from planning.knative.revision import Revision
from planning.knative.timeline import Timeline

# Delay between a change and the reconcile that it triggers.
_QUEUE_NS = 5 * MILLISECOND_NS
# Delay between a reconcile's change of the replicas and the pods.
_PATCH_NS = 2 * MILLISECOND_NS
# Delay between a change of mode or ready pods and the new network path, which the SKS controller sets.
_NETWORK_NS = 20 * MILLISECOND_NS
DIRECT_MEMORY_NS = 3 * REPORT_NS
"""Time without direct requests after which a pod's last report is certainly 0: reports are at most two periods old."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Input and output of one evaluation; None without data."""

    at_ns: int
    is_poke: bool
    ready: int
    stable: float | None
    panic: float | None
    desired: int | None
    is_panicking: bool
    panic_maximum: int
    excess_burst: int | None


@dataclass(slots=True)
class History:
    """Every change as (moment, new value)."""

    replicas: list[tuple[int, int]] = field(default_factory=list)
    conditions: list[tuple[int, str]] = field(default_factory=list)


class ControlPlane:
    """The autoscaler, the PodAutoscaler and the network of one revision, from its deployment on."""

    def __init__(
        self,
        revision: Revision,
        deployment: Deployment,
        timeline: Timeline,
        *,
        deploy_ns: int,
        phases: Phases,
        on_ready: Callable[[int], None],
        on_tick: Callable[[Tick], None] | None = None,
    ) -> None:
        """Deploy the revision. `on_ready` is called when a pod becomes ready, `on_tick` after every evaluation."""
        self.revision = revision
        self.deployment = deployment
        self.history = History()
        self.activator = ActivatorMeter()
        self.stable = make_window(revision.window_s, weighted=revision.weighted)
        self.panic = make_window(revision.panic_window_s, weighted=revision.weighted)
        self.autoscaler: Autoscaler | None = None
        self.pod_autoscaler = PodAutoscaler(revision, deploy_ns)
        self.replicas = 0
        self.in_path = True
        """Whether requests go through the activator."""
        self.desired = UNKNOWN
        self.excess_burst = 0
        self.last_evaluated_ready = UNKNOWN
        """Number of ready pods at the last evaluation with data; UNKNOWN before the first."""
        self.report_ns = self.scrape_ns = self.tick_ns = NEVER_NS
        """Moments of the next regular report, scrape and evaluation."""
        self.last_direct_ns = -NEVER_NS
        """Moment at which a direct request was last seen in a pod."""
        self._timeline = timeline
        self._on_ready = on_ready
        self._on_tick = on_tick
        self._report_phase_ns = to_ns(phases.report_s)
        self._scrape_lag_ns = to_ns(phases.scrape_s - phases.tick_s)
        self._scrape_phase_ns = 0
        self._is_queued = False
        self._recheck_ns = NEVER_NS
        self._is_network_due = False
        self._proxied_since_ns = deploy_ns // SECOND_NS * SECOND_NS
        self._deploy(deploy_ns)

    def _deploy(self, now_ns: int) -> None:
        """Deploy a new revision: pods first, the PodAutoscaler after 5 ms, the decider once the network is set up."""
        initial = self.revision.initial_scale
        network_ns = now_ns + _QUEUE_NS + _NETWORK_NS
        if initial:
            self._set_replicas(now_ns, initial)  # the Deployment's own number, without bounds (deploy.go:365-371)
            network_ns = now_ns + _PATCH_NS + _NETWORK_NS
        self._timeline.call_at(now_ns + _QUEUE_NS, self.pod_autoscaler.begin)
        self._timeline.call_at(network_ns + _QUEUE_NS, self._create_decider)

    def _create_decider(self, now_ns: int) -> None:
        """Create the decider, with no decision and the burst capacity of the initial scale (multiscaler.go)."""
        self.autoscaler = Autoscaler(self.revision, now_ns, len(self.deployment.ready))
        spare = self.revision.initial_scale * self.revision.total_value - self.revision.burst_capacity
        self.excess_burst = int(self.revision.burst_capacity if self.revision.burst_capacity in (-1, 0) else spare)
        self.tick_ns = now_ns + TICK_NS
        self._scrape_phase_ns = now_ns + self._scrape_lag_ns
        self._watch_pods(now_ns)
        self._reconcile(now_ns)

    # -- samples (rule 2) ---------------------------------------------------------------------------------------------

    def arrive(self, now_ns: int) -> None:
        """Count a request at the activator. The first one after an idle time is reported immediately."""
        if self.activator.arrive(now_ns):
            self.report_ns = first_at_or_after(now_ns, self._report_phase_ns, REPORT_NS)
            self._receive(now_ns, 1.0)

    def report(self, now_ns: int) -> None:
        """Process the activator's regular report."""
        value = self.activator.report(now_ns)
        self.report_ns = NEVER_NS if self.activator.is_idle else now_ns + REPORT_NS
        if value is not None:
            self._receive(now_ns, value)

    def scrape(self, now_ns: int) -> None:
        """Record the direct requests that the ready pods last reported.

        Knative reads a random sample of more than three pods and scales it up. Reading all pods gives the expected
        value.
        """
        self.scrape_ns = now_ns + REPORT_NS
        value = 0.0
        if now_ns - self.last_direct_ns < DIRECT_MEMORY_NS:
            meters = [pod.meter for pod in self.deployment.ready if pod.meter is not None]
            value = sum(meter.last_report(now_ns) for meter in meters)
            if any(meter.in_flight for meter in meters):
                self.last_direct_ns = now_ns
        self._record(now_ns, value)

    def _receive(self, now_ns: int, value: float) -> None:
        """Record a report of the activator. At desired scale 0 evaluate a load immediately (rule 9, MS:352-364)."""
        self._record(now_ns, value)
        if self.desired == 0 and value != 0 and self.autoscaler is not None:
            self.tick(now_ns, is_poke=True)

    def _record(self, now_ns: int, value: float) -> None:
        if self.autoscaler is not None:
            second = now_ns // SECOND_NS
            self.stable.record(second, value)
            self.panic.record(second, value)

    def _watch_pods(self, now_ns: int) -> None:
        """Scrape pods while one is ready, but never at burst capacity -1."""
        if not self.deployment.ready or not self.revision.is_scraped or self.autoscaler is None:
            self.scrape_ns = NEVER_NS
        elif self.scrape_ns == NEVER_NS:
            self.scrape_ns = first_at_or_after(now_ns, self._scrape_phase_ns, REPORT_NS)

    # -- decisions (rules 3 to 6) -------------------------------------------------------------------------------------

    def tick(self, now_ns: int, *, is_poke: bool = False) -> None:
        """Evaluate; reconcile if the desired scale or the sign of the burst capacity changed (rule 7, MS:161-176)."""
        if not is_poke:
            self.tick_ns = now_ns + TICK_NS
        autoscaler = self.autoscaler
        if autoscaler is None:
            return
        second = now_ns // SECOND_NS
        ready = len(self.deployment.ready)
        stable = panic = None
        is_valid = self.stable.has_data(second) or not self.revision.is_scraped
        if is_valid:
            self.last_evaluated_ready = ready
            stable, panic = self.stable.mean(second), self.panic.mean(second)
            decision = autoscaler.decide(now_ns, stable, panic, ready)
            has_changed = decision.desired != self.desired or (decision.excess_burst < 0) != (self.excess_burst < 0)
            self.desired, self.excess_burst = decision.desired, decision.excess_burst
            if has_changed:
                self._enqueue(now_ns)
        if self._on_tick is not None:
            self._on_tick(
                Tick(
                    now_ns,
                    is_poke,
                    ready,
                    stable,
                    panic,
                    self.desired if is_valid else None,
                    autoscaler.is_panicking,
                    autoscaler.panic_maximum,
                    self.excess_burst if is_valid else None,
                )
            )

    # -- reconciles (rules 7 to 9) ------------------------------------------------------------------------------------

    def _enqueue(self, now_ns: int) -> None:
        if not self._is_queued and self.autoscaler is not None:
            self._is_queued = True
            self._timeline.call_at(now_ns + _QUEUE_NS, self._dequeue)

    def _dequeue(self, now_ns: int) -> None:
        self._is_queued = False
        self._reconcile(now_ns)

    def _recheck(self, now_ns: int) -> None:
        if now_ns == self._recheck_ns:
            self._recheck_ns = NEVER_NS
            self._reconcile(now_ns)

    def _reconcile(self, now_ns: int) -> None:
        was_serving, before = self.pod_autoscaler.is_serving, self.pod_autoscaler.condition
        outcome = self.pod_autoscaler.reconcile(
            now_ns,
            ReconcileInput(
                self.desired,
                self.excess_burst,
                len(self.deployment.ready),
                self.replicas,
                self.in_path,
                self._proxied_since_ns,
            ),
        )
        if outcome.replicas != self.replicas:
            self._set_replicas(now_ns, outcome.replicas)
        if outcome.recheck_ns < self._recheck_ns:  # only the earliest recheck counts
            self._recheck_ns = outcome.recheck_ns
            self._timeline.call_at(outcome.recheck_ns, self._recheck)
        if self.pod_autoscaler.is_serving != was_serving:
            self._schedule_network_update(now_ns)
        if self.pod_autoscaler.condition is not before:
            self.history.conditions.append((now_ns, self.pod_autoscaler.condition.value))
        if outcome.has_changed:
            self._enqueue(now_ns)

    def _schedule_network_update(self, now_ns: int) -> None:
        if not self._is_network_due:
            self._is_network_due = True
            self._timeline.call_at(now_ns + _NETWORK_NS, self._update_network)

    def _update_network(self, now_ns: int) -> None:
        """Put the activator in the path in mode Proxy or while no pod is ready (rule 7, SKS:243-259)."""
        self._is_network_due = False
        in_path = not self.pod_autoscaler.is_serving or not self.deployment.ready
        if in_path != self.in_path:
            self.in_path = in_path
            self._proxied_since_ns = now_ns // SECOND_NS * SECOND_NS if in_path else NEVER_NS
            self._enqueue(now_ns)

    # -- pods ---------------------------------------------------------------------------------------------------------

    def _set_replicas(self, now_ns: int, replicas: int) -> None:
        self.replicas = replicas
        self.history.replicas.append((now_ns, replicas))
        self._timeline.call_at(now_ns + _PATCH_NS, partial(self._patch, replicas))

    def _patch(self, replicas: int, now_ns: int) -> None:
        ready = len(self.deployment.ready)
        self._boot(self.deployment.set_replicas(now_ns, replicas), now_ns)
        if len(self.deployment.ready) != ready:
            self._pods_changed(now_ns)

    def _boot(self, starts: Iterable[tuple[int, Pod]], now_ns: int) -> None:
        for ready_ns, pod in starts:
            self._timeline.call_at(ready_ns, partial(self._pod_ready, pod))
        gpu_ns = self.deployment.next_gpu_ns(now_ns)
        if gpu_ns != NEVER_NS:
            self._timeline.call_at(gpu_ns, self._gpu_free)

    def _gpu_free(self, now_ns: int) -> None:
        self._boot(self.deployment.start_queued(now_ns), now_ns)

    def _pod_ready(self, pod: Pod, now_ns: int) -> None:
        if self.deployment.make_ready(now_ns, pod):
            self._pods_changed(now_ns)
            self._on_ready(now_ns)

    def _pods_changed(self, now_ns: int) -> None:
        self._watch_pods(now_ns)
        self._enqueue(now_ns)
        self._schedule_network_update(now_ns)
