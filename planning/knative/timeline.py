"""A queue of future events, ordered by time and by insertion within equal times."""

import heapq
from collections.abc import Callable

from planning.knative.clock import NEVER_NS

Callback = Callable[[int], None]
"""Called with the moment of the event in nanoseconds."""


class Timeline:
    """The future events of a run."""

    __slots__ = ("_events", "_sequence", "next_event_ns")

    def __init__(self) -> None:
        self.next_event_ns = NEVER_NS
        """The moment of the next event; NEVER_NS if there is none."""
        self._events: list[tuple[int, int, Callback]] = []
        self._sequence = 0

    def call_at(self, moment_ns: int, callback: Callback) -> None:
        """Schedule a callback."""
        self._sequence += 1
        heapq.heappush(self._events, (moment_ns, self._sequence, callback))
        self.next_event_ns = self._events[0][0]

    def step(self) -> None:
        """Run the callback of the next event."""
        moment_ns, _, callback = heapq.heappop(self._events)
        self.next_event_ns = self._events[0][0] if self._events else NEVER_NS
        callback(moment_ns)
