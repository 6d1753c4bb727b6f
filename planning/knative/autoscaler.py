"""Knative's decision, every two seconds: from two window means and the ready pods to a number of pods.

Owns kpa.md rules 4 (desired), 5 (panic) and 6 (scale-down delay, excess burst capacity), one function each. Knows
nothing of where the means come from nor of what becomes of the decision (`target.py`).
"""

import math
from typing import NamedTuple

from planning.knative.clock import SECOND_NS, to_ns
from planning.knative.revision import Revision

_DELAY_SLOT_S = 2
"""Scale-down delay is kept in slots as long as a tick (aggregation/max/timewindow.go)."""


class Decision(NamedTuple):
    """What one evaluation asks for, before the bounds."""

    desired: int
    excess_burst: int
    """Excess burst capacity: negative puts the activator into the path (rule 7)."""


def wanted_scales(revision: Revision, stable: float, panic: float, ready: int) -> tuple[int, int, int]:
    """Rule 4 (AS:161-218): pods wanted by the stable mean, by the panic mean, and by the panic mean before any limit.

    Always rounded up; limited by the rates, which count from READY pods; raised to the activation scale while there
    is load.
    """
    ready = max(1, ready)
    most = math.ceil(revision.up_rate * ready)
    least = math.floor(ready / revision.down_rate) if revision.reachable else 0
    by_stable = math.ceil(stable / revision.target_value)
    by_panic = math.ceil(panic / revision.target_value)
    limited_stable = min(max(by_stable, least), most)
    limited_panic = min(max(by_panic, least), most)
    if revision.activation_scale > 1:
        limited_stable = max(limited_stable, revision.activation_scale) if by_stable > 0 else limited_stable
        limited_panic = max(limited_panic, revision.activation_scale) if by_panic > 0 else limited_panic
    return limited_stable, limited_panic, by_panic


def is_over_threshold(revision: Revision, by_panic: int, ready: int) -> bool:
    """Rule 5 (AS:220): whether the panic mean asks for so many times the ready pods that it is a panic."""
    return by_panic / max(1, ready) >= revision.panic_threshold


def excess_burst(revision: Revision, panic: float, ready: int) -> int:
    """Rule 6 (AS:285-292): how much more load the ready pods could take beyond the burst capacity that is kept."""
    if revision.burst_capacity == 0:
        return 0
    if revision.burst_capacity < 0:
        return -1
    return math.floor(ready * revision.total_value - revision.burst_capacity - panic)


class DelayWindow:
    """Rule 6, scale-down-delay: the most that was desired in the last ceil(delay / 2 s) slots, this one included."""

    __slots__ = ("_slots", "_wanted")

    def __init__(self, delay_s: float) -> None:
        self._slots = math.ceil(delay_s / _DELAY_SLOT_S)
        self._wanted: dict[int, int] = {}

    def hold(self, now_ns: int, desired: int) -> int:
        """Record what is desired now; returns what may be asked for."""
        slot = now_ns // (_DELAY_SLOT_S * SECOND_NS)
        self._wanted[slot] = max(desired, self._wanted.get(slot, 0))
        for past in [past for past in self._wanted if past <= slot - self._slots]:
            del self._wanted[past]
        return max(self._wanted.values())


class Autoscaler:
    """The autoscaler of one revision with its memory: the panic and the delayed decisions."""

    __slots__ = ("_delay", "_revision", "_window_ns", "panic_maximum", "panic_since_ns")

    def __init__(self, revision: Revision, now_ns: int, ready: int) -> None:
        """Begin: with several ready pods in panic at that count, from which any first panic begins (AS:101-113)."""
        self._revision = revision
        self._window_ns = to_ns(revision.window_s)
        self.panic_since_ns: int | None = now_ns if ready > 1 else None
        self.panic_maximum = ready
        self._delay = DelayWindow(revision.scale_down_delay_s) if revision.scale_down_delay_s > 0 else None

    @property
    def is_panicking(self) -> bool:
        """Whether the last evaluation was in panic."""
        return self.panic_since_ns is not None

    @property
    def has_delay(self) -> bool:
        """Whether decisions to scale down are held back."""
        return self._delay is not None

    def extend_panic(self, until_ns: int, panic: float, ready: int) -> None:
        """As if evaluations up to this moment had seen the same panic mean and ready pods again (rule 5)."""
        if is_over_threshold(self._revision, math.ceil(panic / self._revision.target_value), ready):
            self.panic_since_ns = until_ns

    def panic_ends_ns(self) -> int:
        """The moment after which (strictly) the panic may be left, if nothing goes over the threshold again."""
        return (self.panic_since_ns or 0) + self._window_ns

    def decide(self, now_ns: int, stable: float, panic: float, ready: int) -> Decision:
        """One evaluation: rules 4, 5 and 6 in Knative's order (AS:161-300)."""
        revision = self._revision
        by_stable, by_panic, unlimited_panic = wanted_scales(revision, stable, panic, ready)
        self._follow_panic(now_ns, is_over=is_over_threshold(revision, unlimited_panic, ready))
        desired = by_stable
        if self.panic_since_ns is not None:
            self.panic_maximum = desired = max(self.panic_maximum, by_stable, by_panic)
        if self._delay is not None and revision.reachable:
            desired = self._delay.hold(now_ns, desired)
        return Decision(desired, excess_burst(revision, panic, ready))

    def _follow_panic(self, now_ns: int, *, is_over: bool) -> None:
        """Rule 5 (AS:220-242): begin or extend the panic while over; leave it a window after it was last over."""
        if is_over:
            self.panic_since_ns = now_ns
        elif self.panic_since_ns is not None and self.panic_ends_ns() < now_ns:
            self.panic_since_ns = None
            self.panic_maximum = 0
