"""Places: how many images, of how many bytes, are worked on at once; how many may wait, and whose turn is next.

Everything that costs memory or the backend's time is done while holding a place, so these numbers bound both. A place
that becomes free goes to the visitor who holds fewest, among equals to the one whose last turn is longest ago, then to
whoever came first: whoever sends many images waits behind its own, never others behind them. Whoever is sent away from
a full queue is promised a place in it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from gateway.cancellation import CancelToken
from gateway.jobs.promises import LINE_PER_PLACE, Reservations

Clock = Callable[[], float]

_WEIGHT_OF_LATEST = 0.2


class QueueFullError(Exception):
    """Nobody more may wait; `retry_after_s` is when there will be a place for this visitor, at the usual pace."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(f"{waiting} are waiting, which is as many as may.")
        self.waiting = waiting
        self.retry_after_s = retry_after_s


class ClientQueueFullError(QueueFullError):
    """This visitor has as many waiting as one may, whatever places are free for others."""


class QueueTimeoutError(Exception):
    """The deadline passed before the turn came."""


@dataclass(frozen=True)
class QueueState:
    """How full the places are."""

    at_work: int
    waiting: int
    is_full: bool
    retry_after_s: float
    """When a newcomer would have a place in the queue, at the usual pace."""


@dataclass(frozen=True)
class Capacity:
    """The most there may be, of each kind. All are images but the last."""

    at_work: int
    waiting: int
    waiting_each: int = 1_000_000
    """Of one visitor."""
    n_bytes: int = 1 << 62
    """Of memory for work, all images together. One image that takes more is worked on alone."""


