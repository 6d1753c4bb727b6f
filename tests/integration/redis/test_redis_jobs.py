"""Asynchronous jobs in a real Redis: leases, take-over, bounds, and gateways that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.access.api_keys import ApiKeyStore
from gateway.async_jobs.record import JobRecord, new_job_id
from gateway.async_jobs.redis_data import RedisData
from gateway.async_jobs.redis_store import RedisJobStore
from gateway.async_jobs.shared_results import SharedResults
from gateway.async_jobs.store import JobLimits, JobsFullError, JobStoreError, KeyReusedError
from gateway.backend.interface import BackendFaultError
from gateway.jobs.result_store import StoredImage
from gateway.services import services
from testing.backend import FakeBackend
from testing.fixtures import MakeApp
from testing.images import draw_photo
from testing.redis_server import RedisServer, wait_for
from testing.requests import PHOTO, post_image, read_image, read_problem
from testing.server import Served, serving

LIMITS = JobLimits(max_count=100, max_per_client=50, max_age_s=600.0, result_max_age_s=300.0)
LIMIT_S = 120.0
HIGH_RATES = {f"SUPERRES_{name}": "100000 per minute" for name in ("CLIENT_REQUESTS", "CLIENT_MEGAPIXELS", "POLL_RATE")}


def make_store(
    server: RedisServer, *, lease_s: float = 30.0, max_bytes: int = 10_000_000, **limits: Any
) -> RedisJobStore:
    return RedisJobStore(RedisData(server.url, max_bytes=max_bytes), replace(LIMITS, **limits), lease_s=lease_s)


def record(client: str = "client:a") -> JobRecord:
    return JobRecord(new_job_id("0123abcd"), client, "a", "request", 1.0, {"variant": "compact_x4"}, "photo")


def done(job: JobRecord) -> JobRecord:
    return job.end("done", 2.0, result={"filename": "a.png", "media_type": "image/png"})


def test_every_gateway_sees_the_job_and_its_result(redis_server: RedisServer) -> None:
    first, second = make_store(redis_server), make_store(redis_server)
    job, data = record(), random.Random(1).randbytes(1_500_000)

    first.add(job, b"upload")
    assert second.get(job.id) == job
    assert first.renew(replace(job, state="running", bands_done=1))
    assert first.finish(done(job), data)

    found = second.get(job.id)
    assert found is not None
    assert found.state == "done"
    assert second.read_result(found) == data
    second.forget(found)
    assert first.get(job.id) is None
    assert first.read_result(found) is None
    assert redis_server.execute("GET", "superres:{jobs}:total") == "0", "nothing is left"


def test_only_the_holder_of_the_lease_writes(redis_server: RedisServer) -> None:
    stopped, other = make_store(redis_server, lease_s=0.0), make_store(redis_server)
    job = record()
    stopped.add(job, b"upload")

    taken = other.take_abandoned()

    assert taken == (replace(job, attempts=2), b"upload")
    assert not stopped.renew(job)
    assert not stopped.finish(done(job), b"of the one that was stopped")
    assert other.finish(done(job), b"of the other")
    found = stopped.get(job.id)
    assert found is not None
    assert stopped.read_result(found) == b"of the other"
    assert other.take_abandoned() is None


def test_lease_that_is_held_is_not_taken_and_a_released_one_is(redis_server: RedisServer) -> None:
    first, second = make_store(redis_server), make_store(redis_server)
    job = record()
    first.add(job, b"upload")
    assert second.take_abandoned() is None

    first.release(job)

    assert second.take_abandoned() == (replace(job, attempts=2), b"upload")


def test_cancelled_job_stays_cancelled(redis_server: RedisServer) -> None:
    first, second = make_store(redis_server), make_store(redis_server)
    job = record()
    first.add(job, b"upload")

    assert second.cancel(job.end("cancelled", 2.0))

    assert not first.renew(job)
    assert not first.finish(done(job), b"data")
    assert not second.cancel(job.end("cancelled", 3.0))
    found = first.get(job.id)
    assert found is not None
    assert found.state == "cancelled"
    assert redis_server.execute("GET", "superres:{jobs}:total") == "0"


def test_bytes_are_bounded_and_old_results_go_first(redis_server: RedisServer) -> None:
    store = make_store(redis_server, max_bytes=100)
    jobs = [record() for _ in range(3)]
    for job in jobs[:2]:
        store.add(job, b"u" * 10)
        assert store.finish(done(job), b"r" * 40)
    store.add(jobs[2], b"u" * 60)

    first, second = (store.get(job.id) for job in jobs[:2])
    assert first is not None and second is not None  # noqa: PT018 - for mypy
    assert store.read_result(first) is None
    assert store.read_result(second) == b"r" * 40
    with pytest.raises(JobsFullError):
        store.add(record(), b"u" * 41)
    assert store.finish(done(jobs[2]), b"r" * 101), "larger than everything: the job ends without its bytes"
    assert (last := store.get(jobs[2].id)) is not None
    assert last.data_name == ""


def test_number_of_jobs_is_bounded_and_finished_ones_go_first(redis_server: RedisServer) -> None:
    store = make_store(redis_server, max_per_client=2)
    jobs = [record() for _ in range(3)]
    store.add(jobs[0], b"u")
    store.add(jobs[1], b"u")
    with pytest.raises(JobsFullError):
        store.add(record(), b"u")
    store.add(record("client:b"), b"u")
    assert store.finish(done(jobs[0]), b"r")

    store.add(jobs[2], b"u")

    assert [store.get(job.id) is not None for job in jobs] == [False, True, True]


def test_keys_are_shared(redis_server: RedisServer) -> None:
    first, second = make_store(redis_server), make_store(redis_server)
    assert first.claim_key("client:a", "k", "f", "1") == "1"

    assert second.claim_key("client:a", "k", "f", "2") == "1"

    with pytest.raises(KeyReusedError):
        second.claim_key("client:a", "k", "g", "3")
    assert second.claim_key("client:b", "k", "g", "4") == "4"
    second.release_key("client:a", "k")
    assert first.claim_key("client:a", "k", "g", "5") == "5"


def test_results_of_events_are_shared(redis_server: RedisServer) -> None:
    first, second = (SharedResults(RedisData(redis_server.url, max_bytes=1_000_000), 300.0) for _ in range(2))
    image = StoredImage(
        random.Random(2).randbytes(700_000), "image/webp", "caf\N{LATIN SMALL LETTER E WITH ACUTE}.webp"
    )

    result_id = first.put(image)

    assert result_id is not None
    assert second.get(result_id) == image
    assert second.get(result_id[:-1]) is None
    names = redis_server.execute("KEYS", "*")
    assert not any(result_id in name for name in names), "the id is the key to the result"
    assert first.put(StoredImage(b"x" * 1_000_001, "image/png", "a.png")) is None, "larger than all memory for results"
    assert second.delete(result_id)
    assert first.get(result_id) is None
    assert not first.delete(result_id)


def test_lost_redis_is_an_error_of_the_store(redis_server: RedisServer) -> None:
    store = make_store(redis_server)
    redis_server.kill()

    with pytest.raises(JobStoreError):
        store.get("x")


class Caller:
    """A client of gateways that share API keys."""

    def __init__(self, key: str) -> None:
        self.key = key

    def ask(self, server: Served, method: str, path: str, data: bytes | None = None, **headers: str) -> Any:
        """Return (status, headers, body)."""
        named = {"X-API-Key": self.key, **{name.replace("_", "-"): value for name, value in headers.items()}}
        asked = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", data, named, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=LIMIT_S) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.headers, refused.read()

    def submit(self, server: Served, data: bytes = PHOTO, **headers: str) -> str:
        """Start a job and return its path."""
        path = "/api/v1/upscale?variant=compact_x4"
        headers = {"Content_Type": "image/png", "Prefer": "respond-async", **headers}
        status, found, body = self.ask(server, "POST", path, data, **headers)
        assert status == 202, body
        return str(found["Location"])

    def status(self, server: Served, path: str) -> dict[str, Any]:
        status, _, body = self.ask(server, "GET", path)
        assert status == 200, body
        read: dict[str, Any] = json.loads(body)
        return read


def kill_all(server: Served) -> None:
    """Kill a gateway as `kill -9` does: the arbiter and its worker."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    for pid in (server.process.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    server.process.wait()


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    return Caller(ApiKeyStore(tmp_path / "keys.json").new("tests"))


