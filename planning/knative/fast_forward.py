"""Skips regular reports, scrapes and evaluations that provably change nothing.

Most of a month the service is idle. Without requests the means can only fall, so the next evaluation with another
result can be computed directly. Tests compare this with the tick-by-tick run.
"""

from planning.knative.autoscaler import Autoscaler, desired_scales, is_over_threshold
from planning.knative.clock import NEVER_NS, REPORT_NS, SECOND_NS, TICK_NS, first_at_or_after
from planning.knative.control import DIRECT_MEMORY_NS, ControlPlane

# A moment before every run: nothing is skipped.
_DO_NOT_SKIP_NS = -NEVER_NS
# A mean of at least this does not round to 0: means have six digits (rule 3).
_MIN_NONZERO_MEAN = 1e-5


def skip_idle(control: ControlPlane, limit_ns: int) -> None:
    """After an evaluation without requests in the system, go to the next evaluation that can change something.

    `limit_ns` is the next arrival or single event, the latest moment to go to. Skips nothing where it is not certain
    that the result stays the same.
    """
    if limit_ns <= control.tick_ns or not control.activator.is_idle:
        return
    if control.last_evaluated_ready != len(control.deployment.ready):
        return
    if control.tick_ns - TICK_NS - control.last_direct_ns < DIRECT_MEMORY_NS:
        return  # a pod has yet to report its last direct requests
    stop_ns = min(_next_change_ns(control), limit_ns)
    if stop_ns <= control.tick_ns:
        return
    if control.scrape_ns < stop_ns:
        start = control.scrape_ns // SECOND_NS
        control.scrape_ns = first_at_or_after(stop_ns, control.scrape_ns, REPORT_NS)
        until = (control.scrape_ns - REPORT_NS) // SECOND_NS
        control.stable.record_zeros(start, until)
        control.panic.record_zeros(start, until)
    control.tick_ns = first_at_or_after(stop_ns, control.tick_ns, TICK_NS)


