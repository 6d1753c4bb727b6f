"""How much concurrency the activator and the pods report: means over the time since their last report.

Owns kpa.md rule 2 (activator/handler/concurrency_reporter.go, queue-proxy statistics). Knows nothing of windows or
decisions.
"""

from planning.knative.clock import REPORT_NS, first_at_or_after


class Meter:
    """Mean number of requests in flight since the last report (the queue-proxy's statistics)."""

    __slots__ = ("_changed_ns", "_request_ns", "_since_ns", "in_flight")

    def __init__(self, since_ns: int) -> None:
        self.in_flight = 0
        self._request_ns = 0
        self._since_ns = since_ns
        self._changed_ns = since_ns

    def change(self, now_ns: int, by: int) -> None:
        """Requests came (+) or went (-)."""
        self._request_ns += self.in_flight * (now_ns - self._changed_ns)
        self._changed_ns = now_ns
        self.in_flight += by

    def report(self, now_ns: int) -> float:
        """The mean since the last report, and begin anew."""
        self.change(now_ns, 0)
        elapsed_ns = now_ns - self._since_ns
        mean = self._request_ns / elapsed_ns if elapsed_ns else 0.0
        self._request_ns = 0
        self._since_ns = now_ns
        return mean

    def steady_since_report(self) -> int | None:
        """How many are in flight if that did not change since the last report, else None."""
        return self.in_flight if self._changed_ns == self._since_ns else None

    def skip_to(self, report_ns: int) -> None:
        """As if reports had been made up to this one, with nothing changing in between."""
        self._request_ns = 0
        self._since_ns = self._changed_ns = report_ns


class ActivatorMeter:
    """What the activator reports of one revision: at once for the first request after idle, then every second.

    The first report says 1 at once; what the next regular report would count twice is taken off it (rule 2).
    """

    __slots__ = ("_is_first_period", "_meter")

    def __init__(self) -> None:
        self._meter: Meter | None = None
        self._is_first_period = False

    @property
    def is_idle(self) -> bool:
        """Whether the next regular report would say nothing."""
        return self._meter is None

    def arrive(self, now_ns: int) -> bool:
        """A request came; True if it is the first after idle, which is reported at once as 1."""
        is_first = self._meter is None
        if self._meter is None:
            self._meter = Meter(now_ns)
            self._is_first_period = True
        self._meter.change(now_ns, 1)
        return is_first

    def steady_load(self) -> int | None:
        """What every further report will say if nobody comes or goes; None if that is not known yet."""
        return None if self._meter is None or self._is_first_period else self._meter.steady_since_report()

    def skip_to(self, report_ns: int) -> None:
        """As if the reports up to this one had been made, with nobody coming or going in between."""
        if self._meter is not None:
            self._meter.skip_to(report_ns)

    def leave(self, now_ns: int) -> None:
        """A request went, served or not."""
        if self._meter is not None:
            self._meter.change(now_ns, -1)

    def report(self, now_ns: int) -> float | None:
        """The regular report; a mean of 0 is sent once, then the revision is forgotten (None)."""
        if self._meter is None:
            return None
        mean = self._meter.report(now_ns)
        value = max(mean - 1, 0.0) if self._is_first_period else mean
        self._is_first_period = False
        if mean == 0 and self._meter.in_flight == 0:
            self._meter = None
        return value


class PodMeter:
    """What the queue-proxy of one pod reports of requests that came past the activator.

    Only those: a scraped value is stored less what the activator proxied (CO:389-393), and that part is exactly what
    the activator's own report counts. Reports fall on a fixed phase and are worked out when somebody looks.
    """

    __slots__ = ("_due_ns", "_meter", "_reported")

    def __init__(self, now_ns: int, phase_ns: int) -> None:
        self._meter = Meter(now_ns)
        self._due_ns = first_at_or_after(now_ns + 1, phase_ns, REPORT_NS)
        self._reported = 0.0

    @property
    def in_flight(self) -> int:
        """Direct requests now inside the pod, waiting ones included."""
        return self._meter.in_flight

    def change(self, now_ns: int, by: int) -> None:
        """Direct requests came (+) or went (-)."""
        self._settle(now_ns)
        self._meter.change(now_ns, by)

    def last_report(self, now_ns: int) -> float:
        """The mean that the pod last reported: what a scrape reads."""
        self._settle(now_ns)
        return self._reported

    def _settle(self, now_ns: int) -> None:
        """Make the reports that were due by now; in between nothing changed, so two of them say all."""
        if now_ns < self._due_ns:
            return
        self._reported = self._meter.report(self._due_ns)
        self._due_ns += REPORT_NS
        if now_ns >= self._due_ns:
            latest_ns = first_at_or_after(now_ns + 1, self._due_ns, REPORT_NS) - REPORT_NS
            self._meter.report(latest_ns)
            self._reported = float(self._meter.in_flight)
            self._due_ns = latest_ns + REPORT_NS
