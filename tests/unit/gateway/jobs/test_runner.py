"""The job runner: decoding, the backend call and its retry, encoding, progress and problems."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as PilImage

from gateway import problems
from gateway.backend.interface import (
    BackendDiedError,
    BackendError,
    BackendFaultError,
    BackendHungError,
    BackendMisconfiguredError,
    BackendNotStartedError,
    BackendRejectedError,
    BackendStillBootingError,
    BackendTimeoutError,
    BackendUnavailableError,
    BackendVariantMissingError,
    Band,
)
from gateway.backend.state import BackendStateTracker
from gateway.cancellation import CancelToken
from gateway.jobs.job import Progress
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from preprocessing.codec import Pixels
from testing import images
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.jobs import make_runner, upscale_request
from testing.requests import read_image


def test_result_has_scale_file_name_and_media_type() -> None:
    pixels = images.draw_photo(24, 32)

    result = make_runner(FakeBackend()).run(upscale_request(), "id")

    assert (result.width, result.height, result.media_type) == (128, 96, "image/png")
    assert (result.filename, result.notes) == ("photo_compact_x4.png", ())
    assert np.array_equal(read_image(result.data), pixels.repeat(4, 0).repeat(4, 1))


def test_backend_gets_variant_and_request_id(upscaler: FakeBackend) -> None:
    make_runner(upscaler).run(upscale_request(variant="color_jpeg_10"), "the-id")

    assert upscaler.calls == [((24, 32, 3), "color_jpeg_10", "the-id")]


@pytest.mark.parametrize(("format_", "mode"), [("png", "RGBA"), ("webp", "RGBA"), ("jpeg", "RGB")])
def test_alpha_is_scaled_or_its_loss_is_noted(format_: str, mode: str) -> None:
    alpha = images.draw_alpha(24, 32)
    data = images.save(PilImage.fromarray(np.dstack((images.draw_photo(24, 32), alpha))), "PNG")

    result = make_runner(FakeBackend()).run(upscale_request(data, format=format_), "id")

    opened = PilImage.open(BytesIO(result.data))
    assert (opened.mode, opened.size) == (mode, (128, 96))
    assert ("JPEG has no transparency: the image was put on a white background." in result.notes) == (format_ == "jpeg")


def test_grey_stays_grey() -> None:
    data = images.save(PilImage.fromarray(images.draw_grey(8, 8)), "PNG")

    assert PilImage.open(BytesIO(make_runner(FakeBackend()).run(upscale_request(data), "id").data)).mode == "L"


def test_notes_list_dropped_and_invented_content() -> None:
    data = images.animated_webp([images.draw_photo(8, 8), images.draw_photo(8, 8, seed=1)])

    notes = make_runner(FakeBackend()).run(upscale_request(data, variant="real_x4"), "id").notes

    assert notes[0] == "The image is animated: only the first of its 2 frames was used."
    assert "invents plausible texture" in notes[-1]


def test_quality_changes_the_size_of_a_jpeg() -> None:
    small, large = (
        len(make_runner(FakeBackend()).run(upscale_request(format="jpeg", quality=q), "id").data) for q in ("20", "95")
    )

    assert small < large


def test_fault_is_retried_once() -> None:
    upscaler = FakeBackend(failures=[BackendFaultError("a stub died")])

    assert make_runner(upscaler).run(upscale_request(), "id").width == 128
    assert len(upscaler.calls) == 2


def test_second_fault_is_final() -> None:
    upscaler = FakeBackend(failures=[BackendFaultError("a stub died")] * 2)

    with pytest.raises(problems.BackendFault):
        make_runner(upscaler).run(upscale_request(), "id")
    assert len(upscaler.calls) == 2


@pytest.mark.parametrize(
    ("failures", "calls"),
    [
        ([BackendHungError(30), BackendHungError(30)], 2),
        ([BackendHungError(30), BackendTimeoutError("late")], 2),
        ([BackendDiedError("killed"), BackendHungError(30)], 2),
        ([BackendHungError(30, is_replaced=False)], 1),
    ],
)
def test_hang_that_a_second_call_does_not_survive_has_its_problem(failures: list[Exception], calls: int) -> None:
    upscaler = FakeBackend(failures=failures)

    with pytest.raises(problems.BackendHung):
        make_runner(upscaler).run(upscale_request(), "id")
    assert len(upscaler.calls) == calls


def booted_in(seconds: float, *failures: Exception) -> FakeBackend:
    upscaler, clock = FakeBackend(failures=failures), ManualClock()
    upscaler.state_tracker = BackendStateTracker(clock=clock)
    upscaler.state_tracker.begin_boot()
    clock.now += seconds
    upscaler.state_tracker.mark_up()
    return upscaler


def test_backend_that_died_twice_is_unavailable_for_the_usual_boot_time() -> None:
    with pytest.raises(problems.BackendUnavailable) as caught:
        make_runner(booted_in(4.2, BackendDiedError("killed"), BackendDiedError("killed"))).run(upscale_request(), "id")

    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "4"})


def test_fault_is_not_retried_if_the_deadline_is_too_close() -> None:
    clock = ManualClock()

    class SlowBackend(FakeBackend):
        def upscale_bands(
            self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
        ) -> Iterator[Band]:
            clock.now += 16
            return super().upscale_bands(
                pixels, variant, deadline=deadline, request_id=request_id, cancel_token=cancel_token
            )

    def run(failure: Exception) -> int:
        backend = SlowBackend(failures=[failure])
        queue = JobQueue(Capacity(running=1, waiting=0), clock=clock)
        JobRunner(backend, queue, deadline_s=30, clock=clock).run(upscale_request(), "id")
        return len(backend.calls)

    with pytest.raises(problems.BackendFault):
        run(BackendFaultError("a stub died"))
    assert run(BackendHungError(16)) == 2, "the time of a hang says nothing about the next call"


SECRET = "MODEL_KEY=hunter2 at 10.0.0.7"
OUTCOMES: list[tuple[BackendError, type[problems.Problem], bool]] = [
    (BackendUnavailableError(SECRET), problems.BackendUnavailable, False),
    (BackendTimeoutError(SECRET), problems.DeadlineExceeded, False),
    (BackendStillBootingError(SECRET), problems.DeadlineExceeded, False),
    (BackendNotStartedError(SECRET), problems.BackendNotStarted, False),
    (BackendMisconfiguredError(SECRET), problems.BackendFault, False),
    (BackendVariantMissingError(SECRET), problems.VariantUnavailable, False),
    (BackendRejectedError("The side 3 is odd."), problems.RefusedByBackend, True),
]


@pytest.mark.parametrize(("failure", "kind", "is_shown"), OUTCOMES, ids=lambda value: type(value).__name__)
def test_backend_failure_becomes_its_problem_with_details_in_the_log_only(
    failure: BackendError, kind: type[problems.Problem], *, is_shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    upscaler = FakeBackend(failures=[failure])

    with pytest.raises(kind) as caught:
        make_runner(upscaler).run(upscale_request(), "the-id")

    assert (str(failure) in str(caught.value)) == is_shown
    assert f"the-id: {type(failure).__name__}: {failure}" in caplog.text
    assert len(upscaler.calls) == 1, "only faults are retried"


def test_boot_beyond_the_deadline_names_deadline_and_usual_time() -> None:
    with pytest.raises(problems.DeadlineExceeded) as caught:
        make_runner(booted_in(4.2, BackendStillBootingError("booting")), deadline_s=45).run(upscale_request(), "id")

    assert "the deadline of 45 s passed (a boot usually takes 4 s)" in caught.value.detail


class Wrong(FakeBackend):
    """Returns the given bands for any request."""

    def __init__(self, bands: list[Band]) -> None:
        super().__init__()
        self._bands = bands

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        del pixels, variant, deadline, request_id, cancel_token
        yield from self._bands


@pytest.mark.parametrize("rows", [(), (24,), (95,), (97,), (48, 49)])
@pytest.mark.parametrize("format_", ["png", "jpeg"])
def test_wrong_number_of_rows_is_a_fault(rows: tuple[int, ...], format_: str) -> None:
    bands = [Band(0, np.zeros((count, 128, 3), np.uint8)) for count in rows]

    with pytest.raises(problems.BackendFault):
        make_runner(Wrong(bands)).run(upscale_request(format=format_), "id")


def test_progress_reports_each_band() -> None:
    seen: list[Progress] = []

    result = make_runner(FakeBackend()).submit(upscale_request(), "id").run(seen.append)

    assert [(each.bands_done, each.band and each.band.top, each.width, each.height) for each in seen] == [
        (1, 0, 128, 96),
        (2, 48, 128, 96),
    ]
    assert seen[0].left_s >= 0.0
    assert seen[1].left_s == 0.0
    opened = read_image(result.data)
    assert np.array_equal(np.concatenate([each.band.pixels for each in seen if each.band]), opened)


def test_time_left_does_not_count_the_boot() -> None:
    clock = ManualClock()
    seen: list[Progress] = []

    class Asleep(FakeBackend):
        """Boots for 10 s and returns each half of the image after 2 s."""

        def upscale_bands(
            self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
        ) -> Iterator[Band]:
            self.state_tracker.begin_boot()
            clock.now += 10 if self.state_tracker.current().name == "booting" else 0
            for band in super().upscale_bands(
                pixels, variant, deadline=deadline, request_id=request_id, cancel_token=cancel_token
            ):
                clock.now += 2
                yield band

    asleep = Asleep()
    asleep.state_tracker = BackendStateTracker(clock=clock)
    runner = JobRunner(asleep, JobQueue(Capacity(running=1, waiting=0), clock=clock), deadline_s=30, clock=clock)

    for _ in range(2):  # the backend is up for the second one
        runner.submit(upscale_request(), "id").run(seen.append)

    assert [(each.elapsed_s, each.left_s) for each in seen] == [(12, 2), (14, 0), (2, 2), (4, 0)]


def test_checks_of_all_bands_are_summarised() -> None:
    rows = np.zeros((3, 6), np.float32)
    rows[1, 0] = 1.0  # one tile was rerun
    bands = [Band(0, np.zeros((96, 128, 3), np.uint8), rows)]

    checks = make_runner(Wrong(bands)).run(upscale_request(), "id").checks

    assert checks is not None
    assert (checks.tiles, checks.reruns) == (3, 1)


def test_corrupt_image_is_a_problem() -> None:
    broken = bytearray(images.encode_png(images.draw_photo(24, 32)))
    broken[len(broken) // 2] ^= 0xFF

    with pytest.raises(problems.UnreadableImage):
        make_runner(FakeBackend()).run(upscale_request(bytes(broken)), "id")