def shared(server: RedisServer, tmp_path: Path) -> dict[str, str]:
    return {"SUPERRES_REDIS_URL": server.url, "SUPERRES_KEYS_FILE": str(tmp_path / "keys.json"), **HIGH_RATES}


def test_job_of_a_killed_gateway_is_finished_by_another_and_charged_once(
    redis_server: RedisServer, tmp_path: Path, caller: Caller
) -> None:
    variables = shared(redis_server, tmp_path)
    with serving(tmp_path / "a", "slow", **variables) as first, serving(tmp_path / "b", **variables) as second:
        path = caller.submit(first)
        wait_for(lambda: caller.status(second, path)["state"] == "running", "its start, as the other sees it")
        kill_all(first)

        wait_for(lambda: caller.status(second, path)["state"] == "done", "the other gateway", LIMIT_S)

        ended = caller.status(second, path)
        assert ended["attempts"] == 2
        status, _, data = caller.ask(second, "GET", ended["result"]["url"])
        assert status == 200
        assert (read_image(data) == draw_photo(24, 32).repeat(4, 0).repeat(4, 1)).all()
        month = json.loads(caller.ask(second, "GET", "/api/v1/status")[2])["month"]
        assert month["images"] == 1


def test_stopped_gateway_hands_its_job_over(redis_server: RedisServer, tmp_path: Path, caller: Caller) -> None:
    variables = {**shared(redis_server, tmp_path), "SUPERRES_DRAIN_S": "0"}
    with serving(tmp_path / "a", "slow", **variables) as first, serving(tmp_path / "b", **variables) as second:
        path = caller.submit(first)
        first.process.terminate()
        first.process.wait(LIMIT_S)

        wait_for(lambda: caller.status(second, path)["state"] == "done", "the other gateway", LIMIT_S)


