"""Deliveries of webhooks: retries with a bounded number and growing delays, shares of clients, and forgotten jobs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.async_jobs import deliveries as module
from gateway.async_jobs.deliveries import JITTER, MAX_PER_CLIENT, RETRY_DELAYS_S, WebhookDeliveries
from gateway.async_jobs.memory_store import MemoryJobStore
from gateway.async_jobs.record import JobRecord, new_job_id
from gateway.async_jobs.store import JobLimits, JobStoreError
from gateway.jobs.result_store import ResultStore
from gateway.webhooks.keys import WebhookKeys
from gateway.webhooks.sender import AttemptOutcome, WebhookSender
from testing.clock import ManualClock
from testing.redis_server import wait_for

DELIVERED = AttemptOutcome(is_delivered=True, may_retry=False, status=200, reason="")
REFUSED = AttemptOutcome(is_delivered=False, may_retry=True, status=503, reason="status 503")
GONE = AttemptOutcome(is_delivered=False, may_retry=False, status=410, reason="status 410")


class ScriptedSender(WebhookSender):
    """Records messages, and returns outcomes in turn; the last one from then on."""

    def __init__(self, *outcomes: AttemptOutcome, gate: threading.Event | None = None) -> None:
        super().__init__(WebhookKeys("", Path("/unused"), needs_setting=True), frozenset())
        self.sent: list[tuple[str, str, bytes]] = []
        self._outcomes = list(outcomes) or [DELIVERED]
        self._gate = gate

    def send(self, url: str, message_id: str, body: bytes) -> AttemptOutcome:
        self.sent.append((url, message_id, body))
        if self._gate:
            self._gate.wait(60.0)
        return self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]


@pytest.fixture
def store(clock: ManualClock) -> MemoryJobStore:
    limits = JobLimits(max_count=1_000, max_per_client=1_000, max_age_s=86_400.0, result_max_age_s=60.0)
    results = ResultStore(max_bytes=1_000, max_count=10, max_age_s=60.0, clock=clock)
    return MemoryJobStore(limits, results, clock=clock)


@pytest.fixture
def counted() -> list[str]:
    return []


@pytest.fixture
def run(store: MemoryJobStore, counted: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that starts deliveries with a sender."""
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.01)
    started: list[WebhookDeliveries] = []

    def start(sender: WebhookSender) -> WebhookDeliveries:
        running = WebhookDeliveries(
            store, sender, results_max_age_s=60.0, count_attempt=counted.append, wall_clock=lambda: 500.0
        )
        running.start()
        started.append(running)
        return running

    yield start
    for running in started:
        running.close()


def end_job(store: MemoryJobStore, client: str = "client:a", webhook: str = "https://r.example/") -> JobRecord:
    job = JobRecord(new_job_id("0123abcd"), client, "a", "request", 1.0, {}, "photo", webhook=webhook, base_path="/p")
    store.add(job, b"")
    assert store.finish(job.end("failed", 2.0, problem={"status": 502}), None)
    return job


def await_state(store: MemoryJobStore, job: JobRecord, state: str, attempts: int) -> JobRecord:
    def is_there() -> bool:
        found = store.get(job.id)
        assert found is not None
        return (found.delivery.state, found.delivery.attempts) == (state, attempts)

    wait_for(is_there, f"{state} after {attempts} attempts", 60.0)
    found = store.get(job.id)
    assert found is not None
    return found


def test_message_is_the_status_and_its_id_that_of_the_job(store: MemoryJobStore, run: Any, counted: list[str]) -> None:
    sender, job = ScriptedSender(), end_job(store)
    run(sender)

    found = await_state(store, job, "delivered", 1)

    ((url, message_id, body),) = sender.sent
    assert (url, message_id) == ("https://r.example/", job.id)
    assert b'"state": "failed"' in body
    assert b"r.example" not in body
    assert (found.delivery.last_status, found.delivery.next_attempt_at) == (200, None)
    assert counted == ["delivered"]


