"""Promises: who was sent away from a full queue and told when to come again, in the order in which they were told.

A line beyond the queue that costs no connection. Without it whoever was just served and asks at once takes the place
that others were told to come for: of 50 clients that asked for a minute, half got nothing and one got 16 pictures
(measured).
"""

from __future__ import annotations

GRACE_S = 5.0
"""How much later than told one may come; then the promise is void."""
MAX_PROMISES = 1_000
"""Visitors in the line; who comes after them is told a time and promised nothing."""


class Promises:
    """The line. Not safe to use from several threads by itself."""

    def __init__(self) -> None:
        self._void_at: dict[str, float] = {}
        """Visitor -> moment, in the order of the line."""

    def count_before(self, visitor: str, now: float) -> int:
        """Return how many stand before a visitor: all of them, when it is not in the line."""
        for void in [name for name, moment in self._void_at.items() if moment < now]:
            del self._void_at[void]
        for before, name in enumerate(self._void_at):
            if name == visitor:
                return before
        return len(self._void_at)

    def give(self, visitor: str, due: float) -> None:
        """Note that a visitor was told to come at `due`; it keeps its place in the line if it has one."""
        if visitor in self._void_at or len(self._void_at) < MAX_PROMISES:
            self._void_at[visitor] = due + GRACE_S

    def keep(self, visitor: str) -> None:
        """Take a visitor off the line: it was let in."""
        self._void_at.pop(visitor, None)
