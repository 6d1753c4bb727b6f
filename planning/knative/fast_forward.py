"""Leaving out quiet time: regular reports, scrapes and evaluations that provably change nothing.

Most of a month nobody is there. With no request in the system the means can only fall, so the next evaluation that says
something new can be worked out instead of waited for; `tests/unit/planning/knative/test_fast_forward.py` holds this to
the tick-by-tick run.
"""

from planning.knative.autoscaler import Autoscaler, is_over_threshold, wanted_scales
from planning.knative.clock import NEVER_NS, REPORT_NS, SECOND_NS, TICK_NS, first_at_or_after
from planning.knative.control import DIRECT_MEMORY_NS, Control

_UNPROVEN_NS = -NEVER_NS
"""Earlier than any moment: leave nothing out."""
_CLEAR_MEAN = 1e-5
"""A mean from here on does not round to 0 (rule 3 keeps six digits)."""


def skip_quiet(control: Control, limit_ns: int) -> None:
    """Right after an evaluation with no request in the system: go to the next moment that matters, at most `limit_ns`.

    `limit_ns` is the next arrival or single event. Does nothing where it cannot prove that nothing is lost.
    """
    if limit_ns <= control.tick_ns or not control.activator.is_idle:
        return
    if control.fed_ready != len(control.deployment.ready):
        return
    if control.tick_ns - TICK_NS - control.last_direct_ns < DIRECT_MEMORY_NS:
        return  # a pod still has to report its last direct requests
    stop_ns = min(_next_news_ns(control), limit_ns)
    if stop_ns <= control.tick_ns:
        return
    if control.scrape_ns < stop_ns:
        start = control.scrape_ns // SECOND_NS
        control.scrape_ns = first_at_or_after(stop_ns, control.scrape_ns, REPORT_NS)
        until = (control.scrape_ns - REPORT_NS) // SECOND_NS
        control.stable.record_zeros(start, until)
        control.panic.record_zeros(start, until)
    control.tick_ns = first_at_or_after(stop_ns, control.tick_ns, TICK_NS)


