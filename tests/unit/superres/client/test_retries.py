"""When a request is sent again, and after how long."""

from __future__ import annotations

import pytest

from superres.client.errors import (
    ClientError,
    ConnectionFailedError,
    ImageFileError,
    ProblemError,
    TlsError,
    UnexpectedResponseError,
    problem_from,
    read_retry_after,
)
from superres.client.retries import Cause, Retries, RetryLimits, find_cause

LOST = ConnectionFailedError("Lost.")
LIMITS = RetryLimits(attempts=6, fault_attempts=2, max_wait_s=900.0, max_waits_s=3_600.0, jitter=0.0)


def problem(status: int, retry_after_s: float = 0.0) -> ProblemError:
    return ProblemError({"detail": "Broken."}, status, retry_after_s)


def pauses(*errors: ClientError, limits: RetryLimits = LIMITS, random: float = 0.0) -> list[float]:
    retries = Retries(limits, lambda: random)
    return [retries.choose_pause_s(error) for error in errors]


def test_pauses_after_a_lost_connection_grow_and_end() -> None:
    assert pauses(*[LOST] * 5) == [1, 2, 4, 8, 16]
    with pytest.raises(ConnectionFailedError):
        pauses(*[LOST] * 6)


def test_progress_starts_the_count_again() -> None:
    retries = Retries(LIMITS)
    first = [retries.choose_pause_s(LOST) for _ in range(5)]
    retries.note_progress()

    assert retries.choose_pause_s(LOST) == first[0] == 1


def test_retry_after_is_obeyed_up_to_a_limit() -> None:
    assert pauses(problem(503, 0.1), problem(429, 900)) == [1, 900]
    with pytest.raises(ProblemError):
        pauses(problem(503, 901))
    with pytest.raises(ProblemError):
        pauses(*[problem(503, 800)] * 5)


def test_fault_is_retried_once() -> None:
    assert pauses(problem(502)) == [2]
    with pytest.raises(ProblemError):
        pauses(problem(500), problem(504))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (LOST, Cause.LOST),
        (problem(408), Cause.LOST),
        (problem(429, 3), Cause.BUSY),
        (problem(503), Cause.LOST),
        (problem(502), Cause.FAULT),
        (problem(422), Cause.FINAL),
        (problem(401), Cause.FINAL),
        (UnexpectedResponseError("A proxy.", 502), Cause.LOST),
        (UnexpectedResponseError("A proxy.", 503, 7), Cause.BUSY),
        (UnexpectedResponseError("A page.", 404), Cause.FINAL),
        (TlsError("No."), Cause.FINAL),
        (ImageFileError("No."), Cause.FINAL),
    ],
)
def test_only_errors_that_may_pass_are_retried(error: ClientError, cause: Cause) -> None:
    assert find_cause(error) is cause
    if cause is Cause.FINAL:
        with pytest.raises(type(error)):
            pauses(error)


def test_chance_makes_pauses_longer_and_never_shorter_than_retry_after() -> None:
    limits = RetryLimits(jitter=0.2)

    assert pauses(problem(503, 5), problem(503, 60), limits=limits, random=1.0) == [6, 62]
    assert pauses(problem(503, 5), problem(503, 60), limits=limits, random=0.0) == [5, 60]


@pytest.mark.parametrize(("text", "seconds"), [("7", 7), ("1.5", 1.5), ("-1", 0), ("nan", 0), ("inf", 0), ("Mon", 0)])
def test_retry_after_texts(text: str, seconds: float) -> None:
    assert read_retry_after(text) == seconds


def test_problem_has_typed_members() -> None:
    error = problem_from(
        {
            "type": "/problems/queue-full",
            "title": "Queue full",
            "status": 503,
            "detail": "The queue is full.",
            "request_id": "r1",
            "retry_after_s": 7,
        }
    )

    assert (error.slug, error.title, error.status, error.request_id) == ("queue-full", "Queue full", 503, "r1")
    assert (error.retry_after_s, str(error)) == (7, "The queue is full.")
    assert str(problem_from({"detail": "Broken.", "request_id": "r2"}, 500)) == "Broken. (request r2)"
