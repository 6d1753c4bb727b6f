"""Virtual time: whole nanoseconds since the start of a run, so that two paths to one moment compare equal.

Owns the conversions, and when in each second Knative's components speak. Knows nothing of pods or requests.
"""

from dataclasses import dataclass

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000
NEVER_NS = 1 << 62
"""Later than any moment of a run (146 years)."""

TICK_NS = 2 * SECOND_NS
"""How often the autoscaler decides (kpa.md rule 4, multiscaler.go:36)."""
REPORT_NS = SECOND_NS
"""How often activator and queue-proxy report, and how often pods are scraped (kpa.md rule 2)."""


def to_ns(seconds: float) -> int:
    """Seconds as whole nanoseconds."""
    return round(seconds * SECOND_NS)


def to_s(moment_ns: int) -> float:
    """Nanoseconds as seconds."""
    return moment_ns / SECOND_NS


def first_at_or_after(moment_ns: int, phase_ns: int, period_ns: int) -> int:
    """The first moment of a regular series (`phase_ns` modulo `period_ns`) that is not before `moment_ns`."""
    return moment_ns + (phase_ns - moment_ns) % period_ns


@dataclass(frozen=True, slots=True)
class Phases:
    """Where in a second each component speaks; a real cluster draws these by chance, a run fixes them.

    The defaults are those of the reference traces (data/knative/kpa, `phases_s`); `tick_s` counts within two seconds.
    """

    report_s: float = 0.1
    """The activator's report of its concurrency."""
    pod_report_s: float = 0.2
    """The queue-proxy's report inside each pod."""
    scrape_s: float = 0.3
    """The autoscaler reads the pods' last reports."""
    tick_s: float = 0.5
    """The autoscaler decides, every other second."""