def skip_steady(control: Control, limit_ns: int) -> None:
    """Right after an evaluation with the same requests in the system until `limit_ns`, all through the activator.

    Every further report says that load again. While no second of the windows holds more, the means can only rise
    towards it; if they would decide at the load itself as they did just now, so they do in between: a boot is waited
    for at once. The burst capacity keeps its sign: with no pod scraped none is ready, or it is -1 for good.
    """
    load = control.activator.steady_load()
    autoscaler, revision = control.autoscaler, control.revision
    if limit_ns <= control.tick_ns or not load or control.scrape_ns != NEVER_NS or autoscaler is None:
        return
    if control.fed_ready != len(control.deployment.ready) or autoscaler.has_delay or revision.weighted:
        return
    now_ns = control.tick_ns - TICK_NS
    second = now_ns // SECOND_NS
    if autoscaler.is_panicking and autoscaler.panic_since_ns != now_ns:
        return  # the panic may end on its way
    if control.stable.last != second or max(control.stable.most(), control.panic.most()) > load:
        return
    ready, stable, panic = control.fed_ready, control.stable.mean(second), control.panic.mean(second)
    if wanted_scales(revision, stable, panic, ready) != wanted_scales(revision, load, load, ready):
        return
    start = control.report_ns // SECOND_NS
    control.report_ns = first_at_or_after(limit_ns, control.report_ns, REPORT_NS)
    control.tick_ns = first_at_or_after(limit_ns, control.tick_ns, TICK_NS)
    last_report_ns = control.report_ns - REPORT_NS
    control.activator.skip_to(last_report_ns)
    control.stable.record_series(start, last_report_ns // SECOND_NS, load)
    control.panic.record_series(start, last_report_ns // SECOND_NS, load)
    autoscaler.extend_panic(control.tick_ns - TICK_NS, load, control.fed_ready)


def _next_news_ns(control: Control) -> int:
    """The first evaluation that could say something new; _UNPROVEN_NS where nobody can tell."""
    autoscaler = control.autoscaler
    if autoscaler is None or control.revision.panic_threshold <= 0:
        return _UNPROVEN_NS
    second = (control.tick_ns - TICK_NS) // SECOND_NS
    if autoscaler.is_panicking:
        return _panic_end_ns(control, autoscaler, second)
    if control.stable.last is None and control.revision.is_scraped and not control.fed_ready:
        return NEVER_NS  # no pod, no sample ever: every evaluation is void
    if control.desired == 0 and control.stable.is_silent(second) and control.panic.is_silent(second):
        return NEVER_NS
    if control.desired == 1 == control.fed_ready and not autoscaler.has_delay:
        return _first_zero_ns(control) if control.revision.is_scraped else _end_of_load_ns(control)
    return _UNPROVEN_NS


def _panic_end_ns(control: Control, autoscaler: Autoscaler, second: int) -> int:
    """Rule 5: the maximum holds until the first evaluation that may leave the panic, if none asks for more until then.

    With pods scraped the means fall, and the panic mean must be 0 already; without, see `_most_wanted`.
    """
    if autoscaler.has_delay:
        return _UNPROVEN_NS
    if control.revision.is_scraped:
        if not control.panic.is_silent(second):
            return _UNPROVEN_NS
    elif _most_wanted(control) > autoscaler.panic_maximum:
        return _UNPROVEN_NS
    return first_at_or_after(autoscaler.panic_ends_ns() + 1, control.tick_ns, TICK_NS)


def _most_wanted(control: Control) -> int:
    """The most pods that any evaluation asks for until the next record, pods not being scraped; NEVER_NS in a panic.

    No zeros come in (kpa.md, "wrong" 8): a mean over fewer and fewer seconds may rise, but not above the loudest.
    """
    revision, ready = control.revision, control.fed_ready
    if revision.weighted:
        return NEVER_NS  # that mean is not rounded: what its weights add up to beyond 1 could be a pod
    by_stable, by_panic, unlimited = wanted_scales(revision, control.stable.most(), control.panic.most(), ready)
    return NEVER_NS if is_over_threshold(revision, unlimited, ready) else max(by_stable, by_panic)


def _end_of_load_ns(control: Control) -> int:
    """Rule 8 at burst capacity -1: the first evaluation after the last loud second has left the stable window.

    Up to then the mean is at least that second's load over a whole window; if this is far from rounding to 0, and no
    evaluation asks for a second pod, the desired 1 stays.
    """
    window, loudest = control.stable, control.stable.last_loud()
    if loudest is None or window.loudness() < _CLEAR_MEAN * window.length_s or _most_wanted(control) != 1:
        return _UNPROVEN_NS
    return first_at_or_after((loudest + window.length_s) * SECOND_NS, control.tick_ns, TICK_NS)


def _first_zero_ns(control: Control) -> int:
    """Rule 8: the first evaluation whose stable mean is 0, one pod being ready and scraped all the while.

    Only zeros come in from here on: the sum falls, the divisor grows, so the desired 1 stays until the mean rounds to
    0; the panic mean falls as well, so no panic begins, and the sign of the burst capacity stays if it is the same at
    0.
    """
    revision = control.revision
    if revision.burst_capacity > 0 and (control.excess_burst < 0) != (
        revision.total_value * control.fed_ready - revision.burst_capacity < 0
    ):
        return _UNPROVEN_NS
    loudest = control.stable.last_loud()
    if loudest is None:
        return _UNPROVEN_NS
    tick_ns = first_at_or_after((loudest + control.stable.length_s) * SECOND_NS, control.tick_ns, TICK_NS)
    while tick_ns > control.tick_ns and _mean_after_zeros(control, tick_ns - TICK_NS) == 0:
        tick_ns -= TICK_NS
    return tick_ns


def _mean_after_zeros(control: Control, tick_ns: int) -> float:
    """The stable mean at a later evaluation if every scrape until then says 0."""
    last_scrape_ns = first_at_or_after(tick_ns, control.scrape_ns, REPORT_NS) - REPORT_NS
    return control.stable.mean_after_zeros(tick_ns // SECOND_NS, last_scrape_ns // SECOND_NS)