def test_delete_reaches_the_gateway_that_has_the_job(redis_server: RedisServer, tmp_path: Path, caller: Caller) -> None:
    variables = shared(redis_server, tmp_path)
    with serving(tmp_path / "a", "slow", **variables) as first, serving(tmp_path / "b", **variables) as second:
        path = caller.submit(first)

        assert caller.ask(second, "DELETE", path)[0] == 204

        def is_idle() -> bool:
            queue = json.loads(caller.ask(first, "GET", "/api/v1/status")[2])["queue"]
            return bool(queue["running"] == 0)

        wait_for(is_idle, "the end of its work")
        assert caller.status(first, path)["state"] == "cancelled"


def test_without_redis_a_killed_gateway_loses_its_jobs_in_words(tmp_path: Path, caller: Caller) -> None:
    variables = {"SUPERRES_KEYS_FILE": str(tmp_path / "keys.json"), **HIGH_RATES}
    with serving(tmp_path / "a", "slow", **variables) as first:
        path = caller.submit(first)
        kill_all(first)
    with serving(tmp_path / "a", **variables) as again:
        status, _, body = caller.ask(again, "GET", path)

    problem = json.loads(body)
    assert (status, problem["type"]) == (410, "/problems/job-lost")
    assert "restarted" in problem["detail"]


def test_lost_redis_is_a_problem_in_words(redis_server: RedisServer, tmp_path: Path, caller: Caller) -> None:
    with serving(tmp_path / "a", **shared(redis_server, tmp_path)) as server:
        redis_server.kill()

        headers = {"Content_Type": "image/png", "Prefer": "respond-async"}
        status, found, body = caller.ask(server, "POST", "/api/v1/upscale?variant=compact_x4", PHOTO, **headers)

    assert (status, json.loads(body)["type"]) == (503, "/problems/jobs-unavailable")
    assert int(found["Retry-After"]) >= 1


def test_job_that_fails_after_a_take_over_is_refunded(redis_server: RedisServer, make_app: MakeApp, key: str) -> None:
    """The gateway that charged the megapixel has ended; the limit allows one."""
    shared_settings = {"redis_url": redis_server.url, "client_megapixels": "1 per hour", "ban_after": ""}
    first = make_app(upscaler=FakeBackend(gate=threading.Event()), **shared_settings)
    faults = [BackendFaultError("broken"), BackendFaultError("broken")]
    second = make_app(upscaler=FakeBackend(failures=faults), **shared_settings)
    client, headers = second.test_client(), {"X-API-Key": key, "Prefer": "respond-async"}
    query = "?variant=compact_x4"
    services(first).async_jobs.start()
    job_id = post_image(first.test_client(), key, query=query, headers=headers).get_json()["id"]
    jobs = services(second).async_jobs

    def record_of_job() -> JobRecord:
        found = jobs.store.get(job_id)
        assert found is not None
        return found

    wait_for(lambda: record_of_job().charges, "the charge in the record", LIMIT_S)
    assert read_problem(post_image(client, key, query=query)) == (429, "limit-reached")
    services(first).async_jobs.close()
    services(first).runner.shut_down()
    jobs.start()
    try:
        wait_for(lambda: record_of_job().state == "failed", "the failure at the other gateway", LIMIT_S)
        wait_for(lambda: post_image(client, key, query=query).status_code == 200, "the refund", LIMIT_S)
    finally:
        jobs.close()