def test_job_without_webhook_sends_nothing(store: MemoryJobStore) -> None:
    end_job(store, webhook="")

    assert store.take_delivery(60.0) is None


def test_failed_attempts_are_repeated_with_growing_delays(
    store: MemoryJobStore, run: Any, clock: ManualClock, counted: list[str]
) -> None:
    sender, job = ScriptedSender(REFUSED), end_job(store)
    running = run(sender)

    for attempts, delay_s in enumerate(RETRY_DELAYS_S, 1):
        found = await_state(store, job, "pending", attempts)
        assert (found.delivery.last_status, found.delivery.last_error) == (503, "status 503")
        assert found.delivery.next_attempt_at is not None
        assert abs(found.delivery.next_attempt_at - 500.0 - delay_s) <= JITTER * delay_s
        clock.now += delay_s * (1 - JITTER) - 0.001
        running.wake()
        assert store.take_delivery(0.0) is None, "too early"
        clock.now += 2 * JITTER * delay_s + 0.002
        running.wake()

    found = await_state(store, job, "failed", len(RETRY_DELAYS_S) + 1)
    assert found.delivery.next_attempt_at is None
    clock.now += 80_000.0 - clock.now
    assert store.take_delivery(60.0) is None
    assert counted == ["retried"] * len(RETRY_DELAYS_S) + ["failed"]
    assert {message_id for _, message_id, _ in sender.sent} == {job.id}
    assert len({body for _, _, body in sender.sent}) == 1, "each attempt sends the same"


def test_receiver_that_has_gone_gets_no_more(store: MemoryJobStore, run: Any, counted: list[str]) -> None:
    job = end_job(store)
    run(ScriptedSender(GONE))

    await_state(store, job, "failed", 1)

    assert counted == ["failed"]


def test_forgotten_job_is_not_sent_again(store: MemoryJobStore, clock: ManualClock) -> None:
    job = end_job(store)
    assert store.take_delivery(60.0) is not None

    store.forget(job)

    store.note_delivery(job, 1.0)
    clock.now += 3_600
    assert store.take_delivery(60.0) is None


def test_attempt_without_an_end_is_made_again_after_the_lease(store: MemoryJobStore, clock: ManualClock) -> None:
    job = end_job(store)
    first = store.take_delivery(60.0)
    assert store.take_delivery(60.0) is None

    clock.now += 61

    second = store.take_delivery(60.0)
    assert first is not None and second is not None  # noqa: PT018 - for mypy
    assert first.id == second.id == job.id


def test_client_with_a_slow_receiver_leaves_room_for_others(store: MemoryJobStore, run: Any) -> None:
    gate = threading.Event()
    sender = ScriptedSender(gate=gate)
    slow = [end_job(store, "client:slow") for _ in range(3 * MAX_PER_CLIENT)]
    other = end_job(store, "client:other")
    running = run(sender)
    try:
        wait_for(lambda: other.id in {message_id for _, message_id, _ in sender.sent}, "the other client", 60.0)
        wait_for(lambda: len(sender.sent) == MAX_PER_CLIENT + 1, "the share of the first client", 60.0)
        assert running.count_running() == MAX_PER_CLIENT + 1
    finally:
        gate.set()
    del slow


def test_outage_of_the_store_is_survived(
    store: MemoryJobStore, run: Any, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    job, sender, real = end_job(store), ScriptedSender(), store.note_delivery
    failures = [JobStoreError("Redis is away")]

    def note(record: JobRecord, retry_in_s: float | None) -> None:
        if failures:
            raise failures.pop()
        real(record, retry_in_s)

    monkeypatch.setattr(store, "note_delivery", note)
    running = run(sender)
    wait_for(lambda: not failures, "the outage", 60.0)

    clock.now += module.LEASE_S + 1
    running.wake()

    await_state(store, job, "delivered", 1)
    assert len(sender.sent) == 2, "at least once: the receiver knows the id"
