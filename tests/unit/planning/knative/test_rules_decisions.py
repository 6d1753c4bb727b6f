"""Rules 4 to 9 of Knative's autoscaler, with the examples of the rules' text and counter-examples."""

import pytest

from planning.knative.autoscaler import Autoscaler, DelayWindow, desired_scales, excess_burst, is_over_threshold
from planning.knative.clock import to_ns
from planning.knative.pod_autoscaler import Condition, PodAutoscaler, ReconcileInput, ReconcileResult
from planning.knative.revision import Revision, resolve_revision

# -- rule 4: desired -------------------------------------------------------------------------------------------------


def test_desired_is_always_rounded_up() -> None:
    assert desired_scales(Revision(), 300, 300, 5)[0] == 5
    assert desired_scales(Revision(), 0.000001, 0, 1)[0] == 1


def test_one_request_at_70_percent_needs_two_pods() -> None:
    revision = resolve_revision(container_concurrency=1)

    assert desired_scales(revision, 1, 1, 1)[0] == 2
    assert is_over_threshold(revision, 2, 1)


@pytest.mark.parametrize(
    ("concurrency", "load", "pods"), [(3, 21, 11), (6, 21, 6), (6, 42, 11), (7, 49, 11), (12, 42, 6), (90, 63, 2)]
)
def test_rounded_target_may_ask_for_one_more_pod(concurrency: int, load: float, pods: int) -> None:
    # 3 x 0.7 = 2.0999999999999996 in Knative, and 21 over that is above 10
    assert desired_scales(resolve_revision(container_concurrency=concurrency), load, load, 1)[0] == pods


def test_rates_count_from_ready_pods() -> None:
    revision = resolve_revision(
        {"target-utilization-percentage": "100"}, container_concurrency=1, cluster={"max-scale-up-rate": "2"}
    )

    assert [desired_scales(revision, 30, 30, ready)[0] for ready in (0, 1, 2, 4, 8, 16)] == [2, 2, 4, 8, 16, 30]
    assert [desired_scales(revision, 0, 0, ready)[0] for ready in (5, 2, 1, 0)] == [2, 1, 0, 0]


def test_unreachable_revision_has_no_limit_down() -> None:
    assert desired_scales(Revision(reachable=False), 0, 0, 5)[0] == 0


def test_activation_scale_is_a_floor_while_there_is_load_only() -> None:
    revision = Revision(activation_scale=3)

    assert desired_scales(revision, 1, 0, 1)[:2] == (3, 0)
    assert desired_scales(revision, 0, 0, 1)[:2] == (0, 0)
    assert desired_scales(Revision(activation_scale=1), 1, 1, 1)[:2] == (1, 1)


# -- rule 5: panic ---------------------------------------------------------------------------------------------------

ONE_EACH = resolve_revision({"target-utilization-percentage": "100"}, container_concurrency=1)


def test_panic_begins_at_twice_the_ready_pods_and_not_below() -> None:
    assert is_over_threshold(ONE_EACH, 2, 1)
    assert not is_over_threshold(ONE_EACH, 3, 2)
    assert is_over_threshold(ONE_EACH, 2, 0)


def test_panic_never_scales_down() -> None:
    # scenario h: last over at 116.5, still in panic at 176.5, left at 178.5
    autoscaler = Autoscaler(ONE_EACH, 0, 1)

    assert autoscaler.decide(to_ns(116.5), 4, 8, 4).desired == 8
    assert autoscaler.decide(to_ns(118.5), 3, 3, 6).desired == 8
    assert autoscaler.decide(to_ns(176.5), 3, 3, 8).desired == 8
    assert autoscaler.is_panicking
    assert autoscaler.decide(to_ns(178.5), 4.5, 4, 8).desired == 5
    assert (autoscaler.is_panicking, autoscaler.panic_maximum) == (False, 0)


def test_panic_takes_the_stable_mean_where_it_asks_for_more() -> None:
    autoscaler = Autoscaler(ONE_EACH, 0, 1)
    autoscaler.decide(to_ns(10.5), 2, 8, 1)

    assert autoscaler.decide(to_ns(12.5), 12, 3, 8).desired == 12


