"""Requests and pods of one run: queues, the order of removal, waiting for a GPU, and counting."""

from collections.abc import Sequence
from functools import partial

import pytest

from planning.knative.clock import NEVER_NS, SECOND_NS, first_at_or_after, to_ns
from planning.knative.cluster import Cluster
from planning.knative.control import Tick
from planning.knative.pods import Deployment, Outcome, Request
from planning.knative.revision import resolve_revision
from planning.knative.timeline import Timeline

BOOT_S = 5.0


def run(
    annotations: dict[str, str],
    requests: Sequence[Request],
    *,
    concurrency: int = 1,
    until_s: float = 300,
    gpus: int = 0,
    queue_size: int | None = None,
    ticks: list[Tick] | None = None,
) -> Cluster:
    """Return a run whose deployment has settled long before."""
    deployment = Deployment(
        boot_ns=lambda number: to_ns(BOOT_S) + number, concurrency=concurrency, drain_ns=30 * SECOND_NS, gpus=gpus
    )
    cluster = Cluster(
        resolve_revision({"target-utilization-percentage": "100", **annotations}, container_concurrency=concurrency),
        deployment,
        requests,
        deploy_ns=to_ns(-299.527),
        queue_size=queue_size,
        on_tick=ticks.append if ticks is not None else None,
        fast_forward=False,
    )
    cluster.run(to_ns(until_s))
    return cluster


def coming(*rows: tuple[float, float], within_s: float = 1000) -> list[Request]:
    """Return requests from (moment, work) in seconds."""
    return [Request(to_ns(at), to_ns(work), deadline_ns=to_ns(at + within_s)) for at, work in rows]


def ends(requests: Sequence[Request]) -> list[float]:
    return [round(request.end_ns / 1e9, 2) for request in requests]


def test_held_requests_are_served_first_come_first_served() -> None:
    requests = coming((10, 4), (11, 4), (12, 4))
    run({"max-scale": "1"}, requests)

    assert [request.start_ns for request in requests] == sorted(request.start_ns for request in requests)
    assert ends(requests) == [19.01, 23.01, 27.01]
    assert [request.is_cold for request in requests] == [True, True, True]


def test_direct_request_is_counted_once() -> None:
    ticks: list[Tick] = []
    requests = coming((10, 2), (30, 20))
    run({"target-burst-capacity": "0", "max-scale": "1"}, requests, ticks=ticks)
    means = {tick.at_ns / 1e9: tick.panic for tick in ticks}

    assert [request.is_direct for request in requests] == [False, True]
    assert means[44.5] == pytest.approx(1.0)  # by the pod's reports only; counted at both ends it would be 2


def test_direct_requests_count_while_they_wait() -> None:
    ticks: list[Tick] = []
    requests = coming((10, 2), (30, 20), (30.5, 5))
    run({"target-burst-capacity": "0", "max-scale": "1"}, requests, ticks=ticks)

    assert ends(requests)[1:] == [50.0, 55.0]
    assert {tick.at_ns / 1e9: tick.panic for tick in ticks}[44.5] == pytest.approx(2.0)


def test_direct_request_over_the_queue_is_rejected() -> None:
    requests = [*coming((10, 2), (30, 50)), *coming((31, 5), within_s=10), *coming((32, 5))]
    run({"target-burst-capacity": "0", "max-scale": "1"}, requests, queue_size=1)

    assert [request.outcome for request in requests] == [
        Outcome.SERVED,
        Outcome.SERVED,
        Outcome.TIMED_OUT,
        Outcome.REFUSED,
    ]
    assert ends(requests)[2:] == [41.0, 32.0]


def test_refused_request_is_not_load_for_the_autoscaler() -> None:
    ticks: list[Tick] = []
    requests = coming(*((10 + 0.01 * index, 1) for index in range(20)))
    run({}, requests, queue_size=2, ticks=ticks)

    assert sum(request.outcome is Outcome.REFUSED for request in requests) == 18
    assert max(tick.desired or 0 for tick in ticks if tick.at_ns > 0) == 2


