"""The specification of gateway.error_mapping: what a boot that is slow, and one that fails, is to whoever asked.

Every other cause is met where it arises: test_upscaling, test_problems.
"""

from __future__ import annotations

import pytest

from gateway import problems
from gateway.backend.interface import BackendNotStartedError, BackendStillBootingError, BackendTimeoutError
from gateway.error_mapping import BOOT_RETRY_S, problem_from_backend_error

BOOTS = (4.2, 6.4)
"""Median and 90th percentile of the boots so far."""


@pytest.mark.parametrize(("usual_boot_s", "usual"), [(BOOTS, " (it usually takes 4 s)"), (None, "")])
def test_a_boot_beyond_the_deadline_is_told_in_words_of_its_own_and_blames_no_picture(
    usual_boot_s: tuple[float, float] | None, usual: str
) -> None:
    problem = problem_from_backend_error(BackendStillBootingError("booting"), deadline_s=30, usual_boot_s=usual_boot_s)

    assert problem.slug == "deadline-exceeded"
    assert problem.detail == (
        f"The machine was still waking when the deadline of 30 s passed{usual}. "
        "Send the picture again: nothing is wrong with it."
    )


def test_only_work_beyond_the_deadline_is_a_reason_to_send_a_smaller_image() -> None:
    assert "send a smaller image" in problem_from_backend_error(BackendTimeoutError("late"), deadline_s=30).detail


@pytest.mark.parametrize(("usual_boot_s", "wait_s"), [(BOOTS, 6), (None, BOOT_RETRY_S)])
def test_a_boot_that_failed_is_told_apart_with_a_time_to_come_again(
    usual_boot_s: tuple[float, float] | None, wait_s: float
) -> None:
    problem = problem_from_backend_error(BackendNotStartedError("no legs"), deadline_s=30, usual_boot_s=usual_boot_s)

    assert isinstance(problem, problems.BackendNotStarted)
    assert (problem.status, problem.headers) == (503, {"Retry-After": f"{wait_s:g}"})
    assert problem.detail == (
        "The machine did not start, which says nothing about the picture; whoever runs this finds why in its log. "
        f"Try again in {wait_s:g} seconds."
    )
