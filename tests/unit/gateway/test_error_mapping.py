"""gateway.error_mapping: the problems that clients get for a slow boot and for a failed one.

Other errors are tested where they arise: test_runner, test_problems.
"""

from __future__ import annotations

import pytest

from gateway import problems
from gateway.backend.interface import BackendNotStartedError, BackendStillBootingError, BackendTimeoutError
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
    assert "send a smaller image" in problem_from_backend_error(BackendTimeoutError("late"), deadline_s=30).detail


@pytest.mark.parametrize(("usual_boot_s", "wait_s"), [(BOOTS, 6), (None, BOOT_RETRY_S)])
def test_failed_boot_has_its_problem_and_retry_time(usual_boot_s: tuple[float, float] | None, wait_s: float) -> None:
    problem = problem_from_backend_error(BackendNotStartedError("no legs"), deadline_s=30, usual_boot_s=usual_boot_s)

    assert isinstance(problem, problems.BackendNotStarted)
    assert (problem.status, problem.headers) == (503, {"Retry-After": f"{wait_s:g}"})
    assert problem.detail == (
        "The backend failed to start. Your image is not the cause; the operator finds the reason in the log. "
        f"Try again in {wait_s:g} seconds."
    )
