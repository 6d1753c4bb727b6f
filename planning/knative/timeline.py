"""What will happen when: single events in order of their moments, first come first served within one.

Knows nothing of what happens.
"""

import heapq
from collections.abc import Callable

from planning.knative.clock import NEVER_NS

Act = Callable[[int], None]
"""Called with the moment at which it happens, in nanoseconds."""


class Timeline:
    """The events to come."""

    __slots__ = ("_events", "_sequence", "due_ns")

    def __init__(self) -> None:
        self.due_ns = NEVER_NS
        """When the next event happens, NEVER_NS if none does."""
        self._events: list[tuple[int, int, Act]] = []
        self._sequence = 0

    def call_at(self, moment_ns: int, act: Act) -> None:
        """Have something happen at a moment."""
        self._sequence += 1
        heapq.heappush(self._events, (moment_ns, self._sequence, act))
        self.due_ns = self._events[0][0]

    def step(self) -> None:
        """Let the next event happen."""
        moment_ns, _, act = heapq.heappop(self._events)
        self.due_ns = self._events[0][0] if self._events else NEVER_NS
        act(moment_ns)
