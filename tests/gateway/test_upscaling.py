"""The specification of gateway.upscaling."""

from __future__ import annotations

import threading
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as PilImage

from gateway import problems
from gateway.orders import Order, make_order, read_choices
from gateway.places import Places
from gateway.settings import Settings
from gateway.upscaler import (
    BackendError,
    BackendFault,
    BackendMisconfigured,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
)
from gateway.upscaling import Upscaling
from preprocessing.codec import Pixels
from tests import builders
from tests.fakes import FakeUpscaler, HandClock
from tests.gateway.requests import PHOTO, read_picture

SETTINGS = Settings(variants="compact_x4,real_x4,color_jpeg_10")


def order(data: bytes = PHOTO, **parameters: str) -> Order:
    return make_order(data, "photo.png", read_choices(parameters, SETTINGS), SETTINGS)


def upscaling(upscaler: FakeUpscaler, places: Places | None = None, deadline_s: float = 30.0) -> Upscaling:
    return Upscaling(upscaler, places or Places(1, 1), deadline_s=deadline_s)


def test_a_picture_comes_back_at_its_scale_with_name_and_type() -> None:
    pixels = builders.draw_photo(24, 32)

    result = upscaling(FakeUpscaler()).run(order(), "id")

    assert (result.width, result.height, result.media_type) == (128, 96, "image/png")
    assert (result.filename, result.notes) == ("photo_compact_x4.png", ())
    assert np.array_equal(read_picture(result.data), pixels.repeat(4, 0).repeat(4, 1))


def test_the_backend_is_asked_with_variant_and_request_id(upscaler: FakeUpscaler) -> None:
    upscaling(upscaler).run(order(variant="color_jpeg_10"), "the-id")

    assert upscaler.asked == [((24, 32, 3), "color_jpeg_10", "the-id")]


@pytest.mark.parametrize(("format_", "mode"), [("png", "RGBA"), ("webp", "RGBA"), ("jpeg", "RGB")])
def test_alpha_is_scaled_where_the_format_has_it_and_missed_in_words_where_not(format_: str, mode: str) -> None:
    alpha = builders.draw_alpha(24, 32)
    data = builders.save(PilImage.fromarray(np.dstack((builders.draw_photo(24, 32), alpha))), "PNG")

    result = upscaling(FakeUpscaler()).run(order(data, format=format_), "id")

    picture = PilImage.open(BytesIO(result.data))
    assert (picture.mode, picture.size) == (mode, (128, 96))
    assert ("JPEG has no transparency: the image was laid on white." in result.notes) == (format_ == "jpeg")


def test_grey_stays_grey() -> None:
    data = builders.save(PilImage.fromarray(builders.draw_grey(8, 8)), "PNG")

    assert PilImage.open(BytesIO(upscaling(FakeUpscaler()).run(order(data), "id").data)).mode == "L"


def test_notes_tell_what_was_dropped_and_what_was_invented() -> None:
    data = builders.animated_webp([builders.draw_photo(8, 8), builders.draw_photo(8, 8, seed=1)])

    notes = upscaling(FakeUpscaler()).run(order(data, variant="real_x4"), "id").notes

    assert notes[0] == "The image is animated: the first of its 2 frames was taken."
    assert "invents plausible texture" in notes[-1]


def test_quality_changes_the_size_of_a_jpeg() -> None:
    small, large = (
        len(upscaling(FakeUpscaler()).run(order(format="jpeg", quality=q), "id").data) for q in ("20", "95")
    )

    assert small < large


def test_a_fault_is_tried_once_more() -> None:
    upscaler = FakeUpscaler(failures=[BackendFault("a stub died")])

    assert upscaling(upscaler).run(order(), "id").width == 128
    assert len(upscaler.asked) == 2


def test_a_second_fault_is_not() -> None:
    upscaler = FakeUpscaler(failures=[BackendFault("a stub died")] * 2)

    with pytest.raises(problems.BackendFault):
        upscaling(upscaler).run(order(), "id")
    assert len(upscaler.asked) == 2


