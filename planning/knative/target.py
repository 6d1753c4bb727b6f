"""What becomes of a decision: bounds, the step to zero and back, and whether the activator stays in the path.

Owns the PodAutoscaler object and its reconciler: kpa.md rules 7 (activator in the path), 8 (to zero) and 9 (from zero).
Knows nothing of means or panic (`autoscaler.py`), nor of how pods start and stop (`pods.py`).
"""

from enum import Enum
from typing import NamedTuple

from planning.knative.clock import NEVER_NS, SECOND_NS, to_ns
from planning.knative.revision import Revision

UNKNOWN = -1
"""A desired scale that nobody knows yet."""
_DEADLINE_BUFFER_NS = 30 * SECOND_NS
"""A start is given up this long after the progress deadline (SC:206-213)."""
_PROBE_RETRY_NS = 2 * SECOND_NS
"""A failed probe for the activator is tried again after this (the reference model's stand-in for the prober)."""


class Condition(Enum):
    """The Active condition of the PodAutoscaler: Unknown, True, False."""

    ACTIVATING = "Activating"
    ACTIVE = "Active"
    INACTIVE = "Inactive"


class Surroundings(NamedTuple):
    """What a reconcile sees of the world."""

    desired: int
    """The decider's last decision, -1 before the first."""
    excess_burst: int
    ready: int
    replicas: int
    in_path: bool
    """Whether the activator is in the path: what a probe for it finds."""
    proxied_since_ns: int
    """Since when it has been, cut to whole seconds."""


class Outcome(NamedTuple):
    """What a reconcile did."""

    replicas: int
    """The replicas to have, changed or not."""
    recheck_ns: int
    """Look again at this moment; NEVER_NS: no need."""
    has_changed: bool
    """Whether the object's status changed, which brings a reconcile of its own."""


class _Want(NamedTuple):
    """The answer of `scale`: what is wanted, whether to apply it, when to look again."""

    scale: int
    is_applied: bool
    recheck_ns: int = NEVER_NS


class PodAutoscaler:
    """The PodAutoscaler of one revision: its condition, since when, and the mode it asks of the network."""

    def __init__(self, revision: Revision, now_ns: int) -> None:
        self._revision = revision
        self.condition = Condition.ACTIVATING
        self.is_serving = False
        """SKS mode Serve (True) or Proxy (False)."""
        self.desired_scale = UNKNOWN
        self._stamp_ns = _cut(now_ns)
        self._is_initialised = revision.initial_scale <= 1

    def begin(self, now_ns: int) -> None:
        """The first reconcile, before there is a decider: only an initial scale of 0 shows (inactive at once)."""
        if self._revision.initial_scale == 0 and self._revision.floor_scale == 0:
            self._set_condition(Condition.INACTIVE, now_ns)

    def reconcile(self, now_ns: int, seen: Surroundings) -> Outcome:
        """One reconcile: scale, choose the mode (rule 7), tell the condition (rules 8 and 9)."""
        before = (self.condition, self.desired_scale)
        want = self._scale(now_ns, seen)
        replicas = want.scale if want.is_applied and want.scale >= 0 else seen.replicas
        self.is_serving = want.scale > 0 and seen.excess_burst >= 0
        self._tell_condition(now_ns, want.scale, seen.ready)
        if want.scale >= 0:
            self.desired_scale = want.scale
        return Outcome(replicas, want.recheck_ns, (self.condition, self.desired_scale) != before)

    def _scale(self, now_ns: int, seen: Surroundings) -> _Want:
        """Bounds (rule 7), then rule 8 if nothing is left of it."""
        if seen.desired < 0 and self.condition is not Condition.ACTIVATING:
            return _Want(UNKNOWN, is_applied=False)
        at_least = 0 if self._is_initialised else self._revision.initial_scale
        bounded = self._revision.bounded(seen.desired, at_least=at_least)
        if bounded > 0:
            return _Want(bounded, is_applied=True)
        if not self._revision.scale_to_zero:
            return _Want(1, is_applied=True)
        if self.condition is Condition.ACTIVATING:
            return self._give_up_start(now_ns)
        if self.condition is Condition.ACTIVE:
            return self._go_inactive(now_ns)
        return self._release_last_pod(now_ns, seen)

    def _give_up_start(self, now_ns: int) -> _Want:
        """Rule 8a (SC:206-213): while starting nothing goes to zero, until 30 s after the progress deadline."""
        patience_ns = to_ns(self._revision.progress_deadline_s) + _DEADLINE_BUFFER_NS
        if now_ns - self._stamp_ns > patience_ns:
            return _Want(0, is_applied=True)
        return _Want(UNKNOWN, is_applied=False, recheck_ns=now_ns + patience_ns)

    def _go_inactive(self, now_ns: int) -> _Want:
        """Rule 8b (SC:214-235): hold one pod until active for a window, then become inactive without scaling yet."""
        window_ns = to_ns(self._revision.window_s)
        if now_ns - self._stamp_ns >= window_ns:
            return _Want(0, is_applied=False)
        return _Want(1, is_applied=True, recheck_ns=self._stamp_ns + window_ns)

    def _release_last_pod(self, now_ns: int, seen: Surroundings) -> _Want:
        """Rule 8c (SC:237-299): the last pod goes once retention and grace allow, behind a probed activator."""
        if self._revision.is_scraped and not seen.in_path:
            return _Want(0, is_applied=False, recheck_ns=now_ns + _PROBE_RETRY_NS)
        retention_ns = to_ns(self._revision.last_pod_retention_s)
        grace_ns = to_ns(self._revision.grace_s)
        inactive_ns = now_ns - self._stamp_ns
        if inactive_ns >= max(retention_ns, grace_ns):
            return _Want(0, is_applied=True)
        if inactive_ns < retention_ns:
            return _Want(0, is_applied=False, recheck_ns=self._stamp_ns + retention_ns)
        if now_ns - seen.proxied_since_ns >= grace_ns:
            return _Want(0, is_applied=True)
        return _Want(0, is_applied=False, recheck_ns=seen.proxied_since_ns + grace_ns)

    def _tell_condition(self, now_ns: int, want: int, ready: int) -> None:
        """Rules 8 and 9 (KPA:286-333): inactive at 0; else active once enough pods are ready, activating before."""
        initial = 0 if self._is_initialised else self._revision.initial_scale
        enough = max(self._revision.floor_scale, 1, initial)
        if want == 0:
            self._set_condition(Condition.INACTIVE, now_ns)
        elif ready >= enough:
            self._is_initialised = True
            if want > 0 or self.condition is not Condition.INACTIVE:
                self._set_condition(Condition.ACTIVE, now_ns)
        elif want > 0 or self.condition is not Condition.INACTIVE:
            self._set_condition(Condition.ACTIVATING, now_ns)

    def _set_condition(self, condition: Condition, now_ns: int) -> None:
        """Change the condition; its stamp is cut to whole seconds, as an API server's JSON does (rule 8)."""
        if condition is not self.condition:
            self.condition = condition
            self._stamp_ns = _cut(now_ns)


def _cut(moment_ns: int) -> int:
    return moment_ns // SECOND_NS * SECOND_NS
