"""Promises: who was sent away from a full queue and told when to come again, in the order in which they were told.

A line beyond the queue that costs no connection. Without it whoever was just served and asks at once takes the place
that others were told to come for: of 50 clients that asked for a minute, half got nothing and one got 16 pictures
(measured). It is short: a thousand who never came again kept everybody out of an empty queue for twenty minutes.
"""

from __future__ import annotations

import math

GRACE_S = 5.0
"""How much later than told one may come; then the promise is void."""
LINE_PER_PLACE = 4
"""Visitors in the line for each place at work or in the queue; who comes later is told a time and promised nothing."""


class Reservations:
    """The line, of `most` visitors. Not safe to use from several threads by itself."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._due: dict[str, float] = {}
        """Visitor -> moment, in the order of the line."""

    def count_before(self, visitor: str, now: float, until: float = math.inf) -> int:
        """Return how many stand before a visitor (all of them, when it is not in the line) and are due `until` then."""
        for void in [name for name, due in self._due.items() if due + GRACE_S < now]:
            del self._due[void]
        before = 0
        for name, due in self._due.items():
            if name == visitor:
                break
            before += due <= until
        return before

    def give(self, visitor: str, due: float) -> None:
        """Note that a visitor was told to come at `due`; it keeps its place in the line if it has one."""
        if visitor in self._due or len(self._due) < self._most:
            self._due[visitor] = due

    def keep(self, visitor: str) -> None:
        """Take a visitor off the line: it was let in."""
        self._due.pop(visitor, None)