def test_client_that_leaves_before_the_boot_frees_its_slot() -> None:
    disconnected = Request(to_ns(10), disconnect_ns=to_ns(12))
    stays = coming((11, 1))
    cluster = run({"max-scale": "1"}, [disconnected, *stays])

    assert disconnected.outcome is Outcome.DISCONNECTED
    assert ends(stays) == [16.01]
    assert (cluster.router.activator_queue_length, cluster.router.in_system) == (0, 0)


def test_rejected_request_ends_once() -> None:
    requests = [Request(to_ns(10 + 0.1 * index), disconnect_ns=to_ns(14)) for index in range(3)]
    cluster = run({"max-scale": "1"}, requests, queue_size=2)

    assert [request.outcome for request in requests] == [Outcome.DISCONNECTED, Outcome.DISCONNECTED, Outcome.REFUSED]
    assert ends(requests)[2] == 10.2
    assert (cluster.router.activator_queue_length, cluster.router.in_system) == (0, 0)


def removed_pods(deployment: Deployment) -> list[int]:
    return [pod.number for pod in deployment.pods if pod.removed_ns != NEVER_NS]


def test_unready_then_youngest_pods_are_removed_first() -> None:
    deployment = Deployment(boot_ns=lambda _: 1, concurrency=1, drain_ns=30)
    starts = list(deployment.set_replicas(0, 4))
    for ready_ns, pod in starts[:3]:
        deployment.make_ready(ready_ns + pod.number, pod)

    list(deployment.set_replicas(100, 3))
    assert removed_pods(deployment) == [4]
    list(deployment.set_replicas(100, 1))
    assert sorted(removed_pods(deployment)) == [2, 3, 4]
    assert [pod.ended_ns for pod in deployment.pods] == [NEVER_NS, 130, 130, 100]  # a booting pod has nothing to drain
    assert (deployment.terminating(129), deployment.terminating(130)) == (2, 0)


def test_pod_removed_while_booting_never_becomes_ready() -> None:
    deployment = Deployment(boot_ns=lambda _: 10, concurrency=1, drain_ns=30)
    ((ready_ns, pod),) = deployment.set_replicas(0, 1)
    list(deployment.set_replicas(5, 0))

    assert not deployment.make_ready(ready_ns, pod)
    assert deployment.ready == []


def test_pods_beyond_the_gpus_wait_until_a_drain_is_over() -> None:
    deployment = Deployment(boot_ns=lambda _: 10, concurrency=1, drain_ns=30, gpus=1)
    ((ready_ns, first),) = deployment.set_replicas(0, 1)
    deployment.make_ready(ready_ns, first)
    list(deployment.set_replicas(20, 0))

    assert list(deployment.set_replicas(25, 1)) == []
    assert deployment.next_gpu_ns(25) == 50
    ((second_ready_ns, second),) = deployment.start_queued(50)
    assert (second_ready_ns, second.started_ns) == (60, 50)


def test_routing_depends_on_the_concurrency() -> None:
    def taker(concurrency: int) -> int:
        deployment = Deployment(boot_ns=lambda number: number, concurrency=concurrency, drain_ns=30)
        for ready_ns, pod in list(deployment.set_replicas(0, 2)):
            deployment.make_ready(ready_ns, pod)
        deployment.ready[0].running = 1
        pod_taking = deployment.find_free()
        assert pod_taking is not None
        return pod_taking.number

    assert [taker(concurrency) for concurrency in (1, 2, 3, 4, 0)] == [2, 1, 1, 2, 2]


def _note(seen: list[str], name: str, _moment_ns: int) -> None:
    seen.append(name)


def test_events_of_one_moment_keep_their_order() -> None:
    timeline, seen = Timeline(), list[str]()
    for moment_ns, name in ((5, "a"), (3, "b"), (5, "c")):
        timeline.call_at(moment_ns, partial(_note, seen, name))
    while timeline.next_event_ns != NEVER_NS:
        timeline.step()

    assert seen == ["b", "a", "c"]


@pytest.mark.parametrize(("moment", "expected"), [(0, 3), (3, 3), (4, 13), (-8, -7), (-7, -7)])
def test_regular_series_has_its_phase_before_zero_too(moment: int, expected: int) -> None:
    assert first_at_or_after(moment, 3, 10) == expected