def test_a_fault_so_late_that_a_second_try_would_not_fit_is_final() -> None:
    clock = HandClock()

    class Late(FakeUpscaler):
        def upscale(self, pixels: Pixels, variant: str, *, deadline: float, request_id: str) -> Pixels:
            clock.now += 16
            return super().upscale(pixels, variant, deadline=deadline, request_id=request_id)

    late = Late(failures=[BackendFault("a stub died")])

    with pytest.raises(problems.BackendFault):
        Upscaling(late, Places(1, 0, clock=clock), deadline_s=30, clock=clock).run(order(), "id")
    assert len(late.asked) == 1


SECRET = "MODEL_KEY=hunter2 at 10.0.0.7"
OUTCOMES: list[tuple[BackendError, type[problems.Problem], bool]] = [
    (BackendUnavailable(SECRET), problems.BackendUnavailable, False),
    (BackendTimeout(SECRET), problems.DeadlineExceeded, False),
    (BackendMisconfigured(SECRET), problems.BackendFault, False),
    (BackendRefused("The side 3 is odd."), problems.RefusedByBackend, True),
]


@pytest.mark.parametrize(("failure", "kind", "is_said"), OUTCOMES, ids=lambda value: type(value).__name__)
def test_each_failure_of_the_backend_is_its_problem_and_keeps_its_words_to_the_log(
    failure: BackendError, kind: type[problems.Problem], *, is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    upscaler = FakeUpscaler(failures=[failure])

    with pytest.raises(kind) as caught:
        upscaling(upscaler).run(order(), "the-id")

    assert (str(failure) in str(caught.value)) == is_said
    assert f"the-id: {type(failure).__name__}: {failure}" in caplog.text
    assert len(upscaler.asked) == 1, "only a fault is worth a second try"


def test_an_answer_of_the_wrong_size_is_a_fault() -> None:
    class Lazy(FakeUpscaler):
        def upscale(self, pixels: Pixels, variant: str, *, deadline: float, request_id: str) -> Pixels:
            del variant, deadline, request_id
            return pixels

    with pytest.raises(problems.BackendFault):
        upscaling(Lazy()).run(order(), "id")


def test_when_all_places_are_taken_the_next_is_sent_away_with_a_time() -> None:
    gate = threading.Event()
    upscaler = FakeUpscaler(gate=gate)
    busy = upscaling(upscaler, Places(1, 0))
    worker = threading.Thread(target=busy.run, args=(order(), "id"))
    worker.start()
    assert upscaler.arrived.acquire(timeout=30)

    with pytest.raises(problems.QueueFull) as caught:
        busy.run(order(), "id")

    gate.set()
    worker.join(30)
    assert int(caught.value.headers["Retry-After"]) == caught.value.members["retry_after_s"] >= 1
    assert busy.run(order(), "id").width == 128


def test_a_wait_for_a_place_ends_at_the_deadline() -> None:
    gate = threading.Event()
    upscaler = FakeUpscaler(gate=gate)
    places = Places(1, 1)
    worker = threading.Thread(target=upscaling(upscaler, places).run, args=(order(), "id"))
    worker.start()
    assert upscaler.arrived.acquire(timeout=30)

    with pytest.raises(problems.DeadlineExceeded):
        upscaling(upscaler, places, deadline_s=0.01).run(order(), "id")

    gate.set()
    worker.join(30)
    assert len(upscaler.asked) == 1


def test_a_corrupt_image_is_found_when_it_is_decoded() -> None:
    broken = bytearray(builders.encode_png(builders.draw_photo(24, 32)))
    broken[len(broken) // 2] ^= 0xFF

    with pytest.raises(problems.UnreadableImage):
        upscaling(FakeUpscaler()).run(order(bytes(broken)), "id")
