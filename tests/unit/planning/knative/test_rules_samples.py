"""Rules 1 to 3 of Knative's autoscaler, with the examples of the rules' text and counter-examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.knative.buckets import WeightedWindowMean, WindowMean
from planning.knative.clock import to_ns
from planning.knative.meters import ActivatorMeter, ConcurrencyMeter, PodMeter
from planning.knative.revision import InvalidAnnotationError, panic_window_s, parse_duration_s, resolve_revision

# -- rule 1: targets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "concurrency", "total", "target"),
    [
        ({}, 0, 100, 70),
        ({}, 1, 1, 0.7),
        ({}, 2, 2, 1.4),
        ({"target": "50"}, 0, 50, 35),
        ({"target": "50"}, 10, 10, 7),
        ({"target": "5"}, 10, 5, 3.5),
        ({"target-utilization-percentage": "100"}, 1, 1, 1),
        ({"target": "0.01", "target-utilization-percentage": "1"}, 0, 0.01, 0.01),
    ],
)
def test_target_is_the_share_of_what_one_pod_can_carry(
    annotations: dict[str, str], concurrency: int, total: float, target: float
) -> None:
    revision = resolve_revision(annotations, container_concurrency=concurrency)

    assert (revision.total_value, revision.target_value) == pytest.approx((total, target))


@pytest.mark.parametrize(("window_s", "panic_s"), [(60, 6), (15, 2), (6, 1), (30, 3), (14, 1), (25, 3), (3600, 360)])
def test_panic_window_is_a_tenth_and_at_least_a_second(window_s: int, panic_s: int) -> None:
    assert panic_window_s(window_s, 10) == panic_s


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), ("0", 0), ("1.5s", 1.5)]
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "s", "15 s", "15sec", "-5s"])
def test_invalid_duration_is_rejected(text: str) -> None:
    with pytest.raises(InvalidAnnotationError, match="Invalid duration"):
        parse_duration_s(text)


def test_error_names_annotation_with_an_invalid_number() -> None:
    with pytest.raises(InvalidAnnotationError, match='Invalid max-scale "many"'):
        resolve_revision({"max-scale": "many"})


@pytest.mark.parametrize(
    ("annotations", "cluster", "words"),
    [
        ({"windoww": "6s"}, {}, 'Unknown annotation "windoww". Valid names: activation-scale, class, '),
        ({"stable-window": "6s"}, {}, 'Unknown annotation "stable-window"'),
        ({}, {"stable-windoww": "6s"}, 'Unknown cluster setting "stable-windoww"'),
        ({"metric": "rps"}, {}, 'Unsupported metric "rps": only concurrency is modelled'),
        ({"class": "hpa.autoscaling.knative.dev"}, {}, "only kpa.autoscaling.knative.dev is modelled"),
        ({}, {"pod-autoscaler-class": "hpa.autoscaling.knative.dev"}, "only kpa.autoscaling.knative.dev is modelled"),
        ({"metric-aggregation-algorithm": "median"}, {}, "must be linear or weighted-exponential"),
    ],
)
def test_what_is_not_modelled_is_rejected_and_not_ignored(
    annotations: dict[str, str], cluster: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidAnnotationError, match=words):
        resolve_revision(annotations, cluster=cluster)


def test_setting_equal_to_the_model_is_accepted() -> None:
    annotations = {"metric": "concurrency", "class": "kpa.autoscaling.knative.dev"}
    cluster = {"pod-autoscaler-class": "hpa.autoscaling.knative.dev", "activator-capacity": "50"}

    assert resolve_revision(annotations, cluster=cluster) == resolve_revision()


@pytest.mark.parametrize(("percentage", "target"), [("70", 70), ("0.7", 70), ("1", 100), ("1.5", 1.5), ("100", 100)])
def test_percentage_of_the_cluster_up_to_1_is_a_fraction(percentage: str, target: float) -> None:
    cluster = {"container-concurrency-target-percentage": percentage}

    assert resolve_revision(cluster=cluster).target_value == pytest.approx(target)


def test_older_camel_case_annotations_mean_the_same() -> None:
    assert resolve_revision({"minScale": "2"}) == resolve_revision({"min-scale": "2"})


def test_cluster_settings_give_way_to_annotations() -> None:
    cluster = {"stable-window": "30s", "max-scale": "3"}

    assert resolve_revision(cluster=cluster).window_s == 30
    assert resolve_revision({"window": "20s"}, cluster=cluster).window_s == 20
    assert resolve_revision({"max-scale": "5"}, cluster=cluster).max_scale == 5


# -- rule 2: samples -------------------------------------------------------------------------------------------------


def test_first_request_after_idle_is_reported_at_once() -> None:
    meter = ActivatorMeter()

    assert meter.arrive(to_ns(10)) is True
    assert meter.arrive(to_ns(10.05)) is False
    assert meter.report(to_ns(10.1)) == pytest.approx(0.5)  # mean 1.5, minus the 1 already reported
    assert meter.report(to_ns(11.1)) == pytest.approx(2.0)


def test_silence_is_reported_once_and_then_forgotten() -> None:
    meter = ActivatorMeter()
    meter.arrive(to_ns(10))
    meter.leave(to_ns(10.5))

    reports = [(meter.report(to_ns(at_s)), meter.is_idle) for at_s in (11.1, 12.1, 13.1)]

    assert reports == [(0, False), (0, True), (None, True)]  # the first: mean 0.45, minus the 1 already reported
    assert meter.arrive(to_ns(13.5)) is True


def test_request_between_reports_is_not_a_first_one() -> None:
    meter = ActivatorMeter()
    meter.arrive(to_ns(10))
    meter.leave(to_ns(10.5))
    meter.report(to_ns(11.1))

    assert meter.arrive(to_ns(11.5)) is False


def test_mean_counts_the_time_since_the_last_report_alone() -> None:
    meter = ConcurrencyMeter(to_ns(5))
    meter.change(to_ns(5.5), 4)

    assert meter.report(to_ns(6)) == pytest.approx(2)
    assert meter.report(to_ns(7)) == pytest.approx(4)


def test_scrape_reads_the_pods_last_report() -> None:
    meter = PodMeter(to_ns(20), phase_ns=to_ns(0.2))
    meter.change(to_ns(20.7), 1)

    assert meter.last_report(to_ns(20.3)) == 0
    assert meter.last_report(to_ns(21.3)) == pytest.approx(0.5)
    assert meter.last_report(to_ns(25.3)) == pytest.approx(1)


# -- rule 3: the window mean -----------------------------------------------------------------------------------------


def test_mean_of_the_rules_own_example() -> None:
    window = WindowMean(60)
    for second in range(10, 25):
        window.record(second, 1)
    window.record(25, 0.90702)
    window.record(26, 0)

    assert window.mean(26) == pytest.approx(15.90702 / 17, abs=5e-7)


def test_values_of_one_second_add_up_and_gaps_count_as_zero() -> None:
    window = WindowMean(60)
    window.record(10, 1)
    window.record(10, 2)
    window.record(13, 1)

    assert window.mean(13) == 1.0  # 4 over the 4 seconds 10..13


def test_tail_after_the_last_record_is_not_in_the_divisor() -> None:
    window = WindowMean(10)
    for second in range(10):
        window.record(second, 2)

    assert window.mean(9) == 2
    assert window.mean(14) == 2  # without zeros the mean does not decay (kpa.md, "wrong" 8)
    assert window.mean(19) == 0
    assert (window.has_data(19), window.has_data(20)) == (True, False)


def test_record_a_window_after_the_last_begins_anew() -> None:
    window = WindowMean(10)
    window.record(0, 5)
    window.record(10, 1)

    assert window.mean(10) == 1


def test_mean_is_rounded_to_six_digits() -> None:
    window = WindowMean(60)
    window.record(0, 0.0000004)

    assert window.mean(0) == 0
    window.record(0, 0.0000002)
    assert window.mean(0) == 0.000001


def test_weighted_mean_prefers_the_present_and_decays_in_silence() -> None:
    early, late = WeightedWindowMean(60), WeightedWindowMean(60)
    for second in range(10):
        early.record(second, 1.0 if second < 5 else 0.0)
        late.record(second, 1.0 if second >= 5 else 0.0)

    assert late.mean(9) > early.mean(9)
    assert 0 < late.mean(20) < late.mean(9)


@given(
    values=st.lists(st.tuples(st.integers(0, 80), st.floats(0, 50)), max_size=60),
    length=st.sampled_from([1, 6, 15, 60]),
    later=st.integers(0, 70),
)
def test_window_mean_is_the_written_rule(values: list[tuple[int, float]], length: int, later: int) -> None:
    ordered = sorted(values, key=lambda row: row[0])
    window = WindowMean(length)
    for second, value in ordered:
        window.record(second, value)

    assert window.mean(80 + later) == pytest.approx(written_rule(ordered, length, 80 + later), abs=1.1e-6)


@given(
    rows=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 50_000_000)), min_size=1, max_size=60),
    length=st.sampled_from([1, 6, 15, 60]),
)
def test_loudest_second_and_most_are_those_of_the_window(rows: list[tuple[int, int]], length: int) -> None:
    window, second, sums = WindowMean(length), 100, dict[int, int]()
    for gap, millionths in rows:
        second += gap
        window.record(second, millionths / 1e6)
        sums[second] = sums.get(second, 0) + millionths
    kept = {moment: value for moment, value in sums.items() if moment > second - length}
    loud = [moment for moment, value in kept.items() if value]

    assert window.last_nonzero() == (max(loud) if loud else None)
    assert window.last_nonzero_value() == (kept[max(loud)] / 1e6 if loud else 0)
    assert window.max_bucket() == max(kept.values()) / 1e6
    for later in range(length + 1):
        assert window.mean(second + later) <= window.max_bucket()


def written_rule(values: list[tuple[int, float]], length: int, now: int) -> float:
    """Return the mean by the text of rule 3, without optimisation."""
    first = last = None
    for second, _ in values:
        if last is None or second - last >= length:
            first = second
        last = second
    if first is None or last is None or now - last >= length:
        return 0
    seconds = min(last - first + 1, length - (now - last))
    return sum(value for second, value in values if now - length < second <= now and second >= first) / seconds
