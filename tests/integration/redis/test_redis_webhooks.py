"""Webhooks with a real Redis: due once per lease, kept over the end of a gateway, and signed with the common key."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.access.api_keys import ApiKeyStore
from gateway.async_jobs.record import Delivery, JobRecord, new_job_id
from gateway.async_jobs.redis_data import RedisData
from gateway.async_jobs.redis_store import RedisJobStore
from gateway.async_jobs.store import JobLimits
from testing.redis_server import RedisServer, wait_for
from testing.requests import PHOTO
from testing.server import Served, serving
from testing.webhook_receiver import Message, Receiver, is_signed_by, receiving

LIMITS = JobLimits(max_count=100, max_per_client=2, max_age_s=600.0, result_max_age_s=300.0)
LIMIT_S = 90.0
KEY = "whsk_" + "A" * 43 + "="


@pytest.fixture
def stores(redis_server: RedisServer) -> tuple[RedisJobStore, RedisJobStore]:
    """The stores of two gateways."""
    first, second = (RedisJobStore(RedisData(redis_server.url, max_bytes=10_000), LIMITS) for _ in range(2))
    return first, second


def add_ended(store: RedisJobStore, webhook: str = "https://r.example/") -> JobRecord:
    job = JobRecord(new_job_id("0123abcd"), "client:a", "a", "request", 1.0, {}, "photo", webhook=webhook)
    store.add(job, b"upload")
    assert store.finish(job.end("failed", 2.0), None)
    return job


def test_one_gateway_at_a_time_has_a_delivery(stores: tuple[RedisJobStore, RedisJobStore]) -> None:
    first, second = stores
    assert first.take_delivery(60.0) is None
    job = add_ended(first)

    taken = second.take_delivery(60.0)

    assert taken is not None
    assert (taken.id, taken.webhook, taken.state) == (job.id, job.webhook, "failed")
    assert first.take_delivery(60.0) is None
    retried = replace(taken, delivery=Delivery(attempts=1, last_error="status 503", next_attempt_at=9.0))
    second.note_delivery(retried, 0.0)
    again = first.take_delivery(60.0)
    assert again is not None
    assert again.delivery == retried.delivery
    first.note_delivery(replace(again, delivery=Delivery("delivered", 2, 200)), None)
    second.note_delivery(retried, 0.0)  # of an attempt that ended later
    found = second.get(job.id)
    assert found is not None
    assert found.delivery == Delivery("delivered", 2, 200)
    assert second.take_delivery(60.0) is None


def test_delivery_returns_after_its_lease(stores: tuple[RedisJobStore, RedisJobStore]) -> None:
    first, second = stores
    job = add_ended(first)
    assert first.take_delivery(0.0) is not None

    taken = second.take_delivery(60.0)

    assert taken is not None
    assert taken.id == job.id


def test_cancelled_jobs_are_due_and_forgotten_ones_are_not(
    redis_server: RedisServer, stores: tuple[RedisJobStore, RedisJobStore]
) -> None:
    first, second = stores
    job = JobRecord(new_job_id("0123abcd"), "client:a", "a", "request", 1.0, {}, "photo", webhook="https://r.example/")
    first.add(job, b"upload")
    assert first.take_delivery(60.0) is None, "it has not ended"
    assert second.cancel(job.end("cancelled", 2.0))
    taken = first.take_delivery(0.0)
    assert taken is not None
    assert taken.state == "cancelled"

    second.forget(taken)

    assert first.take_delivery(60.0) is None
    first.note_delivery(taken, 0.0)
    assert first.get(job.id) is None
    add_ended(first, webhook="")
    assert first.take_delivery(60.0) is None
    jobs = [add_ended(first) for _ in range(3)]  # over the maximum of the client: the oldest is forgotten
    due = {found.id for found in iter(lambda: first.take_delivery(60.0), None)}
    assert due == {job.id for job in jobs[1:]}
    assert redis_server.execute("ZCARD", "superres:{jobs}:webhooks") == 2


def kill_all(server: Served) -> None:
    """Kill a gateway as `kill -9` does: the arbiter and its worker."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    for pid in (server.process.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    server.process.wait()


def submit(server: Served, key: str, receiver: Receiver) -> str:
    headers = {"X-API-Key": key, "Prefer": "respond-async", "Content-Type": "image/png"}
    url = f"http://127.0.0.1:{server.port}/api/v1/upscale?variant=compact_x4&webhook={receiver.url}"
    with urllib.request.urlopen(urllib.request.Request(url, PHOTO, headers), timeout=LIMIT_S) as response:
        return str(response.headers["Location"])


def test_delivery_survives_the_gateway_that_was_killed(redis_server: RedisServer, tmp_path: Path) -> None:
    """The first attempt fails; then the gateway is killed, and another one makes the second attempt."""
    key = ApiKeyStore(tmp_path / "keys.json").new("tests")
    seen: list[str] = []

    def fail_once(message: Message) -> int:
        seen.append(message.id)
        return 503 if len(seen) == 1 else 200

    with receiving(fail_once) as receiver:
        variables = {
            "SUPERRES_REDIS_URL": redis_server.url,
            "SUPERRES_KEYS_FILE": str(tmp_path / "keys.json"),
            "SUPERRES_WEBHOOK_KEY": KEY,
            "SUPERRES_WEBHOOK_HOSTS": receiver.authority,
        }

        def is_noted() -> bool:
            stored = redis_server.execute("HGET", f"superres:{{jobs}}:job:{job_id}", "delivery")
            return bool(stored) and json.loads(stored)["attempts"] == 1

        with serving(tmp_path / "a", **variables) as first:
            job_id = submit(first, key, receiver).rpartition("/")[2]
            wait_for(is_noted, "the first attempt", LIMIT_S)
            kill_all(first)
        with serving(tmp_path / "b", **variables) as second:
            wait_for(lambda: len(seen) == 2, "the second attempt", LIMIT_S)
            asked = urllib.request.Request(
                f"http://127.0.0.1:{second.port}/api/v1/jobs/{job_id}", headers={"X-API-Key": key}
            )

            def delivery() -> dict[str, object]:
                with urllib.request.urlopen(asked, timeout=LIMIT_S) as response:
                    found: dict[str, object] = json.load(response)["webhook"]
                    return found

            wait_for(lambda: delivery()["state"] == "delivered", "the state", LIMIT_S)
            assert delivery()["attempts"] == 2
            with urllib.request.urlopen(
                f"http://127.0.0.1:{second.port}/.well-known/jwks.json", timeout=LIMIT_S
            ) as response:
                (public_key,) = json.load(response)["keys"]

    assert {message.id for message in receiver.messages} == {job_id}
    assert all(is_signed_by(message, public_key["standard_webhooks"]) for message in receiver.messages)
    assert receiver.messages[0].body == receiver.messages[1].body
