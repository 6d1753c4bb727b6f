"""A month's bill: invariants for any traffic and setting, and the result of one visit by the rules."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planning.prices import PRICES
from planning.simulation import InvalidServiceError, Service, SimulatedMonth, node_time_ns, simulate
from planning.traffic import DAY_S, Traffic
from testing.traffic import images, images_at

SLACK_S = 1e-6
REPORT_SLACK_S = 2.5
"""Reports, scrapes and evaluations come every one or two seconds: the phase of a visit moves its end by that."""

services = st.builds(
    Service,
    window_s=st.sampled_from([6, 15, 60]),
    retention_s=st.sampled_from([0.0, 15.0, 60.0]),
    concurrency=st.sampled_from([1, 2, 5]),
    max_scale=st.sampled_from([1, 2, 4]),
    min_scale=st.sampled_from([0, 0, 1]),
    boot_s=st.sampled_from([1.0, 12.0, 40.0]),
    boot_p90_s=st.sampled_from([None, 60.0]),
    image_gb=st.sampled_from([0.0, 0.0, 2.0]),
    node_linger_s=st.sampled_from([0.0, 300.0]),
    seconds_per_megapixel=st.sampled_from([0.1, 2.0, 9.0]),
    queue_size=st.sampled_from([0, 2, 32]),
    deadline_s=st.sampled_from([10.0, 60.0, 120.0]),
    burst_capacity=st.sampled_from([-1.0, 0.0, 211.0]),
    utilisation_percent=st.sampled_from([70.0, 100.0]),
    gpus=st.sampled_from([0, 1]),
)
traffics = st.lists(st.tuples(st.one_of(st.floats(0, 60), st.floats(0, 3000)), st.floats(0.02, 4)), max_size=25).map(
    images
)


@settings(max_examples=120, deadline=None)
@given(service=services, traffic=traffics)
def test_every_image_ends_exactly_once_and_the_bill_adds_up(service: Service, traffic: Traffic) -> None:
    month = simulate(service, traffic, seed=3)

    assert month.served + month.refused + month.timed_out == traffic.images
    assert len(month.latencies_s) == month.served
    parts = (month.boot_s, month.work_s, month.idle_s, month.drain_s, month.linger_s)
    assert all(part >= -SLACK_S for part in parts)
    assert month.gpu_s == pytest.approx(sum(parts))


@settings(max_examples=120, deadline=None)
@given(service=services, traffic=traffics)
def test_waits_are_between_work_and_deadline(service: Service, traffic: Traffic) -> None:
    month = simulate(service, traffic, seed=3)
    works = np.sort(service.overhead_s + service.seconds_per_megapixel * traffic.megapixels)

    assert (month.latencies_s <= service.deadline_s + SLACK_S).all()
    assert (
        month.latencies_s >= works[: month.served] - SLACK_S
    ).all()  # the k-th shortest time is at least the k-th smallest work
    assert month.gpu_s >= month.work_s - SLACK_S
    if not month.timed_out and not month.refused:
        assert month.work_s == pytest.approx(float(works.sum()), abs=1e-5)


@settings(max_examples=120, deadline=None)
@given(service=services, traffic=traffics)
def test_there_are_never_more_pods_than_the_maximum(service: Service, traffic: Traffic) -> None:
    month = simulate(service, traffic, seed=3)

    assert month.max_pods <= service.max_scale
    assert month.boots <= traffic.images * service.max_scale + service.min_scale
    if service.gpus == 1:
        after_s = 2 * service.deadline_s + 120 + service.pull_s + service.node_linger_s  # of what the last day began
        assert month.gpu_s <= traffic.days * DAY_S + after_s  # one GPU cannot be billed twice


@settings(max_examples=60, deadline=None)
@given(service=services, traffic=traffics)
def test_skipping_quiet_time_gives_the_same_month(service: Service, traffic: Traffic) -> None:
    short = dataclasses.replace(traffic, days=0.05)

    fast = simulate(service, short, seed=3)
    slow = simulate(service, short, seed=3, fast_forward=False)

    assert read_fields(fast) == read_fields(slow)


def test_pod_ready_without_data_is_billed_equally() -> None:
    # the client gave up during the boot and the window ended: the new pod's first scrape brings the next data
    service = Service(window_s=6, retention_s=0, boot_s=75, deadline_s=60, burst_capacity=1)

    fast, slow = (simulate(service, images_at(101.42), fast_forward=fast_forward) for fast_forward in (True, False))

    assert read_fields(fast) == read_fields(slow)
    assert slow.gpu_s == pytest.approx(140.575)


def read_fields(month: SimulatedMonth) -> dict[str, object]:
    values = {field.name: getattr(month, field.name) for field in dataclasses.fields(month)}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


@settings(max_examples=60, deadline=None)
@given(
    service=services.map(lambda service: dataclasses.replace(service, min_scale=0, deadline_s=600, queue_size=32)),
    boots_s=st.lists(st.floats(0.5, 120), min_size=2, max_size=2).map(sorted),
    visits=st.integers(1, 4),
)
def test_slower_boot_is_never_cheaper_or_faster(service: Service, boots_s: list[float], visits: int) -> None:
    traffic = images_at(*(10 + 1000 * visit for visit in range(visits)))
    quick, slow = (
        simulate(dataclasses.replace(service, boot_s=boot_s, boot_p90_s=None), traffic) for boot_s in boots_s
    )

    assert slow.boot_s >= quick.boot_s - SLACK_S
    assert slow.gpu_s >= quick.gpu_s - REPORT_SLACK_S * visits * service.max_scale
    assert (slow.latencies_s >= quick.latencies_s - SLACK_S).all()


def test_slower_boot_can_cost_less_where_it_joins_two_visits() -> None:
    # not a bug: visits 40 s apart need two boots of a quick pod and one boot of a slow one
    traffic = images_at(10, 50)
    service = Service(window_s=6, retention_s=0)
    quick, slow = (simulate(dataclasses.replace(service, boot_s=boot_s), traffic) for boot_s in (12, 38))

    assert (quick.boots, slow.boots) == (2, 1)
    assert slow.gpu_s < quick.gpu_s


@pytest.mark.parametrize("initial_scale", [0, 1, 3])
def test_no_traffic_costs_nothing_after_the_deployment(initial_scale: int) -> None:
    month = simulate(Service(initial_scale=initial_scale, max_scale=3), images([], days=30))

    assert (month.gpu_s, month.boots, month.served) == (0, 0, 0)


def test_fresh_deployment_costs_its_initial_scale() -> None:
    service = Service(window_s=30, retention_s=0, boot_s=12, drain_s=30, max_scale=3, burst_capacity=211)
    costs = [
        simulate(dataclasses.replace(service, initial_scale=scale), images([]), is_fresh=True).gpu_s
        for scale in (0, 1, 3)
    ]

    assert costs[0] == 0
    assert costs[1] == pytest.approx(12 + 30 + 30, abs=REPORT_SLACK_S)
    assert costs[1] < costs[2] <= 3 * costs[1]


def test_one_visit_is_billed_boot_work_tail_and_drain() -> None:
    # kpa.md, "Idle cost": window 60, retention 0 -> 61.43 s (60.45..62.40) from the end of work to zero
    service = Service(window_s=60, retention_s=0, burst_capacity=211, seconds_per_megapixel=3, overhead_s=0)
    month = simulate(service, images_at(1000.0))

    assert month.boot_s == pytest.approx(12, abs=0.001)
    assert month.work_s == 3
    assert 60.45 <= month.idle_s <= 62.40
    assert month.drain_s == 30
    assert month.latencies_s.tolist() == pytest.approx([15.0], abs=0.01)
    assert (month.cold, month.boots) == (1, 1)


@pytest.mark.parametrize(
    ("window_s", "retention_s", "burst", "least", "most"),
    [
        (60, 0, 211, 60.45, 62.40),
        (30, 0, 211, 30.45, 32.40),
        (6, 0, 211, 6.45, 8.40),
        (15, 15, 211, 29.94, 31.89),
        (6, 30, 211, 35.94, 37.89),
        (60, 0, 0, 90.92 - 1, 90.92 + 1),
        (6, 0, 0, 36.92 - 1, 36.92 + 1),
    ],
)
@pytest.mark.parametrize("at_s", [1000.0, 1000.4, 1001.03, 1001.77])
def test_idle_tail_is_that_of_the_phase_sweep(
    window_s: int, retention_s: float, burst: float, least: float, most: float, at_s: float
) -> None:
    service = Service(
        window_s=window_s, retention_s=retention_s, burst_capacity=burst, seconds_per_megapixel=3, overhead_s=0
    )

    assert least - 0.05 <= simulate(service, images_at(at_s)).idle_s <= most + 0.05


def test_visit_is_warm_only_during_the_retention() -> None:
    service = Service(window_s=15, retention_s=30, seconds_per_megapixel=1, overhead_s=0)
    during, after = (simulate(service, images_at(100, at_s)) for at_s in (150, 250))

    assert (during.cold, during.boots) == (1, 1)
    assert (after.cold, after.boots) == (2, 2)


def test_full_queue_rejects_and_a_long_boot_times_out() -> None:
    traffic = images_at(*(100 + 0.01 * index for index in range(10)))
    refusing = simulate(Service(queue_size=4), traffic)
    timing_out = simulate(Service(boot_s=200, deadline_s=60), traffic)

    assert (refusing.refused, refusing.served) == (6, 4)
    assert (timing_out.timed_out, timing_out.served, timing_out.work_s) == (10, 0, 0)


def test_gpu_works_on_one_image_at_a_time_for_any_concurrency() -> None:
    traffic = images_at(*([100.0] * 4))
    service = Service(seconds_per_megapixel=10, overhead_s=0, concurrency=4)

    assert simulate(service, traffic).latencies_s.tolist() == pytest.approx([22, 32, 42, 52], abs=0.01)


def test_new_pod_waits_for_the_old_ones_gpu() -> None:
    service = Service(window_s=6, retention_s=0, seconds_per_megapixel=1, overhead_s=0)
    traffic = images_at(100, 128)  # the first pod is gone at about 121 and drains until 151
    free, one = (simulate(dataclasses.replace(service, gpus=gpus), traffic) for gpus in (0, 1))

    assert free.latencies_s[-1] == pytest.approx(13, abs=0.1)
    assert one.latencies_s[-1] > 30


def test_pod_that_never_sleeps_is_billed_throughout() -> None:
    month = simulate(Service(min_scale=1), images_at(10, 5000, days=2))

    assert month.gpu_s == pytest.approx(2 * DAY_S)
    assert month.cold == 0


def test_lingering_node_is_billed_once() -> None:
    service = Service(node_linger_s=600)
    one, near, far = (simulate(service, images_at(*moments)) for moments in ((100,), (100, 500), (100, 5000)))

    assert one.linger_s == 600
    assert near.linger_s < 1200 - 200
    assert far.linger_s == 1200


def test_only_a_new_node_pulls_the_image() -> None:
    moments = (100, 500, 5000)
    plain = simulate(Service(node_linger_s=600), images_at(*moments))
    pulled = simulate(Service(node_linger_s=600, image_gb=2.5, pull_mb_per_s=100), images_at(*moments))
    without_nodes = simulate(Service(image_gb=2.5, pull_mb_per_s=100), images_at(*moments))

    assert (plain.boots, pulled.boots, without_nodes.boots) == (3, 3, 3)
    assert pulled.boot_s == pytest.approx(plain.boot_s + 2 * 25)
    assert without_nodes.boot_s == pytest.approx(plain.boot_s + 3 * 25)
    assert pulled.latencies_s[-1] == pytest.approx(plain.latencies_s[-1] + 25, abs=1)


def test_two_pods_never_share_a_node() -> None:
    service = Service(max_scale=4, concurrency=1, image_gb=1, node_linger_s=600)
    crowd = images_at(*[100.0] * 8)

    pulled, plain = (simulate(each, crowd) for each in (service, dataclasses.replace(service, image_gb=0)))

    assert plain.boots == pulled.boots > 1
    assert pulled.boot_s == pytest.approx(plain.boot_s + 10 * plain.boots)


@given(
    lifetimes=st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 200)), max_size=15),
    linger=st.integers(0, 300),
)
def test_nodes_outlive_pods_and_linger_once(lifetimes: list[tuple[int, int]], linger: int) -> None:
    spans = [(begin, begin + length) for begin, length in lifetimes]
    total = sum(length for _, length in lifetimes)

    assert total <= node_time_ns(spans, linger) <= total + linger * len(spans)
    assert node_time_ns(spans, 0) == total


def test_same_seed_same_month_other_seed_other_boots() -> None:
    service = Service(boot_p90_s=30)
    traffic = images_at(*range(100, 80_000, 1000))

    first, again, other = (simulate(service, traffic, seed=seed) for seed in (1, 1, 2))

    assert read_fields(first) == read_fields(again)
    assert first.boot_s != other.boot_s


def test_boot_times_have_the_given_percentiles() -> None:
    service = Service(boot_s=12, boot_p90_s=24, window_s=6, retention_s=0, seconds_per_megapixel=0, overhead_s=0)
    month = simulate(service, images_at(*range(1000, 1_600_000, 800), days=20))

    assert month.cold == month.traffic.images
    assert month.latency_s(50) == pytest.approx(12, rel=0.07)
    assert month.latency_s(90) == pytest.approx(24, rel=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"window_s": 5}, "Invalid window 5: must be between 6 and 3600"),
        ({"min_scale": 2}, "Invalid min-scale 2: must be between 0 and 1"),
        ({"boot_s": 0}, "Invalid boot 0"),
        ({"image_gb": -1}, "Invalid image-gb -1: must be between 0 and 100"),
        ({"pull_mb_per_s": 0}, "Invalid pull-mb-per-s 0"),
        ({"boot_p90_s": 3.0}, "must be at least the median, 12 s"),
        ({"retention_s": 7200}, "Invalid retention 7200"),
    ],
)
def test_setting_out_of_range_is_rejected_with_its_limits(change: dict[str, float], words: str) -> None:
    with pytest.raises(InvalidServiceError, match=words):
        simulate(dataclasses.replace(Service(), **change), images([]))  # type: ignore[arg-type]


def test_price_of_an_hour_is_that_of_3600_seconds() -> None:
    assert PRICES["l4-low"].dollars(13_500) == pytest.approx(2.565)
    assert PRICES["original"].dollars(30 * DAY_S) == pytest.approx(300)
