"""The concurrency that activator and pods report: a mean over the time since their last report.

Implements rule 2 (activator/handler/concurrency_reporter.go and the statistics of the queue-proxy).
"""

from planning.knative.clock import REPORT_NS, first_at_or_after


class ConcurrencyMeter:
    """Mean number of requests in flight since the last report."""

    __slots__ = ("_changed_ns", "_request_ns", "_since_ns", "in_flight")

    def __init__(self, since_ns: int) -> None:
        self.in_flight = 0
        self._request_ns = 0
        self._since_ns = since_ns
        self._changed_ns = since_ns

    def change(self, now_ns: int, by: int) -> None:
        """Add or remove requests in flight."""
        self._request_ns += self.in_flight * (now_ns - self._changed_ns)
        self._changed_ns = now_ns
        self.in_flight += by

    def report(self, now_ns: int) -> float:
        """Return the mean since the last report and start over."""
        self.change(now_ns, 0)
        elapsed_ns = now_ns - self._since_ns
        mean = self._request_ns / elapsed_ns if elapsed_ns else 0.0
        self._request_ns = 0
        self._since_ns = now_ns
        return mean

    def steady_since_report(self) -> int | None:
        """Return the number in flight if it has not changed since the last report, otherwise None."""
        return self.in_flight if self._changed_ns == self._since_ns else None

    def skip_to(self, report_ns: int) -> None:
        """Act as if all reports up to this one had been made, without a change in between."""
        self._request_ns = 0
        self._since_ns = self._changed_ns = report_ns


class ActivatorMeter:
    """The activator's reports of one revision: immediately for the first request after an idle time, then every second.

    The immediate report is 1. The next regular report subtracts it again, because both cover the same time (rule 2).
    """

    __slots__ = ("_is_first_period", "_meter")

    def __init__(self) -> None:
        self._meter: ConcurrencyMeter | None = None
        self._is_first_period = False

    @property
    def is_idle(self) -> bool:
        """Whether no further regular report is due."""
        return self._meter is None

    def arrive(self, now_ns: int) -> bool:
        """Count a request; return True if it is the first after an idle time, which is reported immediately."""
        is_first = self._meter is None
        if self._meter is None:
            self._meter = ConcurrencyMeter(now_ns)
            self._is_first_period = True
        self._meter.change(now_ns, 1)
        return is_first

    def steady_load(self) -> int | None:
        """Return the value of all further reports if no request starts or ends; None if it is not known yet."""
        return None if self._meter is None or self._is_first_period else self._meter.steady_since_report()

    def skip_to(self, report_ns: int) -> None:
        """Act as if all reports up to this one had been made, without a request starting or ending in between."""
        if self._meter is not None:
            self._meter.skip_to(report_ns)

    def leave(self, now_ns: int) -> None:
        """Count the end of a request, served or not."""
        if self._meter is not None:
            self._meter.change(now_ns, -1)

    def report(self, now_ns: int) -> float | None:
        """Return the value of a regular report; None after a mean of 0 has been sent once."""
        if self._meter is None:
            return None
        mean = self._meter.report(now_ns)
        value = max(mean - 1, 0.0) if self._is_first_period else mean
        self._is_first_period = False
        if mean == 0 and self._meter.in_flight == 0:
            self._meter = None
        return value


class PodMeter:
    """The reports of one pod's queue-proxy about direct requests, which bypassed the activator.

    The autoscaler subtracts from a scraped value what the activator proxied (CO:389-393), and the activator reports
    that part itself. Reports have a fixed phase and are computed on demand.
    """

    __slots__ = ("_due_ns", "_meter", "_reported")

    def __init__(self, now_ns: int, phase_ns: int) -> None:
        self._meter = ConcurrencyMeter(now_ns)
        self._due_ns = first_at_or_after(now_ns + 1, phase_ns, REPORT_NS)
        self._reported = 0.0

    @property
    def in_flight(self) -> int:
        """Number of direct requests inside the pod, including waiting ones."""
        return self._meter.in_flight

    def change(self, now_ns: int, by: int) -> None:
        """Add or remove direct requests in flight."""
        self._catch_up(now_ns)
        self._meter.change(now_ns, by)

    def last_report(self, now_ns: int) -> float:
        """Return the mean that the pod last reported, which is what a scrape reads."""
        self._catch_up(now_ns)
        return self._reported

    def _catch_up(self, now_ns: int) -> None:
        """Compute the reports that are due. Nothing changed in between, so the first and the last one suffice."""
        if now_ns < self._due_ns:
            return
        self._reported = self._meter.report(self._due_ns)
        self._due_ns += REPORT_NS
        if now_ns >= self._due_ns:
            latest_ns = first_at_or_after(now_ns + 1, self._due_ns, REPORT_NS) - REPORT_NS
            self._meter.report(latest_ns)
            self._reported = float(self._meter.in_flight)
            self._due_ns = latest_ns + REPORT_NS
