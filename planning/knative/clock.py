"""Simulated time in whole nanoseconds since the start of a run, so that equal moments compare equal.

Also defines at which fraction of a second each of Knative's components acts.
"""

from dataclasses import dataclass

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000
NEVER_NS = 1 << 62
"""A moment later than any run: 146 years."""

TICK_NS = 2 * SECOND_NS
"""Interval of the autoscaler's decisions (rule 4, multiscaler.go:36)."""
REPORT_NS = SECOND_NS
"""Interval of the reports of activator and queue-proxy, and of the scraping of pods (rule 2)."""


def to_ns(seconds: float) -> int:
    """Return seconds as whole nanoseconds."""
    return round(seconds * SECOND_NS)


def to_s(moment_ns: int) -> float:
    """Return nanoseconds as seconds."""
    return moment_ns / SECOND_NS


def first_at_or_after(moment_ns: int, phase_ns: int, period_ns: int) -> int:
    """Return the first moment of a series (`phase_ns` modulo `period_ns`) that is at or after `moment_ns`."""
    return moment_ns + (phase_ns - moment_ns) % period_ns


@dataclass(frozen=True, slots=True)
class Phases:
    """Fraction of a second at which each component acts. Random in a real cluster, fixed in a run.

    The defaults are those of the reference traces (tests/data/kpa, `phases_s`). `tick_s` counts within two seconds.
    """

    report_s: float = 0.1
    """The activator reports its concurrency."""
    pod_report_s: float = 0.2
    """The queue-proxy inside each pod reports its concurrency."""
    scrape_s: float = 0.3
    """The autoscaler scrapes the last reports of the pods."""
    tick_s: float = 0.5
    """The autoscaler decides, in every second second."""