def test_second_panic_begins_from_a_cleared_maximum() -> None:
    autoscaler = Autoscaler(ONE_EACH, 0, 1)
    autoscaler.decide(to_ns(10.5), 8, 8, 1)
    autoscaler.decide(to_ns(100.5), 1, 1, 8)

    assert autoscaler.decide(to_ns(200.5), 2, 4, 2).desired == 4


def test_start_with_several_pods_is_a_panic() -> None:
    autoscaler = Autoscaler(ONE_EACH, to_ns(0.5), 4)

    assert autoscaler.decide(to_ns(2.5), 0, 0, 4).desired == 4
    assert Autoscaler(ONE_EACH, to_ns(0.5), 1).decide(to_ns(2.5), 0, 0, 1).desired == 0
    assert [Autoscaler(ONE_EACH, 0, ready).panic_maximum for ready in (0, 1, 4)] == [0, 1, 4]


# -- rule 6: delay and burst capacity --------------------------------------------------------------------------------


def test_delay_keeps_the_maximum_of_its_window() -> None:
    # scenario g: delay 60 s, last 1 at 84.5 -> 0 at 144.5
    window = DelayWindow(60)
    window.hold(to_ns(84.5), 1)

    assert window.hold(to_ns(142.5), 0) == 1
    assert window.hold(to_ns(144.5), 0) == 0


def test_unreachable_revision_is_not_delayed() -> None:
    def second_decision(*, reachable: bool) -> int:
        revision = Revision(scale_down_delay_s=60, reachable=reachable)
        autoscaler = Autoscaler(revision, 0, 0)
        autoscaler.decide(to_ns(2.5), 70, 0, 1)
        return autoscaler.decide(to_ns(4.5), 0, 0, 1).desired

    assert second_decision(reachable=True) == 1
    assert second_decision(reachable=False) == 0


@pytest.mark.parametrize(
    ("burst", "ready", "panic", "expected"),
    [(211, 1, 1, -112), (211, 0, 0.2, -212), (211, 5, 289, 0), (211, 5, 289.1, -1), (0, 0, 500, 0), (-1, 9, 0, -1)],
)
def test_excess_burst_capacity_is_the_written_rule(burst: float, ready: int, panic: float, expected: int) -> None:
    assert excess_burst(Revision(burst_capacity=burst), panic, ready) == expected


# -- rules 7 to 9: applying the decision -------------------------------------------------------------------------------


def see(
    desired: int,
    *,
    excess: int = -111,
    ready: int = 1,
    replicas: int = 1,
    in_path: bool = True,
    proxied_since_s: float = 0,
) -> ReconcileInput:
    return ReconcileInput(desired, excess, ready, replicas, in_path, to_ns(proxied_since_s))


def active_target(revision: Revision, at_s: float = 22) -> PodAutoscaler:
    target = PodAutoscaler(revision, 0)
    target.reconcile(to_ns(at_s), see(1))
    assert condition_of(target) is Condition.ACTIVE
    return target


def condition_of(target: PodAutoscaler) -> Condition:
    return target.condition


def idle(target: PodAutoscaler, at_s: float, **seen: float) -> ReconcileResult:
    return target.reconcile(to_ns(at_s), see(0, **seen))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("minimum", "maximum", "desired", "bounded"),
    [(0, 0, 7, 7), (2, 0, 0, 2), (0, 5, 7, 5), (3, 2, 0, 3), (1, 1, 25, 1)],
)
def test_minimum_applies_before_the_maximum(minimum: int, maximum: int, desired: int, bounded: int) -> None:
    assert Revision(min_scale=minimum, max_scale=maximum).bounded(desired) == bounded


def test_unreachable_revision_has_no_minimum_and_no_retention() -> None:
    revision = Revision(min_scale=2, retention_s=60, reachable=False)

    assert (revision.bounded(0), revision.last_pod_retention_s) == (0, 0)


@pytest.mark.parametrize(("desired", "excess", "serves"), [(1, 0, True), (1, -1, False), (2, 5, True)])
def test_activator_leaves_only_with_spare_capacity(desired: int, excess: int, serves: bool) -> None:
    target = PodAutoscaler(Revision(), 0)
    target.reconcile(to_ns(22), see(desired, excess=excess))

    assert target.is_serving is serves


