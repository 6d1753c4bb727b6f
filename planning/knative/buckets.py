"""The mean of a load over a sliding window, as Knative's collector keeps it: one bucket a second.

Owns kpa.md rule 3 (aggregation/bucketing.go:126-297), both means: linear and weightedExponential. Seconds are whole
seconds of the run's clock. Knows nothing of pods or decisions.
"""

import math

_DIGITS = 1e6
"""Means are rounded to six digits (rule 3)."""
_PARTS = 10**12
"""Loads are kept in whole parts of one request, so that a running total is the sum of its buckets exactly: in floating
point what was taken off leaves crumbs behind, and a mean that rounds to 0 or not could turn on them."""
_PARTS_A_DIGIT = 10**6


class WindowMean:
    """Mean of what was recorded in the last `length_s` seconds; values of one second add up.

    Keeps the running total that Knative keeps (its windowTotal), so that a mean costs the same for any window.
    """

    __slots__ = ("_buckets", "_first", "_last", "_loudest", "_total", "length_s")

    def __init__(self, length_s: int) -> None:
        self.length_s = length_s
        self._buckets = [0] * length_s
        self._total = 0
        self._loudest: int | None = None
        self._first = 0
        self._last: int | None = None

    @property
    def last(self) -> int | None:
        """The second of the last record, None before the first."""
        return self._last

    def record(self, second: int, value: float) -> None:
        """Add a value to the bucket of its second."""
        last = self._last
        if last is None or second - last >= self.length_s:
            self._forget()
            self._first = self._last = second
        elif second > last:
            self._clear(last + 1, second + 1)
            self._last = second
        elif second <= last - self.length_s:
            return
        parts = round(value * _PARTS)
        self._buckets[second % self.length_s] += parts
        self._total += parts
        if parts and (self._loudest is None or second > self._loudest):
            self._loudest = second

    def record_zeros(self, start: int, until: int) -> None:
        """Record a zero in every second from `start` to `until`, as an unbroken series of scrapes does."""
        self.record(start, 0.0)
        last = start if self._last is None else self._last
        if until - last >= self.length_s:
            self._forget()
            self._last = until
        elif until > last:
            self._clear(last + 1, until + 1)
            self._last = until

    def record_series(self, start: int, until: int, value: float) -> None:
        """Record the same value in every second from `start` to `until`."""
        for second in range(max(start, until - self.length_s), until + 1):
            self.record(second, value)

    def most(self) -> float:
        """The most that any second of the window up to the last record holds, rounded up to the digits of a mean.

        No linear mean is above it until the next record.
        """
        return math.ceil(max(self._buckets) / _PARTS_A_DIGIT) / _DIGITS

    def has_data(self, second: int) -> bool:
        """Whether anything was recorded within the window; at exactly its length it still counts (BK:126)."""
        return self._last is not None and second - self._last <= self.length_s

    def is_silent(self, second: int) -> bool:
        """Whether every bucket inside the window at `second` holds exactly nothing."""
        loudest = self.last_loud()
        return loudest is None or second - loudest >= self.length_s

    def mean(self, second: int) -> float:
        """The mean at a second: the sum over (second - W, second], divided by the seconds that can hold data.

        Gaps between records count as zeros; the tail after the last record does not count at all (it is not in n).
        """
        last = self._last
        if last is None or second - last >= self.length_s:
            return 0.0
        silent = max(second - last, 0)
        seconds = min(last - self._first + 1, self.length_s - silent)
        return _rounded(self._total - self._outdated(silent), seconds)

    def last_loud(self) -> int | None:
        """The last second that holds a load, None if none does."""
        loudest, last = self._loudest, self._last
        return None if loudest is None or last is None or last - loudest >= self.length_s else loudest

    def loudness(self) -> float:
        """What that second holds, 0 if none does."""
        loudest = self.last_loud()
        return 0.0 if loudest is None else self._buckets[loudest % self.length_s] / _PARTS

    def mean_after_zeros(self, second: int, last: int) -> float:
        """What `mean(second)` would say after `record_zeros` up to `last`, without recording them."""
        if self._last is None or second - self._last >= self.length_s:
            return 0.0
        seconds = min(last - self._first + 1, self.length_s - max(second - last, 0))
        return _rounded(self._total - self._outdated(max(second - self._last, 0)), seconds)

    def _outdated(self, silent: int) -> int:
        """What falls out of the window in so many seconds after the last record: the oldest buckets."""
        if not silent or self._last is None:
            return 0
        oldest = (self._last + 1) % self.length_s
        beyond = oldest + silent - self.length_s
        return sum(self._buckets[oldest : oldest + silent]) + sum(self._buckets[: max(beyond, 0)])

    def _kept(self, second: int, last: int) -> list[int]:
        """The buckets still inside the window at `second`, oldest first."""
        buckets, length = self._buckets, self.length_s
        return [buckets[moment % length] for moment in range(second - length + 1, last + 1)]

    def _clear(self, start: int, stop: int) -> None:
        for moment in range(start, stop):
            self._total -= self._buckets[moment % self.length_s]
            self._buckets[moment % self.length_s] = 0

    def _forget(self) -> None:
        self._buckets = [0] * self.length_s
        self._total = 0


class WeightedWindowMean(WindowMean):
    """The weightedExponential mean: later seconds weigh more, and silence decays (BK:152-183)."""

    __slots__ = ("_coefficient",)

    def __init__(self, length_s: int) -> None:
        super().__init__(length_s)
        self._coefficient = max(0.2, 1 - 0.0001 ** (1 / length_s))

    def mean(self, second: int) -> float:
        """The weighted mean at a second; unlike the linear one it has no n and decays after the last record."""
        last = self._last
        if last is None or second - last >= self.length_s:
            return 0.0
        ratio = 1 - self._coefficient
        weight = self._coefficient * ratio ** max(second - last, 0)
        total = 0.0
        for value in reversed(self._kept(max(second, last), last)):
            total += value * weight
            weight *= ratio
        return total / _PARTS

    def mean_after_zeros(self, second: int, last: int) -> float:
        """Zeros weigh nothing: the mean decays with the distance alone."""
        del last
        return self.mean(second)


def _rounded(parts: int, seconds: int) -> float:
    return math.floor(parts / (_PARTS_A_DIGIT * seconds) + 0.5) / _DIGITS


def make_window(length_s: int, *, weighted: bool) -> WindowMean:
    """The window mean that a revision's metric-aggregation-algorithm asks for."""
    return WeightedWindowMean(length_s) if weighted else WindowMean(length_s)
