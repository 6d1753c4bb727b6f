"""The mean of a load over a sliding window, with one bucket per second as in Knative's collector.

Implements rule 3 (aggregation/bucketing.go:126-297) with both means, linear and weightedExponential. Seconds are whole
seconds of the simulated clock.
"""

import math

# Means are rounded to six digits (rule 3).
_DIGITS = 1e6
# Loads are stored as integers, in parts of one request, so that the running total is exactly the sum of its buckets.
# Floating point would accumulate errors that decide whether a mean rounds to 0.
_PARTS_PER_REQUEST = 10**12
_PARTS_PER_DIGIT = 10**6


class WindowMean:
    """Mean of the values recorded in the last `length_s` seconds. Values of one second add up.

    Maintains a running total like Knative's windowTotal, so a mean takes the same time for any window length.
    """

    __slots__ = ("_buckets", "_first", "_last", "_last_nonzero_second", "_total", "length_s")

    def __init__(self, length_s: int) -> None:
        self.length_s = length_s
        self._buckets = [0] * length_s
        self._total = 0
        self._last_nonzero_second: int | None = None
        self._first = 0
        self._last: int | None = None

    @property
    def last(self) -> int | None:
        """The second of the last record; None before the first."""
        return self._last

    def record(self, second: int, value: float) -> None:
        """Add a value to the bucket of its second."""
        last = self._last
        if last is None or second - last >= self.length_s:
            self._reset()
            self._first = self._last = second
        elif second > last:
            self._clear(last + 1, second + 1)
            self._last = second
        elif second <= last - self.length_s:
            return
        parts = round(value * _PARTS_PER_REQUEST)
        self._buckets[second % self.length_s] += parts
        self._total += parts
        if parts and (self._last_nonzero_second is None or second > self._last_nonzero_second):
            self._last_nonzero_second = second

    def record_zeros(self, start: int, until: int) -> None:
        """Record a zero in every second from `start` to `until`, as a series of scrapes does."""
        self.record(start, 0.0)
        last = start if self._last is None else self._last
        if until - last >= self.length_s:
            self._reset()
            self._last = until
        elif until > last:
            self._clear(last + 1, until + 1)
            self._last = until

    def record_series(self, start: int, until: int, value: float) -> None:
        """Record the same value in every second from `start` to `until`."""
        for second in range(max(start, until - self.length_s), until + 1):
            self.record(second, value)

    def max_bucket(self) -> float:
        """Return the maximum of any second of the window up to the last record, rounded up to the digits of a mean.

        No linear mean exceeds it until the next record.
        """
        return math.ceil(max(self._buckets) / _PARTS_PER_DIGIT) / _DIGITS

    def has_data(self, second: int) -> bool:
        """Return whether anything was recorded within the window. Exactly one window ago still counts (BK:126)."""
        return self._last is not None and second - self._last <= self.length_s

    def is_zero(self, second: int) -> bool:
        """Return whether every bucket of the window at `second` is exactly 0."""
        last_nonzero = self.last_nonzero()
        return last_nonzero is None or second - last_nonzero >= self.length_s

    def mean(self, second: int) -> float:
        """Return the mean at a second: the sum over (second - W, second], divided by the number of seconds with data.

        Gaps between records count as zeros. Seconds after the last record do not count.
        """
        last = self._last
        if last is None or second - last >= self.length_s:
            return 0.0
        silent = max(second - last, 0)
        seconds = min(last - self._first + 1, self.length_s - silent)
        return _rounded(self._total - self._expired_parts(silent), seconds)

    def last_nonzero(self) -> int | None:
        """Return the last second of the window with a load; None if there is none."""
        last_nonzero, last = self._last_nonzero_second, self._last
        return None if last_nonzero is None or last is None or last - last_nonzero >= self.length_s else last_nonzero

    def last_nonzero_value(self) -> float:
        """Return the load of that second; 0 if there is none."""
        last_nonzero = self.last_nonzero()
        return 0.0 if last_nonzero is None else self._buckets[last_nonzero % self.length_s] / _PARTS_PER_REQUEST

    def mean_after_zeros(self, second: int, last: int) -> float:
        """Return what `mean(second)` would be after `record_zeros` up to `last`, without recording them."""
        if self._last is None or second - self._last >= self.length_s:
            return 0.0
        seconds = min(last - self._first + 1, self.length_s - max(second - last, 0))
        return _rounded(self._total - self._expired_parts(max(second - self._last, 0)), seconds)

    def _expired_parts(self, elapsed_s: int) -> int:
        """Return the sum of the oldest buckets, which leave the window this many seconds after the last record."""
        if not elapsed_s or self._last is None:
            return 0
        oldest = (self._last + 1) % self.length_s
        beyond = oldest + elapsed_s - self.length_s
        return sum(self._buckets[oldest : oldest + elapsed_s]) + sum(self._buckets[: max(beyond, 0)])

    def _buckets_in_window(self, second: int, last: int) -> list[int]:
        """Return the buckets that are inside the window at `second`, oldest first."""
        buckets, length = self._buckets, self.length_s
        return [buckets[moment % length] for moment in range(second - length + 1, last + 1)]

    def _clear(self, start: int, stop: int) -> None:
        for moment in range(start, stop):
            self._total -= self._buckets[moment % self.length_s]
            self._buckets[moment % self.length_s] = 0

    def _reset(self) -> None:
        self._buckets = [0] * self.length_s
        self._total = 0


class WeightedWindowMean(WindowMean):
    """The weightedExponential mean: later seconds weigh more, and the mean decays without records (BK:152-183)."""

    __slots__ = ("_coefficient",)

    def __init__(self, length_s: int) -> None:
        super().__init__(length_s)
        self._coefficient = max(0.2, 1 - 0.0001 ** (1 / length_s))

    def mean(self, second: int) -> float:
        """Return the weighted mean at a second. Unlike the linear mean it decays after the last record."""
        last = self._last
        if last is None or second - last >= self.length_s:
            return 0.0
        ratio = 1 - self._coefficient
        weight = self._coefficient * ratio ** max(second - last, 0)
        total = 0.0
        for value in reversed(self._buckets_in_window(max(second, last), last)):
            total += value * weight
            weight *= ratio
        return total / _PARTS_PER_REQUEST

    def mean_after_zeros(self, second: int, last: int) -> float:
        """Return the mean, which zeros do not change: it depends only on the distance to the last record."""
        del last
        return self.mean(second)


def _rounded(parts: int, seconds: int) -> float:
    return math.floor(parts / (_PARTS_PER_DIGIT * seconds) + 0.5) / _DIGITS


def make_window(length_s: int, *, weighted: bool) -> WindowMean:
    """Return the kind of mean that a revision's metric-aggregation-algorithm selects."""
    return WeightedWindowMean(length_s) if weighted else WindowMean(length_s)