class JobQueue:
    """A bounded, fair queue in front of a bounded number of jobs. Safe to use from several threads."""

    def __init__(self, room: Capacity, *, clock: Clock = time.monotonic, usual_s: float = 5.0) -> None:
        self._room = room
        self._clock = clock
        self._lock = threading.Lock()
        self._at_work: Counter[str] = Counter()
        """Images by visitor; whoever has none is not in it."""
        self._bytes = 0
        """Of memory that those at work take."""
        self._promises = Reservations(LINE_PER_PLACE * (room.at_work + room.waiting))
        self._last_turns: dict[str, int] = {}
        """Number of the latest turn of each visitor who is at work or waiting."""
        self._turns = 0
        self._queue: list[QueueSlot] = []
        """In the order of arrival."""
        self._usual_s = usual_s
        """Seconds a job takes: a moving average of those seen, a guess before the first."""

    def state(self) -> QueueState:
        """Return how full the places are now."""
        with self._lock:
            at_work, waiting = self._at_work.total(), len(self._queue)
            now = self._clock()
            has_room = at_work < self._room.at_work and not waiting
            full = not has_room and not self._may_wait("", now)
            before = self._promises.count_before("", now) if full else 0
            return QueueState(at_work, waiting, full, self._estimate_s(before))

    def enter(self, visitor: str = "", n_bytes: int = 0) -> QueueSlot:
        """Take a place, or one in the queue; raise NoPlace or NoPlaceForVisitor at once when there is none.

        Whoever enters must leave.
        """
        with self._lock:
            ticket, now = QueueSlot(self, visitor, n_bytes), self._clock()
            if not self._queue and self._fits(ticket):  # no promise is worth an idle backend
                self._promises.keep(visitor)
                self._begin(ticket)
                return ticket
            mine = sum(other.visitor == visitor for other in self._queue)
            if mine >= self._room.waiting_each:
                raise ClientQueueFullError(mine, self._estimate_s(mine))
            if not self._may_wait(visitor, now):
                retry_after_s = self._estimate_s(self._promises.count_before(visitor, now))
                self._promises.give(visitor, now + retry_after_s)
                raise QueueFullError(len(self._queue), retry_after_s)
            self._promises.keep(visitor)
            self._queue.append(ticket)
            return ticket

    def turn_of(self, ticket: QueueSlot) -> tuple[int, int]:
        """Return (place in the queue from 1, images at work or waiting before it); (0, 0) once it has its place."""
        with self._lock:
            if ticket not in self._queue:
                return 0, 0
            before = self._in_turn().index(ticket)
            return before + 1, self._at_work.total() + before

    def leave(self, ticket: QueueSlot) -> None:
        """Give the place up, or the wait for it."""
        with self._lock:
            if ticket in self._queue:
                self._queue.remove(ticket)
            else:
                if ticket.has_finished:
                    seconds = self._clock() - ticket.began
                    self._usual_s += _WEIGHT_OF_LATEST * (seconds - self._usual_s)
                self._bytes -= ticket.n_bytes
                self._at_work[ticket.visitor] -= 1
                self._at_work += Counter()  # forgets whoever has none
            self._forget(ticket.visitor)
            # The next may be one that the one who leaves stood before: a large image holds small ones up, else it
            # would wait for as long as small ones come.
            while self._queue and self._fits(chosen := self._in_turn()[0]):
                self._queue.remove(chosen)
                self._begin(chosen)

    def _fits(self, ticket: QueueSlot) -> bool:
        at_work = self._at_work.total()
        return not at_work or (at_work < self._room.at_work and self._bytes + ticket.n_bytes <= self._room.n_bytes)

    def _may_wait(self, visitor: str, now: float) -> bool:
        """Whether the queue has a place that is promised to nobody who comes while this visitor would wait in it."""
        waiting = len(self._queue)
        its_turn = now + self._estimate_s(waiting)
        return waiting + self._promises.count_before(visitor, now, its_turn) < self._room.waiting

    def _forget(self, visitor: str) -> None:
        if visitor not in self._at_work and all(other.visitor != visitor for other in self._queue):
            self._last_turns.pop(visitor, None)

    def _begin(self, ticket: QueueSlot) -> None:
        self._turns += 1
        self._last_turns[ticket.visitor] = self._turns
        self._bytes += ticket.n_bytes
        self._at_work[ticket.visitor] += 1
        ticket.begin(self._clock())

    def _in_turn(self) -> list[QueueSlot]:
        """Return who waits in the order of their turns, if nobody else comes."""
        waiting: Counter[str] = Counter()
        heads: dict[str, int] = {}
        keys = []
        for arrival, ticket in enumerate(self._queue):
            who = ticket.visitor
            mine, head = waiting[who], heads.setdefault(who, arrival)
            keys.append((self._at_work[who] + mine, mine, self._last_turns.get(who, 0), head))
            waiting[who] += 1
        return [ticket for _, ticket in sorted(zip(keys, self._queue, strict=True), key=lambda pair: pair[0])]

    def _estimate_s(self, before: int) -> float:
        """Return when so many and one more images will have been finished, at the usual pace."""
        return self._usual_s * (before + 1) / self._room.at_work


class QueueSlot:
    """A place, or a place in the queue."""

    def __init__(self, places: JobQueue, visitor: str, n_bytes: int) -> None:
        self._places = places
        self._turn = threading.Event()
        self.visitor = visitor
        self.n_bytes = n_bytes
        """Of memory that the work takes at most."""
        self.began = 0.0
        """When the work began, a moment of the clock."""
        self.has_finished = False
        """Whether there is a picture: broken uploads and visitors who leave say nothing of how long one takes."""

    @property
    def turn(self) -> tuple[int, int]:
        """(place in the queue from 1, images at work or waiting before this one); (0, 0) once it has its place."""
        return self._places.turn_of(self)

    def begin(self, now: float) -> None:
        """Note that the turn has come; called by `JobQueue`."""
        self.began = now
        self._turn.set()

    def wait(self, timeout_s: float, cancel_token: CancelToken) -> None:
        """Return when the turn has come; raise WaitedTooLong or Stopped."""
        with cancel_token.on_cancel(self._turn.set):  # woken by either
            came = self._turn.wait(timeout_s)
        cancel_token.raise_if_cancelled()
        if not came:
            raise QueueTimeoutError

    def leave(self) -> None:
        """Give the place up, or the wait for it."""
        self._places.leave(self)
