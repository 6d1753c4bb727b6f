"""The event stream of a job (text/event-stream): backend state, queue position, progress, bands, and the result.

The job runs on its own thread. The stream reports what happens in it, polls the backend's state and the queue ten times
a second, and sends a comment when nothing else was sent, so that no proxy closes an idle connection.
docs/reference/events.md lists the events.
"""

from __future__ import annotations

import base64
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

from PIL import Image as PilImage

from gateway.backend.interface import Band
from gateway.backend.state import BackendStateTracker
from gateway.cancellation import CancelledError
from gateway.jobs.choice import describe_choice
from gateway.jobs.job import Job, Progress, Result
from gateway.jobs.queue import RUNNING
from gateway.jobs.result_facts import describe_facts
from gateway.problems import INTERNAL_DETAIL, InternalError, Problem
from preprocessing.codec import profile_colour_space
from preprocessing.depth import to_depth

HEARTBEAT_S = 5.0

# Interval of `state` events while the backend boots, so that a page can show the time.
BOOTING_STATE_INTERVAL_S = 1.0

POLL_INTERVAL_S = 0.1

# Wider bands are sent smaller: they are previews, and a page scales them to its canvas anyway.
PREVIEW_WIDTH = 2_048
# Each preview repeats the profile of the image. Profiles of matrix and curve have at most some 15 kB.
MAX_PREVIEW_PROFILE_BYTES = 65_536
PREVIEW_QUALITY = 80

# A multiple of 3, so that the base64 of slices can be concatenated.
SLICE_BYTES = 98_304

_log = logging.getLogger(__name__)

Outcome = Result | Problem | CancelledError

StoreResult = Callable[[Job, Result], dict[str, Any] | None]
"""Keeps a result for download and returns the members of the event that say where; None if it cannot be kept."""


TranslateEvent = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Returns the data of an event by its name, with the sentences for the user in another language."""


def send_within_event(job: Job, result: Result) -> None:
    """Keep no result: a `StoreResult` for clients that want the file in the event."""
    del job, result


class JobEvents:
    """Runs a job and yields its events."""

    def __init__(
        self,
        job: Job,
        state_tracker: BackendStateTracker,
        *,
        with_bands: bool,
        base_path: str = "",
        store_result: StoreResult = send_within_event,
        on_problem: Callable[[Problem], object] = lambda _: None,
        translate: TranslateEvent = lambda _, data: data,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_problem` is called with the problem that ends the job after the stream has begun.

        `base_path` precedes the path of the problem's type (`Problem.body`). A result that `store_result` does not keep
        is sent within its event.
        """
        self._job = job
        self._state_tracker = state_tracker
        self._with_bands = with_bands
        self._base_path = base_path
        self._store_result = store_result
        self._on_problem = on_problem
        self._translate = translate
        self._clock = clock
        # Formatted events of the job, and finally its outcome.
        self._messages: queue.SimpleQueue[bytes | Outcome] = queue.SimpleQueue()
        # What the last `state` and `queue` events reported.
        self._state = ""
        self._state_sent_at = 0.0
        self._position = RUNNING
        self._has_sent_choice = False
        self._has_sent_orientation = job.request.upload.is_turned_by_browsers

    def start(self) -> None:
        """Start the job on a thread. It ends with an outcome, or when its token is cancelled."""
        threading.Thread(target=self._run, name="job", daemon=True).start()

    def events(self) -> Iterator[bytes]:
        """Yield the events. Closing the iterator cancels the job."""
        try:
            sent_at = self._clock()
            yield from self._poll()
            while True:
                try:
                    message = self._messages.get(timeout=POLL_INTERVAL_S)
                except queue.Empty:
                    message = b""
                chunks = self._poll()
                if isinstance(message, Result):
                    yield b"".join(chunks)
                    facts = self._translate("result", describe_facts(message, self._job.request.options))
                    yield from _format_result(message, facts, self._store_result(self._job, message))
                    return
                if isinstance(message, Problem):
                    body = self._translate("problem", message.body(self._job.request_id, self._base_path))
                    yield b"".join((*chunks, format_event("problem", body)))
                    return
                if isinstance(message, CancelledError):
                    return
                if message:
                    chunks.append(message)
                if not chunks and self._clock() - sent_at >= HEARTBEAT_S:
                    chunks.append(b": heartbeat\n\n")
                if chunks:
                    sent_at = self._clock()
                    yield b"".join(chunks)
        finally:
            self._job.cancel_token.cancel()

    def _run(self) -> None:
        try:
            outcome: Outcome = self._job.run(self._on_progress)
        except Problem as problem:
            self._on_problem(problem)
            outcome = problem
        except CancelledError as cancelled:
            _log.info("%s: cancelled: the client has left", self._job.request_id)
            outcome = cancelled
        except Exception as error:  # noqa: BLE001 - a bug must end the stream with a problem
            _log.exception("%s: %s", self._job.request_id, type(error).__name__)
            outcome = InternalError(INTERNAL_DETAIL)
            self._on_problem(outcome)
        self._messages.put(outcome)

    def _on_progress(self, progress: Progress) -> None:
        chunks = []
        # A band of alpha shows nothing, and one of a shrunk result may finish no row.
        if self._with_bands and progress.band is not None and len(progress.band.pixels):
            chunks.append(format_event("band", _preview(progress, progress.band)))
        data = {
            "bands_done": progress.bands_done,
            "bands": progress.bands,
            "elapsed_s": round(progress.elapsed_s, 2),
            "left_s": round(progress.left_s, 1),
        }
        self._messages.put(b"".join((*chunks, format_event("progress", data))))

    def _poll(self) -> list[bytes]:
        """Return events for what changed: state, orientation, position, variant. While it boots, always the state."""
        chunks = []
        state = self._state_tracker.current()
        is_due = state.name == "booting" and self._clock() - self._state_sent_at >= BOOTING_STATE_INTERVAL_S
        if self._state != state.name or is_due:
            self._state, self._state_sent_at = state.name, self._clock()
            elapsed_s = round(state.since_s, 1) if state.name == "booting" else None
            data: dict[str, Any] = {
                "state": state.name,
                "elapsed_s": elapsed_s,
                "usual_s": state.describe_boot_times(),
                "reason": state.reason or None,
            }
            chunks.append(format_event("state", self._translate("state", data)))
        if not self._has_sent_orientation:
            self._has_sent_orientation = True
            upload = self._job.request.upload
            data = {"value": upload.orientation, "width": upload.width, "height": upload.height}
            chunks.append(format_event("orientation", data))
        position = self._job.position
        if position != self._position:
            self._position = position
            chunks.append(format_event("queue", position._asdict()))
        if not self._has_sent_choice and (choice := describe_choice(self._job.request.options)):
            self._has_sent_choice = True
            chunks.append(format_event("choice", self._translate("choice", choice.body())))
        return chunks


