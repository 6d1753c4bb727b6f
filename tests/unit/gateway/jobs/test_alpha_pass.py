"""The pass for alpha: which masks go through the backend, and what it does to retries, charges and progress."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as PilImage

from gateway import problems
from gateway.backend.interface import BackendFaultError, Band
from gateway.cancellation import CancelledError, CancelToken
from gateway.jobs.job import Progress
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from preprocessing.image import Pixels
from testing import images
from testing.backend import FakeBackend
from testing.jobs import make_runner, upscale_request
from testing.masks import draw_blob
from testing.requests import read_image

SHAPE = draw_blob(48)
PHOTO = images.draw_photo(48, 48)


def with_alpha(alpha: Pixels) -> bytes:
    return images.encode_png(np.dstack((PHOTO, alpha)))


SOFT = with_alpha(SHAPE.soft)


def read_alpha(data: bytes) -> Pixels:
    return np.asarray(PilImage.open(BytesIO(data)).getchannel("A"))


def test_soft_mask_goes_through_the_variant_as_a_grey_image_first() -> None:
    sent: list[Pixels] = []

    class Recording(FakeBackend):
        def upscale_bands(self, pixels: Pixels, variant: str, **options: object) -> Iterator[Band]:
            sent.append(pixels)
            return super().upscale_bands(pixels, variant, **options)  # type: ignore[arg-type]

    upscaler = Recording()
    result = make_runner(upscaler).run(upscale_request(SOFT, variant="compact_x4"), "the-id")

    assert [call[1:] for call in upscaler.calls] == [("compact_x4", "the-id")] * 2
    assert (sent[0] == SHAPE.soft[..., np.newaxis]).all()
    assert (read_alpha(result.data) == SHAPE.soft.repeat(4, axis=0).repeat(4, axis=1)).all()


@pytest.mark.parametrize("alpha", [SHAPE.hard, np.full((48, 48), 77, np.uint8)])
def test_hard_and_constant_masks_cost_no_second_pass(alpha: Pixels) -> None:
    upscaler = FakeBackend()

    result = make_runner(upscaler).run(upscale_request(with_alpha(alpha)), "id")

    assert len(upscaler.calls) == 1
    assert set(np.unique(alpha)) <= set(np.unique(read_alpha(result.data)))


def test_variant_that_keeps_the_size_keeps_the_mask() -> None:
    upscaler = FakeBackend()

    result = make_runner(upscaler).run(upscale_request(SOFT, variant="color_jpeg_10"), "id")

    assert len(upscaler.calls) == 1
    assert (read_alpha(result.data) == SHAPE.soft).all()


def test_progress_counts_the_bands_of_the_mask_without_showing_them() -> None:
    seen: list[Progress] = []

    result = make_runner(FakeBackend()).submit(upscale_request(SOFT), "id").run(seen.append)

    assert [(each.bands_done, each.band is None) for each in seen] == [(1, True), (2, True), (3, False), (4, False)]
    assert seen[0].bands == 2  # one tile each; the fake backend sends two bands per tile
    assert seen[-1].left_s == 0.0
    shown = np.concatenate([each.band.pixels for each in seen if each.band is not None])
    assert np.array_equal(shown, read_image(result.data)[..., :3])


def test_fault_in_the_colours_does_not_send_the_mask_again() -> None:
    class FailsOnce(FakeBackend):
        def upscale_bands(self, pixels: Pixels, variant: str, **options: object) -> Iterator[Band]:
            if len(self.calls) == 1:
                self._failures = [BackendFaultError("a stub died")]
            return super().upscale_bands(pixels, variant, **options)  # type: ignore[arg-type]

    upscaler = FailsOnce()
    result = make_runner(upscaler).run(upscale_request(SOFT), "id")

    assert len(upscaler.calls) == 3
    assert (read_alpha(result.data) == SHAPE.soft.repeat(4, axis=0).repeat(4, axis=1)).all()


def test_fault_in_the_mask_is_retried_once() -> None:
    upscaler = FakeBackend(failures=[BackendFaultError("a stub died")])

    result = make_runner(upscaler).run(upscale_request(SOFT), "id")

    assert len(upscaler.calls) == 3
    assert (read_alpha(result.data) == SHAPE.soft.repeat(4, axis=0).repeat(4, axis=1)).all()


def test_mask_with_missing_rows_is_a_fault_of_the_backend() -> None:
    class TooShort(FakeBackend):
        def upscale_bands(self, pixels: Pixels, variant: str, **options: object) -> Iterator[Band]:
            yield from list(super().upscale_bands(pixels, variant, **options))[:1]  # type: ignore[arg-type]

    with pytest.raises(problems.BackendFault):
        make_runner(TooShort()).run(upscale_request(SOFT), "id")


def test_work_for_the_mask_is_charged_and_counts_as_the_same_image() -> None:
    charges: list[tuple[float, int]] = []
    runner = JobRunner(
        FakeBackend(work_s=0.5),
        JobQueue(Capacity(running=1, waiting=1)),
        deadline_s=30.0,
        charge=lambda _, seconds, count: charges.append((seconds, count)),
    )

    runner.run(upscale_request(SOFT), "id")

    assert charges == [(0.5, 0)] * 4 + [(0.0, 1)]


def test_cancel_between_mask_and_colours_sends_no_colours() -> None:
    class Cancels(FakeBackend):
        def upscale_bands(
            self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
        ) -> Iterator[Band]:
            cancel_token.raise_if_cancelled()
            yield from super().upscale_bands(
                pixels, variant, deadline=deadline, request_id=request_id, cancel_token=cancel_token
            )

    upscaler = Cancels()
    job = make_runner(upscaler).submit(upscale_request(SOFT), "id")

    def cancel(progress: Progress) -> None:
        if progress.bands_done == 2:
            job.cancel_token.cancel()

    with pytest.raises(CancelledError):
        job.run(cancel)
    assert len(upscaler.calls) == 1
