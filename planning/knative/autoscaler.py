"""The autoscaler's decision: from two window means and the number of ready pods to the desired number of pods.

Implements rules 4 (desired scale), 5 (panic) and 6 (scale-down delay, excess burst capacity), one function each.
`pod_autoscaler.py` applies the decision.
"""

import math
from typing import NamedTuple

from planning.knative.clock import SECOND_NS, to_ns
from planning.knative.revision import Revision

# The scale-down delay is recorded in slots as long as a tick (aggregation/max/timewindow.go).
_DELAY_SLOT_S = 2


class Decision(NamedTuple):
    """Result of one evaluation, before the bounds."""

    desired: int
    excess_burst: int
    """Excess burst capacity. If it is negative the activator is in the path (rule 7)."""


def desired_scales(revision: Revision, stable: float, panic: float, ready: int) -> tuple[int, int, int]:
    """Return the pods desired by the stable mean, by the panic mean, and by the panic mean without limits (rule 4).

    AS:161-218. Rounded up, limited by the scaling rates relative to READY pods, and raised to the activation scale
    while there is load.
    """
    ready = max(1, ready)
    maximum = math.ceil(revision.up_rate * ready)
    minimum = math.floor(ready / revision.down_rate) if revision.reachable else 0
    by_stable = math.ceil(stable / revision.target_value)
    by_panic = math.ceil(panic / revision.target_value)
    limited_stable = min(max(by_stable, minimum), maximum)
    limited_panic = min(max(by_panic, minimum), maximum)
    if revision.activation_scale > 1:
        limited_stable = max(limited_stable, revision.activation_scale) if by_stable > 0 else limited_stable
        limited_panic = max(limited_panic, revision.activation_scale) if by_panic > 0 else limited_panic
    return limited_stable, limited_panic, by_panic


def is_over_threshold(revision: Revision, by_panic: int, ready: int) -> bool:
    """Return whether the panic mean asks for enough times the ready pods to start a panic (rule 5, AS:220)."""
    return by_panic / max(1, ready) >= revision.panic_threshold


def excess_burst(revision: Revision, panic: float, ready: int) -> int:
    """Return the load that the ready pods could take beyond the reserved burst capacity (rule 6, AS:285-292)."""
    if revision.burst_capacity == 0:
        return 0
    if revision.burst_capacity < 0:
        return -1
    return math.floor(ready * revision.total_value - revision.burst_capacity - panic)


class DelayWindow:
    """Scale-down delay: the maximum desired in the last ceil(delay / 2 s) slots, including this one (rule 6)."""

    __slots__ = ("_desired", "_slots")

    def __init__(self, delay_s: float) -> None:
        self._slots = math.ceil(delay_s / _DELAY_SLOT_S)
        self._desired: dict[int, int] = {}

    def hold(self, now_ns: int, desired: int) -> int:
        """Record the desired scale and return the maximum within the delay."""
        slot = now_ns // (_DELAY_SLOT_S * SECOND_NS)
        self._desired[slot] = max(desired, self._desired.get(slot, 0))
        for past in [past for past in self._desired if past <= slot - self._slots]:
            del self._desired[past]
        return max(self._desired.values())


class Autoscaler:
    """The autoscaler of one revision. Its state is the panic and the delayed decisions."""

    __slots__ = ("_delay", "_revision", "_window_ns", "panic_maximum", "panic_since_ns")

    def __init__(self, revision: Revision, now_ns: int, ready: int) -> None:
        """Start in panic at the number of ready pods if several are ready, as Knative does (AS:101-113)."""
        self._revision = revision
        self._window_ns = to_ns(revision.window_s)
        self.panic_since_ns: int | None = now_ns if ready > 1 else None
        self.panic_maximum = ready
        self._delay = DelayWindow(revision.scale_down_delay_s) if revision.scale_down_delay_s > 0 else None

    @property
    def is_panicking(self) -> bool:
        """Whether the autoscaler was in panic after the last evaluation."""
        return self.panic_since_ns is not None

    @property
    def has_delay(self) -> bool:
        """Whether the revision delays scaling down."""
        return self._delay is not None

    def extend_panic(self, until_ns: int, panic: float, ready: int) -> None:
        """Act as if all evaluations up to this moment had seen this panic mean and number of ready pods (rule 5)."""
        if is_over_threshold(self._revision, math.ceil(panic / self._revision.target_value), ready):
            self.panic_since_ns = until_ns

    def panic_ends_ns(self) -> int:
        """Return the moment after which (strictly) the panic may end, unless the threshold is exceeded again."""
        return (self.panic_since_ns or 0) + self._window_ns

    def decide(self, now_ns: int, stable: float, panic: float, ready: int) -> Decision:
        """Evaluate rules 4, 5 and 6 in Knative's order (AS:161-300)."""
        revision = self._revision
        by_stable, by_panic, unlimited_panic = desired_scales(revision, stable, panic, ready)
        self._update_panic(now_ns, is_over=is_over_threshold(revision, unlimited_panic, ready))
        desired = by_stable
        if self.panic_since_ns is not None:
            self.panic_maximum = desired = max(self.panic_maximum, by_stable, by_panic)
        if self._delay is not None and revision.reachable:
            desired = self._delay.hold(now_ns, desired)
        return Decision(desired, excess_burst(revision, panic, ready))

    def _update_panic(self, now_ns: int, *, is_over: bool) -> None:
        """Start or extend the panic over the threshold; end it a window after the last time (rule 5, AS:220-242)."""
        if is_over:
            self.panic_since_ns = now_ns
        elif self.panic_since_ns is not None and self.panic_ends_ns() < now_ns:
            self.panic_since_ns = None
            self.panic_maximum = 0
