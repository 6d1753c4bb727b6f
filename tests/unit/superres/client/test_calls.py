"""The calls without a network: the test performs their effects."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from superres.client import AsyncClient, Client
from superres.client.calls import ApiCalls
from superres.client.effects import Pause, ReadChunk, Report, ResponseHead, Send, Steps, T
from superres.client.errors import (
    ClientError,
    InvalidKeyError,
    JobCancelledError,
    ProblemError,
    UnexpectedResponseError,
    WaitTimeoutError,
)
from superres.client.images import ImageFile, read_image
from superres.client.job_calls import read_job_result, submit_job, wait_for_job
from superres.client.parameters import to_query
from superres.client.progress import UpscaleProgress, progress_from_event, progress_from_job
from superres.client.result import FileSink, MemorySink, read_facts
from superres.client.retries import RetryLimits
from superres.client.service_url import parse_service_url
from testing.clock import ManualClock
from testing.data import ROOT

SERVER_PACKAGES = {"gateway", "preprocessing", "swinir", "flask", "grpc", "numpy", "PIL", "tritonclient", "torch"}
FACTS = {
    "filename": "image_compact_x4.png",
    "media_type": "image/png",
    "width": 4,
    "height": 4,
    "bytes": 3,
    "variant": "compact_x4",
    "seconds": 0.5,
    "notes": ["A note."],
    "cache": "miss",
}


def make_calls(clock: ManualClock | None = None) -> ApiCalls:
    url = parse_service_url("https://a.example/prefix")
    return ApiCalls(url, "key", RetryLimits(jitter=0.0), clock=clock or ManualClock())


def perform(
    steps: Steps[T], responses: Iterable[tuple[int, Any]], clock: ManualClock | None = None
) -> tuple[T, list[Send | Pause | UpscaleProgress]]:
    """Respond to each request with the next (status, JSON) and return the outcome, and what was asked for."""
    asked: list[Send | Pause | UpscaleProgress] = []
    waiting, chunks = iter(responses), [b""]
    outcome: object = None
    while True:
        try:
            effect = steps.send(outcome)
        except StopIteration as done:
            return done.value, asked
        outcome = None
        match effect:
            case Send():
                asked.append(effect)
                status, body = next(waiting)
                chunks = [body if isinstance(body, bytes) else json.dumps(body).encode(), b""]
                kind = "application/problem+json" if status >= 400 else "application/json"
                outcome = ResponseHead(status, "", {"content-type": kind, "etag": '"1"'})
            case ReadChunk():
                outcome = chunks.pop(0)
            case Pause():
                asked.append(effect)
                if clock:
                    clock.now += effect.seconds
            case Report():
                asked.append(effect.progress)


def job(state: str, **members: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"id": "j", "state": state, "backend": {"state": "up"}, **members}


def test_wait_shows_each_change_and_ends_with_the_job() -> None:
    queued = job("queued", queue={"position": 2, "ahead": 2})
    responses = [queued, queued, job("running", bands_done=1, bands=4), job("done", result=FACTS)]

    status, asked = perform(wait_for_job(make_calls(), "j", 1.0, None), responses)

    assert (status.state, status.is_finished) == ("done", True)
    shown = [each for each in asked if isinstance(each, UpscaleProgress)]
    assert shown == [UpscaleProgress("queued", ahead=2), UpscaleProgress("working", 1, 4)]
    assert [each for each in asked if isinstance(each, Pause)] == [Pause(1.0)] * 3
    assert all(each.headers["X-API-Key"] == "key" for each in asked if isinstance(each, Send))


def test_wait_ends_in_time() -> None:
    clock = ManualClock()

    with pytest.raises(WaitTimeoutError, match=r"not finished after 2\.5 s: it is running"):
        perform(wait_for_job(make_calls(clock), "j", 1.0, 2.5), [job("running")] * 9, clock)

    assert clock.now == 1_002.5


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (job("cancelled"), JobCancelledError),
        (job("failed", problem={"type": "/problems/unreadable-image", "status": 422}), ProblemError),
        (job("lost", problem={"type": "/problems/job-lost", "status": 410}), ProblemError),
        (job("resting"), UnexpectedResponseError),
        ((410, {"type": "/problems/job-lost", "status": 410}), ProblemError),
        (job("done", result={"filename": "x"}), UnexpectedResponseError),
    ],
)
def test_job_without_a_result_raises(last: tuple[int, Any], kind: type[ClientError]) -> None:
    with pytest.raises(kind):
        perform(read_job_result(make_calls(), "j", "image", MemorySink().open, 1.0, None), [last])


def test_key_goes_to_the_job_and_not_to_the_description() -> None:
    calls, sink = make_calls(), MemorySink()
    facts, asked = perform(
        read_job_result(calls, "j", "photo", sink.open, 1.0, None), [job("done", result=FACTS), (200, b"abc")]
    )
    _, described = perform(calls.describe_service(), [(200, {})])

    assert (facts.filename, sink.content, facts.notes) == ("photo_compact_x4.png", b"abc", ("A note.",))
    requests = [each for each in (*asked, *described) if isinstance(each, Send)]
    assert ["X-API-Key" in each.headers for each in requests] == [True, True, False]


def test_job_id_that_is_no_part_of_a_path_is_refused() -> None:
    with pytest.raises(UnexpectedResponseError, match="Invalid id"):
        perform(submit_job(make_calls(), ImageFile(b"x"), {}, "k"), [(202, {"id": "../../keys"})])


@pytest.mark.parametrize(
    "change",
    [{"filename": "a/b.png"}, {"filename": "..png"}, {"filename": ""}, {"bytes": 0}, {"bytes": 10**9}, {"width": "x"}],
)
def test_hostile_results_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedResponseError):
        read_facts({**FACTS, **change}, "image", "")


def test_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    facts = read_facts(FACTS, "photo", "r1")
    sink = FileSink(tmp_path)
    with pytest.raises(TypeError), sink.open(facts) as file:
        file.write("ab")  # type: ignore[call-overload]
    assert list(tmp_path.iterdir()) == []

    with sink.open(facts) as file:
        file.write(b"abc")
    result = sink.result(facts)

    assert result.path == tmp_path / "photo_compact_x4.png"
    assert result.data == b"abc" == result.save(tmp_path / "copy.png").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_folder_that_does_not_exist_fails_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"abc")
    with Client("http://127.0.0.1:1", "key") as client, pytest.raises(FileNotFoundError, match="folder of the result"):
        client.upscale(tmp_path / "a.png", to=tmp_path / "none" / "b.png")


def test_key_is_in_no_repr() -> None:
    assert "X-API-Key" not in repr(make_calls().with_key(Send("GET", "/")))


def test_parameters_become_a_query() -> None:
    assert to_query({"variant": None, "lossless": True, "scale": 2.5, "width": 40, "metadata": "keep"}) == {
        "lossless": "1",
        "scale": "2.5",
        "width": "40",
        "metadata": "keep",
    }


def test_images_are_read_from_paths_bytes_and_files(tmp_path: Path) -> None:
    path = tmp_path / "photo.of.me.jpg"
    path.write_bytes(b"abc")

    with path.open("rb") as file:
        read = [read_image(each) for each in (path, str(path), b"abc", file)]

    assert [each.data for each in read] == [b"abc"] * 4
    assert [each.stem for each in read] == ["photo.of.me", "photo.of.me", "image", "photo.of.me"]
    with pytest.raises(ClientError, match="cannot be read"):
        read_image(tmp_path / "none.png")


@pytest.mark.parametrize("key", ["a b", "ключ", "a\nb"])
def test_invalid_key_is_not_repeated(key: str) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        ApiCalls(parse_service_url("https://a"), key, RetryLimits())
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HTTPS_PROXY", "ftp://a.example", "proxy that the environment names"),
        ("SSL_CERT_FILE", "/none.pem", "certificates that SSL_CERT_FILE"),
    ],
)
def test_environment_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(ClientError, match=words):
        Client("https://a.example")
    with pytest.raises(ClientError, match=words):
        AsyncClient("https://a.example")


def test_progress_in_words() -> None:
    boot = {"state": "booting", "elapsed_s": 3.2, "usual_s": {"p50": 4.1}}
    assert str(progress_from_event("state", boot)) == "the backend is booting for 3 s (usually 4 s)"
    assert str(progress_from_event("queue", {"position": 1, "ahead": 1})) == "in the queue, 1 image ahead"
    assert str(progress_from_event("progress", {"bands_done": 1, "bands": 4})) == "working 25 %"
    assert progress_from_event("choice", {}) is None
    asleep = {"state": "running", "backend": {"state": "asleep", "since_s": 1.0, "usual_boot_s": None}}
    assert progress_from_job(asleep) == UpscaleProgress("booting", backend="asleep", elapsed_s=1.0)


def test_import_loads_nothing_of_the_server() -> None:
    code = f"import sys, superres.client; sys.exit(', '.join({SERVER_PACKAGES} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