def skip_steady_load(control: ControlPlane, limit_ns: int) -> None:
    """After an evaluation with a load that stays the same until `limit_ns`, skip the evaluations up to then.

    All requests must have come through the activator, for example while they wait for a boot. Every further report then
    repeats the load. While no second of the windows has a higher load, the means can only rise towards it. If the
    decision at the load itself equals the last one, all decisions in between are equal too. The sign of the excess
    burst capacity stays the same, because pods are scraped only while one is ready and never at burst capacity -1.
    """
    load = control.activator.steady_load()
    autoscaler, revision = control.autoscaler, control.revision
    if limit_ns <= control.tick_ns or not load or control.scrape_ns != NEVER_NS or autoscaler is None:
        return
    if control.last_evaluated_ready != len(control.deployment.ready) or autoscaler.has_delay or revision.weighted:
        return
    now_ns = control.tick_ns - TICK_NS
    second = now_ns // SECOND_NS
    if autoscaler.is_panicking and autoscaler.panic_since_ns != now_ns:
        return  # the panic may end in between
    if control.stable.last != second or max(control.stable.max_bucket(), control.panic.max_bucket()) > load:
        return
    ready, stable, panic = control.last_evaluated_ready, control.stable.mean(second), control.panic.mean(second)
    if desired_scales(revision, stable, panic, ready) != desired_scales(revision, load, load, ready):
        return
    start = control.report_ns // SECOND_NS
    control.report_ns = first_at_or_after(limit_ns, control.report_ns, REPORT_NS)
    control.tick_ns = first_at_or_after(limit_ns, control.tick_ns, TICK_NS)
    last_report_ns = control.report_ns - REPORT_NS
    control.activator.skip_to(last_report_ns)
    control.stable.record_series(start, last_report_ns // SECOND_NS, load)
    control.panic.record_series(start, last_report_ns // SECOND_NS, load)
    autoscaler.extend_panic(control.tick_ns - TICK_NS, load, control.last_evaluated_ready)


def _next_change_ns(control: ControlPlane) -> int:
    """Return the first evaluation that could change something; _DO_NOT_SKIP_NS if it is not known."""
    autoscaler = control.autoscaler
    if autoscaler is None or control.revision.panic_threshold <= 0:
        return _DO_NOT_SKIP_NS
    second = (control.tick_ns - TICK_NS) // SECOND_NS
    if autoscaler.is_panicking:
        return _panic_end_ns(control, autoscaler, second)
    if control.stable.last is None and control.revision.is_scraped and not control.last_evaluated_ready:
        return NEVER_NS  # no pod and no sample yet: no evaluation has data
    if control.desired == 0 and control.stable.is_zero(second) and control.panic.is_zero(second):
        return NEVER_NS
    if control.desired == 1 == control.last_evaluated_ready and not autoscaler.has_delay:
        return _first_zero_ns(control) if control.revision.is_scraped else _end_of_load_ns(control)
    return _DO_NOT_SKIP_NS


def _panic_end_ns(control: ControlPlane, autoscaler: Autoscaler, second: int) -> int:
    """Return the first evaluation that may end the panic, if no evaluation before it asks for more pods (rule 5).

    If pods are scraped the means fall, and the panic mean must be 0 already. Otherwise see `_max_desired_scale`.
    """
    if autoscaler.has_delay:
        return _DO_NOT_SKIP_NS
    if control.revision.is_scraped:
        if not control.panic.is_zero(second):
            return _DO_NOT_SKIP_NS
    elif _max_desired_scale(control) > autoscaler.panic_maximum:
        return _DO_NOT_SKIP_NS
    return first_at_or_after(autoscaler.panic_ends_ns() + 1, control.tick_ns, TICK_NS)


def _max_desired_scale(control: ControlPlane) -> int:
    """Return the maximum desired scale of all evaluations until the next record, if pods are not scraped.

    Then no zeros are recorded, and a mean over fewer and fewer seconds may rise, but not above the largest bucket.
    Returns NEVER_NS if the threshold of a panic may be exceeded.
    """
    revision, ready = control.revision, control.last_evaluated_ready
    if revision.weighted:
        return NEVER_NS  # this mean is not rounded: weights with a sum above 1 could ask for another pod
    by_stable, by_panic, unlimited = desired_scales(
        revision, control.stable.max_bucket(), control.panic.max_bucket(), ready
    )
    return NEVER_NS if is_over_threshold(revision, unlimited, ready) else max(by_stable, by_panic)


def _end_of_load_ns(control: ControlPlane) -> int:
    """Return the first evaluation after the last nonzero second has left the stable window (rule 8, burst capacity -1).

    Until then the mean is at least the load of that second over a whole window. If this does not round to 0, and no
    evaluation asks for a second pod, the desired scale stays 1.
    """
    window, last_nonzero = control.stable, control.stable.last_nonzero()
    if (
        last_nonzero is None
        or window.last_nonzero_value() < _MIN_NONZERO_MEAN * window.length_s
        or _max_desired_scale(control) != 1
    ):
        return _DO_NOT_SKIP_NS
    return first_at_or_after((last_nonzero + window.length_s) * SECOND_NS, control.tick_ns, TICK_NS)


def _first_zero_ns(control: ControlPlane) -> int:
    """Return the first evaluation whose stable mean is 0 while one ready pod is scraped (rule 8).

    Only zeros are recorded from now on. The sum falls and the divisor grows, so the desired scale stays 1 until the
    mean rounds to 0. The panic mean falls as well, so no panic begins. The sign of the excess burst capacity stays the
    same if it is the same at 0.
    """
    revision = control.revision
    if revision.burst_capacity > 0 and (control.excess_burst < 0) != (
        revision.total_value * control.last_evaluated_ready - revision.burst_capacity < 0
    ):
        return _DO_NOT_SKIP_NS
    last_nonzero = control.stable.last_nonzero()
    if last_nonzero is None:
        return _DO_NOT_SKIP_NS
    tick_ns = first_at_or_after((last_nonzero + control.stable.length_s) * SECOND_NS, control.tick_ns, TICK_NS)
    while tick_ns > control.tick_ns and _mean_after_zeros(control, tick_ns - TICK_NS) == 0:
        tick_ns -= TICK_NS
    return tick_ns


def _mean_after_zeros(control: ControlPlane, tick_ns: int) -> float:
    """Return the stable mean at a later evaluation if every scrape until then reads 0."""
    last_scrape_ns = first_at_or_after(tick_ns, control.scrape_ns, REPORT_NS) - REPORT_NS
    return control.stable.mean_after_zeros(tick_ns // SECOND_NS, last_scrape_ns // SECOND_NS)
