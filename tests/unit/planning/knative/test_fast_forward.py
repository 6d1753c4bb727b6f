"""Skipping quiet time must not move any event: the fast run equals the tick-by-tick run."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planning.knative.clock import SECOND_NS, to_ns
from planning.knative.cluster import Cluster
from planning.knative.control import Tick
from planning.knative.pods import Deployment, Request
from planning.knative.revision import Revision, resolve_revision
from planning.traffic import DAY_S, draw_traffic

DEPLOY_NS = to_ns(-400.527)

annotations = st.fixed_dictionaries(
    {
        "window": st.sampled_from(["6s", "7s", "15s", "30s", "60s"]),
        "scale-to-zero-pod-retention-period": st.sampled_from(["0s", "15s", "45s"]),
        "target-utilization-percentage": st.sampled_from(["70", "100"]),
        "target-burst-capacity": st.sampled_from(["-1", "0", "1", "2", "211"]),
        "max-scale": st.sampled_from(["0", "1", "3"]),
    },
    optional={
        "min-scale": st.just("1"),
        "scale-down-delay": st.sampled_from(["5s", "30s"]),
        "activation-scale": st.just("2"),
        "metric-aggregation-algorithm": st.just("weightedExponential"),
        "initial-scale": st.sampled_from(["0", "2"]),
        "panic-window-percentage": st.sampled_from(["10", "40"]),
    },
)
gaps_s = st.lists(
    st.one_of(st.floats(0.0001, 3), st.floats(3, 40), st.floats(40, 400)).map(lambda gap: round(gap, 4)), max_size=12
)
works_s = st.floats(0.01, 20).map(lambda work: round(work, 4))
patiences_s = st.one_of(st.none(), st.none(), st.floats(0.01, 60).map(lambda patience: round(patience, 4)))
"""Seconds that a client waits; None for a client that waits for its response."""


def collect_events(
    revision: Revision, arrivals: list[tuple[float, float]], boot_s: float, *, is_serial: bool, fast_forward: bool
) -> tuple[object, ...]:
    """Return everything that a run did as plain values: replicas, conditions, requests, pods."""
    requests = [make_request(at_s, work_s) for at_s, work_s in arrivals]
    return collect_request_events(revision, requests, boot_s, is_serial=is_serial, fast_forward=fast_forward)


def make_request(at_s: float, work_s: float, patience_s: float | None = None) -> Request:
    """Return a request that stays until its work is done, or one whose client leaves after its patience."""
    if patience_s is not None:
        return Request(to_ns(at_s), disconnect_ns=to_ns(at_s + patience_s))
    return Request(to_ns(at_s), to_ns(work_s), deadline_ns=to_ns(at_s + 90))


def collect_request_events(
    revision: Revision, requests: list[Request], boot_s: float, *, is_serial: bool = False, fast_forward: bool
) -> tuple[object, ...]:
    """Compare both runs for requests of any kind."""
    deployment = Deployment(
        boot_ns=lambda number: to_ns(boot_s) + 10_000 * number,
        concurrency=revision.container_concurrency,
        drain_ns=30 * SECOND_NS,
    )
    cluster = Cluster(
        revision,
        deployment,
        requests,
        deploy_ns=DEPLOY_NS,
        is_serial=is_serial,
        fast_forward=fast_forward,
        queue_size=5,
    )
    cluster.run((requests[-1].arrive_ns if requests else 0) + to_ns(900))
    return (
        cluster.control.history.replicas,
        cluster.control.history.conditions,
        [(request.start_ns, request.end_ns, request.outcome, request.is_cold) for request in requests],
        [(pod.started_ns, pod.ready_ns, pod.ended_ns, pod.work_ns) for pod in deployment.pods],
    )


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    given_annotations=annotations,
    concurrency=st.sampled_from([0, 1, 2, 8]),
    gaps=gaps_s,
    works=st.lists(works_s, min_size=12, max_size=12),
    patiences=st.lists(patiences_s, min_size=12, max_size=12),
    boot_s=st.sampled_from([1.0, 12.0, 75.0]),
    is_serial=st.booleans(),
    reachable=st.sampled_from([True, True, True, False]),
)
def test_skipping_quiet_time_moves_no_event(
    given_annotations: dict[str, str],
    concurrency: int,
    gaps: list[float],
    works: list[float],
    patiences: list[float | None],
    boot_s: float,
    is_serial: bool,
    reachable: bool,
) -> None:
    revision = resolve_revision(given_annotations, container_concurrency=concurrency, reachable=reachable)
    moments = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    rows = [(round(moment, 4), *row) for moment, row in zip(moments, zip(works, patiences, strict=True), strict=False)]

    fast, slow = (
        collect_request_events(
            revision, [make_request(*row) for row in rows], boot_s, is_serial=is_serial, fast_forward=fast_forward
        )
        for fast_forward in (True, False)
    )

    assert fast == slow


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    window_s=st.sampled_from([6, 15, 60, 300]),
    utilisation=st.sampled_from(["70", "100"]),
    max_scale=st.sampled_from(["0", "1", "4"]),
    concurrency=st.sampled_from([1, 2]),
    visits=st.lists(
        st.tuples(
            st.one_of(st.floats(0.01, 40), st.floats(40, 400)), st.integers(1, 5), st.sampled_from([0, 0.05, 1.3])
        ),
        min_size=1,
        max_size=6,
    ),
    works=st.lists(st.one_of(works_s, st.floats(1e-6, 1e-2)), min_size=30, max_size=30),
    patiences=st.lists(patiences_s, min_size=30, max_size=30),
)
def test_skipping_unscraped_tails_moves_no_event(
    window_s: int,
    utilisation: str,
    max_scale: str,
    concurrency: int,
    visits: list[tuple[float, int, float]],
    works: list[float],
    patiences: list[float | None],
) -> None:
    revision = resolve_revision(
        {
            "window": f"{window_s}s",
            "target-utilization-percentage": utilisation,
            "target-burst-capacity": "-1",
            "max-scale": max_scale,
        },
        container_concurrency=concurrency,
    )
    moments, moment = list[float](), 5.0
    for gap_s, size, apart_s in visits:
        moments += [round(moment + gap_s + index * apart_s, 4) for index in range(size)]
        moment = moments[-1]
    rows = list(zip(moments, works, patiences, strict=False))

    fast, slow = (
        collect_request_events(revision, [make_request(*row) for row in rows], 12.0, fast_forward=fast_forward)
        for fast_forward in (True, False)
    )

    assert fast == slow


@pytest.mark.parametrize("burst_capacity", ["-1", "211"])
@pytest.mark.parametrize("window_s", [60, 3600])
def test_month_needs_few_evaluations_per_visit(window_s: int, burst_capacity: str) -> None:
    # without skipping there is one every two seconds: 86,400 in two days
    revision = resolve_revision(
        {
            "window": f"{window_s}s",
            "max-scale": "1",
            "target-utilization-percentage": "100",
            "target-burst-capacity": burst_capacity,
        },
        container_concurrency=2,
    )
    moments = draw_traffic("poisson", days=2, seed=1).arrive_s.tolist()
    deployment = Deployment(boot_ns=lambda _: to_ns(12), concurrency=2, drain_ns=30 * SECOND_NS)
    ticks: list[Tick] = []
    cluster = Cluster(
        revision,
        deployment,
        [make_request(moment, 1.0) for moment in moments],
        deploy_ns=to_ns(-8000.527),
        on_tick=ticks.append,
    )
    cluster.run(to_ns(2 * DAY_S))

    assert len(moments) > 500
    assert sum(tick.at_ns > 0 for tick in ticks) < 20 * len(moments)


bursts = st.lists(st.tuples(st.sampled_from([0.3, 5.0, 20.0, 70.0]), st.integers(1, 6)), min_size=1, max_size=4)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    groups=bursts,
    phase_s=st.floats(0, 2).map(lambda phase: round(phase, 3)),
    apart_s=st.sampled_from([0.0, 0.013, 0.4, 1.7]),
    boot_s=st.sampled_from([20.0, 75.0]),
    window_s=st.sampled_from([6, 15, 60]),
    utilisation=st.sampled_from(["70", "100"]),
    burst_capacity=st.sampled_from(["-1", "2", "211"]),
    max_scale=st.sampled_from(["0", "4"]),
)
def test_skipping_a_boot_moves_no_event(
    groups: list[tuple[float, int]],
    phase_s: float,
    apart_s: float,
    boot_s: float,
    window_s: int,
    utilisation: str,
    burst_capacity: str,
    max_scale: str,
) -> None:
    revision = resolve_revision(
        {
            "window": f"{window_s}s",
            "target-utilization-percentage": utilisation,
            "target-burst-capacity": burst_capacity,
            "max-scale": max_scale,
        },
        container_concurrency=1,
    )
    arrivals, moment = [], 10 + phase_s
    for gap_s, size in groups:
        arrivals += [(round(moment + index * apart_s, 4), 3.0) for index in range(size)]
        moment = arrivals[-1][0] + gap_s

    fast = collect_events(revision, arrivals, boot_s, is_serial=False, fast_forward=True)
    slow = collect_events(revision, arrivals, boot_s, is_serial=False, fast_forward=False)

    assert fast == slow


def test_panic_is_extended_through_a_boot_that_is_skipped() -> None:
    # one request at 70 % asks for two pods and is a panic until they are ready: the panic's end decides when one goes
    revision = resolve_revision({"window": "15s"}, container_concurrency=1)

    fast, slow = (
        collect_events(revision, [(10.35, 3.0)], 40.0, is_serial=False, fast_forward=fast_forward)
        for fast_forward in (True, False)
    )

    assert fast == slow


@pytest.mark.parametrize(
    ("window", "rows"),
    [
        (
            "30s",
            [
                (2.1246, 1.0, None),
                (2.1773, 13.06, 0.0072),
                (2.2531, 0.0012, None),
                (2.3279, 0.6014, None),
                (2.3279, 15.0917, 9.5502),
                (2.7373, 0.0001, 0.0532),
            ],
        ),
        (
            "60s",
            [
                (10.2288, 0.5, None),
                (10.2438, 11.84, 0.5461),
                (10.299, 1.1117, 3.2759),
                (10.299, 1.6e-06, None),
                (10.299, 6.8534, 0.0001),
                (12.042, 0.0007, 20.7056),
            ],
        ),
    ],
)
def test_panic_that_a_shrinking_window_extends_is_not_skipped(
    window: str, rows: list[tuple[float, float, float | None]]
) -> None:
    # no pod is scraped: the panic mean rises over the threshold again while only its zeros fall out of the window
    annotations = {"window": window, "target-burst-capacity": "-1", "max-scale": "1"}
    revision = resolve_revision({**annotations, "panic-window-percentage": "40"}, container_concurrency=1)

    fast, slow = (
        collect_request_events(revision, [make_request(*row) for row in rows], 12.0, fast_forward=fast_forward)
        for fast_forward in (True, False)
    )

    assert fast == slow


@pytest.mark.parametrize("burst_capacity", ["-1", "0"])
def test_load_that_rounds_to_zero_is_not_skipped(burst_capacity: str) -> None:
    # a request that lasts a microsecond beyond a report leaves one millionth in the next second
    revision = resolve_revision({"window": "60s", "target-burst-capacity": burst_capacity})
    rows = [(10.6, 1.0, None), (61.6, 0.0, 0.500001)]

    fast, slow = (
        collect_request_events(revision, [make_request(*row) for row in rows], 12.0, fast_forward=fast_forward)
        for fast_forward in (True, False)
    )

    assert fast == slow


def staying_and_leaving(stays_at_s: float, work_s: float, *leaving_s: tuple[float, float]) -> list[Request]:
    """Return one request that stays until its work is done, and others (arrival, end) whose clients leave."""
    requests = [Request(to_ns(at_s), disconnect_ns=to_ns(end_s)) for at_s, end_s in leaving_s]
    return sorted([*requests, Request(to_ns(stays_at_s), to_ns(work_s))], key=lambda request: request.arrive_ns)


def assert_nothing_moves(revision: Revision, rows: tuple[tuple[float, float], ...], stays: tuple[float, float]) -> None:
    fast, slow = (
        collect_request_events(revision, staying_and_leaving(*stays, *rows), 40.0, fast_forward=fast_forward)
        for fast_forward in (True, False)
    )
    assert fast == slow


def test_load_that_was_higher_within_the_window_is_not_skipped() -> None:
    # seconds 6 to 9 are silent, 10 and 11 hold two: at 12.5 the mean is below the load of 1, at 14.5 above it
    revision = resolve_revision(
        {"window": "6s", "target-utilization-percentage": "100", "panic-threshold-percentage": "1000"},
        container_concurrency=1,
    )

    assert_nothing_moves(revision, ((5.0, 5.2), (10.05, 11.09)), stays=(10.0, 3.0))


def test_end_of_a_panic_is_not_skipped() -> None:
    # five ask for eight pods, four leave, one keeps the panic up until all are ready; then it works for a minute
    revision = resolve_revision({"window": "15s", "target-burst-capacity": "-1"}, container_concurrency=1)

    assert_nothing_moves(revision, tuple((10.01 + 0.01 * index, 13.0) for index in range(4)), stays=(10.0, 60.0))


def test_last_direct_requests_are_reported_before_skipping() -> None:
    revision = resolve_revision({"window": "6s", "target-burst-capacity": "0"})

    for third_work_s in (0.9, 1.4, 2.5, 3.1):
        arrivals = [(1.0, 1.0), (2.0, 1.0), (3.0, third_work_s)]
        fast, slow = (
            collect_events(revision, arrivals, 1.0, is_serial=False, fast_forward=fast_forward)
            for fast_forward in (True, False)
        )
        assert fast == slow
