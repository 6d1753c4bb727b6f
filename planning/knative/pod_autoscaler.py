"""The PodAutoscaler and its reconciler: applies a decision within the bounds, to zero and back.

Implements rules 7 (bounds, activator in the path), 8 (to zero) and the conditions of rule 9 (from zero).
"""

from enum import Enum
from typing import NamedTuple

from planning.knative.clock import NEVER_NS, SECOND_NS, to_ns
from planning.knative.revision import Revision

UNKNOWN = -1
"""Stands for a desired scale before the first decision."""
# A start has failed this long after the progress deadline (SC:206-213).
_DEADLINE_BUFFER_NS = 30 * SECOND_NS
# Time until a failed probe for the activator is repeated, as in the reference traces.
_PROBE_RETRY_NS = 2 * SECOND_NS


class Condition(Enum):
    """The Active condition of the PodAutoscaler: Unknown, True, False."""

    ACTIVATING = "Activating"
    ACTIVE = "Active"
    INACTIVE = "Inactive"


class ReconcileInput(NamedTuple):
    """State that a reconcile reads."""

    desired: int
    """The last decision; UNKNOWN before the first."""
    excess_burst: int
    ready: int
    replicas: int
    in_path: bool
    """Whether the activator is in the path, which is what a probe finds."""
    proxied_since_ns: int
    """Moment since when the activator has been in the path, cut to whole seconds."""


class ReconcileResult(NamedTuple):
    """Result of a reconcile."""

    replicas: int
    """The number of replicas, changed or not."""
    recheck_ns: int
    """Moment of the next reconcile; NEVER_NS if none is needed."""
    has_changed: bool
    """Whether the status changed, which triggers another reconcile."""


class _ScaleTarget(NamedTuple):
    """The scale to aim for, whether to apply it now, and when to reconcile again."""

    scale: int
    is_applied: bool
    recheck_ns: int = NEVER_NS


class PodAutoscaler:
    """The PodAutoscaler of one revision: its condition, the time of its last change, and the network mode."""

    def __init__(self, revision: Revision, now_ns: int) -> None:
        self._revision = revision
        self.condition = Condition.ACTIVATING
        self.is_serving = False
        """The mode of the SKS (ServerlessService): True is Serve, False is Proxy."""
        self.desired_scale = UNKNOWN
        self._stamp_ns = _cut(now_ns)
        self._is_initialised = revision.initial_scale <= 1

    def begin(self, now_ns: int) -> None:
        """Reconcile before the decider exists. Only an initial scale of 0 has an effect: the revision is inactive."""
        if self._revision.initial_scale == 0 and self._revision.floor_scale == 0:
            self._set_condition(Condition.INACTIVE, now_ns)

    def reconcile(self, now_ns: int, seen: ReconcileInput) -> ReconcileResult:
        """Reconcile: scale, choose the mode (rule 7) and update the condition (rules 8 and 9)."""
        before = (self.condition, self.desired_scale)
        target = self._scale(now_ns, seen)
        replicas = target.scale if target.is_applied and target.scale >= 0 else seen.replicas
        self.is_serving = target.scale > 0 and seen.excess_burst >= 0
        self._update_condition(now_ns, target.scale, seen.ready)
        if target.scale >= 0:
            self.desired_scale = target.scale
        return ReconcileResult(replicas, target.recheck_ns, (self.condition, self.desired_scale) != before)

    def _scale(self, now_ns: int, seen: ReconcileInput) -> _ScaleTarget:
        """Apply the bounds (rule 7); if the result is 0, apply rule 8."""
        if seen.desired < 0 and self.condition is not Condition.ACTIVATING:
            return _ScaleTarget(UNKNOWN, is_applied=False)
        at_least = 0 if self._is_initialised else self._revision.initial_scale
        bounded = self._revision.bounded(seen.desired, at_least=at_least)
        if bounded > 0:
            return _ScaleTarget(bounded, is_applied=True)
        if not self._revision.scale_to_zero:
            return _ScaleTarget(1, is_applied=True)
        if self.condition is Condition.ACTIVATING:
            return self._stay_activating(now_ns)
        if self.condition is Condition.ACTIVE:
            return self._go_inactive(now_ns)
        return self._release_last_pod(now_ns, seen)

    def _stay_activating(self, now_ns: int) -> _ScaleTarget:
        """While activating, do not scale to zero until 30 s after the progress deadline (rule 8, SC:206-213)."""
        timeout_ns = to_ns(self._revision.progress_deadline_s) + _DEADLINE_BUFFER_NS
        if now_ns - self._stamp_ns > timeout_ns:
            return _ScaleTarget(0, is_applied=True)
        return _ScaleTarget(UNKNOWN, is_applied=False, recheck_ns=now_ns + timeout_ns)

    def _go_inactive(self, now_ns: int) -> _ScaleTarget:
        """Keep one pod until active for a window, then become inactive without scaling (rule 8, SC:214-235)."""
        window_ns = to_ns(self._revision.window_s)
        if now_ns - self._stamp_ns >= window_ns:
            return _ScaleTarget(0, is_applied=False)
        return _ScaleTarget(1, is_applied=True, recheck_ns=self._stamp_ns + window_ns)

    def _release_last_pod(self, now_ns: int, seen: ReconcileInput) -> _ScaleTarget:
        """Remove the last pod after retention and grace if the activator is in the path (rule 8, SC:237-299)."""
        if self._revision.is_scraped and not seen.in_path:
            return _ScaleTarget(0, is_applied=False, recheck_ns=now_ns + _PROBE_RETRY_NS)
        retention_ns = to_ns(self._revision.last_pod_retention_s)
        grace_ns = to_ns(self._revision.grace_s)
        inactive_ns = now_ns - self._stamp_ns
        if inactive_ns >= max(retention_ns, grace_ns):
            return _ScaleTarget(0, is_applied=True)
        if inactive_ns < retention_ns:
            return _ScaleTarget(0, is_applied=False, recheck_ns=self._stamp_ns + retention_ns)
        if now_ns - seen.proxied_since_ns >= grace_ns:
            return _ScaleTarget(0, is_applied=True)
        return _ScaleTarget(0, is_applied=False, recheck_ns=seen.proxied_since_ns + grace_ns)

    def _update_condition(self, now_ns: int, target_scale: int, ready: int) -> None:
        """Set the condition: inactive at 0, active if enough pods are ready, else activating (KPA:286-333)."""
        initial = 0 if self._is_initialised else self._revision.initial_scale
        enough = max(self._revision.floor_scale, 1, initial)
        if target_scale == 0:
            self._set_condition(Condition.INACTIVE, now_ns)
        elif ready >= enough:
            self._is_initialised = True
            if target_scale > 0 or self.condition is not Condition.INACTIVE:
                self._set_condition(Condition.ACTIVE, now_ns)
        elif target_scale > 0 or self.condition is not Condition.INACTIVE:
            self._set_condition(Condition.ACTIVATING, now_ns)

    def _set_condition(self, condition: Condition, now_ns: int) -> None:
        """Change the condition. Its time is cut to whole seconds, as in the JSON of the API server (rule 8)."""
        if condition is not self.condition:
            self.condition = condition
            self._stamp_ns = _cut(now_ns)


def _cut(moment_ns: int) -> int:
    return moment_ns // SECOND_NS * SECOND_NS