def format_event(name: str, data: dict[str, Any]) -> bytes:
    """Return one event of a text/event-stream (HTML Living Standard, section 9.2)."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _preview(progress: Progress, band: Band) -> dict[str, Any]:
    pixels = to_depth(band.pixels, 8)
    image, jpeg = PilImage.fromarray(pixels), BytesIO()
    if image.width > PREVIEW_WIDTH:
        height = max(1, round(image.height * PREVIEW_WIDTH / image.width))
        image = image.resize((PREVIEW_WIDTH, height), PilImage.Resampling.BILINEAR)
    profile = progress.icc_profile
    if profile is not None and len(profile) > MAX_PREVIEW_PROFILE_BYTES:
        profile = None
    if profile is not None and profile_colour_space(profile) == "greyscale":
        image = image.convert("L")
    image.save(jpeg, "JPEG", quality=PREVIEW_QUALITY, icc_profile=profile)
    return {
        "top": band.top,
        "rows": len(pixels),
        "width": progress.width,
        "height": progress.height,
        "media_type": "image/jpeg",
        "data": base64.b64encode(jpeg.getvalue()).decode(),
    }


def _format_result(result: Result, members: dict[str, Any], stored: dict[str, Any] | None) -> Iterator[bytes]:
    """Yield the `result` event with these members and the URL of its file or, if that is not `stored`, the file itself.

    The file is encoded in slices: the base64 is never in memory as a whole.
    """
    if stored is not None:
        yield format_event("result", members | stored)
        return
    yield f'event: result\ndata: {json.dumps({**members, "url": None})[:-1]}, "data": "'.encode()
    view = memoryview(result.data)
    for start in range(0, len(view), SLICE_BYTES):
        yield base64.b64encode(view[start : start + SLICE_BYTES])
    yield b'"}\n\n'