def test_start_fails_30_s_after_its_deadline() -> None:
    # scenario i5: 600 + 30 -> 630.5
    target = PodAutoscaler(Revision(), to_ns(0.478))

    assert idle(target, 630.0, ready=0).replicas == 1
    assert idle(target, 630.5, ready=0).replicas == 0
    assert condition_of(target) is Condition.INACTIVE


def test_active_target_holds_one_pod_until_it_was_active_for_a_window() -> None:
    target = active_target(Revision(), at_s=70.01)
    held = idle(target, 74.505, ready=3, replicas=3)

    assert (held.replicas, held.recheck_ns) == (1, to_ns(130))  # stamp 70, cut to whole seconds
    assert condition_of(target) is Condition.ACTIVE
    assert idle(target, 130).replicas == 1
    assert condition_of(target) is Condition.INACTIVE


def test_no_grace_if_the_activator_was_in_the_path() -> None:
    target = active_target(Revision())
    idle(target, 86.505)

    assert idle(target, 86.51, proxied_since_s=-200).replicas == 0


def test_grace_starts_when_the_activator_enters_the_path() -> None:
    # scenario a4: inactive 86.505, in path 86.525 -> zero at 116.0
    target = active_target(Revision(burst_capacity=0))
    idle(target, 86.505)
    waiting = idle(target, 86.53, proxied_since_s=86)

    assert (waiting.replicas, waiting.recheck_ns) == (1, to_ns(116))
    assert idle(target, 116, proxied_since_s=86).replicas == 0


def test_probe_must_find_the_activator() -> None:
    probed, always = active_target(Revision()), active_target(Revision(burst_capacity=-1))
    for target in (probed, always):
        idle(target, 86.505)

    assert idle(probed, 86.51, in_path=False, proxied_since_s=-200).replicas == 1
    assert idle(always, 86.51, in_path=False, proxied_since_s=-200).replicas == 0


def test_retention_adds_to_the_window() -> None:
    revision = Revision(window_s=15, retention_s=15)
    target = active_target(revision)
    idle(target, 40.505)
    waiting = idle(target, 40.51, proxied_since_s=-200)

    assert (waiting.replicas, waiting.recheck_ns) == (1, to_ns(55))
    target.reconcile(to_ns(50.005), see(1))
    assert condition_of(target) is Condition.ACTIVE
    assert idle(target, 55, proxied_since_s=-200).replicas == 1


def test_without_scale_to_zero_one_pod_stays() -> None:
    target = active_target(Revision(scale_to_zero=False))

    assert idle(target, 500).replicas == 1


def test_initial_scale_is_a_minimum_until_ready() -> None:
    target = PodAutoscaler(Revision(initial_scale=3), 0)

    assert target.reconcile(to_ns(0.5), see(-1, ready=0, replicas=3)).replicas == 3
    target.reconcile(to_ns(12.48), see(-1, ready=3, replicas=3))
    assert condition_of(target) is Condition.ACTIVE
    assert target.reconcile(to_ns(14.505), see(1, ready=3, replicas=3)).replicas == 1


def test_initial_scale_may_exceed_the_maximum_once() -> None:
    target = PodAutoscaler(Revision(initial_scale=3, max_scale=1), 0)

    assert target.reconcile(to_ns(0.5), see(-1, ready=0, replicas=3)).replicas == 3
    target.reconcile(to_ns(12.48), see(-1, ready=3, replicas=3))
    assert target.reconcile(to_ns(14.505), see(3, ready=3, replicas=3)).replicas == 1


def test_initial_scale_zero_is_inactive_from_the_first_moment() -> None:
    target = PodAutoscaler(Revision(initial_scale=0), 0)
    target.begin(to_ns(0.005))

    assert condition_of(target) is Condition.INACTIVE
    assert target.reconcile(to_ns(0.5), see(-1, ready=0, replicas=0)).replicas == 0
    assert target.reconcile(to_ns(20.508), see(1, ready=0, replicas=0)).replicas == 1
