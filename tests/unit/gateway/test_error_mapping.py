"""gateway.error_mapping: the problems that clients get for a slow boot and for a failed one.

Other errors are tested where they arise: test_runner, test_problems.
"""

from __future__ import annotations

import pytest

from gateway import problems
from gateway.backend.interface import (
    BackendHungError,
    BackendNotStartedError,
    BackendStillBootingError,
    BackendTimeoutError,
)
from gateway.error_mapping import BOOT_RETRY_S, problem_from_backend_error

# Median and 90th percentile of past boots.
BOOTS = (4.2, 6.4)


@pytest.mark.parametrize(("usual_boot_s", "usual"), [(BOOTS, " (a boot usually takes 4 s)"), (None, "")])
def test_slow_boot_does_not_blame_the_image(usual_boot_s: tuple[float, float] | None, usual: str) -> None:
    problem = problem_from_backend_error(BackendStillBootingError("booting"), deadline_s=30, usual_boot_s=usual_boot_s)

    assert problem.slug == "deadline-exceeded"
    assert problem.detail == (
        f"The backend was still booting when the deadline of 30 s passed{usual}. "
        "Send the same image again; it is not the cause."
    )


def test_slow_work_suggests_a_smaller_image() -> None:
    problem = problem_from_backend_error(BackendTimeoutError("late"), deadline_s=30, bands=(3, 12))

    assert problem.detail == (
        "3 of 12 bands were finished when the deadline of 30 s passed. "
        "Try again later, choose a faster variant, or send a smaller image."
    )


def test_no_progress_does_not_blame_the_image() -> None:
    problem = problem_from_backend_error(BackendTimeoutError("late"), deadline_s=30, bands=(0, 12))

    assert problem.detail == (
        "The backend returned nothing before the deadline of 30 s: it was busy, or it did not respond. "
        "Try again later, or choose a faster variant."
    )


def test_hang_has_its_problem_and_does_not_blame_the_image() -> None:
    problem = problem_from_backend_error(BackendHungError(30), deadline_s=300, usual_boot_s=BOOTS)

    assert isinstance(problem, problems.BackendHung)
    assert (problem.status, problem.headers) == (503, {"Retry-After": "6"})
    assert problem.detail == (
        "The backend stopped responding while it worked on this image, and the image could not be sent again in time. "
        "Its size is not the cause. You were not charged for it. Try again in 6 seconds."
    )


@pytest.mark.parametrize(("usual_boot_s", "wait_s"), [(BOOTS, 6), (None, BOOT_RETRY_S)])
def test_failed_boot_has_its_problem_and_retry_time(usual_boot_s: tuple[float, float] | None, wait_s: float) -> None:
    problem = problem_from_backend_error(BackendNotStartedError("no legs"), deadline_s=30, usual_boot_s=usual_boot_s)

    assert isinstance(problem, problems.BackendNotStarted)
    assert (problem.status, problem.headers) == (503, {"Retry-After": f"{wait_s:g}"})
    assert problem.detail == (
        "The backend failed to start. Your image is not the cause; the operator finds the reason in the log. "
        f"Try again in {wait_s:g} seconds."
    )
